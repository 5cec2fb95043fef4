#include "zone/rate.h"

#include <math.h>
#include <string.h>

static const double NEARLY = 1e-9;        /* what sums of fractions may be wrong by */
static const double LONG_AGO = -HUGE_VAL; /* also where the clock has only begun */
static const double TOTAL_MAX = 0x1p52;   /* units of a log: up to here, each has a number of its own */

static double
number_at(const char *p, size_t i)
{
    double number;
    memcpy(&number, p + i * sizeof number, sizeof number);
    return number;
}

static void
put_number(char *p, size_t i, double number)
{
    memcpy(p + i * sizeof number, &number, sizeof number);
}

static double
larger(double a, double b)
{
    return a > b ? a : b;
}

static double
smaller(double a, double b)
{
    return a < b ? a : b;
}

/* How many whole units these are. Fewer than 2^52 need no call of the library. */
static double
whole(double units)
{
    const double more = units + NEARLY;
    return more < 0 ? 0 : more < 0x1p52 ? (double)(int64_t)more : more;
}

/* What comes of it; `wait` is set by those who delay. */
static void
tell(struct tg_abi_taken *taken, bool ok, double left, double retry, double reset)
{
    taken->ok = ok;
    taken->left = left;
    taken->retry = retry;
    taken->reset = reset;
    taken->wait = 0;
}

/* ------------------------------------------------------------------ buckets: { level, when it was so } */

/* What has not yet drained. */
static double
level_of(const struct tg_abi_limit *limit, struct tg_rate_list list, double now, double *at)
{
    *at = now;
    if (list.count == 0) {
        return 0;
    }
    const double was = number_at(list.p, 1);
    const double drained = (now - was) * limit->rate / limit->per;
    *at = larger(was, now);
    return larger(0, number_at(list.p, 0) - larger(0, drained));
}

static void
next_bucket(const struct tg_abi_limit *limit, double level, double at, struct tg_rate_next *next)
{
    next->numbers[0] = level;
    next->numbers[1] = at;
    next->count = 2;
    next->ttl = level * limit->per / limit->rate;
}

static void
take_gcra(const struct tg_abi_limit *limit, struct tg_rate_list list, double cost, double now,
          struct tg_abi_taken *taken, struct tg_rate_next *next)
{
    double at;
    const double level = level_of(limit, list, now, &at);
    const double after = level + cost;
    const double unit = limit->per / limit->rate;
    if (after <= limit->burst + NEARLY) {
        next_bucket(limit, after, at, next);
        tell(taken, true, whole(limit->burst - after), 0, after * unit);
        return;
    }
    next_bucket(limit, smaller(after, 2 * limit->burst), at, next);
    const double retry = cost <= limit->burst ? (after - limit->burst) * unit : HUGE_VAL;
    tell(taken, false, whole(limit->burst - level), retry, level * unit);
}

/* A refused one stands in no queue, so it is not charged. */
static void
take_leaky(const struct tg_abi_limit *limit, struct tg_rate_list list, double cost, double now,
           struct tg_abi_taken *taken, struct tg_rate_next *next)
{
    double at;
    const double level = level_of(limit, list, now, &at);
    const double unit = limit->per / limit->rate;
    const double wait = level * unit;
    if (wait <= limit->delay + NEARLY) {
        next_bucket(limit, level + cost, at, next);
        tell(taken, true, whole((limit->delay - wait) / unit), 0, (level + cost) * unit);
        taken->wait = wait;
        return;
    }
    next_bucket(limit, level, at, next);
    tell(taken, false, 0, wait - limit->delay, wait);
}

/* ------------------------------------------------------------------ windows */

/* The number of a window, how much of it is over, and its distance from the one of the list. */
struct window {
    double number;
    double part;
    double age;
};

/* A list whose window is the next one is of a clock that is a little ahead; one that is far ahead was set back. */
static struct window
window_of(const struct tg_abi_limit *limit, struct tg_rate_list list, double wall)
{
    const double at = wall / limit->per;
    const double number = floor(at);
    const double last = list.count == 0 ? -HUGE_VAL : number_at(list.p, 0);
    if (last - number >= 1 && last - number <= 1) {
        return (struct window){last, 0, 0};
    }
    return (struct window){number, at - number, number - last};
}

static bool
is_age(const struct window *window, double age)
{
    return window->age >= age && window->age <= age;
}

/* { window, count } */
static double
count_of(struct tg_rate_list list, const struct window *window)
{
    return list.count >= 2 && is_age(window, 0) ? number_at(list.p, 1) : 0;
}

