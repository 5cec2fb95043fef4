#include "zone/metric.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"

enum {
    MAGIC = 0x7463e205, /* changes with any struct below, and with those of abi_metric.h */
    ROUTE_NAME = 128,
    USED_WORDS = (TG_METRIC_ROWS + 63) / 64,
    STUCK = 10,     /* seconds: who has written for so long is dead */
    FIRST_ROUTE = 2 /* those before are none, and all that are too many */
};

_Static_assert(TG_METRIC_REQUESTS == TG_METRIC_METHODS * TG_METRIC_CLASSES, "a count for each");
_Static_assert(sizeof(struct tg_metric_line) == 64, "a cache line");
_Static_assert((int)TG_METRIC_ABORTED_LINE < (int)TG_METRIC_BUCKETS, "a line for each method");

/* Written by whichever worker comes: one at a time, while `version` is odd. */
struct exemplar {
    uint64_t version;
    struct tg_abi_exemplar is;
};

/* A name for each place. A place is given once and for all: what was counted there stays what it was. */
struct memory {
    uint32_t magic;
    uint32_t sides;
    uint32_t route_count;
    uint32_t series_count;
    double watched;
    uint64_t used[USED_WORDS]; /* a bit for each row that was ever written: rows lie far apart, and most are not */
    pthread_mutex_t naming;
    uint64_t route_hashes[TG_METRIC_ROUTES];
    uint64_t series_hashes[TG_METRIC_SERIES];
    char routes[TG_METRIC_ROUTES][ROUTE_NAME];
    char series[TG_METRIC_SERIES][TG_METRIC_KEY];
    double shared[TG_METRIC_SERIES];
    struct tg_metric_row rows[TG_METRIC_ROWS];
    struct exemplar exemplars[TG_METRIC_ROUTES][TG_EXEMPLAR_UPSTREAM + 1][TG_METRIC_BUCKETS];
};

struct tg_metrics {
    struct memory *memory;
};

const uint64_t tg_metric_bounds[TG_METRIC_BUCKETS - 1] = {
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000};

/* ------------------------------------------------------------------ memory */

int
tg_metrics_create(struct tg_err *err)
{
    pthread_mutexattr_t attr;
    struct memory *memory = MAP_FAILED;
    const int fd = memfd_create("tidegate-metrics", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)sizeof *memory) == 0) {
        memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    }
    if (memory == MAP_FAILED) {
        (void)tg_err_errno(err, "shared memory for metrics");
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    (void)pthread_mutexattr_init(&attr);
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    (void)pthread_mutex_init(&memory->naming, &attr);
    (void)pthread_mutexattr_destroy(&attr);
    memory->route_count = FIRST_ROUTE;
    memory->magic = MAGIC;
    (void)munmap(memory, sizeof *memory);
    return fd;
}

struct tg_metrics *
tg_metrics_open(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size != (off_t)sizeof(struct memory)) {
        return NULL;
    }
    struct tg_metrics *metrics = tg_mem_new(struct tg_metrics);
    if (metrics == NULL) {
        return NULL;
    }
    metrics->memory = mmap(NULL, sizeof *metrics->memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (metrics->memory == MAP_FAILED) {
        tg_mem_free(metrics);
        return NULL;
    }
    if (metrics->memory->magic != MAGIC) {
        tg_metrics_close(metrics);
        return NULL;
    }
    return metrics;
}

void
tg_metrics_close(struct tg_metrics *metrics)
{
    if (metrics != NULL) {
        (void)munmap(metrics->memory, sizeof *metrics->memory);
        tg_mem_free(metrics);
    }
}

unsigned
tg_metrics_next_side(struct tg_metrics *metrics)
{
    return __atomic_fetch_add(&metrics->memory->sides, 1, __ATOMIC_RELAXED) % 2 * (TG_METRIC_ROWS / 2);
}

struct tg_metric_row *
tg_metrics_row(struct tg_metrics *metrics, unsigned row)
{
    TG_ASSERT(row < TG_METRIC_ROWS);
    return &metrics->memory->rows[row];
}

