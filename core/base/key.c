#include "base/key.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/decoder.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "base/digest.h"
#include "base/mem.h"

enum { VERIFY, SIGN };

struct tg_key {
    struct tg_abi_key abi;
    EVP_PKEY *pkey; /* NULL: a shared secret */
    char *secret;
    size_t secret_n;
    /* Set up for the algorithm that was asked for last, which is the only one of most keys. */
    EVP_PKEY_CTX *contexts[2];
    enum tg_abi_signature algorithms[2];
};

static const struct signature {
    enum tg_abi_key_kind kind;
    enum tg_abi_digest digest;
    unsigned bits; /* of the curve; 0: any */
    int padding;
} signatures[TG_SIGN_COUNT] = {
    [TG_SIGN_RS256] = {TG_KEY_RSA, TG_DIGEST_SHA256, 0, RSA_PKCS1_PADDING},
    [TG_SIGN_RS384] = {TG_KEY_RSA, TG_DIGEST_SHA384, 0, RSA_PKCS1_PADDING},
    [TG_SIGN_RS512] = {TG_KEY_RSA, TG_DIGEST_SHA512, 0, RSA_PKCS1_PADDING},
    [TG_SIGN_PS256] = {TG_KEY_RSA, TG_DIGEST_SHA256, 0, RSA_PKCS1_PSS_PADDING},
    [TG_SIGN_PS384] = {TG_KEY_RSA, TG_DIGEST_SHA384, 0, RSA_PKCS1_PSS_PADDING},
    [TG_SIGN_PS512] = {TG_KEY_RSA, TG_DIGEST_SHA512, 0, RSA_PKCS1_PSS_PADDING},
    [TG_SIGN_ES256] = {TG_KEY_EC, TG_DIGEST_SHA256, 256, 0},
    [TG_SIGN_ES384] = {TG_KEY_EC, TG_DIGEST_SHA384, 384, 0},
    [TG_SIGN_ES512] = {TG_KEY_EC, TG_DIGEST_SHA512, 521, 0},
    [TG_SIGN_EDDSA] = {TG_KEY_OKP, TG_DIGEST_SHA512, 0, 0},
    [TG_SIGN_HS256] = {TG_KEY_OCT, TG_DIGEST_SHA256, 0, 0},
    [TG_SIGN_HS384] = {TG_KEY_OCT, TG_DIGEST_SHA384, 0, 0},
    [TG_SIGN_HS512] = {TG_KEY_OCT, TG_DIGEST_SHA512, 0, 0},
};

static const struct curve {
    const char *name; /* OpenSSL's */
    unsigned bits;
    size_t size; /* bytes of a coordinate */
} curves[] = {{"prime256v1", 256, 32}, {"secp384r1", 384, 48}, {"secp521r1", 521, 66}};

enum { CURVES = sizeof curves / sizeof curves[0], ED25519_SIZE = 32 };

