#include "zone/cell.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"

enum {
    MAGIC = 0x7463e110,            /* changes with any struct below, and with struct tg_abi_cell */
    UNWANTED_FOR = 10 * 60 * 1000, /* milliseconds until a cell may be made another's */
    BUDGET_WINDOW = 10 * 1000,     /* milliseconds */
    UNIT = 32                      /* milliseconds of breaker_until */
};

/* What of a cell each worker has. */
struct share {
    uint32_t in_flight;
    uint32_t waiting;
};

struct memory {
    uint32_t magic;
    uint32_t count; /* cells that were ever made */
    uint32_t sides;
    uint32_t padding;
    pthread_mutex_t making;
    _Alignas(128) uint64_t hashes[TG_CELLS_MAX]; /* of the keys; 0: free */
    char keys[TG_CELLS_MAX][TG_CELL_KEY_MAX + 1];
    _Alignas(128) struct tg_abi_cell cells[TG_CELLS_MAX];
    struct share shares[TG_CELLS_PLACES][TG_CELLS_MAX];
};

struct tg_cells {
    struct memory *memory;
};

/* Two fields of a cell that change together are one word. */
typedef uint64_t __attribute__((may_alias)) pair;

static pair *
breaker_of(struct tg_abi_cell *cell)
{
    return (pair *)&cell->breaker;
}

_Static_assert(sizeof(struct tg_abi_cell) == 384, "a cell is three pairs of cache lines");
_Static_assert(offsetof(struct tg_abi_cell, breaker) % 8 == 0, "breaker and breaker_until are one word");
_Static_assert(offsetof(struct tg_abi_cell, latency) % 8 == 0, "latency and latency_at are one word");

/* ------------------------------------------------------------------ memory */

int
tg_cells_create(struct tg_err *err)
{
    pthread_mutexattr_t attr;
    const int fd = memfd_create("tidegate-cells", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)sizeof(struct memory)) < 0) {
        (void)tg_err_errno(err, "shared memory for upstreams");
        goto fail;
    }
    struct memory *memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        (void)tg_err_errno(err, "shared memory for upstreams");
        goto fail;
    }
    (void)pthread_mutexattr_init(&attr);
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    (void)pthread_mutex_init(&memory->making, &attr);
    (void)pthread_mutexattr_destroy(&attr);
    memory->magic = MAGIC;
    (void)munmap(memory, sizeof *memory);
    return fd;

fail:
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

struct tg_cells *
tg_cells_open(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size != (off_t)sizeof(struct memory)) {
        return NULL;
    }
    struct tg_cells *cells = tg_mem_new(struct tg_cells);
    if (cells == NULL) {
        return NULL;
    }
    cells->memory = mmap(NULL, sizeof *cells->memory, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (cells->memory == MAP_FAILED) {
        tg_mem_free(cells);
        return NULL;
    }
    if (cells->memory->magic != MAGIC) {
        tg_cells_close(cells);
        return NULL;
    }
    return cells;
}

void
tg_cells_close(struct tg_cells *cells)
{
    if (cells != NULL) {
        (void)munmap(cells->memory, sizeof *cells->memory);
        tg_mem_free(cells);
    }
}

unsigned
tg_cells_next_side(struct tg_cells *cells)
{
    return __atomic_fetch_add(&cells->memory->sides, 1, __ATOMIC_RELAXED) % 2 * (TG_CELLS_PLACES / 2);
}

/* ------------------------------------------------------------------ finding */

/* One whose owner died was written in an order that leaves nothing half done: the hash comes last. */
static bool
lock(struct memory *memory)
{
    const int error = pthread_mutex_lock(&memory->making);
    if (error == EOWNERDEAD) {
        (void)pthread_mutex_consistent(&memory->making);
    }
    return error == 0 || error == EOWNERDEAD;
}

static uint64_t
hash_of(const char *key, size_t n)
{
    return tg_hash(0, key, n) | 1; /* never 0 */
}

static uint32_t
find(const struct memory *memory, const char *key, size_t n, uint64_t hash)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        if (memory->hashes[i] == hash && strlen(memory->keys[i]) == n && memcmp(memory->keys[i], key, n) == 0) {
            return i;
        }
    }
    return TG_CELLS_MAX;
}

