/*
 * The border: certificates and what is known of TLS connections. Contracts are in abi.h.
 */
#include <stdio.h>
#include <string.h>

#include "net/ocsp.h"
#include "vm/host.h"

/* Lua is done with vm.out before it calls again. */
static struct tg_err err;

static int
say(enum tg_rc rc)
{
    tg_abi_vm.out = tg_slice_of(err.text, rc == TG_OK ? 0 : strlen(err.text));
    return rc;
}

static int
put_out(const char *p, size_t n)
{
    tg_abi_vm.out = tg_slice_of(p, n);
    return TG_OK;
}

static bool
add_name(void *arg, struct tg_slice name)
{
    return BIO_printf(arg, "%.*s\n", (int)name.n, name.p) > 0;
}

/* The names of the certificate into vm.out, valid until the next call. */
static int
put_names(const X509 *leaf)
{
    static BIO *names;
    char *p = NULL;
    if (names == NULL) {
        names = BIO_new(BIO_s_mem());
    }
    if (names == NULL) {
        return TG_ENOMEM;
    }
    (void)BIO_reset(names);
    tg_certificate_names(leaf, add_name, names);
    const long n = BIO_get_mem_data(names, &p);
    return put_out(p, (size_t)n);
}

int
tg_abi_certificate_check(const char *certificate, size_t certificate_len, const char *key, size_t key_len)
{
    struct tg_certificate read;
    X509_STORE *store = NULL;
    const struct tg_slice text = tg_slice_of(certificate, certificate_len);
    if (key == NULL) {
        const enum tg_rc rc = tg_certificate_store(&store, NULL, text, &err);
        if (rc == TG_OK) {
            X509_STORE_free(store);
        }
        return say(rc);
    }
    enum tg_rc rc = tg_certificate_read(&read, text, tg_slice_of(key, key_len), &err);
    if (rc != TG_OK) {
        return say(rc);
    }
    rc = put_names(read.leaf);
    tg_certificate_fini(&read);
    return rc;
}

int
tg_abi_ocsp_ask(const char *chain, size_t chain_len, struct tg_slice *url, struct tg_slice *id)
{
    static struct tg_ocsp_question question;
    const enum tg_rc rc = tg_ocsp_ask(tg_slice_of(chain, chain_len), &question, &err);
    if (rc != TG_OK) {
        return say(rc);
    }
    *url = tg_slice_of(question.url, strlen(question.url));
    *id = tg_slice_of((const char *)question.id, sizeof question.id);
    return put_out(question.request, question.request_len);
}

int
tg_abi_ocsp_judge(const char *chain, size_t chain_len, const char *response, size_t response_len, double *age)
{
    struct tg_ocsp_time holds;
    const enum tg_rc rc =
        tg_ocsp_judge(tg_slice_of(chain, chain_len), tg_slice_of(response, response_len), &holds, &err);
    if (rc == TG_OK) {
        *age = tg_abi_vm.now - holds.from;
        tg_abi_vm.number = holds.until - tg_abi_vm.now;
    }
    return say(rc);
}

int
tg_abi_crl_check(const char *ca, size_t ca_len, const char *crl, size_t crl_len)
{
    X509_STORE *store = NULL;
    enum tg_rc rc = tg_certificate_store(&store, NULL, tg_slice_of(ca, ca_len), &err);
    if (rc == TG_OK) {
        rc = tg_certificate_revocations(store, tg_slice_of(crl, crl_len), &err);
        X509_STORE_free(store);
    }
    return say(rc);
}

int
tg_abi_self_signed(void)
{
    static char pem[2 * TG_CERTIFICATE_PEM];
    char key[TG_CERTIFICATE_PEM];
    const enum tg_rc rc = tg_certificate_self_signed(pem, key);
    if (rc == TG_OK) {
        (void)snprintf(pem + strlen(pem), TG_CERTIFICATE_PEM, "%s", key);
    }
    tg_abi_vm.out = tg_slice_of(pem, rc == TG_OK ? strlen(pem) : 0);
    return rc;
}

int
tg_abi_tls_client(const struct tg_abi_tls_client *asked)
{
    const struct tg_tls_client_options options = {.ca = asked->ca,
                                                  .certificate = asked->certificate,
                                                  .key = asked->key,
                                                  .name = asked->name,
                                                  .pins = asked->pins,
                                                  .verify = asked->verify != 0,
                                                  .tls12 = asked->tls12 != 0,
                                                  .http2 = asked->http2 != 0,
                                                  .kernel = asked->kernel != 0};
    unsigned number = 0;
    const enum tg_rc rc = tg_peers_tls(&tg_host->proxy->peers, &options, &number, &err);
    return rc == TG_OK ? (int)number : say(rc);
}

static int
put_text(const char *text)
{
    return text == NULL ? TG_ENONE : put_out(text, strlen(text));
}

static int
put_number(double number)
{
    tg_abi_vm.number = number;
    return TG_OK;
}

static int
certificate_part(SSL *ssl, enum tg_abi_tls_part part)
{
    static const uint8_t texts[] = {
        [TG_TLS_SUBJECT] = TG_CERTIFICATE_SUBJECT, [TG_TLS_ISSUER] = TG_CERTIFICATE_ISSUER,
        [TG_TLS_SERIAL] = TG_CERTIFICATE_SERIAL,   [TG_TLS_FINGERPRINT] = TG_CERTIFICATE_FINGERPRINT,
        [TG_TLS_NAMES] = TG_CERTIFICATE_NAMES,     [TG_TLS_PEM] = TG_CERTIFICATE_AS_PEM};
    static char text[TG_CERTIFICATE_TEXT];
    size_t n = 0;
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (certificate == NULL || SSL_get_verify_result(ssl) != X509_V_OK) {
        return TG_ENONE;
    }
    if (part == TG_TLS_NOT_BEFORE) {
        return put_number(tg_certificate_time(X509_get0_notBefore(certificate)));
    }
    if (part == TG_TLS_NOT_AFTER) {
        return put_number(tg_certificate_time(X509_get0_notAfter(certificate)));
    }
    const enum tg_rc rc = tg_certificate_text(certificate, (enum tg_certificate_part)texts[part], text, &n);
    return rc == TG_OK ? put_out(text, n) : (int)rc;
}

int
tg_abi_tls(struct tg_abi_exchange *x, int part)
{
    const struct tg_downstream *down = tg_exchange_of(x)->down;
    const struct tg_tls *tls = down != NULL ? tg_downstream_tls(down) : NULL;
    if (part < TG_TLS_VERSION || part > TG_TLS_PEM) {
        return TG_EINVAL;
    }
    if (tls == NULL) {
        return TG_ENONE;
    }
    const struct tg_slice alpn = tg_tls_alpn(tls);
    switch (part) {
    case TG_TLS_VERSION:
        return put_text(SSL_get_version(tls->ssl));
    case TG_TLS_CIPHER:
        return put_text(SSL_get_cipher_name(tls->ssl));
    case TG_TLS_SERVER_NAME:
        return put_text(SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name));
    case TG_TLS_ALPN:
        return alpn.n > 0 ? put_out(alpn.p, alpn.n) : TG_ENONE;
    case TG_TLS_RESUMED:
        return put_number(SSL_session_reused(tls->ssl));
    default:
        return certificate_part(tls->ssl, (enum tg_abi_tls_part)part);
    }
}
