/*
 * abi_crypto.h - the part of abi.h about digests, random bytes, texts of bytes, certificates, keys and passwords.
 */
#ifndef TG_ABI_CRYPTO_H
#define TG_ABI_CRYPTO_H

#include "abi_cell.h"

struct tg_abi_exchange;
struct tg_slice;

enum tg_abi_digest {
    TG_DIGEST_MD5 = 0,
    TG_DIGEST_SHA1 = 1,
    TG_DIGEST_SHA256 = 2,
    TG_DIGEST_SHA384 = 3,
    TG_DIGEST_SHA512 = 4,
    TG_DIGEST_COUNT = 5
};

enum tg_abi_key_kind { TG_KEY_RSA = 0, TG_KEY_EC = 1, TG_KEY_OKP = 2, TG_KEY_OCT = 3 };

/* The numbers of a JWK (RFC 7518, section 6), by kind; n is also the secret of OCT. */
enum tg_abi_key_part {
    TG_KEY_N = 0,
    TG_KEY_E = 1,
    TG_KEY_D = 2,
    TG_KEY_P = 3,
    TG_KEY_Q = 4,
    TG_KEY_DP = 5,
    TG_KEY_DQ = 6,
    TG_KEY_QI = 7,
    TG_KEY_X = 0,
    TG_KEY_Y = 1,
    TG_KEY_PARTS = 8
};

/* The algorithms of JOSE. */
enum tg_abi_signature {
    TG_SIGN_RS256 = 0,
    TG_SIGN_RS384 = 1,
    TG_SIGN_RS512 = 2,
    TG_SIGN_PS256 = 3,
    TG_SIGN_PS384 = 4,
    TG_SIGN_PS512 = 5,
    TG_SIGN_ES256 = 6,
    TG_SIGN_ES384 = 7,
    TG_SIGN_ES512 = 8,
    TG_SIGN_EDDSA = 9,
    TG_SIGN_HS256 = 10,
    TG_SIGN_HS384 = 11,
    TG_SIGN_HS512 = 12,
    TG_SIGN_COUNT = 13
};

enum tg_abi_password_kind { TG_PASSWORD_BCRYPT = 0, TG_PASSWORD_SHA256 = 1, TG_PASSWORD_SHA512 = 2 };

/* A key, freed by whoever made it. */
struct tg_abi_key {
    uint32_t kind;          /* enum tg_abi_key_kind */
    uint32_t bits;          /* of the modulus, the curve or the secret */
    uint32_t secret;        /* 1: it can sign */
    uint32_t short_allowed; /* set by Lua: a secret shorter than the digest is served */
};

/*
 * Whether a certificate with its chain, and its private key, are well-formed PEM, belong together and are strong
 * enough: vm.out are the names that it is for, a line each; without a key: whether the text has certificates that
 * others can be judged by. Not 0: vm.out says why not.
 */
TG_ABI int tg_abi_certificate_check(const char *certificate, size_t certificate_len, const char *key, size_t key_len);
/* Whether `crl` has lists of revoked certificates (PEM or DER), and those of the authorities in `ca` are signed by
 * them. */
TG_ABI int tg_abi_crl_check(const char *ca, size_t ca_len, const char *crl, size_t crl_len);
/* A certificate for localhost and its key as PEM into vm.out. Not 0: none could be made. */
TG_ABI int tg_abi_self_signed(void);

/*
 * What is put out is in vm.out, valid until the next call of one of these. Random, at most 1 MiB; an id is 32
 * hexadecimal digits. Digests and HMAC: -TG_ESYSTEM: OpenSSL does not have it. hash32 is xxHash32 with seed 0.
 */
TG_ABI int tg_abi_random_id(void);
TG_ABI int tg_abi_uuid(void);
/* Each is greater than the one before. */
TG_ABI int tg_abi_uuid7(void);
/*
 * A new traceparent with the flags 00 into vm.out; and the flags of one that is given, or -TG_EPROTOCOL. vm.number is
 * what a ratio of traces is compared with, from 0 to 1: the same in whatever sees the trace.
 */