void
tg_metrics_use(struct tg_metrics *metrics, const struct tg_metric_row *row)
{
    const unsigned i = (unsigned)(row - metrics->memory->rows);
    TG_ASSERT(i < TG_METRIC_ROWS);
    (void)__atomic_fetch_or(&metrics->memory->used[i / 64], UINT64_C(1) << i % 64, __ATOMIC_RELAXED);
}

bool
tg_metrics_uses(const struct tg_metrics *metrics, unsigned row)
{
    TG_ASSERT(row < TG_METRIC_ROWS);
    return (__atomic_load_n(&metrics->memory->used[row / 64], __ATOMIC_RELAXED) >> row % 64 & 1) != 0;
}

/* The next row from `row` on that is used; TG_METRIC_ROWS: there is none. */
static unsigned
next_used(const struct memory *memory, unsigned row)
{
    for (unsigned word = row / 64; word < USED_WORDS; word++) {
        uint64_t bits = __atomic_load_n(&memory->used[word], __ATOMIC_RELAXED);
        bits &= word == row / 64 ? UINT64_MAX << row % 64 : UINT64_MAX;
        if (bits != 0) {
            return word * 64 + (unsigned)__builtin_ctzll(bits);
        }
    }
    return TG_METRIC_ROWS;
}

void
tg_metrics_forget(struct tg_metrics *metrics, unsigned row)
{
    uint64_t *numbers = tg_metrics_row(metrics, row)->numbers;
    for (unsigned i = TG_COUNT_ACTIVE; i <= TG_COUNT_PEERS_IDLE; i++) {
        __atomic_store_n(&numbers[i], 0, __ATOMIC_RELAXED);
    }
}

/* ------------------------------------------------------------------ names */

/* One whose owner died has left nothing half done: the count comes last. */
static bool
lock(struct memory *memory)
{
    const int error = pthread_mutex_lock(&memory->naming);
    if (error == EOWNERDEAD) {
        (void)pthread_mutex_consistent(&memory->naming);
    }
    return error == 0 || error == EOWNERDEAD;
}

struct names {
    uint64_t *hashes;
    char *texts;
    size_t size; /* of a text, with its NUL */
    uint32_t *count;
    uint32_t first;
    uint32_t max;
};

/* Its place, or how many there are. */
static uint32_t
find(const struct names *names, struct tg_slice name, uint64_t hash)
{
    const uint32_t count = __atomic_load_n(names->count, __ATOMIC_ACQUIRE);
    for (uint32_t i = names->first; i < count; i++) {
        const char *text = names->texts + i * names->size;
        if (names->hashes[i] == hash && strlen(text) == name.n && memcmp(text, name.p, name.n) == 0) {
            return i;
        }
    }
    return count;
}

static uint32_t
place_of(struct memory *memory, const struct names *names, struct tg_slice name)
{
    if (name.n == 0 || name.n >= names->size || memchr(name.p, '\0', name.n) != NULL || !lock(memory)) {
        return names->max;
    }
    const uint64_t hash = tg_hash(0, name.p, name.n);
    const uint32_t i = find(names, name, hash);
    if (i == *names->count && i < names->max) {
        names->hashes[i] = hash;
        memcpy(names->texts + i * names->size, name.p, name.n);
        __atomic_store_n(names->count, i + 1, __ATOMIC_RELEASE);
    }
    (void)pthread_mutex_unlock(&memory->naming);
    return i;
}

uint32_t
tg_metrics_route(struct tg_metrics *metrics, struct tg_slice name)
{
    struct memory *memory = metrics->memory;
    const struct names names = {memory->route_hashes, memory->routes[0], ROUTE_NAME,
                                &memory->route_count, FIRST_ROUTE,       TG_METRIC_ROUTES};
    return place_of(memory, &names, name);
}

static struct names
series_names(struct memory *memory)
{
    return (struct names){memory->series_hashes, memory->series[0], TG_METRIC_KEY, &memory->series_count, 0,
                          TG_METRIC_SERIES};
}

uint32_t
tg_metrics_series(struct tg_metrics *metrics, struct tg_slice key)
{
    const struct names names = series_names(metrics->memory);
    return place_of(metrics->memory, &names, key);
}