/* A free place, or one that nobody has wanted for long. */
static uint32_t
find_place(const struct memory *memory, uint64_t now)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        if (memory->hashes[i] == 0) {
            return i;
        }
    }
    if (memory->count < TG_CELLS_MAX) {
        return memory->count;
    }
    for (uint32_t i = 0; i < TG_CELLS_MAX; i++) {
        const struct tg_abi_cell *cell = &memory->cells[i];
        if (cell->wanted + UNWANTED_FOR < now && cell->in_flight == 0 && cell->waiting == 0) {
            return i;
        }
    }
    return TG_CELLS_MAX;
}

static void
make(struct memory *memory, uint32_t i, const char *key, size_t n, uint64_t hash)
{
    struct tg_abi_cell *cell = &memory->cells[i];
    memory->hashes[i] = 0;
    memcpy(memory->keys[i], key, n);
    memory->keys[i][n] = '\0';
    memset(cell, 0, sizeof *cell);
    cell->index = i;
    memory->hashes[i] = hash;
    if (i == memory->count) {
        memory->count++;
    }
}

struct tg_abi_cell *
tg_cells_want(struct tg_cells *cells, const char *key, size_t n, uint64_t now)
{
    struct memory *memory = cells->memory;
    const uint64_t hash = hash_of(key, n);
    if (n == 0 || n > TG_CELL_KEY_MAX || !lock(memory)) {
        return NULL;
    }
    uint32_t i = find(memory, key, n, hash);
    if (i == TG_CELLS_MAX && (i = find_place(memory, now)) != TG_CELLS_MAX) {
        make(memory, i, key, n, hash);
    }
    if (i != TG_CELLS_MAX) {
        memory->cells[i].wanted = now;
    }
    (void)pthread_mutex_unlock(&memory->making);
    return i == TG_CELLS_MAX ? NULL : &memory->cells[i];
}

struct tg_abi_cell *
tg_cells_find(struct tg_cells *cells, const char *key, size_t n)
{
    const uint32_t i = find(cells->memory, key, n, hash_of(key, n));
    return i == TG_CELLS_MAX ? NULL : &cells->memory->cells[i];
}

void
tg_cells_each(struct tg_cells *cells, uint64_t mark, const char *prefix,
              void (*each)(void *arg, const char *key, struct tg_abi_cell *cell), void *arg)
{
    struct memory *memory = cells->memory;
    const size_t n = strlen(prefix);
    for (uint32_t i = 0; i < memory->count; i++) {
        if (memory->hashes[i] != 0 && memory->cells[i].mark == mark && strncmp(memory->keys[i], prefix, n) == 0) {
            each(arg, memory->keys[i], &memory->cells[i]);
        }
    }
}

uint64_t
tg_cells_mark(const char *id)
{
    return hash_of(id, strlen(id));
}

void
tg_cell_keep(struct tg_abi_cell *cell, uint64_t mark, uint64_t now)
{
    __atomic_store_n(&cell->mark, mark, __ATOMIC_RELAXED);
    __atomic_store_n(&cell->wanted, now, __ATOMIC_RELAXED);
}

