/*
 * worker.h - a process that serves: one loop, one proxy, the current generation and those that are ending.
 *
 * Owns: its connections. Used by: fleet.c, which forks it. Shares nothing but the memory zones.
 */
#ifndef TG_PROCESS_WORKER_H
#define TG_PROCESS_WORKER_H

#include "process/generation.h"
#include "zone/cell.h"
#include "zone/metric.h"
#include "zone/scoreboard.h"

struct tg_worker_listen {
    bool used;
    int fd;
    struct tg_manifest_listen listen;
};

struct tg_worker_dict {
    char name[64];
    int fd;
};

/* What a worker begins with; all borrowed, in memory that the fork has copied. */
struct tg_worker_start {
    unsigned slot;
    unsigned workers; /* in all */
    int channel;      /* to the master */
    struct tg_score *score;
    const struct tg_generation *generation;
    const struct tg_worker_listen *listens; /* TG_LISTENERS_MAX places */
    const struct tg_worker_dict *dicts;
    unsigned dict_count;
    const struct tg_tickets *tickets;
    struct tg_cells *cells;
    struct tg_metrics *metrics;
    const struct tg_scoreboard *board;
    unsigned first_row;     /* of the workers, in the metrics */
    const int *bells;       /* of the slots: rung when there is room in an upstream */
    unsigned side;          /* where their places in the cells begin */
    unsigned drain_timeout; /* seconds */
    bool waits;             /* accepts nothing before TG_CHANNEL_ACCEPT, and ends at once when the master does */
    const struct tg_privilege *privilege;
};

/* Serves until it is told to end; returns the exit status. */
int tg_worker_run(const struct tg_worker_start *start);

#endif