static const struct curve *
curve_of(unsigned bits)
{
    for (unsigned i = 0; i < CURVES; i++) {
        if (curves[i].bits == bits) {
            return &curves[i];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ what comes in */

static enum tg_rc
refuse(const char **why, const char *text)
{
    *why = text;
    return TG_EINVAL;
}

static enum tg_rc
judge_ec(struct tg_key *key, const char **why)
{
    char name[64];
    size_t n = 0;
    int is_explicit = 0;
    /* A curve that is spelled out could be another one of the same size (CVE-2020-0601). */
    if (EVP_PKEY_get_int_param(key->pkey, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, &is_explicit) != 1 ||
        is_explicit != 0 || EVP_PKEY_get_group_name(key->pkey, name, sizeof name, &n) != 1) {
        return refuse(why, "the curve is spelled out, which is not served");
    }
    for (unsigned i = 0; i < CURVES; i++) {
        if (strcmp(name, curves[i].name) == 0) {
            key->abi.bits = curves[i].bits;
        }
    }
    if (key->abi.bits == 0) {
        return refuse(why, "the curve is not P-256, P-384 or P-521");
    }
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
    const bool ok = context != NULL && EVP_PKEY_public_check(context) == 1;
    EVP_PKEY_CTX_free(context);
    return ok ? TG_OK : refuse(why, "the point is not on the curve");
}

static enum tg_rc
judge_rsa(struct tg_key *key, const char **why)
{
    BIGNUM *e = NULL;
    const int bits = EVP_PKEY_get_bits(key->pkey);
    if (bits < TG_KEY_RSA_MIN || bits > TG_KEY_RSA_MAX) {
        return refuse(why, "an RSA key has 2048 to 8192 bits");
    }
    key->abi.bits = (uint32_t)bits;
    /* 1 would make every message its own signature; a large one makes verifying as slow as signing. */
    const bool ok = EVP_PKEY_get_bn_param(key->pkey, OSSL_PKEY_PARAM_RSA_E, &e) == 1 && BN_is_odd(e) && !BN_is_one(e) &&
                    BN_num_bits(e) <= 64;
    BN_free(e);
    return ok ? TG_OK : refuse(why, "the public exponent is odd, above 1 and has at most 64 bits");
}

/* Numbers that do not belong together would show only in the first signature that nobody accepts. */
static enum tg_rc
try_private(struct tg_key *key, const char **why)
{
    static const struct tg_slice sample = {"tidegate", 8};
    unsigned char signature[TG_KEY_SIGNATURE_MAX];
    size_t n = 0;
    const enum tg_abi_signature algorithm = key->abi.kind == TG_KEY_RSA   ? TG_SIGN_RS256
                                            : key->abi.kind == TG_KEY_OKP ? TG_SIGN_EDDSA
                                            : key->abi.bits == 256        ? TG_SIGN_ES256
                                            : key->abi.bits == 384        ? TG_SIGN_ES384
                                                                          : TG_SIGN_ES512;
    enum tg_rc rc = tg_key_sign(key, algorithm, sample, signature, &n);
    if (rc == TG_OK) {
        rc = tg_key_verify(key, algorithm, sample, tg_slice_of((char *)signature, n));
    }
    return rc == TG_OK ? TG_OK : refuse(why, "the private part does not belong to the public one");
}

/* Takes `pkey` in any case. */
static enum tg_rc
adopt(EVP_PKEY *pkey, bool is_private, struct tg_key **out, const char **why)
{
    enum tg_rc rc = TG_OK;
    struct tg_key *key = tg_mem_new(struct tg_key);
    if (key == NULL) {
        EVP_PKEY_free(pkey);
        return TG_ENOMEM;
    }
    key->pkey = pkey;
    key->abi.secret = is_private;
    if (EVP_PKEY_is_a(pkey, "RSA")) {
        key->abi.kind = TG_KEY_RSA;
        rc = judge_rsa(key, why);
    } else if (EVP_PKEY_is_a(pkey, "EC")) {
        key->abi.kind = TG_KEY_EC;
        rc = judge_ec(key, why);
    } else if (EVP_PKEY_is_a(pkey, "ED25519")) {
        key->abi.kind = TG_KEY_OKP;
        key->abi.bits = ED25519_SIZE * 8;
    } else {
        rc = refuse(why, "it is not an RSA, EC or Ed25519 key");
    }
    if (rc == TG_OK && is_private) {
        rc = try_private(key, why);
    }
    ERR_clear_error();
    if (rc != TG_OK) {
        tg_key_free(key);
        return rc;
    }
    *out = key;
    return TG_OK;
}

/* Without this OpenSSL would ask at the terminal. */
static int
no_password(char *buffer, int size, int is_for_writing, void *arg)
{
    (void)buffer;
    (void)size;
    (void)is_for_writing;
    (void)arg;
    return -1;
}

/* The first key of this selection, past PEM blocks that are none (EC PARAMETERS). */
static EVP_PKEY *
decode(struct tg_slice text, struct tg_slice password, int selection)
{
    EVP_PKEY *pkey = NULL;
    OSSL_DECODER_CTX *decoder = OSSL_DECODER_CTX_new_for_pkey(&pkey, NULL, NULL, NULL, selection, NULL, NULL);
    BIO *bio = BIO_new_mem_buf(text.p, (int)text.n);
    bool ready = decoder != NULL && bio != NULL;
    if (ready) {
        ready = password.n > 0
                    ? OSSL_DECODER_CTX_set_passphrase(decoder, (const unsigned char *)password.p, password.n) == 1
                    : OSSL_DECODER_CTX_set_pem_password_cb(decoder, no_password, NULL) == 1;
    }
    int64_t left = (int64_t)text.n + 1;
    while (ready && pkey == NULL && (int64_t)BIO_ctrl_pending(bio) < left) {
        left = (int64_t)BIO_ctrl_pending(bio);
        if (left == 0 || (OSSL_DECODER_from_bio(decoder, bio) == 1 && pkey != NULL)) {
            break;
        }
    }
    BIO_free(bio);
    OSSL_DECODER_CTX_free(decoder);
    ERR_clear_error();
    return pkey;
}

enum tg_rc
tg_key_read(struct tg_slice text, struct tg_slice password, struct tg_key **out, const char **why)
{
    if (text.n == 0 || text.n > TG_KEY_TEXT_MAX || password.n > TG_KEY_PART_MAX) {
        return refuse(why, "it is empty, or too long for a key");
    }
    EVP_PKEY *pkey = decode(text, password, EVP_PKEY_KEYPAIR);
    const bool is_private = pkey != NULL;
    if (pkey == NULL) {
        pkey = decode(text, password, EVP_PKEY_PUBLIC_KEY);
    }
    return pkey == NULL ? refuse(why, "it is not a key in PEM or DER, or the password is wrong")
                        : adopt(pkey, is_private, out, why);
}

/* ------------------------------------------------------------------ JWK */

/* Parameters for OpenSSL, and the numbers that they point to: the last byte of a JWK's is the first of theirs. */
struct builder {
    OSSL_PARAM parameters[12];
    unsigned count;
    unsigned char numbers[8 * TG_KEY_PART_MAX];
    size_t used;
};

static bool
add_number(struct builder *builder, const char *name, struct tg_slice part)
{
    unsigned char *p = builder->numbers + builder->used;
    if (part.n == 0 || part.n > TG_KEY_PART_MAX) {
        return part.n == 0;
    }
    for (size_t i = 0; i < part.n; i++) {
        p[i] = (unsigned char)part.p[part.n - 1 - i];
    }
    builder->used += part.n;
    builder->parameters[builder->count++] = OSSL_PARAM_construct_BN(name, p, part.n);
    return true;
}

static EVP_PKEY *
build(struct builder *builder, const char *type, bool is_private)
{
    EVP_PKEY *pkey = NULL;
    const int selection = is_private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    builder->parameters[builder->count] = OSSL_PARAM_construct_end();
    if (context == NULL || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &pkey, selection, builder->parameters) != 1) {
        pkey = NULL;
    }
    EVP_PKEY_CTX_free(context);
    ERR_clear_error();
    return pkey;
}

static EVP_PKEY *
build_rsa(struct builder *builder, const struct tg_slice *parts)
{
    static const char *const names[] = {
        [TG_KEY_N] = OSSL_PKEY_PARAM_RSA_N,          [TG_KEY_E] = OSSL_PKEY_PARAM_RSA_E,
        [TG_KEY_D] = OSSL_PKEY_PARAM_RSA_D,          [TG_KEY_P] = OSSL_PKEY_PARAM_RSA_FACTOR1,
        [TG_KEY_Q] = OSSL_PKEY_PARAM_RSA_FACTOR2,    [TG_KEY_DP] = OSSL_PKEY_PARAM_RSA_EXPONENT1,
        [TG_KEY_DQ] = OSSL_PKEY_PARAM_RSA_EXPONENT2, [TG_KEY_QI] = OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
    };
    unsigned primes = 0;
    for (unsigned i = TG_KEY_P; i <= TG_KEY_QI; i++) {
        primes += parts[i].n > 0;
    }
    /* RFC 7518, section 6.3.2: all of them, or only d. */
    if (parts[TG_KEY_N].n == 0 || parts[TG_KEY_E].n == 0 || (primes != 0 && primes != 5) ||
        (primes != 0 && parts[TG_KEY_D].n == 0)) {
        return NULL;
    }
    for (unsigned i = TG_KEY_N; i <= TG_KEY_QI; i++) {
        if (!add_number(builder, names[i], parts[i])) {
            return NULL;
        }
    }
    return build(builder, "RSA", parts[TG_KEY_D].n > 0);
}

static EVP_PKEY *
build_ec(struct builder *builder, unsigned bits, const struct tg_slice *parts)
{
    const struct curve *curve = curve_of(bits);
    const struct tg_slice *d = &parts[TG_KEY_D];
    /* RFC 7518, section 6.2: leading zeros are not left out. */
    if (curve == NULL || parts[TG_KEY_X].n != curve->size || parts[TG_KEY_Y].n != curve->size ||
        (d->n != 0 && d->n != curve->size)) {
        return NULL;
    }
    unsigned char *point = builder->numbers;
    point[0] = POINT_CONVERSION_UNCOMPRESSED;
    memcpy(point + 1, parts[TG_KEY_X].p, curve->size);
    memcpy(point + 1 + curve->size, parts[TG_KEY_Y].p, curve->size);
    builder->used = 1 + 2 * curve->size;
    builder->parameters[builder->count++] =
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)curve->name, 0);
    builder->parameters[builder->count++] =
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, builder->used);
    return add_number(builder, OSSL_PKEY_PARAM_PRIV_KEY, *d) ? build(builder, "EC", d->n > 0) : NULL;
}