void
tg_cell_drop(struct tg_abi_cell *cell)
{
    __atomic_store_n(&cell->mark, 0, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------ in flight, and waiting */

enum tg_rc
tg_cell_enter(struct tg_cells *cells, struct tg_abi_cell *cell, unsigned place, uint32_t most)
{
    uint32_t *share = &cells->memory->shares[place][cell->index].in_flight;
    const uint32_t before = __atomic_fetch_add(&cell->in_flight, 1, __ATOMIC_RELAXED);
    if (most != 0 && before >= most) {
        __atomic_fetch_sub(&cell->in_flight, 1, __ATOMIC_RELAXED);
        return TG_EBUSY;
    }
    __atomic_store_n(share, *share + 1, __ATOMIC_RELAXED); /* nobody else writes it while this worker lives */
    return TG_OK;
}

void
tg_cell_leave(struct tg_cells *cells, struct tg_abi_cell *cell, unsigned place)
{
    uint32_t *share = &cells->memory->shares[place][cell->index].in_flight;
    __atomic_store_n(share, *share - 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&cell->in_flight, 1, __ATOMIC_RELAXED);
}

void
tg_cell_set_waiting(struct tg_cells *cells, struct tg_abi_cell *cell, unsigned place, uint32_t count)
{
    uint32_t *share = &cells->memory->shares[place][cell->index].waiting;
    const uint32_t before = __atomic_exchange_n(share, count, __ATOMIC_RELAXED);
    const uint64_t bit = 1ULL << (place % 64);
    __atomic_fetch_add(&cell->waiting, count - before, __ATOMIC_RELAXED);
    if (count != 0) {
        __atomic_fetch_or(&cell->waits[place / 64], bit, __ATOMIC_SEQ_CST);
    } else {
        __atomic_fetch_and(&cell->waits[place / 64], ~bit, __ATOMIC_SEQ_CST);
    }
}

unsigned
tg_cell_next_waiting(const struct tg_abi_cell *cell, unsigned after, unsigned first, unsigned last)
{
    for (unsigned i = 1; i <= last - first + 1; i++) {
        const unsigned place = first + (after - first + i) % (last - first + 1);
        if ((__atomic_load_n(&cell->waits[place / 64], __ATOMIC_RELAXED) >> (place % 64) & 1) != 0) {
            return place;
        }
    }
    return TG_CELLS_PLACES;
}

void
tg_cells_forget(struct tg_cells *cells, unsigned place)
{
    struct memory *memory = cells->memory;
    for (uint32_t i = 0; i < memory->count; i++) {
        struct tg_abi_cell *cell = &memory->cells[i];
        struct share *share = &memory->shares[place][i];
        const uint32_t in_flight = __atomic_exchange_n(&share->in_flight, 0, __ATOMIC_RELAXED);
        __atomic_fetch_sub(&cell->in_flight, in_flight, __ATOMIC_RELAXED);
        if (share->waiting != 0 || (cell->waits[place / 64] >> (place % 64) & 1) != 0) {
            tg_cell_set_waiting(cells, cell, place, 0);
        }
    }
}

/* ------------------------------------------------------------------ times */

enum { FALL = 10 * 1000 /* milliseconds after which a third of an old time is left */ };

union latency {
    struct {
        float seconds;
        uint32_t at;
    } is;
    uint64_t word;
};

/*
 * A time above the average counts at once, one below it little by little. A failure is never a good time, however fast
 * it came: else a peer that refuses at once would get all requests.
 */
void
tg_cell_time(struct tg_abi_cell *cell, double seconds, bool failed, uint64_t now)
{
    pair *place = (pair *)&cell->latency;
    union latency old = {.word = __atomic_load_n(place, __ATOMIC_RELAXED)};
    union latency next;
    do {
        const float average = old.is.seconds;
        float sample = (float)seconds;
        if (failed) {
            const float worse = average * 2 > 0.1F ? average * 2 : 0.1F;
            sample = sample > worse ? sample : worse;
            sample = sample > 10 ? 10 : sample;
        }
        const float age = (float)((uint32_t)now - old.is.at);
        /* 1/(1+x) in place of exp(-x): it falls as well, and costs a division. */
        const float share = old.is.at == 0 ? 0 : (float)FALL / ((float)FALL + age + 1);
        next.is.seconds = sample > average ? sample : average * share + sample * (1 - share);
        next.is.at = (uint32_t)now | 1; /* never 0 */
    } while (!__atomic_compare_exchange_n(place, &old.word, next.word, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

/* ------------------------------------------------------------------ windows */

/* A bucket holds its time in the upper 16 bits; one of another time begins at 0. */
static uint64_t
bucket_time(uint64_t now, uint32_t window)
{
    return now / (window / TG_CELL_BUCKETS + 1);
}

static bool
is_within(uint64_t bucket, uint64_t time)
{
    return (uint16_t)(time - (bucket >> 48)) < TG_CELL_BUCKETS;
}

static uint64_t
pack(uint64_t time, uint32_t total, uint32_t failed, uint32_t slow)
{
    if (total > UINT16_MAX) { /* what counts is the ratio */
        total /= 2;
        failed /= 2;
        slow /= 2;
    }
    return time << 48 | (uint64_t)total << 32 | (uint64_t)failed << 16 | slow;
}

static struct tg_cell_sum
unpack(uint64_t bucket)
{
    return (struct tg_cell_sum){bucket >> 32 & UINT16_MAX, bucket >> 16 & UINT16_MAX, bucket & UINT16_MAX};
}

void
tg_cell_count(struct tg_abi_cell *cell, uint32_t window, bool failed, bool slow, uint64_t now)
{
    const uint64_t time = bucket_time(now, window);
    uint64_t *place = &cell->window[time % TG_CELL_BUCKETS];
    uint64_t old = __atomic_load_n(place, __ATOMIC_RELAXED);
    uint64_t next;
    do {
        const struct tg_cell_sum is = old >> 48 == (time & UINT16_MAX) ? unpack(old) : (struct tg_cell_sum){0};
        next = pack(time, is.total + 1, is.failed + failed, is.slow + slow);
    } while (!__atomic_compare_exchange_n(place, &old, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

struct tg_cell_sum
tg_cell_sum(const struct tg_abi_cell *cell, uint32_t window, uint64_t now)
{
    const uint64_t time = bucket_time(now, window);
    struct tg_cell_sum sum = {0};
    for (unsigned i = 0; i < TG_CELL_BUCKETS; i++) {
        const uint64_t bucket = __atomic_load_n(&cell->window[i], __ATOMIC_RELAXED);
        if (is_within(bucket, time)) {
            const struct tg_cell_sum is = unpack(bucket);
            sum.total += is.total;
            sum.failed += is.failed;
            sum.slow += is.slow;
        }
    }
    return sum;
}

/* ------------------------------------------------------------------ budget of retries */

enum { REQUESTS = 24, COUNT_MAX = 0xffffff };

static void
add_to_budget(struct tg_abi_cell *cell, bool retry, uint64_t now)
{
    const uint64_t time = bucket_time(now, BUDGET_WINDOW);
    uint64_t *place = &cell->budget[time % TG_CELL_BUCKETS];
    uint64_t old = __atomic_load_n(place, __ATOMIC_RELAXED);
    uint64_t next;
    do {
        const bool fresh = old >> 48 != (time & UINT16_MAX);
        uint64_t requests = fresh ? 0 : old >> REQUESTS & COUNT_MAX;
        uint64_t retries = fresh ? 0 : old & COUNT_MAX;
        requests += !retry && requests < COUNT_MAX;
        retries += retry && retries < COUNT_MAX;
        next = time << 48 | requests << REQUESTS | retries;
    } while (!__atomic_compare_exchange_n(place, &old, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

void
tg_cell_budget_request(struct tg_abi_cell *cell, uint64_t now)
{
    add_to_budget(cell, false, now);
}

enum tg_rc
tg_cell_budget_retry(struct tg_abi_cell *cell, double share, uint32_t least, uint64_t now)
{
    const uint64_t time = bucket_time(now, BUDGET_WINDOW);
    uint64_t requests = 0;
    uint64_t retries = 0;
    for (unsigned i = 0; i < TG_CELL_BUCKETS; i++) {
        const uint64_t bucket = __atomic_load_n(&cell->budget[i], __ATOMIC_RELAXED);
        if (is_within(bucket, time)) {
            requests += bucket >> REQUESTS & COUNT_MAX;
            retries += bucket & COUNT_MAX;
        }
    }
    if (retries >= least && (double)retries >= share * (double)requests) {
        return TG_EBUSY;
    }
    add_to_budget(cell, true, now);
    __atomic_fetch_add(&cell->retries, 1, __ATOMIC_RELAXED);
    return TG_OK;
}

/* ------------------------------------------------------------------ breaker */

struct breaker {
    enum tg_abi_breaker state;
    uint32_t period;
    uint32_t probes;
    uint32_t good;
    uint32_t until;
};

enum { PERIODS = 1 << 14 };

static struct breaker
read_breaker(uint64_t word)
{
    const uint32_t low = (uint32_t)word;
    return (struct breaker){(enum tg_abi_breaker)(low & 3), low >> 2 & (PERIODS - 1), low >> 16 & 255, low >> 24,
                            (uint32_t)(word >> 32)};
}

static uint64_t
write_breaker(const struct breaker *is)
{
    return (uint64_t)is->until << 32 | is->good << 24 | is->probes << 16 | is->period << 2 | (uint32_t)is->state;
}

/* 0 stands for none. */
static uint32_t
next_period(uint32_t period)
{
    return period + 1 < PERIODS ? period + 1 : 1;
}

static bool
change(struct tg_abi_cell *cell, uint64_t *old, const struct breaker *next)
{
    return __atomic_compare_exchange_n(breaker_of(cell), old, write_breaker(next), false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

enum tg_rc
tg_cell_breaker_enter(struct tg_abi_cell *cell, uint32_t probes, uint32_t patience, uint64_t now, uint32_t *period)
{
    const uint32_t time = (uint32_t)(now / UNIT);
    uint64_t old = __atomic_load_n(breaker_of(cell), __ATOMIC_ACQUIRE);
    for (;;) {
        struct breaker is = read_breaker(old);
        *period = 0;
        if (is.state == TG_BREAKER_CLOSED) {
            return TG_OK;
        }
        if (time >= is.until) { /* open for long enough; or whoever had the probes has died */
            is = (struct breaker){TG_BREAKER_HALF_OPEN, next_period(is.period), 0, 0, time + patience / UNIT + 1};
        }
        if (is.state != TG_BREAKER_HALF_OPEN || is.probes >= probes) {
            return TG_EOPEN;
        }
        is.probes++;
        if (change(cell, &old, &is)) {
            *period = is.period;
            return TG_OK;
        }
    }
}

void
tg_cell_breaker_probed(struct tg_abi_cell *cell, uint32_t period, bool failed)
{
    uint64_t old = __atomic_load_n(breaker_of(cell), __ATOMIC_ACQUIRE);
    struct breaker is;
    do {
        is = read_breaker(old);
        if (is.state != TG_BREAKER_HALF_OPEN || is.period != period) {
            return;
        }
        if (failed) {
            is.state = TG_BREAKER_FAILED;
        } else {
            is.good++;
        }
    } while (!change(cell, &old, &is));
}

void
tg_cell_breaker_give_back(struct tg_abi_cell *cell, uint32_t period)
{
    uint64_t old = __atomic_load_n(breaker_of(cell), __ATOMIC_ACQUIRE);
    struct breaker is;
    do {
        is = read_breaker(old);
        if (is.state != TG_BREAKER_HALF_OPEN || is.period != period || is.probes == 0) {
            return;
        }
        is.probes--;
    } while (!change(cell, &old, &is));
}

/* What was judged once is not judged again. */
static void
forget_results(struct tg_abi_cell *cell)
{
    __atomic_store_n(&cell->consecutive, 0, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < TG_CELL_BUCKETS; i++) {
        __atomic_store_n(&cell->window[i], 0, __ATOMIC_RELAXED);
    }
}

enum tg_rc
tg_cell_breaker_set(struct tg_abi_cell *cell, uint32_t seen, enum tg_abi_breaker state, uint64_t until)
{
    uint64_t old = __atomic_load_n(breaker_of(cell), __ATOMIC_ACQUIRE);
    if ((uint32_t)old != seen) {
        return TG_EBUSY;
    }
    const struct breaker next = {state, next_period(read_breaker(old).period), 0, 0, (uint32_t)(until / UNIT) + 1};
    if (!change(cell, &old, &next)) {
        return TG_EBUSY;
    }
    forget_results(cell);
    return TG_OK;
}

/* ------------------------------------------------------------------ the rest */

enum tg_rc
tg_cell_eject(struct tg_abi_cell *cell, double now, double until)
{
    double old;
    __atomic_load(&cell->ejected_until, &old, __ATOMIC_RELAXED);
    if (old > now ||
        !__atomic_compare_exchange(&cell->ejected_until, &old, &until, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        return TG_EBUSY;
    }
    forget_results(cell);
    return TG_OK;
}

bool
tg_cell_flag(struct tg_abi_cell *cell, uint32_t set, uint32_t clear)
{
    const uint32_t cleared = __atomic_fetch_and(&cell->flags, ~clear, __ATOMIC_RELAXED);
    const uint32_t before = __atomic_fetch_or(&cell->flags, set, __ATOMIC_RELAXED);
    return (cleared & clear) != 0 || (~before & set) != 0;
}
