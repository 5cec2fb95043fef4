#include "net/certificate.h"

#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "net/address.h"

enum { SELF_SIGNED_DAYS = 397, NAME_MAX_BYTES = 255 };

static BIO *
bio_of(struct tg_slice text)
{
    return text.n <= INT32_MAX ? BIO_new_mem_buf(text.p, (int)text.n) : NULL;
}

/* An encrypted key would otherwise ask at the terminal. */
static int
no_password(char *out, int n, int writing, void *arg)
{
    (void)out;
    (void)n;
    (void)writing;
    (void)arg;
    return -1;
}

static enum tg_rc
read_chain(struct tg_certificate *out, struct tg_slice text, struct tg_err *err)
{
    BIO *bio = bio_of(text);
    out->chain = sk_X509_new_null();
    if (bio == NULL || out->chain == NULL) {
        BIO_free(bio);
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    enum tg_rc rc = TG_OK;
    X509 *next;
    while (rc == TG_OK && (next = PEM_read_bio_X509(bio, NULL, no_password, NULL)) != NULL) {
        if (out->leaf == NULL) {
            out->leaf = next;
        } else if (sk_X509_num(out->chain) >= TG_CERTIFICATE_CHAIN_MAX || sk_X509_push(out->chain, next) <= 0) {
            X509_free(next);
            rc = tg_err_set(err, TG_EINVAL, "the chain has more than %d certificates", TG_CERTIFICATE_CHAIN_MAX);
        }
    }
    const unsigned long end = ERR_peek_last_error();
    if (rc == TG_OK && ERR_GET_REASON(end) != PEM_R_NO_START_LINE) {
        rc = tg_err_set(err, TG_EINVAL, "broken PEM or certificate: %s", ERR_reason_error_string(end));
    } else if (rc == TG_OK && out->leaf == NULL) {
        rc = tg_err_set(err, TG_EINVAL, "there is no certificate in it (a block of PEM, BEGIN CERTIFICATE)");
    }
    ERR_clear_error();
    BIO_free(bio);
    return rc;
}

/*
 * One decoder serves for all keys of a process: OpenSSL 3.0 takes ten times as long to set one up as to read a key, and
 * there may be thousands. What it does not know, the usual way may.
 */
static EVP_PKEY *
read_key(struct tg_slice text)
{
    static OSSL_DECODER_CTX *decoder;
    static EVP_PKEY *key;
    BIO *bio = bio_of(text);
    if (bio == NULL) {
        return NULL;
    }
    if (decoder == NULL) {
        decoder = OSSL_DECODER_CTX_new_for_pkey(&key, "PEM", NULL, NULL, EVP_PKEY_KEYPAIR, NULL, NULL);
        (void)OSSL_DECODER_CTX_set_pem_password_cb(decoder, no_password, NULL);
    }
    key = NULL;
    size_t left = text.n + 1;
    while (key == NULL && decoder != NULL && BIO_ctrl_pending(bio) > 0 && BIO_ctrl_pending(bio) < left) {
        left = BIO_ctrl_pending(bio);
        (void)OSSL_DECODER_from_bio(decoder, bio); /* a block of PEM, which may be something else */
    }
    if (key == NULL) {
        (void)BIO_reset(bio);
        key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    }
    BIO_free(bio);
    return key;
}

static enum tg_rc
judge_key(const EVP_PKEY *key, struct tg_err *err)
{
    const int bits = EVP_PKEY_get_bits(key);
    if (EVP_PKEY_is_a(key, "RSA") && bits < TG_CERTIFICATE_RSA_MIN) {
        return tg_err_set(err, TG_EINVAL, "the RSA key has %d bits, at least %d are needed", bits,
                          TG_CERTIFICATE_RSA_MIN);
    }
    if (EVP_PKEY_is_a(key, "EC") && bits < TG_CERTIFICATE_EC_MIN) {
        return tg_err_set(err, TG_EINVAL, "the EC key has %d bits, at least %d are needed", bits,
                          TG_CERTIFICATE_EC_MIN);
    }
    if (!EVP_PKEY_is_a(key, "RSA") && !EVP_PKEY_is_a(key, "EC") && !EVP_PKEY_is_a(key, "ED25519") &&
        !EVP_PKEY_is_a(key, "ED448")) {
        return tg_err_set(err, TG_EINVAL, "the key is none of RSA, EC, Ed25519 and Ed448");
    }
    return TG_OK;
}

enum tg_rc
tg_certificate_read(struct tg_certificate *out, struct tg_slice certificate, struct tg_slice key, struct tg_err *err)
{
    struct tg_certificate read = {0};
    enum tg_rc rc = read_chain(&read, certificate, err);
    if (rc != TG_OK) {
        goto fail;
    }
    read.key = read_key(key);
    if (read.key == NULL) {
        rc = tg_err_set(err, TG_EINVAL, "there is no private key in it (PEM, not encrypted)");
        goto fail;
    }
    if (X509_check_private_key(read.leaf, read.key) != 1) {
        rc = tg_err_set(err, TG_EINVAL, "the private key is not that of the certificate");
        goto fail;
    }
    rc = judge_key(read.key, err);
    if (rc != TG_OK) {
        goto fail;
    }
    *out = read;
    return TG_OK;

fail:
    ERR_clear_error();
    tg_certificate_fini(&read);
    return rc;
}

enum tg_rc
tg_certificate_read_chain(struct tg_certificate *out, struct tg_slice certificate, struct tg_err *err)
{
    struct tg_certificate read = {0};
    const enum tg_rc rc = read_chain(&read, certificate, err);
    if (rc == TG_OK) {
        *out = read;
    } else {
        tg_certificate_fini(&read);
    }
    return rc;
}

void
tg_certificate_fini(struct tg_certificate *certificate)
{
    X509_free(certificate->leaf);
    EVP_PKEY_free(certificate->key);
    sk_X509_pop_free(certificate->chain, X509_free);
    *certificate = (struct tg_certificate){0};
}

/* Into lower case; false: it has a byte that no host name has. */
static bool
take_name(const ASN1_STRING *text, char out[NAME_MAX_BYTES + 1], size_t *n)
{
    const unsigned char *p = ASN1_STRING_get0_data(text);
    *n = (size_t)ASN1_STRING_length(text);
    if (*n == 0 || *n > NAME_MAX_BYTES) {
        return false;
    }
    for (size_t i = 0; i < *n; i++) {
        const unsigned char c = p[i];
        const bool upper = c >= 'A' && c <= 'Z';
        const bool other = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' ||
                           (c == '*' && i == 0);
        if (!upper && !other) {
            return false;
        }
        out[i] = (char)(upper ? c | 0x20 : c);
    }
    return true;
}

void
tg_certificate_names(const X509 *leaf, tg_certificate_name_cb name, void *arg)
{
    char text[NAME_MAX_BYTES + 1];
    size_t n;
    bool any = false;
    bool more = true;
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && more; i++) {
        const GENERAL_NAME *entry = sk_GENERAL_NAME_value(names, i);
        if (entry->type == GEN_DNS) {
            any = true;
            more = !take_name(entry->d.dNSName, text, &n) || name(arg, tg_slice_of(text, n));
        }
    }
    GENERAL_NAMES_free(names);
    const X509_NAME *subject = X509_get_subject_name(leaf);
    const int at = any ? -1 : X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at >= 0 && take_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), text, &n)) {
        (void)name(arg, tg_slice_of(text, n));
    }
    ERR_clear_error();
}

