/*
 * The border: dictionaries, logs, set-up and texts. Contracts are in abi.h.
 */
#include <time.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/outlet.h"
#include "vm/coroutine.h"

struct tg_map *
tg_abi_map_new(void)
{
    return tg_map_new();
}

void
tg_abi_map_free(struct tg_map *map)
{
    tg_map_free(map);
}

int
tg_abi_map_add(struct tg_map *map, const char *key, size_t key_len, uint32_t value)
{
    return value > INT32_MAX ? TG_EINVAL : tg_map_add(map, key, key_len, value);
}

int
tg_abi_map_find(const struct tg_map *map, const char *key, size_t key_len)
{
    return (int)tg_map_find(map, key, key_len);
}

uint32_t
tg_abi_map_place(const struct tg_map *map, const char *key, size_t key_len)
{
    return tg_map_place(map, key, key_len);
}

uint32_t
tg_abi_map_at(const struct tg_map *map, uint32_t place)
{
    return tg_map_at(map, place, &tg_abi_vm.out);
}

uint32_t
tg_abi_map_next(const struct tg_map *map, uint32_t place)
{
    return tg_map_next(map, place);
}

int
tg_abi_map_find_field(const struct tg_map *map, struct tg_abi_exchange *x, int side, const char *name, size_t name_len)
{
    const int rc = tg_abi_field_get(x, side, name, name_len);
    return rc != TG_OK ? rc : (int)tg_map_find(map, tg_abi_vm.out.p, tg_abi_vm.out.n);
}

enum { SHORT = 3 /* numbers of a record that are 0 when it has fewer */ };

static struct tg_dict *
dict_of(uint32_t index)
{
    TG_ASSERT(index < tg_host->dict_count);
    return tg_host->dicts[index].dict;
}

static uint64_t
now(void)
{
    return tg_loop_now(tg_host->proxy->loop);
}

static uint64_t
milliseconds(double seconds)
{
    return seconds <= 0 ? 0 : seconds < 0.001 ? 1 : seconds > 1e12 ? (uint64_t)1e15 : (uint64_t)(seconds * 1000);
}

int
tg_abi_dict_open(const char *name, size_t name_len)
{
    return tg_host_find_dict(tg_host, tg_slice_of(name, name_len));
}

int
tg_abi_dict_get(uint32_t dict, const char *key, size_t key_len)
{
    struct tg_dict_value value;
    const enum tg_rc rc = tg_dict_get(dict_of(dict), key, key_len, now(), &value);
    if (rc == TG_OK) {
        tg_abi_vm.type = value.type;
        tg_abi_vm.number = value.number;
        tg_abi_vm.out = tg_slice_of(value.p, value.n);
    }
    return rc;
}

int
tg_abi_dict_set(uint32_t dict, const char *key, size_t key_len, uint32_t type, const char *value, size_t value_len,
                double number, double ttl, int only_new)
{
    const struct tg_dict_value stored = {(enum tg_dict_type)type, number, value, value_len};
    return tg_dict_set(dict_of(dict), key, key_len, now(), milliseconds(ttl), &stored, only_new != 0);
}

int
tg_abi_dict_compare_set(uint32_t dict, const char *key, size_t key_len, uint32_t old_type, const char *old,
                        size_t old_len, double old_number, uint32_t type, const char *value, size_t value_len,
                        double number, double ttl)
{
    const struct tg_dict_value expected = {(enum tg_dict_type)old_type, old_number, old, old_len};
    const struct tg_dict_value stored = {(enum tg_dict_type)type, number, value, value_len};
    return tg_dict_compare_set(dict_of(dict), key, key_len, now(), milliseconds(ttl), &expected, &stored);
}

int
tg_abi_dict_incr(uint32_t dict, const char *key, size_t key_len, double by, double ttl)
{
    return tg_dict_incr(dict_of(dict), key, key_len, now(), milliseconds(ttl), by, &tg_abi_vm.number);
}

int
tg_abi_dict_incr_in(uint32_t dict, const char *scope, size_t scope_len, const char *key, size_t key_len, double by,
                    double ttl)
{
    char joined[TG_DICT_KEY_MAX];
    if (scope_len > sizeof joined || key_len > sizeof joined - scope_len) {
        return TG_EINVAL;
    }
    memcpy(joined, scope, scope_len);
    memcpy(joined + scope_len, key, key_len);
    return tg_abi_dict_incr(dict, joined, scope_len + key_len, by, ttl);
}

/* What Lua works on between a reading and a swap. Lua is entered again only after it has waited, and it does not wait
 * there, so one set of them serves all. */
