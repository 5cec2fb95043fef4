#include "zone/allowance.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static const double TTL_MAX = 1e12;    /* seconds */
static const double SET_NEARLY = 0.01; /* units that are not worth a change */

_Static_assert((int)TG_LIMITS <= (int)TG_DICT_SWAP_MAX, "a dictionary holds as many lists at once");

/* Rounded up: what is counted must not be over before it has drained. */
static uint64_t
milliseconds(double seconds)
{
    return seconds > TTL_MAX ? (uint64_t)(TTL_MAX * 1000) : seconds <= 0.001 ? 1 : (uint64_t)ceil(seconds * 1000);
}

static struct tg_rate_list
numbers_of(const struct tg_dict_list *list)
{
    return (struct tg_rate_list){list->numbers, list->count};
}

static struct tg_rate_clock
both(struct tg_allowance_clock clock)
{
    return (struct tg_rate_clock){(double)clock.now / 1000, clock.wall};
}

/* The ring of a log whose limit has changed its size goes by way of a copy. */
static enum tg_rc
resize_log(struct tg_dict *dict, uint64_t now, struct tg_dict_list *list, size_t count, uint64_t ttl)
{
    double *copy = tg_mem_alloc(count * sizeof *copy);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    tg_rate_log_copy(numbers_of(list), (char *)copy, count);
    const enum tg_rc rc = tg_dict_keep(dict, now, list, count, ttl);
    if (rc == TG_OK) {
        memcpy(list->numbers, copy, count * sizeof *copy);
    }
    tg_mem_free(copy);
    return rc;
}

static enum tg_rc
write_next(struct tg_dict *dict, uint64_t now, struct tg_dict_list *list, const struct tg_abi_limit *limit,
           const struct tg_rate_next *next)
{
    const uint64_t ttl = milliseconds(next->ttl);
    const bool is_log = limit->algorithm == TG_LIMIT_LOG;
    const enum tg_rc rc = is_log && list->count != 0 && list->count != next->count
                              ? resize_log(dict, now, list, next->count, ttl)
                              : tg_dict_keep(dict, now, list, next->count, ttl);
    if (rc != TG_OK) {
        return rc;
    }
    if (is_log) {
        tg_rate_log(list->numbers, list->count, next->units, (double)now / 1000);
    } else {
        memcpy(list->numbers, next->numbers, next->count * sizeof *next->numbers);
    }
    return TG_OK;
}

enum tg_rc
tg_allowance_take(struct tg_dict *dict, struct tg_allowance_clock clock, const struct tg_allowance *limits,
                  unsigned count, double cost, bool charge, struct tg_abi_taken *taken, bool *allowed)
{
    struct tg_dict_list lists[TG_LIMITS];
    struct tg_rate_next next[TG_LIMITS];
    uint32_t held = 0;
    bool ok = true;
    if (count == 0 || count > TG_LIMITS) {
        return TG_EINVAL;
    }
    for (unsigned i = 0; i < count; i++) {
        lists[i].key = limits[i].key;
        lists[i].n = limits[i].n;
    }
    enum tg_rc rc = tg_dict_hold(dict, clock.now, lists, count, &held);
    for (unsigned i = 0; i < count && rc == TG_OK; i++) {
        tg_rate_take(limits[i].limit, numbers_of(&lists[i]), cost, both(clock), &taken[i], &next[i]);
        ok = ok && taken[i].ok != 0;
    }
    for (unsigned i = 0; i < count && rc == TG_OK && cost > 0 && (ok || charge); i++) {
        rc = write_next(dict, clock.now, &lists[i], limits[i].limit, &next[i]);
    }
    tg_dict_release(dict, held);
    *allowed = ok;
    return rc;
}

enum tg_rc
tg_allowance_change(struct tg_dict *dict, struct tg_allowance_clock clock, const struct tg_allowance *one,
                    enum tg_abi_limit_change change, double amount, double *used)
{
    struct tg_dict_list list = {.key = one->key, .n = one->n};
    struct tg_rate_next next;
    uint32_t held = 0;
    enum tg_rc rc = tg_dict_hold(dict, clock.now, &list, 1, &held);
    if (rc != TG_OK) {
        return rc;
    }
    *used = change == TG_LIMIT_ADD ? 0 : tg_rate_used(one->limit, numbers_of(&list), both(clock));
    if (change == TG_LIMIT_SET) {
        amount -= *used;
    }
    if (change == TG_LIMIT_REMOVE) {
        rc = list.count == 0 ? TG_OK : tg_dict_keep(dict, clock.now, &list, 0, 0);
    } else if (change == TG_LIMIT_ADD || fabs(amount) >= SET_NEARLY) {
        tg_rate_add(one->limit, numbers_of(&list), amount, both(clock), &next);
        rc = write_next(dict, clock.now, &list, one->limit, &next);
    }
    tg_dict_release(dict, held);
    return rc;
}