static void
next_fixed(const struct tg_abi_limit *limit, const struct window *window, double count, struct tg_rate_next *next)
{
    next->numbers[0] = window->number;
    next->numbers[1] = count;
    next->count = 2;
    next->ttl = (1 - window->part) * limit->per;
}

static void
take_fixed(const struct tg_abi_limit *limit, struct tg_rate_list list, double cost, double wall,
           struct tg_abi_taken *taken, struct tg_rate_next *next)
{
    const struct window window = window_of(limit, list, wall);
    const double count = count_of(list, &window);
    const double after = count + cost;
    const double end = (1 - window.part) * limit->per;
    next_fixed(limit, &window, after, next);
    if (after <= limit->rate + NEARLY) {
        tell(taken, true, whole(limit->rate - after), 0, end);
        return;
    }
    tell(taken, false, whole(limit->rate - count), cost <= limit->rate ? end : HUGE_VAL, end);
}

/* { window, count, count of the one before } */
static double
counts_of(struct tg_rate_list list, const struct window *window, double *before)
{
    const bool known = list.count >= 3;
    const double count = known ? number_at(list.p, 1) : 0;
    if (known && is_age(window, 0)) {
        *before = number_at(list.p, 2);
        return count;
    }
    *before = known && is_age(window, 1) ? count : 0;
    return 0;
}

/* As if those of the window before had come evenly: whole units, or a limit of 1 would be free only after two windows.
 */
static double
used_of(double count, double before, const struct window *window)
{
    return floor(before * (1 - window->part)) + count;
}

static void
next_sliding(const struct tg_abi_limit *limit, const struct window *window, double count, double before,
             struct tg_rate_next *next)
{
    next->numbers[0] = window->number;
    next->numbers[1] = count;
    next->numbers[2] = before;
    next->count = 3;
    next->ttl = (2 - window->part) * limit->per;
}

/* Seconds until there is room for `cost`: still in this window, or in the next one. */
static double
wait_of(const struct tg_abi_limit *limit, double count, double before, double part, double cost)
{
    const double room = limit->rate - cost;
    if (room < 0) {
        return HUGE_VAL;
    }
    if (before > 0 && count <= room) {
        return (larger(0, 1 - (room - count + 1) / before - part) + NEARLY) * limit->per;
    }
    return (1 - part + larger(0, count > 0 ? 1 - (room + 1) / count : 0) + NEARLY) * limit->per;
}

static void
take_sliding(const struct tg_abi_limit *limit, struct tg_rate_list list, double cost, double wall,
             struct tg_abi_taken *taken, struct tg_rate_next *next)
{
    double before;
    const struct window window = window_of(limit, list, wall);
    const double count = counts_of(list, &window, &before);
    const double used = used_of(count, before, &window);
    const double end = (1 - window.part) * limit->per;
    next_sliding(limit, &window, count + cost, before, next);
    if (used + cost <= limit->rate + NEARLY) {
        tell(taken, true, whole(limit->rate - used - cost), 0, end);
        return;
    }
    tell(taken, false, whole(limit->rate - used), wait_of(limit, count, before, window.part, cost), end);
}

/* ------------------------------------------------------------------ log: { how many ever, a ring of their moments } */

/* The newest of all units that may be looked at: those that the ring has, and that the limit means. */
struct ring {
    const char *moments;
    size_t size;
    double total;
    double first; /* of them */
};

static struct ring
ring_of(struct tg_rate_list list, double rate)
{
    if (list.count < 2) {
        return (struct ring){0};
    }
    const size_t size = list.count - 1;
    const double total = number_at(list.p, 0);
    return (struct ring){list.p + sizeof(double), size, total, larger(0, total - smaller(rate, (double)size))};
}

static double
moment_at(const struct ring *ring, double unit)
{
    return unit < ring->first || unit >= ring->total ? LONG_AGO : number_at(ring->moments, (uint64_t)unit % ring->size);
}