enum tg_rc
tg_certificate_store(X509_STORE **out, STACK_OF(X509_NAME) * *names, struct tg_slice pem, struct tg_err *err)
{
    BIO *bio = bio_of(pem);
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509_NAME) *list = sk_X509_NAME_new_null();
    unsigned count = 0;
    enum tg_rc rc =
        bio != NULL && store != NULL && list != NULL ? TG_OK : tg_err_set(err, TG_ENOMEM, "memory is short");
    X509 *next;
    while (rc == TG_OK && (next = PEM_read_bio_X509(bio, NULL, no_password, NULL)) != NULL) {
        X509_NAME *name = X509_NAME_dup(X509_get_subject_name(next));
        if (X509_STORE_add_cert(store, next) != 1 || name == NULL || sk_X509_NAME_push(list, name) <= 0) {
            X509_NAME_free(name);
            rc = tg_err_set(err, TG_ENOMEM, "memory is short");
        }
        X509_free(next);
        count++;
    }
    if (rc == TG_OK && (count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)) {
        rc = tg_err_set(err, TG_EINVAL,
                        count == 0 ? "there is no certificate in it (a block of PEM, BEGIN CERTIFICATE)"
                                   : "broken PEM or certificate");
    }
    ERR_clear_error();
    BIO_free(bio);
    if (rc != TG_OK || names == NULL) {
        sk_X509_NAME_pop_free(list, X509_NAME_free);
    } else {
        *names = list;
    }
    if (rc != TG_OK) {
        X509_STORE_free(store);
    } else {
        *out = store;
    }
    return rc;
}