bool
tg_metrics_knows(const struct tg_metrics *metrics, struct tg_slice key)
{
    const struct names names = series_names(metrics->memory);
    return find(&names, key, tg_hash(0, key.p, key.n)) != *names.count;
}

struct tg_slice
tg_metrics_route_name(const struct tg_metrics *metrics, uint32_t route)
{
    const struct memory *memory = metrics->memory;
    if (route < FIRST_ROUTE) {
        return route == 0 ? TG_SLICE("none") : TG_SLICE("other");
    }
    if (route >= __atomic_load_n(&memory->route_count, __ATOMIC_ACQUIRE)) {
        return (struct tg_slice){0};
    }
    return tg_slice_of(memory->routes[route], strlen(memory->routes[route]));
}

struct tg_slice
tg_metrics_series_key(const struct tg_metrics *metrics, uint32_t series)
{
    const struct memory *memory = metrics->memory;
    if (series >= __atomic_load_n(&memory->series_count, __ATOMIC_ACQUIRE)) {
        return (struct tg_slice){0};
    }
    return tg_slice_of(memory->series[series], strlen(memory->series[series]));
}

/* ------------------------------------------------------------------ sums */

/* Structs that hold nothing but counts are added as what they are. */
static void
add(uint64_t *sum, const uint64_t *counts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sum[i] += __atomic_load_n(&counts[i], __ATOMIC_RELAXED);
    }
}

static void
put_times(struct tg_abi_histogram *histogram, const struct tg_metric_route *route, enum tg_metric_of of)
{
    for (unsigned i = 0; i < TG_METRIC_BUCKETS; i++) {
        histogram->counts[i] = route->lines[i].buckets[of];
    }
    histogram->micros = route->lines[0].numbers[TG_METRIC_MICROS + of];
}

void
tg_metrics_route_sum(const struct tg_metrics *metrics, uint32_t route, struct tg_abi_route_count *sum)
{
    const struct memory *memory = metrics->memory;
    struct tg_metric_route all = {0};
    for (unsigned i = next_used(memory, 0); i < TG_METRIC_ROWS && route < TG_METRIC_ROUTES;
         i = next_used(memory, i + 1)) {
        add((uint64_t *)&all, (const uint64_t *)&memory->rows[i].routes[route], sizeof all / sizeof(uint64_t));
    }
    for (unsigned i = 0; i < TG_METRIC_METHODS; i++) {
        memcpy(&sum->requests[(size_t)i * TG_METRIC_CLASSES], all.lines[1 + i].numbers, sizeof all.lines[0].numbers);
    }
    sum->aborted = all.lines[TG_METRIC_ABORTED_LINE].numbers[0];
    sum->bytes_in = all.lines[0].numbers[TG_METRIC_IN];
    sum->bytes_out = all.lines[0].numbers[TG_METRIC_OUT];
    put_times(&sum->duration, &all, TG_METRIC_DURATION);
    put_times(&sum->policy, &all, TG_METRIC_POLICY);
    put_times(&sum->upstream, &all, TG_METRIC_UPSTREAM);
}

void
tg_metrics_generation_sum(const struct tg_metrics *metrics, uint64_t serial, struct tg_abi_generation_count *sum)
{
    const struct memory *memory = metrics->memory;
    memset(sum, 0, sizeof *sum);
    for (unsigned i = next_used(memory, 0); i < TG_METRIC_ROWS; i = next_used(memory, i + 1)) {
        const struct tg_abi_generation_count *count = &memory->rows[i].generations[serial % TG_METRIC_GENERATIONS];
        if (count->serial == serial) {
            add((uint64_t *)sum, (const uint64_t *)count, sizeof *sum / sizeof(uint64_t));
        }
    }
    sum->serial = serial;
}

double
tg_metrics_series_sum(const struct tg_metrics *metrics, uint32_t series)
{
    const struct memory *memory = metrics->memory;
    double sum = 0;
    if (series >= TG_METRIC_SERIES) {
        return sum;
    }
    for (unsigned i = next_used(memory, 0); i < TG_METRIC_ROWS; i = next_used(memory, i + 1)) {
        sum += memory->rows[i].series[series];
    }
    return sum;
}

