/*
 * seal.h - text that only the holders of a key can read or make (AES-GCM, NIST SP 800-38D), by OpenSSL.
 *
 * Owns: the two ciphers, fetched once. Used by: the border. A sealed text is nonce (12 bytes), ciphertext, tag (16).
 * The nonce is random, so a key is good for 2^32 texts (SP 800-38D, section 8.3).
 */
#ifndef TG_BASE_SEAL_H
#define TG_BASE_SEAL_H

#include "base/rc.h"
#include "base/slice.h"

enum { TG_SEAL_NONCE = 12, TG_SEAL_TAG = 16, TG_SEAL_EXTRA = TG_SEAL_NONCE + TG_SEAL_TAG };

/*
 * Writes text.n + TG_SEAL_EXTRA bytes. `key` is 16 or 32 bytes long (AES-128, AES-256), otherwise TG_EINVAL. `bound` is
 * not in the sealed text, and must be the same when it is opened. Less than 2^31 - 1 bytes each. TG_ESYSTEM.
 */
TG_MUST_CHECK enum tg_rc tg_seal(struct tg_slice key, struct tg_slice text, struct tg_slice bound, unsigned char *out);
/* As tg_seal with a nonce that is given: for vectors. The same nonce for two texts gives the key away. */
TG_MUST_CHECK enum tg_rc tg_seal_with(struct tg_slice key, const unsigned char *nonce, struct tg_slice text,
                                      struct tg_slice bound, unsigned char *out);
/*
 * Writes sealed.n - TG_SEAL_EXTRA bytes. TG_EDENIED: another key, another `bound`, or it was changed or cut; `out` is
 * cleansed then.
 */
TG_MUST_CHECK enum tg_rc tg_seal_open(struct tg_slice key, struct tg_slice sealed, struct tg_slice bound,
                                      unsigned char *out);

#endif