/* The public part follows from the private one: one that does not is refused. */
static EVP_PKEY *
build_okp(const struct tg_slice *parts)
{
    unsigned char x[ED25519_SIZE];
    size_t n = sizeof x;
    const struct tg_slice *d = &parts[TG_KEY_D];
    if (parts[TG_KEY_X].n != ED25519_SIZE || (d->n != 0 && d->n != ED25519_SIZE)) {
        return NULL;
    }
    if (d->n == 0) {
        return EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, (const unsigned char *)parts[TG_KEY_X].p,
                                              ED25519_SIZE);
    }
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, (const unsigned char *)d->p, ED25519_SIZE);
    if (pkey != NULL && (EVP_PKEY_get_raw_public_key(pkey, x, &n) != 1 || n != ED25519_SIZE ||
                         memcmp(x, parts[TG_KEY_X].p, ED25519_SIZE) != 0)) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    return pkey;
}

static enum tg_rc
make_secret(struct tg_slice bytes, struct tg_key **out, const char **why)
{
    if (bytes.n == 0 || bytes.n > TG_KEY_SECRET_MAX) {
        return refuse(why, "a secret has 1 byte to 16 KiB");
    }
    struct tg_key *key = tg_mem_new(struct tg_key);
    char *copy = key == NULL ? NULL : tg_mem_text(bytes.p, bytes.n);
    if (copy == NULL) {
        tg_mem_free(key);
        return TG_ENOMEM;
    }
    key->secret = copy;
    key->secret_n = bytes.n;
    key->abi = (struct tg_abi_key){.kind = TG_KEY_OCT, .bits = (uint32_t)bytes.n * 8, .secret = 1};
    *out = key;
    return TG_OK;
}

