/*
 * argon2.h - password hashes of Argon2id and Argon2i, version 1.3 (RFC 9106), as texts: $argon2id$v=19$m=...
 *
 * Owns: nothing. Used by: password.c alone. What of memory and time a hash may ask for is bounded here: it is a text of
 * somebody else's. Argon2d is not served: how long it takes tells of the password.
 */
#ifndef TG_BASE_ARGON2_H
#define TG_BASE_ARGON2_H

#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_ARGON2_MEMORY_MAX = 65536, /* KiB: the second choice of RFC 9106, section 4 */
    TG_ARGON2_WORK_MAX = 524288,  /* KiB filled in all passes: some 300 ms */
    TG_ARGON2_LANES_MAX = 16
};

/* TG_OK: it is one, and can be compared with. TG_EINVAL: it is malformed. TG_ELIMIT: it costs too much. */
TG_MUST_CHECK enum tg_rc tg_argon2_judge(const char *hash);
/* TG_OK: it is the hash of `text`. TG_EDENIED: it is not. Otherwise as above; TG_ENOMEM. In one thread, the caller's.
 */
TG_MUST_CHECK enum tg_rc tg_argon2_verify(const char *hash, struct tg_slice text);

#endif