/* Lists of authorities that are not in the store are judged with the chain that a client sends. */
static bool
is_signed_right(X509_STORE *store, X509_CRL *crl)
{
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
    bool known = false;
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *issuer = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        if (issuer != NULL && X509_NAME_cmp(X509_get_subject_name(issuer), X509_CRL_get_issuer(crl)) == 0) {
            known = true;
            if (X509_CRL_verify(crl, X509_get0_pubkey(issuer)) == 1) {
                return true;
            }
        }
    }
    return !known;
}

static enum tg_rc
add_crl(X509_STORE *store, X509_CRL *crl, struct tg_err *err)
{
    if (X509_CRL_get0_nextUpdate(crl) == NULL) {
        return tg_err_set(err, TG_EINVAL, "a list of revoked certificates that never runs out (no nextUpdate)");
    }
    if (!is_signed_right(store, crl)) {
        return tg_err_set(err, TG_EINVAL, "the signature of a list of revoked certificates is not its authority's");
    }
    return X509_STORE_add_crl(store, crl) == 1 ? TG_OK : tg_err_set(err, TG_ENOMEM, "memory is short");
}

enum tg_rc
tg_certificate_revocations(X509_STORE *store, struct tg_slice crls, struct tg_err *err)
{
    static const char mark[] = "-----BEGIN";
    const bool is_pem = memmem(crls.p, crls.n, mark, sizeof mark - 1) != NULL;
    BIO *bio = bio_of(crls);
    unsigned count = 0;
    enum tg_rc rc = bio != NULL ? TG_OK : tg_err_set(err, TG_ENOMEM, "memory is short");
    X509_CRL *next;
    while (rc == TG_OK && (is_pem || count == 0) &&
           (next = is_pem ? PEM_read_bio_X509_CRL(bio, NULL, no_password, NULL) : d2i_X509_CRL_bio(bio, NULL)) !=
               NULL) {
        rc = count++ < TG_CERTIFICATE_CRLS_MAX ? add_crl(store, next, err)
                                               : tg_err_set(err, TG_EINVAL,
                                                            "there are more than %d lists of revoked "
                                                            "certificates",
                                                            TG_CERTIFICATE_CRLS_MAX);
        X509_CRL_free(next);
    }
    const bool at_end = is_pem ? ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE : BIO_pending(bio) == 0;
    if (rc == TG_OK && (count == 0 || !at_end)) {
        rc = tg_err_set(err, TG_EINVAL,
                        "there is no list of revoked certificates in it (BEGIN X509 CRL, or DER), or it is broken");
    }
    if (rc == TG_OK && X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) != 1) {
        rc = tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    ERR_clear_error();
    BIO_free(bio);
    return rc;
}

/* ------------------------------------------------------------------ what is shown */

static bool
print_address(BIO *bio, const ASN1_OCTET_STRING *address)
{
    struct tg_address binary = {0};
    char text[TG_ADDRESS_TEXT];
    const int n = ASN1_STRING_length(address);
    if (n == 4) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, ASN1_STRING_get0_data(address), 4);
        memcpy(&binary.sa, &in, sizeof in);
    } else if (n == 16) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        memcpy(&in6.sin6_addr, ASN1_STRING_get0_data(address), 16);
        memcpy(&binary.sa, &in6, sizeof in6);
    } else {
        return true;
    }
    const size_t length = tg_address_text(&binary, text);
    return BIO_printf(bio, "ip:%.*s\n", (int)length, text) > 0;
}

/* A value with a byte that is not printable is left out: it could pass for two, or hide its end. */
static bool
print_text(BIO *bio, const char *kind, const ASN1_STRING *value)
{
    const unsigned char *p = ASN1_STRING_get0_data(value);
    const int n = ASN1_STRING_length(value);
    for (int i = 0; i < n; i++) {
        if (p[i] <= ' ' || p[i] >= 127) {
            return true;
        }
    }
    return BIO_printf(bio, "%s:%.*s\n", kind, n, (const char *)p) > 0;
}

