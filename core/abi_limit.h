/*
 * abi_limit.h - the part of abi.h about limits that are counted in memory that all workers share.
 */
#ifndef TG_ABI_LIMIT_H
#define TG_ABI_LIMIT_H

#include "abi_cell.h"

struct tg_abi_exchange;

enum tg_abi_algorithm {
    TG_LIMIT_GCRA = 0,    /* the generic cell rate algorithm: `rate` in `per`, and `burst` at once */
    TG_LIMIT_LEAKY = 1,   /* one after the other; who would have to wait longer than `delay` is refused */
    TG_LIMIT_FIXED = 2,   /* counted from 0 in each window */
    TG_LIMIT_SLIDING = 3, /* this window and, as much as is not yet over, the one before */
    TG_LIMIT_LOG = 4,     /* the moments of the last `rate` units, a whole number */
    TG_LIMIT_ALGORITHMS = 5
};

struct tg_abi_limit {
    uint32_t algorithm;
    uint32_t padding;
    double rate; /* units in `per` */
    double per;  /* seconds */
    double burst;
    double delay; /* seconds */
};

/* What came of a request, by one limit. */
struct tg_abi_taken {
    uint32_t ok;
    uint32_t padding;
    double left;  /* whole units */
    double retry; /* seconds until there is room for as much; infinite: never */
    double reset; /* seconds until all is free */
    double wait;  /* seconds that it is to be delayed */
};

enum { TG_LIMITS = 8 }; /* that are counted together */

/* Where the last decision left what it was made of. */
TG_ABI struct tg_abi_taken *tg_abi_limit_taken(uint32_t place);
/*
 * Counts `cost` at the key `scope` + `key` of a dictionary, and of all workers nobody comes between: 1 when it is
 * let through, 0 when it is refused and, unless `charge` is set, not counted. A cost of 0 only looks. -TG_EINVAL: the
 * key is too long; -TG_ELIMIT: the dictionary has no room; -TG_ESYSTEM.
 */
TG_ABI int tg_abi_limit_take(uint32_t dict, const struct tg_abi_limit *limit, const char *scope, size_t scope_len,
                             const char *key, size_t key_len, double cost, int charge);
/* The same for `count` limits that were named before, each in its place: all of them let it through, or none counts it.
 * The limits are borrowed until then, the keys are copied. */
TG_ABI int tg_abi_limit_name(uint32_t place, const struct tg_abi_limit *limit, const char *scope, size_t scope_len,
                             const char *key, size_t key_len);
TG_ABI int tg_abi_limit_take_all(uint32_t dict, uint32_t count, double cost, int charge);

/* How clients are told what is left. */
enum tg_abi_limit_form {
    TG_LIMIT_DRAFT = 1,      /* RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers */
    TG_LIMIT_X_RATELIMIT = 2 /* X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset */
};
/*
 * Tells (tg_abi_tell) what the last decision on one limit has left, in these forms. `policy`, the field of the draft,
 * is borrowed as long as the exchange lasts; `title` begins the other one. -TG_ENOMEM.
 */
TG_ABI int tg_abi_limit_tell(struct tg_abi_exchange *x, uint32_t forms, const struct tg_abi_limit *limit,
                             const char *policy, size_t policy_len, const char *title, size_t title_len);

enum tg_abi_limit_change {
    TG_LIMIT_ADD = 0, /* so much more, whatever comes of it; less when it is below 0 */
    TG_LIMIT_SET = 1, /* as much is used from now on; what is used may be off by a hundredth */
    TG_LIMIT_REMOVE = 2
};
/* vm.number is what was used before. */
TG_ABI int tg_abi_limit_change(uint32_t dict, const struct tg_abi_limit *limit, const char *scope, size_t scope_len,
                               const char *key, size_t key_len, int change, double amount);

#endif
