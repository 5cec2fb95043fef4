/*
 * shadow.h - a generation in shadow: what it would have done with requests that the current one answers, as numbers and
 * one example of each kind of difference.
 *
 * Owns: the report of the trial that goes on, and those of the last ones. Used by: reload.c, which begins and ends it,
 * and status.c, which tells. Does not know: workers, which count in shared memory.
 */
#ifndef TG_PROCESS_SHADOW_H
#define TG_PROCESS_SHADOW_H

#include "process/canary.h"
#include "process/generation.h"

/* As lua/runtime/rehearsal.lua has them, in the same order. */
enum tg_shadow_kind {
    TG_SHADOW_SAME,
    TG_SHADOW_UNJUDGED, /* it cannot be known without doing it */
    TG_SHADOW_RAISED,
    TG_SHADOW_ROUTE,
    TG_SHADOW_STATUS,
    TG_SHADOW_UPSTREAM,
    TG_SHADOW_TARGET, /* method, path or query that the upstream gets */
    TG_SHADOW_HEADERS,
    TG_SHADOW_RESPONSE, /* status or headers that the client gets, where both let pass or answer alike */
    TG_SHADOW_KINDS
};

enum { TG_SHADOW_KEPT = 8, TG_SHADOW_EXAMPLE = 257 };

struct tg_shadow_report {
    char id[TG_GENERATION_ID];
    char by[64];
    char end[64]; /* how it has ended; empty: it goes on */
    double began; /* wall clock */
    double ended;
    unsigned share; /* of TG_CANARY_WHOLE */
    unsigned watch; /* seconds */
    uint64_t counts[TG_SHADOW_KINDS];
    char examples[TG_SHADOW_KINDS][TG_SHADOW_EXAMPLE]; /* empty: none yet */
};

struct tg_shadow {
    struct tg_shadow_report now;
    uint64_t before[TG_SHADOW_KINDS];             /* what earlier trials had counted */
    struct tg_shadow_report past[TG_SHADOW_KEPT]; /* newest first */
    unsigned past_count;
};

void tg_shadow_begin(struct tg_shadow *shadow, struct tg_metrics *metrics, const struct tg_generation *generation,
                     const struct tg_canary_options *options, const char *by, double now);
/* The first example of a kind stays. */
void tg_shadow_example(struct tg_shadow *shadow, unsigned kind, const char *text);
/* Brings the numbers of the report up to date. */
void tg_shadow_count(struct tg_shadow *shadow, struct tg_metrics *metrics);
/* The report goes to those of the past; it is the first of them. `how`: "promoted by x". */
void tg_shadow_end(struct tg_shadow *shadow, struct tg_metrics *metrics, const char *how, double now);
const char *tg_shadow_kind_name(unsigned kind);

#endif
