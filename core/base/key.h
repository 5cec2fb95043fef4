/*
 * key.h - keys that sign and verify, by the algorithms of JOSE (RFC 7518, section 3.1, and RFC 8037).
 *
 * Owns: an OpenSSL key, or the bytes of a shared secret, which are cleansed when it is freed. Used by: the border.
 * A key has one kind and serves only the algorithms of that kind and, for EC, of its curve: a public key can never be
 * taken for a shared secret, whatever a token says. For one thread, the loop's. Does not know: tokens, Base64.
 */
#ifndef TG_BASE_KEY_H
#define TG_BASE_KEY_H

#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_KEY_RSA_MIN = 2048, /* bits */
    TG_KEY_RSA_MAX = 8192, /* a signature with more would hold the loop for a tenth of a second */
    TG_KEY_PART_MAX = 1100,
    TG_KEY_SECRET_MAX = 16 * 1024,
    TG_KEY_TEXT_MAX = 64 * 1024,
    TG_KEY_SIGNATURE_MAX = TG_KEY_RSA_MAX / 8
};

/* The first member is what Lua sees. */
struct tg_key;

/*
 * A key from PEM or DER: PKCS #1, PKCS #8 (also encrypted), SEC 1, SubjectPublicKeyInfo. `password` is for an encrypted
 * one. On TG_OK *out is to be freed with tg_key_free. TG_EINVAL and `why`, a static text: it cannot be read, or is of a
 * kind, size or curve that is not served. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_key_read(struct tg_slice text, struct tg_slice password, struct tg_key **out,
                                     const char **why);
/* The same from the numbers of a JWK; parts[enum tg_abi_key_part], those that are not there are empty. */
TG_MUST_CHECK enum tg_rc tg_key_make(enum tg_abi_key_kind kind, unsigned bits, const struct tg_slice *parts,
                                     struct tg_key **out, const char **why);
/* NULL is allowed. */
void tg_key_free(struct tg_key *key);

/* A public part, as a JWK has it before Base64, into `out` of TG_KEY_PART_MAX bytes. TG_ENONE: it has no such part. */
TG_MUST_CHECK enum tg_rc tg_key_part(const struct tg_key *key, enum tg_abi_key_part part, unsigned char *out,
                                     size_t *out_n);
/* The bytes of a shared secret; empty for other kinds. */
struct tg_slice tg_key_secret(const struct tg_key *key);

/*
 * TG_OK: `signature` is that of `data`. TG_EDENIED: it is not. TG_EINVAL: the key does not serve this algorithm.
 * TG_ELIMIT: the secret is shorter than the digest (RFC 7518, section 3.2). TG_ESYSTEM.
 */
TG_MUST_CHECK enum tg_rc tg_key_verify(struct tg_key *key, enum tg_abi_signature algorithm, struct tg_slice data,
                                       struct tg_slice signature);
/* Writes up to TG_KEY_SIGNATURE_MAX bytes. Errors as above; TG_ENONE: it is a public key. */
TG_MUST_CHECK enum tg_rc tg_key_sign(struct tg_key *key, enum tg_abi_signature algorithm, struct tg_slice data,
                                     unsigned char *out, size_t *out_n);

#endif
