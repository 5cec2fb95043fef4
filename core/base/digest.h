/*
 * digest.h - message digests and HMAC (FIPS 180-4, RFC 2104), by OpenSSL.
 *
 * Owns: one context an algorithm, fetched at its first use and kept for the process; so it is for one thread, the
 * loop's. Used by: key.c and the border.
 */
#ifndef TG_BASE_DIGEST_H
#define TG_BASE_DIGEST_H

#include "abi.h"
#include "base/rc.h"

enum { TG_DIGEST_MAX = 64 /* bytes of the longest */ };

/* Bytes of its result. */
size_t tg_digest_size(enum tg_abi_digest algorithm);
/* "SHA256" and so on: what OpenSSL calls it. */
const char *tg_digest_name(enum tg_abi_digest algorithm);

/* Writes tg_digest_size bytes. TG_ESYSTEM: this OpenSSL does not have it (MD5 under FIPS), or memory is short. */
TG_MUST_CHECK enum tg_rc tg_digest(enum tg_abi_digest algorithm, const void *p, size_t n, unsigned char *out);
TG_MUST_CHECK enum tg_rc tg_digest_hmac(enum tg_abi_digest algorithm, const void *key, size_t key_len, const void *p,
                                        size_t n, unsigned char *out);

#endif