static struct {
    struct tg_abi_record abi;
    size_t room;
    size_t key_len;
    char key[TG_DICT_KEY_MAX];
} records[TG_RECORDS];

struct tg_abi_record *
tg_abi_record(uint32_t place)
{
    return place < TG_RECORDS ? &records[place].abi : NULL;
}

static bool
make_room(uint32_t place, size_t room)
{
    struct tg_abi_record *record = &records[place].abi;
    if (room <= records[place].room) {
        return true;
    }
    double *was = room > TG_DICT_NUMBERS_MAX ? NULL : tg_mem_resize(record->was, 2 * room * sizeof *was);
    if (was == NULL) {
        return false;
    }
    record->was = was;
    record->next = was + room;
    records[place].room = room;
    return true;
}

int
tg_abi_record_read(uint32_t dict, uint32_t place, const char *scope, size_t scope_len, const char *key, size_t key_len,
                   uint32_t room)
{
    size_t count = 0;
    if (place >= TG_RECORDS || scope_len > TG_DICT_KEY_MAX || key_len > TG_DICT_KEY_MAX - scope_len) {
        return TG_EINVAL;
    }
    memcpy(records[place].key, scope, scope_len);
    memcpy(records[place].key + scope_len, key, key_len);
    records[place].key_len = scope_len + key_len;
    for (;;) {
        if (!make_room(place, room)) {
            return TG_ENOMEM;
        }
        const enum tg_rc rc = tg_dict_read(dict_of(dict), records[place].key, records[place].key_len, now(),
                                           records[place].abi.was, records[place].room, &count);
        records[place].abi.count = (uint32_t)count;
        for (size_t i = count; i < SHORT && i < records[place].room; i++) {
            records[place].abi.was[i] = 0;
        }
        if (rc != TG_OK || count <= records[place].room) {
            return rc;
        }
        room = (uint32_t)count;
    }
}

int
tg_abi_record_swap(uint32_t dict, uint32_t count)
{
    struct tg_dict_change changes[TG_RECORDS];
    if (count > TG_RECORDS) {
        return TG_EINVAL;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct tg_abi_record *record = &records[i].abi;
        if (record->next_count > records[i].room || record->count > records[i].room) {
            return TG_EINVAL;
        }
        changes[i] = (struct tg_dict_change){.key = records[i].key,
                                             .n = records[i].key_len,
                                             .old = record->was,
                                             .old_count = record->count,
                                             .new = record->next,
                                             .new_count = record->next_count,
                                             .ttl = milliseconds(record->ttl)};
    }
    return tg_dict_swap(dict_of(dict), now(), changes, count);
}

int
tg_abi_dict_delete(uint32_t dict, const char *key, size_t key_len)
{
    return tg_dict_delete(dict_of(dict), key, key_len, now());
}

int
tg_abi_dict_ttl(uint32_t dict, const char *key, size_t key_len)
{
    uint64_t left = 0;
    const enum tg_rc rc = tg_dict_ttl(dict_of(dict), key, key_len, now(), &left);
    tg_abi_vm.number = (double)left / 1000;
    return rc;
}

void
tg_abi_log(int level, const char *p, size_t n)
{
    tg_log_bytes((enum tg_log_level)level, p, n);
}

int
tg_abi_log_level(void)
{
    return (int)tg_log_get_level();
}

int
tg_abi_sink_open(const char *path, size_t n)
{
    char text[4096];
    struct tg_err err;
    if (n == 0 || n >= sizeof text || memchr(path, '\0', n) != NULL) {
        return TG_EINVAL;
    }
    memcpy(text, path, n);
    text[n] = '\0';
    for (unsigned i = 0; i < tg_host->sink_count; i++) {
        if (strcmp(tg_sink_path(tg_host->sinks[i]), text) == 0) {
            return (int)i;
        }
    }
    if (tg_host->sink_count == TG_HOST_SINKS) {
        return TG_ELIMIT;
    }
    struct tg_sink *sink = tg_sink_open(text, &err);
    if (sink == NULL) {
        tg_log(TG_LOG_ERROR, "%s", err.text);
        return TG_ESYSTEM;
    }
    tg_host->sinks[tg_host->sink_count] = sink;
    return (int)tg_host->sink_count++;
}

int
tg_abi_sink_judge(const char *path, size_t n, const char *settings, size_t settings_n)
{
    static struct tg_err err; /* vm.out points into it */
    char *target = tg_mem_text(path, n);
    char *lines = tg_mem_text(settings, settings_n);
    enum tg_rc rc = TG_ENOMEM;
    err = (struct tg_err){0};
    if (target != NULL && lines != NULL) {
        rc = tg_outlet_judge(target, lines, &err);
    }
    tg_abi_vm.out = tg_slice_of(err.text, strlen(err.text));
    tg_mem_free(target);
    tg_mem_free(lines);
    return rc;
}

