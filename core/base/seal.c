#include "base/seal.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

static const EVP_CIPHER *
cipher_of(struct tg_slice key)
{
    static EVP_CIPHER *aes128;
    static EVP_CIPHER *aes256;
    if (aes128 == NULL) {
        aes128 = EVP_CIPHER_fetch(NULL, "AES-128-GCM", NULL);
    }
    if (aes256 == NULL) {
        aes256 = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    }
    return key.n == 16 ? aes128 : aes256;
}

/* One context for all; between two texts it holds no key. */
static EVP_CIPHER_CTX *
open_context(void)
{
    static EVP_CIPHER_CTX *context;
    if (context == NULL) {
        context = EVP_CIPHER_CTX_new();
    }
    return context;
}

static void
close_context(EVP_CIPHER_CTX *context)
{
    (void)EVP_CIPHER_CTX_reset(context); /* cleanses the key */
    ERR_clear_error();
}

/* Without `bound` nothing is to be told: a pointer to nothing with length 0 would end the text. */
static bool
take_bound(EVP_CIPHER_CTX *context, struct tg_slice bound)
{
    int n = 0;
    return bound.n == 0 || EVP_CipherUpdate(context, NULL, &n, (const unsigned char *)bound.p, (int)bound.n) == 1;
}

static bool
convert(EVP_CIPHER_CTX *context, struct tg_slice from, unsigned char *out)
{
    int n = 0;
    return from.n == 0 ||
           (EVP_CipherUpdate(context, out, &n, (const unsigned char *)from.p, (int)from.n) == 1 && (size_t)n == from.n);
}

static enum tg_rc
check(struct tg_slice key, struct tg_slice text, struct tg_slice bound)
{
    const size_t most = INT32_MAX - TG_SEAL_EXTRA;
    return (key.n != 16 && key.n != 32) || text.n > most || bound.n > most ? TG_EINVAL : TG_OK;
}

enum tg_rc
tg_seal_with(struct tg_slice key, const unsigned char *nonce, struct tg_slice text, struct tg_slice bound,
             unsigned char *out)
{
    EVP_CIPHER_CTX *context = open_context();
    if (check(key, text, bound) != TG_OK) {
        return TG_EINVAL;
    }
    if (context == NULL) {
        return TG_ESYSTEM;
    }
    int n = 0;
    unsigned char *body = out + TG_SEAL_NONCE;
    memmove(out, nonce, TG_SEAL_NONCE);
    const bool ok = EVP_EncryptInit_ex2(context, cipher_of(key), (const unsigned char *)key.p, nonce, NULL) == 1 &&
                    take_bound(context, bound) && convert(context, text, body) &&
                    EVP_EncryptFinal_ex(context, body + text.n, &n) == 1 &&
                    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TG_SEAL_TAG, body + text.n) == 1;
    close_context(context);
    return ok ? TG_OK : TG_ESYSTEM;
}

enum tg_rc
tg_seal(struct tg_slice key, struct tg_slice text, struct tg_slice bound, unsigned char *out)
{
    unsigned char nonce[TG_SEAL_NONCE];
    if (RAND_bytes(nonce, sizeof nonce) != 1) {
        ERR_clear_error();
        return TG_ESYSTEM;
    }
    return tg_seal_with(key, nonce, text, bound, out);
}

enum tg_rc
tg_seal_open(struct tg_slice key, struct tg_slice sealed, struct tg_slice bound, unsigned char *out)
{
    EVP_CIPHER_CTX *context = open_context();
    if (check(key, sealed, bound) != TG_OK) {
        return TG_EINVAL;
    }
    if (sealed.n < TG_SEAL_EXTRA) {
        return TG_EDENIED;
    }
    if (context == NULL) {
        return TG_ESYSTEM;
    }
    int n = 0;
    const struct tg_slice body = tg_slice_of(sealed.p + TG_SEAL_NONCE, sealed.n - TG_SEAL_EXTRA);
    unsigned char tag[TG_SEAL_TAG];
    memcpy(tag, body.p + body.n, sizeof tag);
    const bool begun = EVP_DecryptInit_ex2(context, cipher_of(key), (const unsigned char *)key.p,
                                           (const unsigned char *)sealed.p, NULL) == 1 &&
                       EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TG_SEAL_TAG, tag) == 1 &&
                       take_bound(context, bound) && convert(context, body, out);
    const bool ok = begun && EVP_DecryptFinal_ex(context, out + body.n, &n) == 1;
    close_context(context);
    if (!ok) {
        OPENSSL_cleanse(out, body.n);
    }
    return ok ? TG_OK : begun ? TG_EDENIED : TG_ESYSTEM;
}