enum tg_rc
tg_key_make(enum tg_abi_key_kind kind, unsigned bits, const struct tg_slice *parts, struct tg_key **out,
            const char **why)
{
    EVP_PKEY *pkey = NULL;
    if (kind == TG_KEY_OCT) {
        return make_secret(parts[TG_KEY_N], out, why);
    }
    struct builder *builder = tg_mem_new(struct builder);
    if (builder == NULL) {
        return TG_ENOMEM;
    }
    if (kind == TG_KEY_RSA) {
        pkey = build_rsa(builder, parts);
    } else if (kind == TG_KEY_EC) {
        pkey = build_ec(builder, bits, parts);
    } else {
        pkey = build_okp(parts);
    }
    OPENSSL_cleanse(builder, sizeof *builder);
    tg_mem_free(builder);
    ERR_clear_error();
    return pkey == NULL ? refuse(why, "a number is missing, of the wrong length, or does not fit the others")
                        : adopt(pkey, parts[TG_KEY_D].n > 0, out, why);
}

void
tg_key_free(struct tg_key *key)
{
    if (key == NULL) {
        return;
    }
    EVP_PKEY_CTX_free(key->contexts[VERIFY]);
    EVP_PKEY_CTX_free(key->contexts[SIGN]);
    EVP_PKEY_free(key->pkey);
    if (key->secret != NULL) {
        OPENSSL_cleanse(key->secret, key->secret_n);
        tg_mem_free(key->secret);
    }
    tg_mem_free(key);
}