static bool
print_names(BIO *bio, const X509 *certificate)
{
    bool ok = true;
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && ok; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        switch (name->type) {
        case GEN_DNS:
            ok = print_text(bio, "dns", name->d.dNSName);
            break;
        case GEN_EMAIL:
            ok = print_text(bio, "email", name->d.rfc822Name);
            break;
        case GEN_URI:
            ok = print_text(bio, "uri", name->d.uniformResourceIdentifier);
            break;
        case GEN_IPADD:
            ok = print_address(bio, name->d.iPAddress);
            break;
        default:
            break;
        }
    }
    GENERAL_NAMES_free(names);
    return ok;
}

static bool
print_part(BIO *bio, X509 *certificate, enum tg_certificate_part part)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    bool ok = true;
    switch (part) {
    case TG_CERTIFICATE_SUBJECT:
        return X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0;
    case TG_CERTIFICATE_ISSUER:
        return X509_NAME_print_ex(bio, X509_get_issuer_name(certificate), 0, XN_FLAG_RFC2253) >= 0;
    case TG_CERTIFICATE_SERIAL:
        return i2a_ASN1_INTEGER(bio, X509_get0_serialNumber(certificate)) > 0;
    case TG_CERTIFICATE_FINGERPRINT:
        ok = X509_digest(certificate, EVP_sha256(), hash, &length) == 1;
        for (unsigned i = 0; i < length && ok; i++) {
            ok = BIO_printf(bio, "%02x", hash[i]) > 0;
        }
        return ok;
    case TG_CERTIFICATE_NAMES:
        return print_names(bio, certificate);
    case TG_CERTIFICATE_AS_PEM:
        return PEM_write_bio_X509(bio, certificate) == 1;
    }
    return false;
}

enum tg_rc
tg_certificate_text(X509 *certificate, enum tg_certificate_part part, char *out, size_t *n)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const bool ok = bio != NULL && print_part(bio, certificate, part);
    const size_t size = ok ? (size_t)BIO_pending(bio) : 0;
    enum tg_rc rc = !ok ? TG_ENOMEM : size > TG_CERTIFICATE_TEXT ? TG_ELIMIT : TG_OK;
    if (rc == TG_OK) {
        *n = size > 0 ? (size_t)BIO_read(bio, out, (int)size) : 0;
    }
    BIO_free(bio);
    ERR_clear_error();
    return rc;
}

double
tg_certificate_time(const ASN1_TIME *time)
{
    struct tm broken;
    return ASN1_TIME_to_tm(time, &broken) == 1 ? (double)timegm(&broken) : 0;
}

/* ------------------------------------------------------------------ for development */

static bool
add_extension(X509 *certificate, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    const bool ok = extension != NULL && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return ok;
}

static bool
sign_for_localhost(X509 *certificate, EVP_PKEY *key)
{
    uint64_t serial = 0;
    X509_NAME *name = X509_get_subject_name(certificate);
    return RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 && X509_set_version(certificate, 2) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial >> 1) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(certificate), SELF_SIGNED_DAYS * 86400L) != NULL &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0) == 1 &&
           X509_set_issuer_name(certificate, name) == 1 && X509_set_pubkey(certificate, key) == 1 &&
           add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
           add_extension(certificate, NID_key_usage, "critical,digitalSignature,keyCertSign") &&
           add_extension(certificate, NID_ext_key_usage, "serverAuth") &&
           add_extension(certificate, NID_subject_alt_name, "DNS:localhost,DNS:*.localhost,IP:127.0.0.1,IP:::1") &&
           X509_sign(certificate, key, EVP_sha256()) > 0;
}

static bool
text_of(BIO *bio, char *out)
{
    const int n = BIO_read(bio, out, TG_CERTIFICATE_PEM - 1);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 && BIO_pending(bio) == 0;
}

enum tg_rc
tg_certificate_self_signed(char *certificate, char *key)
{
    X509 *made = X509_new();
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_mem());
    BIO *secret = BIO_new(BIO_s_mem());
    const bool ok = made != NULL && pair != NULL && bio != NULL && secret != NULL && sign_for_localhost(made, pair) &&
                    PEM_write_bio_X509(bio, made) == 1 && text_of(bio, certificate) &&
                    PEM_write_bio_PKCS8PrivateKey(secret, pair, NULL, NULL, 0, NULL, NULL) == 1 && text_of(secret, key);
    X509_free(made);
    EVP_PKEY_free(pair);
    BIO_free(bio);
    BIO_free(secret);
    ERR_clear_error();
    return ok ? TG_OK : TG_ESYSTEM;
}
