/*
 * stats.h - what was counted, and the last exchanges, as JSON on the control socket.
 *
 * Owns: nothing; reads the rows of shared memory. Used by: master.c. Does not know: what a number means to a person;
 * the tools of the command line make tables of it. Needs no worker, so it answers also when none does.
 */
#ifndef TG_PROCESS_STATS_H
#define TG_PROCESS_STATS_H

#include "process/control.h"
#include "process/generation.h"
#include "process/upstreams.h"
#include "zone/metric.h"

struct tg_stats {
    struct tg_metrics *metrics;
    const struct tg_generation *current;
    struct tg_upstreams upstreams;
    double now; /* wall clock */
};

/*
 * Carries out "routes" (what the configuration says of each), "upstreams" (what is known of them and their peers; with
 * a name, of one), "stats" (what was counted of routes and plugins), "failures" (exchanges that failed or were slow)
 * and "tail" (exchanges since the cursor in the payload, which the answer to the one before has told; without one a
 * cursor alone). False: `line` is none of these.
 */
bool tg_stats_command(const struct tg_stats *stats, struct tg_control_client *client, const char *line);

#endif
