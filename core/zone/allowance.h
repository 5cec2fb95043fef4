/*
 * allowance.h - how much of something each key has used, counted in a dictionary by all workers together.
 *
 * Owns nothing: what was counted is a list of numbers in a dictionary (zone/dict.h), and lives as long as that. A
 * decision is made and counted while what it is made of is held, so nobody comes between. Used by: the border to Lua.
 * Does not know what is limited.
 */
#ifndef TG_ZONE_ALLOWANCE_H
#define TG_ZONE_ALLOWANCE_H

#include "base/rc.h"
#include "zone/dict.h"
#include "zone/rate.h"

/* Where a limit counts. Both are borrowed. */
struct tg_allowance {
    const struct tg_abi_limit *limit;
    const char *key;
    size_t n;
};

/* `now` in milliseconds of the monotonic clock, `wall` in seconds of that of the days. */
struct tg_allowance_clock {
    uint64_t now;
    double wall;
};

/*
 * TG_OK: *allowed tells whether all of 1 to TG_LIMITS limits let through what costs so much; it is counted by all if
 * so, or if `charge` is set, else by none, and never at a cost of 0. `taken`: what came of each. TG_EINVAL: a key is
 * empty or too long. TG_ELIMIT: there is no room to count it; limits before that one have.
 */
TG_MUST_CHECK enum tg_rc tg_allowance_take(struct tg_dict *dict, struct tg_allowance_clock clock,
                                           const struct tg_allowance *limits, unsigned count, double cost, bool charge,
                                           struct tg_abi_taken *taken, bool *allowed);
/* Counts so much more, sets or removes what is used; *used is what that was before. Errors as above, and TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_allowance_change(struct tg_dict *dict, struct tg_allowance_clock clock,
                                             const struct tg_allowance *one, enum tg_abi_limit_change change,
                                             double amount, double *used);

#endif
