#include "base/digest.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

enum { KEPT_KEY_MAX = 128 };

static struct algorithm {
    const char *name;
    size_t size;
    EVP_MD *md;
    EVP_MD_CTX *context;
    EVP_MAC_CTX *hmac;
    unsigned char key[KEPT_KEY_MAX]; /* that hmac is set up with: most have one for all that they sign */
    size_t key_len;                  /* 0: it is not kept */
} algorithms[TG_DIGEST_COUNT] = {
    [TG_DIGEST_MD5] = {"MD5", 16, NULL, NULL, NULL, {0}, 0},
    [TG_DIGEST_SHA1] = {"SHA1", 20, NULL, NULL, NULL, {0}, 0},
    [TG_DIGEST_SHA256] = {"SHA256", 32, NULL, NULL, NULL, {0}, 0},
    [TG_DIGEST_SHA384] = {"SHA384", 48, NULL, NULL, NULL, {0}, 0},
    [TG_DIGEST_SHA512] = {"SHA512", 64, NULL, NULL, NULL, {0}, 0},
};

size_t
tg_digest_size(enum tg_abi_digest algorithm)
{
    return algorithms[algorithm].size;
}

const char *
tg_digest_name(enum tg_abi_digest algorithm)
{
    return algorithms[algorithm].name;
}

static bool
open_digest(struct algorithm *a)
{
    if (a->md == NULL) {
        a->md = EVP_MD_fetch(NULL, a->name, NULL);
    }
    if (a->context == NULL && a->md != NULL) {
        a->context = EVP_MD_CTX_new();
    }
    return a->context != NULL;
}

static bool
open_hmac(struct algorithm *a)
{
    static EVP_MAC *hmac;
    if (a->hmac != NULL) {
        return true;
    }
    if (hmac == NULL) {
        hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    }
    const OSSL_PARAM parameters[] = {OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)a->name, 0),
                                     OSSL_PARAM_END};
    EVP_MAC_CTX *context = hmac == NULL ? NULL : EVP_MAC_CTX_new(hmac);
    if (context == NULL || EVP_MAC_CTX_set_params(context, parameters) != 1) {
        EVP_MAC_CTX_free(context);
        return false;
    }
    a->hmac = context;
    return true;
}

static enum tg_rc
judge(bool ok)
{
    if (!ok) {
        ERR_clear_error();
    }
    return ok ? TG_OK : TG_ESYSTEM;
}

enum tg_rc
tg_digest(enum tg_abi_digest algorithm, const void *p, size_t n, unsigned char *out)
{
    struct algorithm *a = &algorithms[algorithm];
    return judge(open_digest(a) && EVP_DigestInit_ex2(a->context, a->md, NULL) == 1 &&
                 EVP_DigestUpdate(a->context, p, n) == 1 && EVP_DigestFinal_ex(a->context, out, NULL) == 1);
}

/* To hash a key costs as much as to sign something short. */
static bool
set_key(struct algorithm *a, const void *key, size_t key_len)
{
    if (key_len != 0 && key_len == a->key_len && memcmp(key, a->key, key_len) == 0) {
        return EVP_MAC_init(a->hmac, NULL, 0, NULL) == 1;
    }
    OPENSSL_cleanse(a->key, sizeof a->key);
    a->key_len = 0;
    /* Without a key OpenSSL would go on with the last one. */
    const unsigned char *secret = key_len == 0 ? (const unsigned char *)"" : key;
    if (EVP_MAC_init(a->hmac, secret, key_len, NULL) != 1) {
        return false;
    }
    if (key_len != 0 && key_len <= sizeof a->key) {
        memcpy(a->key, key, key_len);
        a->key_len = key_len;
    }
    return true;
}

enum tg_rc
tg_digest_hmac(enum tg_abi_digest algorithm, const void *key, size_t key_len, const void *p, size_t n,
               unsigned char *out)
{
    struct algorithm *a = &algorithms[algorithm];
    size_t size = 0;
    return judge(open_hmac(a) && set_key(a, key, key_len) && EVP_MAC_update(a->hmac, p, n) == 1 &&
                 EVP_MAC_final(a->hmac, out, &size, a->size) == 1 && size == a->size);
}
