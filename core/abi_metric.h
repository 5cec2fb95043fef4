/*
 * abi_metric.h - the part of abi.h about what is counted: a row for each worker in shared memory, and the last
 * exchanges.
 *
 * A row is written by its worker alone; who wants the whole adds the rows up. So nothing is locked, and nothing waits.
 */
#ifndef TG_ABI_METRIC_H
#define TG_ABI_METRIC_H

#include <stdint.h>

enum {
    TG_METRIC_METHODS = 10, /* by tg_abi_exchange.method_id; 0: any other */
    TG_METRIC_CLASSES = 5,  /* of statuses, 1xx to 5xx */
    TG_METRIC_REQUESTS = 50,
    TG_METRIC_BUCKETS = 16,
    TG_METRIC_ROUTES = 4096,     /* 0: requests that no route has taken; 1: those of all routes that are too many */
    TG_METRIC_UNCOUNTED = 65535, /* as a route: the exchange is not counted */
    TG_METRIC_SERIES = 16384,
    TG_METRIC_GENERATIONS = 8, /* by serial, in turn */
    TG_METRIC_TRAILS = 256,    /* exchanges that a worker remembers in each list */
    TG_METRIC_KEY = 384        /* bytes of a series' name and labels, less one */
};

/* A distribution of durations. Upper bounds of the buckets: tg_abi_metric_bounds; the last one has none. */
struct tg_abi_histogram {
    uint64_t counts[16];
    uint64_t micros; /* together */
};

/* What all workers have counted of a route. */
struct tg_abi_route_count {
    uint64_t requests[50]; /* by method times TG_METRIC_CLASSES, plus the class of the status less one */
    uint64_t aborted;      /* the client went away, or the response was cut */
    uint64_t bytes_in;     /* bodies */
    uint64_t bytes_out;
    struct tg_abi_histogram duration; /* of exchanges */
    struct tg_abi_histogram policy;   /* up to the first attempt, or to the end when there is none */
    struct tg_abi_histogram upstream; /* from the first attempt to the response head */
};

/* What it has counted of a generation. */
struct tg_abi_generation_count {
    uint64_t serial;
    uint64_t requests;
    uint64_t failed; /* 5xx, or cut by the gateway */
    uint64_t raised; /* errors of plugins */
    struct tg_abi_histogram duration;
};

/* Which distribution of a route an exemplar belongs to. */
enum tg_abi_exemplar_of { TG_EXEMPLAR_DURATION = 0, TG_EXEMPLAR_UPSTREAM = 1 };

/* One exchange of a bucket whose trace was recorded: the last one. */
struct tg_abi_exemplar {
    double at; /* wall clock, when the exchange was over */
    double seconds;
    char trace[32]; /* hexadecimal digits, without a NUL */
};

/* Numbers of a worker: tg_abi_metric_worker. Those after the last are how often each limit was reached, by enum
 * tg_limit. */
enum tg_abi_worker_count {
    TG_COUNT_CONNECTIONS = 0, /* accepted */
    TG_COUNT_REQUESTS = 1,
    TG_COUNT_FAILED = 2,
    TG_COUNT_ACTIVE = 3, /* connections that are open; a state and no sum, as the next ones up to PEERS_IDLE */
    TG_COUNT_LUA_BYTES = 4,
    TG_COUNT_GENERATIONS = 5,
    TG_COUNT_LAG_MICROS = 6, /* the longest that the loop was late in the last ten seconds */
    TG_COUNT_PRESSURE = 7,
    TG_COUNT_PEERS_OPEN = 8, /* connections to peers, in use or idle, */
    TG_COUNT_PEERS_IDLE = 9, /* and of these those that are idle */
    TG_COUNT_LOG_LOST = 10,
    TG_COUNT_HANDSHAKES = 11, /* of TLS with clients, that have ended well */
    TG_COUNT_RESUMED = 12,    /* of these, */
    TG_COUNT_TLS13 = 13,
    TG_COUNT_SESSIONS = 14,   /* connections of HTTP/2 */
    TG_COUNT_OPENED = 15,     /* connections to peers */
    TG_COUNT_REUSED = 16,     /* attempts that went out on one that was there */
    TG_COUNT_LUA_MADE = 17,   /* bytes of Lua memory that were allocated */
    TG_COUNT_LUA_FREED = 18,  /* and those that the collector has found to be garbage */
    TG_COUNT_KERNEL_TLS = 19, /* handshakes after which the kernel encrypts */
    TG_COUNT_UNSHAKEN = 20,   /* handshakes that came to nothing: refused, ended by the client, or too late */
    TG_COUNT_LIMITS = 21
};