double *
tg_metrics_shared(struct tg_metrics *metrics, uint32_t series)
{
    TG_ASSERT(series < TG_METRIC_SERIES);
    return &metrics->memory->shared[series];
}

/* ------------------------------------------------------------------ exemplars */

void
tg_metrics_set_exemplar(struct tg_metrics *metrics, uint32_t route, enum tg_abi_exemplar_of of,
                        const struct tg_abi_exemplar *exemplar)
{
    TG_ASSERT(route < TG_METRIC_ROUTES && of <= TG_EXEMPLAR_UPSTREAM);
    const uint64_t micros = exemplar->seconds <= 0 ? 0 : (uint64_t)(exemplar->seconds * 1e6);
    struct exemplar *place = &metrics->memory->exemplars[route][of][tg_metric_bucket(micros)];
    uint64_t version = __atomic_load_n(&place->version, __ATOMIC_RELAXED);
    double at;
    __atomic_load(&place->is.at, &at, __ATOMIC_RELAXED);
    if (version % 2 == 1 && exemplar->at < at + STUCK) {
        return;
    }
    uint64_t mine = version + 1 + version % 2;
    if (!__atomic_compare_exchange_n(&place->version, &version, mine, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        return;
    }
    __atomic_store(&place->is.at, (double *)&exemplar->at, __ATOMIC_RELAXED);
    place->is.seconds = exemplar->seconds;
    memcpy(place->is.trace, exemplar->trace, sizeof place->is.trace);
    /* Who was taken for dead has lost the place. */
    (void)__atomic_compare_exchange_n(&place->version, &mine, mine + 1, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

enum tg_rc
tg_metrics_exemplar(const struct tg_metrics *metrics, uint32_t route, enum tg_abi_exemplar_of of, unsigned bucket,
                    struct tg_abi_exemplar *out)
{
    TG_ASSERT(route < TG_METRIC_ROUTES && of <= TG_EXEMPLAR_UPSTREAM && bucket < TG_METRIC_BUCKETS);
    const struct exemplar *place = &metrics->memory->exemplars[route][of][bucket];
    const uint64_t version = __atomic_load_n(&place->version, __ATOMIC_ACQUIRE);
    if (version == 0 || version % 2 == 1) {
        return TG_ENONE;
    }
    const struct tg_abi_exemplar read = place->is;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&place->version, __ATOMIC_RELAXED) != version) {
        return TG_ENONE;
    }
    *out = read;
    return TG_OK;
}

/* ------------------------------------------------------------------ the last exchanges */

double
tg_metrics_watched(const struct tg_metrics *metrics)
{
    return metrics->memory->watched;
}

void
tg_metrics_watch(struct tg_metrics *metrics, double until)
{
    metrics->memory->watched = until;
}

void
tg_metric_remember(struct tg_abi_trail *list, uint64_t *next, const struct tg_abi_trail *trail)
{
    struct tg_abi_trail *place = &list[*next % TG_METRIC_TRAILS];
    __atomic_store_n(&place->number, *next * 2 + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    memcpy((char *)place + sizeof place->number, (const char *)trail + sizeof trail->number,
           sizeof *trail - sizeof trail->number);
    __atomic_store_n(&place->number, *next * 2 + 2, __ATOMIC_RELEASE);
    __atomic_store_n(next, *next + 1, __ATOMIC_RELEASE);
}

enum tg_rc
tg_metric_recall(const struct tg_abi_trail *list, uint64_t number, struct tg_abi_trail *out)
{
    const struct tg_abi_trail *place = &list[number % TG_METRIC_TRAILS];
    if (__atomic_load_n(&place->number, __ATOMIC_ACQUIRE) != number * 2 + 2) {
        return TG_ENONE;
    }
    memcpy(out, place, sizeof *out);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&place->number, __ATOMIC_RELAXED) != number * 2 + 2) {
        return TG_ENONE;
    }
    out->number = number;
    return TG_OK;
}
