/*
 * canary.h - a generation on trial: a share of the requests runs on it, and what it does is held against the current
 * one.
 *
 * Owns: the numbers that the trial began with. Used by: reload.c, which acts on the judgement. Does not know: workers.
 */
#ifndef TG_PROCESS_CANARY_H
#define TG_PROCESS_CANARY_H

#include "abi.h"
#include "base/rc.h"
#include "zone/metric.h"

enum { TG_CANARY_WHOLE = 10000 /* parts of all requests */, TG_CANARY_BY = 72 };

struct tg_canary_options {
    unsigned share;        /* of TG_CANARY_WHOLE; 0: no canary */
    unsigned watch;        /* seconds */
    unsigned errors;       /* so many more of TG_CANARY_WHOLE may fail than on the current generation */
    unsigned latency;      /* percent of the current one's 95th percentile that it may reach */
    unsigned least;        /* requests; with fewer of them it is not promoted */
    bool detach;           /* who asks does not wait for the end */
    bool shadow;           /* it answers nothing, and is never made live by itself */
    char by[TG_CANARY_BY]; /* "client", or "header NAME": what decides on which side a request is */
};

enum tg_canary_verdict { TG_CANARY_GOES_ON, TG_CANARY_PROMOTE, TG_CANARY_ROLL_BACK };

struct tg_canary {
    struct tg_canary_options options;
    uint64_t current; /* serials */
    uint64_t serial;
    uint64_t since;                        /* milliseconds */
    struct tg_abi_generation_count before; /* what the current one had counted */
    char why[256];                         /* of the verdict */
};

/*
 * Reads words such as "--canary=5% (or --shadow, --shadow=5%) --watch=60s --by=header:X-Tenant --max-errors=1%
 * --max-latency=150% --least=100
 * --detach" over what *options has. TG_EINVAL and `err`, which says which word.
 */
TG_MUST_CHECK enum tg_rc tg_canary_read(const char *words, struct tg_canary_options *options, struct tg_err *err);
void tg_canary_begin(struct tg_canary *canary, const struct tg_metrics *metrics, uint64_t current, uint64_t serial,
                     uint64_t now);
enum tg_canary_verdict tg_canary_judge(struct tg_canary *canary, const struct tg_metrics *metrics, uint64_t now);
/* As a JSON object, NUL-terminated. */
void tg_canary_json(const struct tg_canary *canary, const struct tg_metrics *metrics, const char *id, uint64_t now,
                    char *out, size_t size);

#endif
