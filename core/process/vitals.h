/*
 * vitals.h - what a worker tells of itself with each beat: the scoreboard for the master, its numbers for the metrics.
 *
 * Owns: nothing; writes the slot's score and its row. Used by: worker.c.
 */
#ifndef TG_PROCESS_VITALS_H
#define TG_PROCESS_VITALS_H

#include "vm/host.h"

struct tg_vitals {
    struct tg_score *score;
    uint64_t log_lost; /* by the workers before it in this slot */
    uint64_t period;   /* microseconds between two beats */
    uint64_t beat_due; /* microseconds */
    uint64_t lag[2];   /* the longest that a beat was late, in this stretch of time and the one before; microseconds */
    unsigned beats;    /* of this stretch */
    uint64_t serial;   /* of the generation of which is known */
    uint64_t made;     /* bytes of Lua memory that it had allocated at the last beat, */
    uint64_t bytes;    /* and those that it had in use */
};

/* The worker goes on from what the one before it has counted in `row`; the proxy counts there from now on. `period`:
 * milliseconds between two beats. */
void tg_vitals_open(struct tg_vitals *vitals, struct tg_score *score, struct tg_metrics *metrics,
                    struct tg_metric_row *row, struct tg_proxy *proxy, unsigned period);
void tg_vitals_beat(struct tg_vitals *vitals, const struct tg_host *host);

#endif
