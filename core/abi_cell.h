/*
 * abi_cell.h - the part of abi.h about cells: what all workers know of peers, upstreams and routes, in shared memory.
 */
#ifndef TG_ABI_CELL_H
#define TG_ABI_CELL_H

#include <stddef.h>
#include <stdint.h>

#define TG_ABI __attribute__((visibility("default")))

/* Why a peer gets no requests: bits of tg_abi_cell.flags. */
enum tg_abi_cell_flag {
    TG_CELL_DOWN = 1,     /* an operator has taken it out */
    TG_CELL_DRAIN = 2,    /* the same, but for those that are bound to it */
    TG_CELL_UNHEALTHY = 4 /* its health checks fail */
};

/* State of a breaker: the low bits of tg_abi_cell.breaker. */
enum tg_abi_breaker {
    TG_BREAKER_CLOSED = 0,
    TG_BREAKER_OPEN = 1,
    TG_BREAKER_HALF_OPEN = 2, /* probes are let through */
    TG_BREAKER_FAILED = 3     /* a probe has failed */
};

enum { TG_CELL_BUCKETS = 8 };

/*
 * What all workers know of a peer, an upstream or a route, in shared memory. Lua reads it in place; it is changed by
 * the core alone. Times are seconds of vm.monotonic where nothing else is said.
 */
struct tg_abi_cell {
    uint32_t index;
    uint32_t flags;   /* enum tg_abi_cell_flag */
    uint32_t version; /* of an upstream: grows when one of its peers comes or goes */
    uint32_t in_flight;
    uint32_t breaker; /* bits 0 to 1 state, 2 to 15 period, 16 to 23 probes let through, 24 to 31 that went well */
    uint32_t breaker_until; /* in units of 32 ms */
    float latency;          /* moving average, which grows at once and falls slowly */
    uint32_t latency_at;    /* milliseconds */
    uint64_t requests;
    uint64_t failures;
    uint32_t consecutive; /* failures in a row */
    uint32_t ejections;   /* of a peer, in a row */
    uint32_t opened;      /* how often in a row the breaker has opened */
    uint32_t limit;       /* of requests in flight, adapted; 0: none yet */
    double ejected_until;
    double up_since;    /* 0: from the start */
    uint64_t retries;   /* of an upstream */
    uint32_t waiting;   /* requests that wait for room */
    uint32_t opened_at; /* milliseconds; of the breaker */
    uint64_t time;      /* microseconds that its requests have taken in all, */
    uint64_t timed;     /* and how many these were */
    uint64_t unused[2];
    uint64_t window[8]; /* TG_CELL_BUCKETS of results: 16 bits each for the time, all, failed and slow ones */
    uint64_t budget[8]; /* of ten seconds: 16 bits for the time, 24 each for requests and retries */
    uint64_t waits[4];  /* a bit for each worker in which some wait */
    uint64_t mark;      /* the generation that wants it */
    uint64_t wanted;    /* milliseconds; when one last did */
    uint64_t reserved[10];
};

/* How results are judged; made in set-up, and as lasting as the generation. */
struct tg_abi_rules {
    uint64_t failures[10]; /* a bit for each status that counts as a failure; 600 and more: codes of gRPC */
    uint64_t retried[10];  /* a bit for each status after which another attempt may be made */
    uint32_t window;       /* milliseconds */
    uint32_t slow;         /* milliseconds, from which on an answer is slow; 0: none is */
    uint32_t consecutive;  /* Lua hears of that many failures in a row; 0: of none, */
    uint32_t min;          /* and, when there are at least this many results in the window, */
    double failed;         /* of this share of failures; above 1: of none, */
    double slow_share;     /* and of slow ones */
    uint32_t timed;        /* 1: their times are added up */
    uint32_t spare;
};

/* What a request in flight is counted in. */
struct tg_abi_watch {
    struct tg_abi_cell *cell;         /* NULL: nothing */
    const struct tg_abi_rules *rules; /* NULL: 5xx are failures, and nobody wants to hear of them */
    uint32_t probe;                   /* the period of the breaker in which it is a probe; 0: it is none */
    uint32_t held;                    /* 1: it is counted as in flight already */
};

/* tg_abi_exchange.watch: that of a route lasts as long as the exchange, the others for one attempt. */
enum tg_abi_watch_of { TG_WATCH_PEER = 0, TG_WATCH_UPSTREAM = 1, TG_WATCH_ROUTE = 2, TG_WATCHES = 3 };

/*
 * Cells: NULL when there are too many, or the key is too long. The current generation keeps those that it has, again
 * every few seconds, until it has no more use for one (`keep` 0). breaker_enter, budget_retry: as in zone/cell.h; the
 * period goes into vm.number. sum: results of the window, into vm.number (all), vm.out.n (failed) and vm.type (slow).
 */
TG_ABI struct tg_abi_cell *tg_abi_cell(const char *key, size_t n);
TG_ABI void tg_abi_cell_keep(struct tg_abi_cell *cell, int keep);
TG_ABI int tg_abi_cell_flag(struct tg_abi_cell *cell, uint32_t set, uint32_t clear);
TG_ABI void tg_abi_cell_changed(struct tg_abi_cell *upstream);
TG_ABI void tg_abi_cell_up(struct tg_abi_cell *cell, double since);
TG_ABI int tg_abi_cell_eject(struct tg_abi_cell *cell, double until, uint32_t ejections);
TG_ABI void tg_abi_cell_sum(struct tg_abi_cell *cell, uint32_t window);
TG_ABI int tg_abi_cell_breaker_enter(struct tg_abi_cell *cell, uint32_t probes, uint32_t patience);
TG_ABI int tg_abi_cell_breaker_set(struct tg_abi_cell *cell, uint32_t seen, int state, double until, uint32_t opened);
TG_ABI int tg_abi_cell_budget_retry(struct tg_abi_cell *cell, double share, uint32_t least);
/*
 * Room for a request in the cell of a watch: of an exchange, which then holds it until it has ended, or of the next
 * call, which must be started before anything waits. `most` 0: there always is. -TG_EBUSY.
 */
TG_ABI int tg_abi_cell_enter(struct tg_abi_watch *watch, uint32_t most);
/* How many wait in this worker. */
TG_ABI void tg_abi_cell_set_waiting(struct tg_abi_cell *cell, uint32_t count);
TG_ABI void tg_abi_cell_set_limit(struct tg_abi_cell *cell, uint32_t limit);
/*
 * What happens to cells: the running coroutine is woken for it from now on. next: the index of a cell of which there is
 * something to hear, TG_CELLS_MAX: all those in which requests wait; -TG_ENONE: nothing.
 */
TG_ABI int tg_abi_cell_listen(void);
TG_ABI int tg_abi_cell_next(void);
/* What the next call that is started is counted in, up to tg_abi_watch_of ROUTE; cleared by it, or, when none is, by
 * unwatch. */
TG_ABI struct tg_abi_watch *tg_abi_call_watch(void);
TG_ABI void tg_abi_call_unwatch(void);

#endif