int
tg_abi_sink_configure(uint32_t sink, const char *settings, size_t n)
{
    char *text = tg_mem_text(settings, n);
    const enum tg_rc rc = text == NULL                  ? TG_ENOMEM
                          : sink >= tg_host->sink_count ? TG_EINVAL
                                                        : tg_sink_configure(tg_host->sinks[sink], text);
    tg_mem_free(text);
    return rc;
}

int
tg_abi_sink_write(uint32_t sink, const char *p, size_t n)
{
    return sink < tg_host->sink_count ? tg_sink_write(tg_host->sinks[sink], p, n) : TG_EINVAL;
}

double
tg_abi_sink_dropped(uint32_t sink)
{
    return sink < tg_host->sink_count ? (double)tg_sink_dropped(tg_host->sinks[sink]) : 0;
}

void
tg_abi_sink_rotate(uint32_t sink, double size, uint32_t keep)
{
    if (sink < tg_host->sink_count && size >= 0 && size < 0x1p53) {
        tg_sink_rotate(tg_host->sinks[sink], (uint64_t)size, keep);
    }
}

int
tg_abi_strip_field(const char *name, size_t name_len)
{
    struct tg_vm *vm = tg_host->building;
    if (vm == NULL || !tg_is_token(name, name_len) || name_len > TG_HOST_STRIP_NAME) {
        return TG_EINVAL;
    }
    const uint32_t hash = tg_field_hash(name, name_len);
    for (unsigned i = 0; i < vm->strip_count; i++) {
        if (vm->strip[i] == hash) {
            return TG_OK;
        }
    }
    if (vm->strip_count == TG_HOST_STRIP) {
        return TG_ELIMIT;
    }
    vm->strip[vm->strip_count++] = hash;
    return TG_OK;
}

int
tg_abi_valid_name(const char *p, size_t n)
{
    return tg_is_token(p, n) ? TG_OK : TG_EINVAL;
}

int
tg_abi_valid_value(const char *p, size_t n)
{
    return tg_is_value(p, n) ? TG_OK : TG_EINVAL;
}

int
tg_abi_heap_is_full(void)
{
    const struct tg_coroutine *co = tg_host == NULL ? NULL : tg_host->running; /* NULL: a configuration is validated */
    return co != NULL && tg_heap_is_full(&co->vm->heap) ? 1 : 0;
}

void
tg_abi_heap_growth(double bytes)
{
    if (tg_host == NULL) {
        return; /* a configuration is validated: its process has a limit */
    }
    tg_host->building->heap.growth = bytes < (double)TG_HEAP_ANY ? (size_t)bytes : TG_HEAP_ANY;
}

double
tg_abi_heap_excess(void)
{
    const struct tg_coroutine *co = tg_host == NULL ? NULL : tg_host->running;
    return co == NULL ? 0 : (double)tg_heap_excess(&co->vm->heap);
}

void
tg_abi_heap_forgive(void)
{
    const struct tg_coroutine *co = tg_host == NULL ? NULL : tg_host->running;
    if (co != NULL) {
        tg_heap_enter(&co->vm->heap);
    }
}

double
tg_abi_clock(void)
{
    return (double)tg_loop_clock() / 1e6;
}

void
tg_abi_meter_begin(uint32_t what, uint32_t weight)
{
    struct tg_coroutine *co = tg_host == NULL ? NULL : tg_host->running;
    if (co != NULL && co->meter_index == 0) {
        tg_meter_begin(&co->meter, what, weight, co->vm->heap.made);
    }
}

uint32_t
tg_abi_meter_end(void)
{
    struct tg_coroutine *co = tg_host == NULL ? NULL : tg_host->running;
    tg_abi_vm.used.what = 0;
    if (co != NULL && co->meter.what != 0 && co->meter_index == 0) {
        tg_meter_pause(&co->meter, co->vm->heap.made);
        tg_coroutine_measured(co);
    }
    return tg_abi_vm.used.what;
}

int
tg_abi_build_is_over(void)
{
    const uint64_t until = tg_host == NULL ? 0 : tg_host->build_until;
    return until != 0 && tg_loop_clock() >= until;
}

double
tg_abi_cpu(void)
{
    struct timespec used;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0 ? (double)used.tv_sec + (double)used.tv_nsec / 1e9 : 0;
}
