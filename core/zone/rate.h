/*
 * rate.h - the algorithms of limits: what was counted, what comes of a request, and what is counted then.
 *
 * Owns nothing: what a limit has counted for a key is a list of numbers, in bytes that need not stand where a double
 * may. Used by: zone/allowance.c, which keeps these lists. Does not know where they are, nor what is limited. The
 * scripts of lua/tidegate/limit_script.lua do the same in Redis.
 */
#ifndef TG_ZONE_RATE_H
#define TG_ZONE_RATE_H

#include <stdbool.h>

#include "abi.h"

/* Both in seconds. That of another worker may be a little ahead. */
struct tg_rate_clock {
    double monotonic;
    double wall;
};

/* A list of `count` numbers; 0: nothing was counted, or it is over. `p` is borrowed. */
struct tg_rate_list {
    const char *p;
    size_t count;
};

enum { TG_RATE_SHORT = 3 }; /* numbers of a list, but that of a log */

/* What is to be counted. Of a log: how many units more, and the list itself is what tg_rate_log makes of it. */
struct tg_rate_next {
    double numbers[TG_RATE_SHORT];
    size_t count; /* numbers of the list that is to be */
    double ttl;   /* seconds for which it means anything */
    double units;
};

/* What comes of a request that costs so much. Changes nothing: `next` is what is to be counted if it is charged. */
void tg_rate_take(const struct tg_abi_limit *limit, struct tg_rate_list list, double cost, struct tg_rate_clock clock,
                  struct tg_abi_taken *taken, struct tg_rate_next *next);
/* What is counted with so much more, or less; never below 0. */
void tg_rate_add(const struct tg_abi_limit *limit, struct tg_rate_list list, double amount, struct tg_rate_clock clock,
                 struct tg_rate_next *next);
/* How much is used. */
double tg_rate_used(const struct tg_abi_limit *limit, struct tg_rate_list list, struct tg_rate_clock clock);

/* Counts `units` more at `now`, or less, in the list of a log, which has `count` numbers. */
void tg_rate_log(char *p, size_t count, double units, double now);
/* The newest moments of a log for one of another size. */
void tg_rate_log_copy(struct tg_rate_list list, char *to, size_t count);

#endif