TG_ABI int tg_abi_trace_make(void);
TG_ABI int tg_abi_trace_read(const char *p, size_t n);
/* The flags of the request's traceparent; or TG_AGAIN + 255: it has none that can be read, a new one with the flags 00
 * stands there now, and no tracestate. vm.out is what stands there. */
TG_ABI int tg_abi_trace_join(struct tg_abi_exchange *x);
TG_ABI int tg_abi_random(size_t n);
TG_ABI int tg_abi_digest(int digest, const char *p, size_t n);
/* 64 hexadecimal digits into vm.out, which take 16 MiB and some 30 ms to make (scrypt): of what could be guessed. */
TG_ABI int tg_abi_slow_hash(const char *p, size_t n);
TG_ABI int tg_abi_hmac(int digest, const char *key, size_t key_len, const char *p, size_t n);
TG_ABI int tg_abi_equal(const char *a, const char *b, size_t n);
TG_ABI uint32_t tg_abi_hash32(const char *p, size_t n);
/* Bytes as text and back; -TG_EINVAL: the text is malformed, -TG_ENOMEM. `url`: the alphabet for URLs. */
TG_ABI int tg_abi_hex(const char *p, size_t n);
TG_ABI int tg_abi_unhex(const char *p, size_t n);
TG_ABI int tg_abi_base64(const char *p, size_t n, int url);
TG_ABI int tg_abi_unbase64(const char *p, size_t n, int url);
/* AES-GCM: nonce, ciphertext, tag. -TG_EINVAL: the key has not 16 or 32 bytes; -TG_EDENIED: it was not sealed so. */
TG_ABI int tg_abi_seal(const char *key, size_t key_len, const char *p, size_t n, const char *bound, size_t bound_len);
TG_ABI int tg_abi_unseal(const char *key, size_t key_len, const char *p, size_t n, const char *bound, size_t bound_len);
/* Overwrites what vm.out was after one of these. */
TG_ABI void tg_abi_forget(void);

/* NULL: vm.out says why. `parts` are by enum tg_abi_key_part, empty where there is none; `bits` is the curve's. */
TG_ABI struct tg_abi_key *tg_abi_key_read(const char *p, size_t n, const char *password, size_t password_len);
TG_ABI struct tg_abi_key *tg_abi_key_make(int kind, uint32_t bits, const struct tg_slice *parts);
TG_ABI void tg_abi_key_free(struct tg_abi_key *key);
/* A public part; of OCT, the secret. -TG_ENONE: it has no such part. */
TG_ABI int tg_abi_key_part(struct tg_abi_key *key, int part);
/* -TG_EINVAL: the key does not serve this algorithm, -TG_ELIMIT: its secret is too short for it, -TG_ENONE: it cannot
 * sign, -TG_EDENIED: the signature is another one. */
TG_ABI int tg_abi_key_sign(struct tg_abi_key *key, int algorithm, const char *p, size_t n);
TG_ABI int tg_abi_key_verify(struct tg_abi_key *key, int algorithm, const char *p, size_t n, const char *signature,
                             size_t signature_len);

/*
 * Passwords. 1: a thread works on it; the running coroutine is woken, and asks for the result until that is something
 * else. Without a running coroutine they work in place. 0: it matches, or vm.out is the new hash. -TG_EDENIED: it does
 * not match. -TG_EINVAL: the hash is malformed or of an unknown kind; no hash can be made of this password. -TG_ELIMIT:
 * the cost is not served. -TG_EBUSY: too many wait. `cost` 0: the default.
 */
TG_ABI int tg_abi_password_judge(const char *hash, size_t hash_len); /* 0, -TG_EINVAL, -TG_ELIMIT; of the hash alone */
TG_ABI int tg_abi_password_check(const char *hash, size_t hash_len, const char *p, size_t n);
TG_ABI int tg_abi_password_make(int kind, uint32_t cost, const char *p, size_t n);
TG_ABI int tg_abi_password_result(void);

#endif
