/*
 * metric.h - what is counted: a row of shared memory for each worker, and the last exchanges of each.
 *
 * Owns: the mapping of its memory, which outlives workers and, as a memory file, the master: an upgrade loses no count.
 * Used by: proxy/count.c, which counts an exchange, the border to Lua, and the master. Does not know: what a number is
 * called. No lock but for giving a name its place: a row has one writer, and readers add the rows up.
 */
#ifndef TG_ZONE_METRIC_H
#define TG_ZONE_METRIC_H

#include "abi.h"
#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_METRIC_MASTER =
        256, /* the row of the master; before it those of workers of two masters, one of which gives way */
    TG_METRIC_ROWS = 257,
    TG_METRIC_NUMBERS = 64
};

/* The numbers of the first line of a route; those of the next ones are requests of a method by class, and of the line
 * behind these, exchanges that were aborted. */
enum { TG_METRIC_IN, TG_METRIC_OUT, TG_METRIC_MICROS, TG_METRIC_ABORTED_LINE = 1 + TG_METRIC_METHODS };

/*
 * What a worker counts of a route. A line has a bucket of each distribution, by enum tg_metric_of, and five numbers
 * more: a fast exchange is counted in two or three lines that follow each other. With thousands of routes each of them
 * is a cache miss.
 */
enum tg_metric_of { TG_METRIC_DURATION, TG_METRIC_POLICY, TG_METRIC_UPSTREAM, TG_METRIC_OF };
struct tg_metric_line {
    uint64_t buckets[TG_METRIC_OF];
    uint64_t numbers[5];
};
struct tg_metric_route {
    _Alignas(64) struct tg_metric_line lines[TG_METRIC_BUCKETS];
};

struct tg_metric_row {
    _Alignas(128) uint64_t numbers[TG_METRIC_NUMBERS]; /* by enum tg_abi_worker_count */
    struct tg_abi_generation_count generations[TG_METRIC_GENERATIONS];
    uint64_t failed_next; /* number of the next trail */
    uint64_t any_next;
    struct tg_abi_trail failed[TG_METRIC_TRAILS];
    struct tg_abi_trail any[TG_METRIC_TRAILS];
    struct tg_metric_route routes[TG_METRIC_ROUTES];
    double series[TG_METRIC_SERIES];
};

struct tg_metrics;

/* A memory file with nothing counted; -1 and `err`. The descriptor is the caller's. */
int tg_metrics_create(struct tg_err *err);
/* Maps what is in `fd`, which may be closed afterwards. NULL: another version has made it, or memory is short. */
struct tg_metrics *tg_metrics_open(int fd);
void tg_metrics_close(struct tg_metrics *metrics);
/* Where the rows of a master's workers begin: 0, or half of them later, in turn. */
unsigned tg_metrics_next_side(struct tg_metrics *metrics);

struct tg_metric_row *tg_metrics_row(struct tg_metrics *metrics, unsigned row);
/* Somebody counts in the row from now on: what is there is added up. */
void tg_metrics_use(struct tg_metrics *metrics, const struct tg_metric_row *row);
bool tg_metrics_uses(const struct tg_metrics *metrics, unsigned row);
/* The worker of this row has ended: what it had open is open no more. */
void tg_metrics_forget(struct tg_metrics *metrics, unsigned row);

/* The place of a name, known or new. TG_METRIC_ROUTES or TG_METRIC_SERIES: there are too many, or it is too long. */
uint32_t tg_metrics_route(struct tg_metrics *metrics, struct tg_slice name);
uint32_t tg_metrics_series(struct tg_metrics *metrics, struct tg_slice key);
bool tg_metrics_knows(const struct tg_metrics *metrics, struct tg_slice key);
/* Empty: there is none at this place. */
struct tg_slice tg_metrics_route_name(const struct tg_metrics *metrics, uint32_t route);
struct tg_slice tg_metrics_series_key(const struct tg_metrics *metrics, uint32_t series);

void tg_metrics_route_sum(const struct tg_metrics *metrics, uint32_t route, struct tg_abi_route_count *sum);
void tg_metrics_generation_sum(const struct tg_metrics *metrics, uint64_t serial, struct tg_abi_generation_count *sum);
double tg_metrics_series_sum(const struct tg_metrics *metrics, uint32_t series);
/* The value that all workers have in common. */
double *tg_metrics_shared(struct tg_metrics *metrics, uint32_t series);

/* Stands for the bucket of its duration from now on, unless another worker writes there at this moment. */
void tg_metrics_set_exemplar(struct tg_metrics *metrics, uint32_t route, enum tg_abi_exemplar_of of,
                             const struct tg_abi_exemplar *exemplar);
/* TG_ENONE: nothing stands for the bucket, or it is being written. */
TG_MUST_CHECK enum tg_rc tg_metrics_exemplar(const struct tg_metrics *metrics, uint32_t route,
                                             enum tg_abi_exemplar_of of, unsigned bucket, struct tg_abi_exemplar *out);

/* Until when all exchanges are remembered: seconds of the wall clock. */
double tg_metrics_watched(const struct tg_metrics *metrics);
void tg_metrics_watch(struct tg_metrics *metrics, double until);

extern const uint64_t tg_metric_bounds[TG_METRIC_BUCKETS - 1];

static inline void
tg_metric_add(uint64_t *number, uint64_t by)
{
    __atomic_store_n(number, __atomic_load_n(number, __ATOMIC_RELAXED) + by, __ATOMIC_RELAXED);
}

static inline unsigned
tg_metric_bucket(uint64_t micros)
{
    unsigned i = 0;
    while (i < TG_METRIC_BUCKETS - 1 && micros > tg_metric_bounds[i]) {
        i++;
    }
    return i;
}

static inline void
tg_metric_time(struct tg_abi_histogram *histogram, uint64_t micros)
{
    tg_metric_add(&histogram->counts[tg_metric_bucket(micros)], 1);
    tg_metric_add(&histogram->micros, micros);
}

static inline void
tg_metric_route_time(struct tg_metric_route *route, enum tg_metric_of of, uint64_t micros)
{
    tg_metric_add(&route->lines[tg_metric_bucket(micros)].buckets[of], 1);
    tg_metric_add(&route->lines[0].numbers[TG_METRIC_MICROS + of], micros);
}

/* What a row has of the generation with this serial; one that is long gone makes room. */
static inline struct tg_abi_generation_count *
tg_metric_generation(struct tg_metric_row *row, uint64_t serial)
{
    struct tg_abi_generation_count *count = &row->generations[serial % TG_METRIC_GENERATIONS];
    if (count->serial < serial) {
        *count = (struct tg_abi_generation_count){.serial = serial};
    }
    return count;
}

/* Puts a trail into a list. */
void tg_metric_remember(struct tg_abi_trail *list, uint64_t *next, const struct tg_abi_trail *trail);
/* The one with this number; TG_ENONE: it was overwritten, or is not there. */
TG_MUST_CHECK enum tg_rc tg_metric_recall(const struct tg_abi_trail *list, uint64_t number, struct tg_abi_trail *out);

#endif
