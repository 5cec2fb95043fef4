/*
 * password.h - password hashes as other programs write them: by libcrypt bcrypt ($2a$, $2b$, $2y$) and SHA-crypt ($5$,
 * $6$), by libargon2 Argon2 ($argon2id$, $argon2i$), and two of Apache's htpasswd: $apr1$ and {SHA}.
 *
 * Owns: nothing; the work lies in the caller's struct and is cleansed by tg_password_wipe. Used by: the border, which
 * runs it in a thread. New hashes are libcrypt's.
 */
#ifndef TG_BASE_PASSWORD_H
#define TG_BASE_PASSWORD_H

#include <crypt.h>

#include "abi.h"
#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_PASSWORD_MAX = 511,
    TG_PASSWORD_BCRYPT_MAX = 72, /* bytes; it does not see more */
    /* What a thread would not be back from in a second or two is refused. */
    TG_PASSWORD_COST_MIN = 4,
    TG_PASSWORD_COST_MAX = 15,
    TG_PASSWORD_ROUNDS_MIN = 1000,
    TG_PASSWORD_ROUNDS_MAX = 1000000
};

struct tg_password {
    bool makes; /* a hash; otherwise it is compared with one */
    bool quick; /* takes microseconds */
    char text[TG_PASSWORD_MAX + 1];
    char hash[CRYPT_OUTPUT_SIZE]; /* the one to compare with; the setting of a new one, then the new one */
    struct crypt_data data;
};

/* Whether passwords can be compared with `hash`: TG_OK, TG_EINVAL or TG_ELIMIT, as below. */
TG_MUST_CHECK enum tg_rc tg_password_judge(struct tg_slice hash);
/*
 * Prepares a comparison, for a zeroed `password`. TG_OK: tg_password_run will tell. TG_EDENIED: no password with a NUL
 * in it, or longer than the hash sees, can match: what libcrypt would cut off counts. TG_EINVAL: `hash` is malformed or
 * of another kind. TG_ELIMIT: it costs too much.
 */
TG_MUST_CHECK enum tg_rc tg_password_check(struct tg_password *password, struct tg_slice hash, struct tg_slice text);
/* Prepares a new hash, with a random salt; `cost` 0: the default. TG_EINVAL: `text` is too long, or has a NUL.
 * TG_ELIMIT: that cost is not served. TG_ESYSTEM. */
TG_MUST_CHECK enum tg_rc tg_password_make(struct tg_password *password, enum tg_abi_password_kind kind, unsigned cost,
                                          struct tg_slice text);
/* In any thread. TG_OK: it matches; or hash is the new one. TG_EDENIED: it does not match. TG_EINVAL: `hash` cannot be.
 * TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_password_run(struct tg_password *password);
/* Cleanses all of it. */
void tg_password_wipe(struct tg_password *password);

#endif