/* ------------------------------------------------------------------ what goes out */

static enum tg_rc
put_number(const struct tg_key *key, const char *name, size_t size, unsigned char *out, size_t *out_n)
{
    BIGNUM *number = NULL;
    if (EVP_PKEY_get_bn_param(key->pkey, name, &number) != 1) {
        return TG_ENONE;
    }
    const size_t n = size == 0 ? (size_t)BN_num_bytes(number) : size;
    const bool ok = n <= TG_KEY_PART_MAX && BN_bn2binpad(number, out, (int)n) == (int)n;
    BN_free(number);
    *out_n = n;
    return ok ? TG_OK : TG_ENONE;
}

enum tg_rc
tg_key_part(const struct tg_key *key, enum tg_abi_key_part part, unsigned char *out, size_t *out_n)
{
    enum tg_rc rc = TG_ENONE;
    if (key->abi.kind == TG_KEY_RSA && (part == TG_KEY_N || part == TG_KEY_E)) {
        rc = put_number(key, part == TG_KEY_N ? OSSL_PKEY_PARAM_RSA_N : OSSL_PKEY_PARAM_RSA_E, 0, out, out_n);
    } else if (key->abi.kind == TG_KEY_EC && (part == TG_KEY_X || part == TG_KEY_Y)) {
        rc = put_number(key, part == TG_KEY_X ? OSSL_PKEY_PARAM_EC_PUB_X : OSSL_PKEY_PARAM_EC_PUB_Y,
                        curve_of(key->abi.bits)->size, out, out_n);
    } else if (key->abi.kind == TG_KEY_OKP && part == TG_KEY_X) {
        *out_n = TG_KEY_PART_MAX;
        rc = EVP_PKEY_get_raw_public_key(key->pkey, out, out_n) == 1 ? TG_OK : TG_ENONE;
    }
    ERR_clear_error();
    return rc;
}

struct tg_slice
tg_key_secret(const struct tg_key *key)
{
    return tg_slice_of(key->secret, key->secret_n);
}

/* ------------------------------------------------------------------ signatures */

/* NULL when OpenSSL has no memory. */
static EVP_PKEY_CTX *
context_for(struct tg_key *key, int use, enum tg_abi_signature algorithm)
{
    const struct signature *signature = &signatures[algorithm];
    if (key->contexts[use] != NULL && key->algorithms[use] == algorithm) {
        return key->contexts[use];
    }
    EVP_PKEY_CTX_free(key->contexts[use]);
    key->contexts[use] = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
    if (context == NULL || (use == SIGN ? EVP_PKEY_sign_init(context) : EVP_PKEY_verify_init(context)) != 1) {
        EVP_PKEY_CTX_free(context);
        return NULL;
    }
    OSSL_PARAM parameters[4];
    OSSL_PARAM *p = parameters;
    int padding = signature->padding;
    int salt = RSA_PSS_SALTLEN_DIGEST; /* RFC 7518, section 3.5; the mask's digest is the same by default */
    *p++ = OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST,
                                            (char *)(uintptr_t)tg_digest_name(signature->digest), 0);
    if (signature->kind == TG_KEY_RSA) {
        *p++ = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PAD_MODE, &padding);
    }
    if (padding == RSA_PKCS1_PSS_PADDING) {
        *p++ = OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, &salt);
    }
    *p = OSSL_PARAM_construct_end();
    if (EVP_PKEY_CTX_set_params(context, parameters) != 1) {
        EVP_PKEY_CTX_free(context);
        return NULL;
    }
    key->contexts[use] = context;
    key->algorithms[use] = algorithm;
    return context;
}