/* One exchange as it is remembered. Texts end in NUL, and are cut where they are too long. */
struct tg_abi_trail {
    uint64_t number; /* grows with each one of the worker; odd while it is being written: doubled, plus one */
    double started;  /* wall clock */
    double duration;
    double upstream_time; /* -1: none */
    uint64_t bytes_out;
    uint64_t generation;
    uint32_t route; /* place among the routes that are counted */
    int32_t error;  /* enum tg_rc */
    uint16_t status;
    uint16_t attempts;
    uint8_t source; /* enum tg_abi_source */
    uint8_t aborted;
    uint8_t version;
    uint8_t reason; /* enum tg_abi_trail_reason */
    char method[16];
    char host[64];
    char path[160]; /* without the query, which may hold secrets */
    char client[46];
    char peer[66];
};

/* Why an exchange is remembered. */
enum tg_abi_trail_reason { TG_TRAIL_ANY = 0, TG_TRAIL_FAILED = 1, TG_TRAIL_SLOW = 2 };

/* Microseconds: TG_METRIC_BUCKETS - 1 upper bounds. */
TG_ABI const uint64_t *tg_abi_metric_bounds(void);
/* Rows there are; not all have been written. This worker's own. */
TG_ABI uint32_t tg_abi_metric_rows(void);
TG_ABI uint32_t tg_abi_metric_row(void);
/* The place of a route among those that are counted, known or new; 1 when there are too many. */
TG_ABI uint32_t tg_abi_metric_route(const char *name, size_t n);
/* Its name: vm.out. -TG_ENONE: there is none at this place. */
TG_ABI int tg_abi_metric_route_name(uint32_t route);
/* Adds all rows up. */
TG_ABI void tg_abi_metric_route_sum(uint32_t route, struct tg_abi_route_count *sum);
/* Of the generation with this serial. */
TG_ABI void tg_abi_metric_generation_sum(uint64_t serial, struct tg_abi_generation_count *sum);
TG_ABI double tg_abi_metric_worker(uint32_t row, uint32_t number);
/* The name of a limit: vm.out. -TG_ENONE. */
TG_ABI int tg_abi_metric_limit(uint32_t limit);

/* The exchange, whose trace is `trace` (32 hexadecimal digits), stands for its buckets from now on. */
TG_ABI void tg_abi_metric_exemplar_set(const struct tg_abi_exchange *x, const char *trace, size_t n);
/* What stands for a bucket of a route: -TG_ENONE: nothing. `of`: enum tg_abi_exemplar_of */
TG_ABI int tg_abi_metric_exemplar(uint32_t route, uint32_t of, uint32_t bucket, struct tg_abi_exemplar *out);

/* A series of Lua's: its place, known or new; -TG_ELIMIT: there are too many. */
TG_ABI int tg_abi_metric_series(const char *key, size_t n);
/* Whether it has a place: 1 or 0. */
TG_ABI int tg_abi_metric_known(const char *key, size_t n);
/* The key of a place: vm.out; -TG_ENONE. */
TG_ABI int tg_abi_metric_series_key(uint32_t series);
/* Where this worker counts, by place: others add up what stands there. */
TG_ABI double *tg_abi_metric_values(void);
TG_ABI double tg_abi_metric_series_sum(uint32_t series);
/* Of one that all workers have in common. */
TG_ABI double tg_abi_metric_shared_get(uint32_t series);
TG_ABI void tg_abi_metric_shared_set(uint32_t series, double value);
TG_ABI void tg_abi_metric_shared_add(uint32_t series, double by);

/* A plugin of the running generation has raised. */
TG_ABI void tg_abi_metric_raised(void);
/* The exchange of the row's list that has this number, or -TG_ENONE: it was overwritten, or is not there yet. `failed`:
 * of those that failed or were slow, otherwise of all, which are kept while somebody watches. */
TG_ABI int tg_abi_trail_read(uint32_t row, int failed, uint64_t number, struct tg_abi_trail *out);
/* The number that the next one gets. */
TG_ABI double tg_abi_trail_next(uint32_t row, int failed);
/* All are remembered for so many seconds from now. */
TG_ABI void tg_abi_trail_watch(double seconds);
/* Seconds from which on an exchange is slow, for this worker. */
TG_ABI void tg_abi_trail_slow(double seconds);

#endif
