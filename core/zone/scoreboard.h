/*
 * scoreboard.h - what the master sees of its workers: a piece of shared memory for each slot.
 *
 * Owns: the mapping. Written by a slot's worker alone, read by the master. No locks: each field stands for itself.
 */
#ifndef TG_ZONE_SCOREBOARD_H
#define TG_ZONE_SCOREBOARD_H

#include <stdint.h>

#include "base/limit.h"
#include "base/rc.h"

enum { TG_WORKERS_MAX = 128 };

struct tg_score {
    _Alignas(128) volatile uint64_t heartbeat; /* milliseconds of the monotonic clock; 0: not running */
    volatile uint64_t generation;              /* serial of the one that is current there */
    volatile uint32_t mark[3];                 /* index of the use that runs (0: none), of its route, serial of both */
    volatile uint64_t connections;             /* accepted since the start */
    volatile uint64_t requests;
    volatile uint64_t active;
    volatile uint64_t failed;
    volatile uint64_t lua_bytes;              /* of the current generation's VM */
    volatile uint64_t generations;            /* VMs alive */
    volatile uint64_t log_lost;               /* lines of the error log and the access logs */
    volatile uint64_t pressure;               /* how short memory is: enum tg_pressure of proxy/ */
    volatile uint64_t limits[TG_LIMIT_COUNT]; /* how often each was reached */
};

struct tg_scoreboard {
    struct tg_score scores[TG_WORKERS_MAX];
};

/* Shared with processes forked afterwards. NULL when memory is short. */
struct tg_scoreboard *tg_scoreboard_new(void);
void tg_scoreboard_free(struct tg_scoreboard *board);

#endif