static enum tg_rc
check(const struct tg_key *key, enum tg_abi_signature algorithm)
{
    if (algorithm >= TG_SIGN_COUNT) {
        return TG_EINVAL;
    }
    const struct signature *signature = &signatures[algorithm];
    if (signature->kind != key->abi.kind || (signature->bits != 0 && signature->bits != key->abi.bits)) {
        return TG_EINVAL;
    }
    const bool is_short = signature->kind == TG_KEY_OCT && key->secret_n < tg_digest_size(signature->digest);
    return is_short && key->abi.short_allowed == 0 ? TG_ELIMIT : TG_OK;
}

/* r and s, each as long as a coordinate (RFC 7518, section 3.4), to what OpenSSL reads; NULL when memory is short. */
static unsigned char *
to_der(const unsigned char *raw, size_t size, int *der_n)
{
    unsigned char *der = NULL;
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, (int)size, NULL);
    BIGNUM *s = BN_bin2bn(raw + size, (int)size, NULL);
    if (pair == NULL || r == NULL || s == NULL || ECDSA_SIG_set0(pair, r, s) != 1) {
        BN_free(r);
        BN_free(s);
    } else {
        *der_n = i2d_ECDSA_SIG(pair, &der);
    }
    ECDSA_SIG_free(pair);
    return der;
}

static bool
from_der(const unsigned char *der, size_t der_n, size_t size, unsigned char *raw)
{
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &der, (long)der_n);
    const bool ok = pair != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(pair), raw, (int)size) == (int)size &&
                    BN_bn2binpad(ECDSA_SIG_get0_s(pair), raw + size, (int)size) == (int)size;
    ECDSA_SIG_free(pair);
    return ok;
}

static enum tg_rc
verify_ed25519(const struct tg_key *key, struct tg_slice data, struct tg_slice signature)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    const bool ready =
        context != NULL && EVP_DigestVerifyInit_ex(context, NULL, NULL, NULL, NULL, key->pkey, NULL) == 1;
    const bool ok = ready && EVP_DigestVerify(context, (const unsigned char *)signature.p, signature.n,
                                              (const unsigned char *)data.p, data.n) == 1;
    EVP_MD_CTX_free(context);
    return ok ? TG_OK : ready ? TG_EDENIED : TG_ESYSTEM;
}

static enum tg_rc
sign_ed25519(const struct tg_key *key, struct tg_slice data, unsigned char *out, size_t *out_n)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    *out_n = TG_KEY_SIGNATURE_MAX;
    const bool ok = context != NULL && EVP_DigestSignInit_ex(context, NULL, NULL, NULL, NULL, key->pkey, NULL) == 1 &&
                    EVP_DigestSign(context, out, out_n, (const unsigned char *)data.p, data.n) == 1;
    EVP_MD_CTX_free(context);
    return ok ? TG_OK : TG_ESYSTEM;
}

