#include "base/map.h"

#include <string.h>
#include <sys/random.h>

#include "base/mem.h"

enum { SLOTS_MIN = 16, ENTRY_ALIGN = 8, ENTRIES_MAX = 1024 * 1024 * 1024 };

/* Eight of them share a cache line; the bytes of a key are looked at only when its hash fits. */
struct slot {
    uint32_t hash;
    uint32_t entry; /* offset in `entries` plus 1; 0: free */
};

struct entry {
    uint32_t value;
    uint32_t n;
    char key[];
};

struct tg_map {
    uint64_t seed;
    struct slot *slots;
    uint32_t mask; /* number of slots minus 1 */
    uint32_t count;
    char *entries;
    size_t used;
    size_t capacity;
};

/*
 * The last `rest` of the n bytes before `end`, 1 to 7, as one number, the first of them lowest. A copy of so few would
 * cost a call: of eight, those before them are shifted out.
 */
static uint64_t
last_bytes(const char *end, size_t n, size_t rest)
{
    uint64_t word = 0;
    if (n >= 8) {
        memcpy(&word, end - 8, 8);
        return word >> 8 * (8 - rest);
    }
    for (size_t i = 1; i <= rest; i++) {
        word = word << 8 | (uint8_t)end[-(ptrdiff_t)i];
    }
    return word;
}

uint64_t
tg_hash(uint64_t seed, const char *p, size_t n)
{
    uint64_t hash = seed ^ (n * 0x9e3779b97f4a7c15ULL);
    const char *end = p + n;
    for (; end - p >= 8; p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdULL;
        hash ^= hash >> 32;
    }
    if (p < end) {
        hash = (hash ^ last_bytes(end, n, (size_t)(end - p))) * 0xff51afd7ed558ccdULL;
        hash ^= hash >> 32;
    }
    hash *= 0xc4ceb9fe1a85ec53ULL;
    return hash ^ hash >> 29;
}

struct tg_map *
tg_map_new(void)
{
    struct tg_map *map = tg_mem_new(struct tg_map);
    if (map == NULL) {
        return NULL;
    }
    map->slots = tg_mem_zero(SLOTS_MIN * sizeof(struct slot));
    map->mask = SLOTS_MIN - 1;
    if (map->slots == NULL || getrandom(&map->seed, sizeof map->seed, 0) != (ssize_t)sizeof map->seed) {
        tg_map_free(map);
        return NULL;
    }
    return map;
}

void
tg_map_free(struct tg_map *map)
{
    if (map != NULL) {
        tg_mem_free(map->slots);
        tg_mem_free(map->entries);
        tg_mem_free(map);
    }
}

static struct entry *
entry_at(const struct tg_map *map, const struct slot *slot)
{
    return (struct entry *)(map->entries + slot->entry - 1);
}

/* The slot of the key, or the free one where it would go. There is always a free one. */
static struct slot *
slot_of(const struct tg_map *map, uint32_t hash, const char *key, size_t n)
{
    for (uint32_t i = hash & map->mask;; i = (i + 1) & map->mask) {
        struct slot *slot = &map->slots[i];
        if (slot->entry == 0) {
            return slot;
        }
        if (slot->hash == hash) {
            const struct entry *entry = entry_at(map, slot);
            if (entry->n == n && memcmp(entry->key, key, n) == 0) {
                return slot;
            }
        }
    }
}

/* Bytes of an entry with a key of n. */
static size_t
size_of(size_t n)
{
    return (sizeof(struct entry) + n + ENTRY_ALIGN - 1) & ~(size_t)(ENTRY_ALIGN - 1);
}

static enum tg_rc
grow_slots(struct tg_map *map)
{
    const uint32_t count = (map->mask + 1) * 2;
    struct slot *old = map->slots;
    struct slot *slots = tg_mem_zero(count * sizeof(struct slot));
    if (slots == NULL) {
        return TG_ENOMEM;
    }
    for (uint32_t i = 0; i <= map->mask; i++) {
        if (old[i].entry != 0) {
            uint32_t k = old[i].hash & (count - 1);
            while (slots[k].entry != 0) {
                k = (k + 1) & (count - 1);
            }
            slots[k] = old[i];
        }
    }
    map->slots = slots;
    map->mask = count - 1;
    tg_mem_free(old);
    return TG_OK;
}

static enum tg_rc
grow_entries(struct tg_map *map, size_t size)
{
    if (map->used + size <= map->capacity) {
        return TG_OK;
    }
    size_t capacity = map->capacity == 0 ? 1024 : map->capacity;
    while (capacity < map->used + size) {
        capacity *= 2;
    }
    char *entries = capacity > ENTRIES_MAX ? NULL : tg_mem_resize(map->entries, capacity);
    if (entries == NULL) {
        return capacity > ENTRIES_MAX ? TG_ELIMIT : TG_ENOMEM;
    }
    map->entries = entries;
    map->capacity = capacity;
    return TG_OK;
}

enum tg_rc
tg_map_add(struct tg_map *map, const char *key, size_t n, uint32_t value)
{
    if (value == 0 || n > ENTRIES_MAX / 2) {
        return value == 0 ? TG_EINVAL : TG_ELIMIT;
    }
    const size_t size = size_of(n);
    const uint32_t hash = (uint32_t)tg_hash(map->seed, key, n);
    enum tg_rc rc = grow_entries(map, size);
    if (rc == TG_OK && (map->count + 1) * 2 > map->mask) {
        rc = grow_slots(map);
    }
    if (rc != TG_OK) {
        return rc;
    }
    struct slot *slot = slot_of(map, hash, key, n);
    if (slot->entry != 0) {
        return TG_EBUSY;
    }
    struct entry *entry = (struct entry *)(map->entries + map->used);
    *entry = (struct entry){.value = value, .n = (uint32_t)n};
    if (n > 0) {
        memcpy(entry->key, key, n);
    }
    *slot = (struct slot){.hash = hash, .entry = (uint32_t)map->used + 1};
    map->used += size;
    map->count++;
    return TG_OK;
}

uint32_t
tg_map_find(const struct tg_map *map, const char *key, size_t n)
{
    const struct slot *slot = slot_of(map, (uint32_t)tg_hash(map->seed, key, n), key, n);
    return slot->entry == 0 ? 0 : entry_at(map, slot)->value;
}

uint32_t
tg_map_place(const struct tg_map *map, const char *key, size_t n)
{
    const struct slot *slot = slot_of(map, (uint32_t)tg_hash(map->seed, key, n), key, n);
    return slot->entry == 0 ? 0 : (slot->entry - 1) / ENTRY_ALIGN + 1;
}

uint32_t
tg_map_at(const struct tg_map *map, uint32_t place, struct tg_slice *key)
{
    const size_t offset = (size_t)(place - 1) * ENTRY_ALIGN;
    TG_ASSERT(place > 0 && offset < map->used);
    const struct entry *entry = (const struct entry *)(map->entries + offset);
    *key = tg_slice_of(entry->key, entry->n);
    return entry->value;
}

uint32_t
tg_map_next(const struct tg_map *map, uint32_t place)
{
    size_t offset = 0;
    if (place > 0) {
        struct tg_slice key;
        (void)tg_map_at(map, place, &key);
        offset = (size_t)(place - 1) * ENTRY_ALIGN + size_of(key.n);
    }
    return offset < map->used ? (uint32_t)(offset / ENTRY_ALIGN) + 1 : 0;
}