/* How many are still in the window: they are in order, so halving finds the first of them. */
static double
count_since(const struct ring *ring, double since)
{
    double low = ring->first;
    double high = ring->total;
    while (low < high) {
        const double middle = floor((low + high) / 2);
        if (moment_at(ring, middle) > since) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return ring->total - low;
}

static void
next_log(const struct tg_abi_limit *limit, double units, struct tg_rate_next *next)
{
    next->count = (size_t)limit->rate + 1;
    next->ttl = limit->per;
    next->units = units;
}

static void
take_log(const struct tg_abi_limit *limit, struct tg_rate_list list, double cost, double now,
         struct tg_abi_taken *taken, struct tg_rate_next *next)
{
    const struct ring ring = ring_of(list, limit->rate);
    const double used = count_since(&ring, now - limit->per);
    cost = ceil(cost);
    const bool ok = used + cost <= limit->rate;
    double retry = cost > limit->rate ? HUGE_VAL : 0;
    if (!ok && cost <= limit->rate) {
        retry = moment_at(&ring, ring.total + cost - 1 - limit->rate) + limit->per - now;
    }
    next_log(limit, cost, next);
    tell(taken, ok, larger(0, limit->rate - used - (ok ? cost : 0)), retry, used + cost > 0 ? limit->per : 0);
}

/* The newest are taken back: their places become as empty as if they had been long ago. */
static void
take_back(char *p, size_t size, double units)
{
    const double total = number_at(p, 0);
    const double back = smaller(units, smaller((double)size, total));
    for (uint64_t i = (uint64_t)(total - back); i < (uint64_t)total; i++) {
        put_number(p, 1 + i % size, LONG_AGO);
    }
    put_number(p, 0, total - back);
}

void
tg_rate_log(char *p, size_t count, double units, double now)
{
    const size_t size = count - 1;
    const double total = number_at(p, 0);
    if (units < 0) {
        take_back(p, size, -units);
        return;
    }
    if (total > 0) {
        now = larger(now, number_at(p, 1 + (uint64_t)(total - 1) % size));
    }
    /* However many they are said to be, no more than the ring has places are written, and they can be counted on. */
    const double sum = smaller(total + units, TOTAL_MAX);
    for (uint64_t i = (uint64_t)(sum - smaller(sum - total, (double)size)); i < (uint64_t)sum; i++) {
        put_number(p, 1 + i % size, now);
    }
    put_number(p, 0, sum);
}

void
tg_rate_log_copy(struct tg_rate_list list, char *to, size_t count)
{
    const struct ring ring = ring_of(list, (double)(count - 1));
    memset(to, 0, count * sizeof(double));
    put_number(to, 0, ring.total);
    for (uint64_t i = (uint64_t)ring.first; i < (uint64_t)ring.total; i++) {
        put_number(to, 1 + i % (count - 1), moment_at(&ring, (double)i));
    }
}

/* ------------------------------------------------------------------ all of them */

void
tg_rate_take(const struct tg_abi_limit *limit, struct tg_rate_list list, double cost, struct tg_rate_clock clock,
             struct tg_abi_taken *taken, struct tg_rate_next *next)
{
    switch (limit->algorithm) {
    case TG_LIMIT_GCRA:
        take_gcra(limit, list, cost, clock.monotonic, taken, next);
        return;
    case TG_LIMIT_LEAKY:
        take_leaky(limit, list, cost, clock.monotonic, taken, next);
        return;
    case TG_LIMIT_FIXED:
        take_fixed(limit, list, cost, clock.wall, taken, next);
        return;
    case TG_LIMIT_SLIDING:
        take_sliding(limit, list, cost, clock.wall, taken, next);
        return;
    default:
        take_log(limit, list, cost, clock.monotonic, taken, next);
    }
}

void
tg_rate_add(const struct tg_abi_limit *limit, struct tg_rate_list list, double amount, struct tg_rate_clock clock,
            struct tg_rate_next *next)
{
    double other = 0;
    double count;
    struct window window;
    switch (limit->algorithm) {
    case TG_LIMIT_GCRA:
    case TG_LIMIT_LEAKY:
        count = level_of(limit, list, clock.monotonic, &other);
        next_bucket(limit, larger(0, count + amount), other, next);
        return;
    case TG_LIMIT_FIXED:
        window = window_of(limit, list, clock.wall);
        next_fixed(limit, &window, larger(0, count_of(list, &window) + amount), next);
        return;
    case TG_LIMIT_SLIDING:
        window = window_of(limit, list, clock.wall);
        count = counts_of(list, &window, &other);
        next_sliding(limit, &window, larger(0, count + amount), other, next);
        return;
    default:
        next_log(limit, ceil(amount), next);
    }
}

double
tg_rate_used(const struct tg_abi_limit *limit, struct tg_rate_list list, struct tg_rate_clock clock)
{
    double other = 0;
    double count;
    struct window window;
    struct ring ring;
    switch (limit->algorithm) {
    case TG_LIMIT_GCRA:
    case TG_LIMIT_LEAKY:
        return level_of(limit, list, clock.monotonic, &other);
    case TG_LIMIT_FIXED:
        window = window_of(limit, list, clock.wall);
        return count_of(list, &window);
    case TG_LIMIT_SLIDING:
        window = window_of(limit, list, clock.wall);
        count = counts_of(list, &window, &other);
        return used_of(count, other, &window);
    default:
        ring = ring_of(list, limit->rate);
        return count_since(&ring, clock.monotonic - limit->per);
    }
}
