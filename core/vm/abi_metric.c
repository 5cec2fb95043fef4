/*
 * The border: what is counted, and what is remembered of exchanges. Contracts are in abi_metric.h.
 */
#include "vm/coroutine.h"

static struct tg_metrics *
metrics(void)
{
    return tg_host == NULL || tg_host->proxy == NULL ? NULL : tg_host->proxy->metrics;
}

static struct tg_metric_row *
own_row(void)
{
    return tg_host->proxy->counted;
}

static int
put_name(struct tg_slice name)
{
    tg_abi_vm.out = name;
    return name.n > 0 ? TG_OK : TG_ENONE;
}

const uint64_t *
tg_abi_metric_bounds(void)
{
    return tg_metric_bounds;
}

uint32_t
tg_abi_metric_rows(void)
{
    return metrics() == NULL ? 0 : TG_METRIC_ROWS;
}

uint32_t
tg_abi_metric_row(void)
{
    struct tg_metrics *all = metrics();
    return all == NULL ? 0 : (uint32_t)(own_row() - tg_metrics_row(all, 0));
}

uint32_t
tg_abi_metric_route(const char *name, size_t n)
{
    const uint32_t route = metrics() == NULL ? 0 : tg_metrics_route(metrics(), tg_slice_of(name, n));
    return route == TG_METRIC_ROUTES ? 1 : route;
}

int
tg_abi_metric_route_name(uint32_t route)
{
    return metrics() == NULL ? TG_ENONE : put_name(tg_metrics_route_name(metrics(), route));
}

void
tg_abi_metric_route_sum(uint32_t route, struct tg_abi_route_count *sum)
{
    tg_metrics_route_sum(metrics(), route, sum);
}

void
tg_abi_metric_generation_sum(uint64_t serial, struct tg_abi_generation_count *sum)
{
    tg_metrics_generation_sum(metrics(), serial, sum);
}

double
tg_abi_metric_worker(uint32_t row, uint32_t number)
{
    TG_ASSERT(row < TG_METRIC_ROWS && number < TG_METRIC_NUMBERS);
    return tg_metrics_uses(metrics(), row) ? (double)tg_metrics_row(metrics(), row)->numbers[number] : -1;
}

int
tg_abi_metric_limit(uint32_t limit)
{
    const char *name = limit > 0 && limit < TG_LIMIT_COUNT ? tg_limit_name((enum tg_limit)limit) : "";
    return put_name(tg_slice_of(name, strlen(name)));
}

void
tg_abi_metric_exemplar_set(const struct tg_abi_exchange *x, const char *trace, size_t n)
{
    struct tg_abi_exemplar exemplar = {.at = x->started + x->duration, .seconds = x->duration};
    if (metrics() == NULL || x->counted == TG_METRIC_UNCOUNTED || n != sizeof exemplar.trace) {
        return;
    }
    const uint32_t route = x->counted < TG_METRIC_ROUTES ? x->counted : 0;
    memcpy(exemplar.trace, trace, n);
    tg_metrics_set_exemplar(metrics(), route, TG_EXEMPLAR_DURATION, &exemplar);
    if (x->upstream_time >= 0) {
        exemplar.seconds = x->upstream_time;
        tg_metrics_set_exemplar(metrics(), route, TG_EXEMPLAR_UPSTREAM, &exemplar);
    }
}

int
tg_abi_metric_exemplar(uint32_t route, uint32_t of, uint32_t bucket, struct tg_abi_exemplar *out)
{
    return metrics() == NULL ? TG_ENONE
                             : tg_metrics_exemplar(metrics(), route, (enum tg_abi_exemplar_of)of, bucket, out);
}

int
tg_abi_metric_series(const char *key, size_t n)
{
    const uint32_t series = metrics() == NULL ? TG_METRIC_SERIES : tg_metrics_series(metrics(), tg_slice_of(key, n));
    return series == TG_METRIC_SERIES ? TG_ELIMIT : (int)series;
}

int
tg_abi_metric_known(const char *key, size_t n)
{
    return metrics() != NULL && tg_metrics_knows(metrics(), tg_slice_of(key, n)) ? 1 : 0;
}

int
tg_abi_metric_series_key(uint32_t series)
{
    return metrics() == NULL ? TG_ENONE : put_name(tg_metrics_series_key(metrics(), series));
}

double *
tg_abi_metric_values(void)
{
    return own_row()->series;
}

double
tg_abi_metric_series_sum(uint32_t series)
{
    return tg_metrics_series_sum(metrics(), series);
}

double
tg_abi_metric_shared_get(uint32_t series)
{
    double value;
    __atomic_load(tg_metrics_shared(metrics(), series), &value, __ATOMIC_RELAXED);
    return value;
}

void
tg_abi_metric_shared_set(uint32_t series, double value)
{
    __atomic_store(tg_metrics_shared(metrics(), series), &value, __ATOMIC_RELAXED);
}

void
tg_abi_metric_shared_add(uint32_t series, double by)
{
    double *shared = tg_metrics_shared(metrics(), series);
    double before;
    double after;
    __atomic_load(shared, &before, __ATOMIC_RELAXED);
    do {
        after = before + by;
    } while (!__atomic_compare_exchange(shared, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

void
tg_abi_metric_raised(void)
{
    if (metrics() != NULL && tg_host->running != NULL) {
        tg_metric_add(&tg_metric_generation(own_row(), tg_host->running->vm->serial)->raised, 1);
    }
}

int
tg_abi_trail_read(uint32_t row, int failed, uint64_t number, struct tg_abi_trail *out)
{
    TG_ASSERT(row < TG_METRIC_ROWS);
    const struct tg_metric_row *of = tg_metrics_row(metrics(), row);
    return tg_metric_recall(failed != 0 ? of->failed : of->any, number, out);
}

double
tg_abi_trail_next(uint32_t row, int failed)
{
    TG_ASSERT(row < TG_METRIC_ROWS);
    const struct tg_metric_row *of = tg_metrics_row(metrics(), row);
    const uint64_t *next = failed != 0 ? &of->failed_next : &of->any_next;
    return tg_metrics_uses(metrics(), row) ? (double)__atomic_load_n(next, __ATOMIC_ACQUIRE) : 0;
}

void
tg_abi_trail_watch(double seconds)
{
    const double until = tg_loop_wall(tg_host->proxy->loop) + seconds;
    if (until > tg_metrics_watched(metrics())) {
        tg_metrics_watch(metrics(), until);
    }
}

void
tg_abi_trail_slow(double seconds)
{
    tg_host->proxy->slow = seconds <= 0 ? 0 : (uint64_t)(seconds * 1e6);
}