static enum tg_rc
verify_digest(struct tg_key *key, enum tg_abi_signature algorithm, const unsigned char *digest,
              struct tg_slice signature)
{
    const unsigned char *p = (const unsigned char *)signature.p;
    unsigned char *der = NULL;
    int n = (int)signature.n;
    EVP_PKEY_CTX *context = context_for(key, VERIFY, algorithm);
    if (context == NULL) {
        return TG_ESYSTEM;
    }
    if (key->abi.kind == TG_KEY_EC) {
        const size_t size = curve_of(key->abi.bits)->size;
        if (signature.n != size * 2) {
            return TG_EDENIED;
        }
        der = to_der(p, size, &n);
        if (der == NULL) {
            return TG_ESYSTEM;
        }
        p = der;
    }
    const int ok = EVP_PKEY_verify(context, p, (size_t)n, digest, tg_digest_size(signatures[algorithm].digest));
    OPENSSL_free(der);
    return ok == 1 ? TG_OK : TG_EDENIED;
}

enum tg_rc
tg_key_verify(struct tg_key *key, enum tg_abi_signature algorithm, struct tg_slice data, struct tg_slice signature)
{
    unsigned char digest[TG_DIGEST_MAX];
    enum tg_rc rc = check(key, algorithm);
    if (rc != TG_OK) {
        return rc;
    }
    const enum tg_abi_digest name = signatures[algorithm].digest;
    if (signature.n > TG_KEY_SIGNATURE_MAX) {
        return TG_EDENIED;
    }
    if (key->abi.kind == TG_KEY_OCT) {
        rc = tg_digest_hmac(name, key->secret, key->secret_n, data.p, data.n, digest);
        if (rc == TG_OK &&
            (signature.n != tg_digest_size(name) || CRYPTO_memcmp(signature.p, digest, signature.n) != 0)) {
            rc = TG_EDENIED;
        }
        OPENSSL_cleanse(digest, tg_digest_size(name)); /* it is what a forger wants */
    } else if (key->abi.kind == TG_KEY_OKP) {
        rc = verify_ed25519(key, data, signature);
    } else {
        rc = tg_digest(name, data.p, data.n, digest);
        rc = rc == TG_OK ? verify_digest(key, algorithm, digest, signature) : rc;
    }
    if (key->abi.kind != TG_KEY_OCT) { /* HMAC leaves nothing there */
        ERR_clear_error();
    }
    return rc;
}

static enum tg_rc
sign_digest(struct tg_key *key, enum tg_abi_signature algorithm, const unsigned char *digest, unsigned char *out,
            size_t *out_n)
{
    unsigned char made[TG_KEY_SIGNATURE_MAX];
    const bool is_ec = key->abi.kind == TG_KEY_EC;
    size_t n = sizeof made;
    EVP_PKEY_CTX *context = context_for(key, SIGN, algorithm);
    if (context == NULL ||
        EVP_PKEY_sign(context, made, &n, digest, tg_digest_size(signatures[algorithm].digest)) != 1) {
        return TG_ESYSTEM;
    }
    const size_t size = is_ec ? curve_of(key->abi.bits)->size : 0;
    if (is_ec && !from_der(made, n, size, out)) {
        return TG_ESYSTEM;
    }
    if (!is_ec) {
        memcpy(out, made, n);
    }
    *out_n = is_ec ? size * 2 : n;
    return TG_OK;
}

enum tg_rc
tg_key_sign(struct tg_key *key, enum tg_abi_signature algorithm, struct tg_slice data, unsigned char *out,
            size_t *out_n)
{
    unsigned char digest[TG_DIGEST_MAX];
    enum tg_rc rc = check(key, algorithm);
    if (rc != TG_OK || key->abi.secret == 0) {
        return rc != TG_OK ? rc : TG_ENONE;
    }
    const enum tg_abi_digest name = signatures[algorithm].digest;
    if (key->abi.kind == TG_KEY_OCT) {
        rc = tg_digest_hmac(name, key->secret, key->secret_n, data.p, data.n, out);
        *out_n = tg_digest_size(name);
    } else if (key->abi.kind == TG_KEY_OKP) {
        rc = sign_ed25519(key, data, out, out_n);
    } else {
        rc = tg_digest(name, data.p, data.n, digest);
        rc = rc == TG_OK ? sign_digest(key, algorithm, digest, out, out_n) : rc;
    }
    ERR_clear_error();
    return rc;
}
