#include "zone/dict.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

enum {
    MAGIC = 0x7464d1c7, /* changes with any struct below: a newer program is handed what an older one made */
    SHARDS = 16,
    CLASS_MIN = 6,  /* 64 bytes */
    CLASS_MAX = 20, /* 1 MiB */
    CLASSES = CLASS_MAX - CLASS_MIN + 1,
    BYTES_PER_BUCKET = 256,
    CHANCES = 32
};

/* All links are offsets from the start of the memory, 0 for none: each process maps it elsewhere. */
struct entry {
    uint32_t next; /* of the bucket, or of the free list */
    uint32_t newer;
    uint32_t older;
    uint32_t hash;
    uint64_t expires; /* milliseconds; 0 never */
    double number;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t type;
    uint8_t size_class : 7;
    uint8_t used : 1; /* since it was last at the old end */
};

struct size_class {
    uint32_t free;
    uint32_t newest;
    uint32_t oldest;
};

struct shard {
    pthread_mutex_t mutex;
    uint32_t buckets; /* offset of the array */
    uint32_t bucket_count;
    uint32_t begin; /* of the memory for entries */
    uint32_t end;
    uint32_t unused; /* from here on nothing was handed out yet */
    struct size_class classes[CLASSES];
};

struct memory {
    uint32_t magic;
    uint32_t size;
    uint64_t seed;
    struct shard shards[SHARDS];
};

struct tg_dict {
    struct memory *memory;
    uint64_t inserted; /* entries by this process, each of which may have cost another its place */
    char *copy;        /* of the value that was got last */
    size_t copy_size;
};

static struct entry *
at(const struct tg_dict *dict, uint32_t offset)
{
    return (struct entry *)((char *)dict->memory + offset);
}

static uint32_t *
bucket_of(const struct tg_dict *dict, const struct shard *shard, uint32_t hash)
{
    uint32_t *buckets = (uint32_t *)((char *)dict->memory + shard->buckets);
    return &buckets[hash % shard->bucket_count];
}

static void
empty_shard(struct memory *memory, struct shard *shard)
{
    memset((char *)memory + shard->buckets, 0, shard->bucket_count * sizeof(uint32_t));
    memset(shard->classes, 0, sizeof shard->classes);
    shard->unused = shard->begin;
}

static enum tg_rc
init_memory(struct memory *memory, size_t size)
{
    pthread_mutexattr_t attr;
    if (pthread_mutexattr_init(&attr) != 0) {
        return TG_ENOMEM;
    }
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    memory->magic = MAGIC;
    memory->size = (uint32_t)size;
    const ssize_t random = getrandom(&memory->seed, sizeof memory->seed, 0);
    (void)random; /* a seed of 0 still works */
    const uint32_t share = (uint32_t)((size - sizeof *memory) / SHARDS) & ~63U;
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &memory->shards[i];
        (void)pthread_mutex_init(&shard->mutex, &attr);
        shard->buckets = (((uint32_t)sizeof *memory + 63) & ~63U) + i * share;
        shard->bucket_count = share / BYTES_PER_BUCKET;
        shard->begin = (shard->buckets + shard->bucket_count * (uint32_t)sizeof(uint32_t) + 63) & ~63U;
        shard->end = shard->buckets + share - 64;
        empty_shard(memory, shard);
    }
    (void)pthread_mutexattr_destroy(&attr);
    return TG_OK;
}

int
tg_dict_create(size_t size, struct tg_err *err)
{
    if (size < TG_DICT_SIZE_MIN) {
        size = TG_DICT_SIZE_MIN;
    }
    if (size > UINT32_MAX - 4096) {
        (void)tg_err_set(err, TG_ELIMIT, "a dictionary has at most 4 GiB");
        return -1;
    }
    const int fd = memfd_create("tidegate-dict", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
        (void)tg_err_errno(err, "shared memory of %zu bytes", size);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    struct memory *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        (void)tg_err_errno(err, "shared memory of %zu bytes", size);
        close(fd);
        return -1;
    }
    const enum tg_rc rc = init_memory(memory, size);
    (void)munmap(memory, size);
    if (rc != TG_OK) {
        (void)tg_err_set(err, rc, "shared memory: no mutex");
        close(fd);
        return -1;
    }
    return fd;
}

struct tg_dict *
tg_dict_open(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size < TG_DICT_SIZE_MIN) {
        return NULL;
    }
    struct tg_dict *dict = tg_mem_new(struct tg_dict);
    if (dict == NULL) {
        return NULL;
    }
    dict->memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (dict->memory == MAP_FAILED) {
        tg_mem_free(dict);
        return NULL;
    }
    if (dict->memory->magic != MAGIC || dict->memory->size != (uint32_t)st.st_size) {
        (void)munmap(dict->memory, (size_t)st.st_size);
        tg_mem_free(dict);
        return NULL;
    }
    return dict;
}

void
tg_dict_close(struct tg_dict *dict)
{
    if (dict != NULL) {
        (void)munmap(dict->memory, dict->memory->size);
        tg_mem_free(dict->copy);
        tg_mem_free(dict);
    }
}

size_t
tg_dict_size(const struct tg_dict *dict)
{
    return dict->memory->size;
}

static enum tg_rc
lock_shard(struct tg_dict *dict, struct shard *shard)
{
    const int error = pthread_mutex_lock(&shard->mutex);
    if (error == EOWNERDEAD) {
        empty_shard(dict->memory, shard);
        (void)pthread_mutex_consistent(&shard->mutex);
        tg_log(TG_LOG_WARN, "a worker died inside a dictionary: one of its %d parts was emptied", SHARDS);
        return TG_OK;
    }
    return error == 0 ? TG_OK : TG_ESYSTEM;
}

/* Where a key is. TG_EINVAL: it is none. */
static enum tg_rc
locate(struct tg_dict *dict, const char *key, size_t n, struct shard **shard, uint32_t *hash)
{
    if (n == 0 || n > TG_DICT_KEY_MAX) {
        return TG_EINVAL;
    }
    const uint64_t wide = tg_hash(dict->memory->seed, key, n);
    *hash = (uint32_t)(wide >> 32);
    *shard = &dict->memory->shards[wide % SHARDS];
    return TG_OK;
}

static enum tg_rc
lock(struct tg_dict *dict, const char *key, size_t n, struct shard **shard, uint32_t *hash)
{
    const enum tg_rc rc = locate(dict, key, n, shard, hash);
    return rc != TG_OK ? rc : lock_shard(dict, *shard);
}

static void
unlock(struct shard *shard)
{
    (void)pthread_mutex_unlock(&shard->mutex);
}

static void
unlink_recent(const struct tg_dict *dict, struct shard *shard, struct entry *entry)
{
    struct size_class *class = &shard->classes[entry->size_class];
    if (entry->newer != 0) {
        at(dict, entry->newer)->older = entry->older;
    } else {
        class->newest = entry->older;
    }
    if (entry->older != 0) {
        at(dict, entry->older)->newer = entry->newer;
    } else {
        class->oldest = entry->newer;
    }
}

static void
link_recent(const struct tg_dict *dict, struct shard *shard, struct entry *entry, uint32_t offset)
{
    struct size_class *class = &shard->classes[entry->size_class];
    entry->newer = 0;
    entry->older = class->newest;
    if (class->newest != 0) {
        at(dict, class->newest)->newer = offset;
    } else {
        class->oldest = offset;
    }
    class->newest = offset;
}

static void
drop(const struct tg_dict *dict, struct shard *shard, uint32_t offset)
{
    struct entry *entry = at(dict, offset);
    uint32_t *link = bucket_of(dict, shard, entry->hash);
    while (*link != offset) {
        link = &at(dict, *link)->next;
    }
    *link = entry->next;
    unlink_recent(dict, shard, entry);
    entry->next = shard->classes[entry->size_class].free;
    shard->classes[entry->size_class].free = offset;
}

/*
 * The entry of the key, marked as used (to move it to the front would touch its neighbours, three cache misses); 0:
 * none. It may have expired.
 */
static uint32_t
look_up(const struct tg_dict *dict, struct shard *shard, uint32_t hash, const char *key, size_t n)
{
    uint32_t offset = *bucket_of(dict, shard, hash);
    for (; offset != 0; offset = at(dict, offset)->next) {
        struct entry *entry = at(dict, offset);
        if (entry->hash != hash || entry->key_len != n || memcmp(entry + 1, key, n) != 0) {
            continue;
        }
        if (!entry->used) {
            entry->used = 1;
        }
        return offset;
    }
    return 0;
}

static bool
is_over(const struct entry *entry, uint64_t now)
{
    return entry->expires != 0 && entry->expires <= now;
}

/* The same; one that has expired is dropped. */
static uint32_t
find(const struct tg_dict *dict, struct shard *shard, uint32_t hash, const char *key, size_t n, uint64_t now)
{
    const uint32_t offset = look_up(dict, shard, hash, key, n);
    if (offset != 0 && is_over(at(dict, offset), now)) {
        drop(dict, shard, offset);
        return 0;
    }
    return offset;
}

static uint8_t
class_for(size_t size)
{
    uint8_t class = 0;
    while (((size_t)1 << (class + CLASS_MIN)) < size) {
        class ++;
    }
    return class;
}

/* The oldest one that was not used since it came to the old end: second chance, for so many of them at most. */
static void
evict(const struct tg_dict *dict, struct shard *shard, struct size_class *list)
{
    for (unsigned i = 0; i < CHANCES && at(dict, list->oldest)->used; i++) {
        const uint32_t offset = list->oldest;
        struct entry *entry = at(dict, offset);
        entry->used = 0;
        unlink_recent(dict, shard, entry);
        link_recent(dict, shard, entry, offset);
    }
    drop(dict, shard, list->oldest);
}

/* Room for an entry: a free one of its class, memory never used, or that of one of its class that is used little. */
static uint32_t
allocate(const struct tg_dict *dict, struct shard *shard, uint8_t class)
{
    struct size_class *list = &shard->classes[class];
    const uint32_t size = 1U << (class + CLASS_MIN);
    if (list->free == 0 && shard->end - shard->unused >= size) {
        const uint32_t offset = shard->unused;
        shard->unused += size;
        return offset;
    }
    if (list->free == 0 && list->oldest != 0) {
        evict(dict, shard, list);
    }
    const uint32_t offset = list->free;
    if (offset != 0) {
        list->free = at(dict, offset)->next;
    }
    return offset;
}

static enum tg_rc
insert(struct tg_dict *dict, struct shard *shard, uint32_t hash, const char *key, size_t n, uint64_t expires,
       const struct tg_dict_value *value)
{
    const size_t size = sizeof(struct entry) + n + value->n;
    if (size > (size_t)1 << CLASS_MAX) {
        return TG_ELIMIT;
    }
    const uint8_t class = class_for(size);
    const uint32_t offset = allocate(dict, shard, class);
    if (offset == 0) {
        return TG_ELIMIT;
    }
    struct entry *entry = at(dict, offset);
    uint32_t *bucket = bucket_of(dict, shard, hash);
    *entry = (struct entry){.next = *bucket,
                            .hash = hash,
                            .expires = expires,
                            .number = value->number,
                            .value_len = (uint32_t)value->n,
                            .key_len = (uint16_t)n,
                            .type = (uint8_t)value->type,
                            .size_class = class & 0x7f};
    memcpy(entry + 1, key, n);
    if (value->n > 0 && value->p != NULL) {
        memcpy((char *)(entry + 1) + n, value->p, value->n);
    } else if (value->n > 0) {
        memset((char *)(entry + 1) + n, 0, value->n);
    }
    *bucket = offset;
    link_recent(dict, shard, entry, offset);
    dict->inserted++;
    return TG_OK;
}

static enum tg_rc
copy_value(struct tg_dict *dict, const struct entry *entry, struct tg_dict_value *value)
{
    if (entry->value_len > dict->copy_size) {
        char *copy = tg_mem_resize(dict->copy, entry->value_len);
        if (copy == NULL) {
            return TG_ENOMEM;
        }
        dict->copy = copy;
        dict->copy_size = entry->value_len;
    }
    if (entry->value_len > 0) {
        memcpy(dict->copy, (const char *)(entry + 1) + entry->key_len, entry->value_len);
    }
    *value = (struct tg_dict_value){(enum tg_dict_type)entry->type, entry->number, dict->copy, entry->value_len};
    return TG_OK;
}

enum tg_rc
tg_dict_get(struct tg_dict *dict, const char *key, size_t n, uint64_t now, struct tg_dict_value *value)
{
    struct shard *shard;
    uint32_t hash;
    enum tg_rc rc = lock(dict, key, n, &shard, &hash);
    if (rc != TG_OK) {
        return rc;
    }
    const uint32_t offset = find(dict, shard, hash, key, n, now);
    rc = offset == 0 ? TG_ENONE : copy_value(dict, at(dict, offset), value);
    unlock(shard);
    return rc;
}

enum tg_rc
tg_dict_set(struct tg_dict *dict, const char *key, size_t n, uint64_t now, uint64_t ttl,
            const struct tg_dict_value *value, bool only_new)
{
    struct shard *shard;
    uint32_t hash;
    enum tg_rc rc = lock(dict, key, n, &shard, &hash);
    if (rc != TG_OK) {
        return rc;
    }
    const uint32_t offset = find(dict, shard, hash, key, n, now);
    if (offset != 0 && only_new) {
        rc = TG_EBUSY;
    } else {
        if (offset != 0) {
            drop(dict, shard, offset);
        }
        rc = insert(dict, shard, hash, key, n, ttl == 0 ? 0 : now + ttl, value);
    }
    unlock(shard);
    return rc;
}

static bool
is_equal(struct tg_dict *dict, uint32_t offset, const struct tg_dict_value *expected)
{
    if (offset == 0 || expected->type == TG_DICT_NIL) {
        return offset == 0 && expected->type == TG_DICT_NIL;
    }
    const struct entry *entry = at(dict, offset);
    if (entry->type != expected->type) {
        return false;
    }
    if (expected->type == TG_DICT_NUMBER || expected->type == TG_DICT_BOOLEAN) {
        return entry->number <= expected->number && entry->number >= expected->number;
    }
    return entry->value_len == expected->n &&
           memcmp((const char *)(entry + 1) + entry->key_len, expected->p, expected->n) == 0;
}

enum tg_rc
tg_dict_compare_set(struct tg_dict *dict, const char *key, size_t n, uint64_t now, uint64_t ttl,
                    const struct tg_dict_value *expected, const struct tg_dict_value *value)
{
    struct shard *shard;
    uint32_t hash;
    enum tg_rc rc = lock(dict, key, n, &shard, &hash);
    if (rc != TG_OK) {
        return rc;
    }
    const uint32_t offset = find(dict, shard, hash, key, n, now);
    if (!is_equal(dict, offset, expected)) {
        rc = TG_EBUSY;
    } else {
        if (offset != 0) {
            drop(dict, shard, offset);
        }
        if (value->type != TG_DICT_NIL) {
            rc = insert(dict, shard, hash, key, n, ttl == 0 ? 0 : now + ttl, value);
        }
    }
    unlock(shard);
    return rc;
}

enum tg_rc
tg_dict_incr(struct tg_dict *dict, const char *key, size_t n, uint64_t now, uint64_t ttl, double by, double *result)
{
    struct shard *shard;
    uint32_t hash;
    enum tg_rc rc = lock(dict, key, n, &shard, &hash);
    if (rc != TG_OK) {
        return rc;
    }
    const uint32_t offset = find(dict, shard, hash, key, n, now);
    if (offset == 0) {
        const struct tg_dict_value value = {.type = TG_DICT_NUMBER, .number = by};
        rc = insert(dict, shard, hash, key, n, ttl == 0 ? 0 : now + ttl, &value);
        *result = by;
    } else if (at(dict, offset)->type == TG_DICT_NUMBER) {
        *result = at(dict, offset)->number += by;
    } else {
        rc = TG_EINVAL;
    }
    unlock(shard);
    return rc;
}

/* ---------------------------------------------------------------- lists of numbers */

_Static_assert(SHARDS <= 32, "a bit for each shard");

/* Behind a key of any length they need not stand where a double may. */
static char *
numbers_of(struct entry *entry)
{
    return (char *)(entry + 1) + entry->key_len;
}

void
tg_dict_release(struct tg_dict *dict, uint32_t held)
{
    for (uint32_t i = 0; held != 0; i++, held >>= 1) {
        if ((held & 1) != 0) {
            unlock(&dict->memory->shards[i]);
        }
    }
}

static void
look(struct tg_dict *dict, uint64_t now, struct tg_dict_list *list)
{
    list->offset = look_up(dict, &dict->memory->shards[list->shard], list->hash, list->key, list->n);
    list->seen = dict->inserted;
    list->count = 0;
    list->numbers = NULL;
    if (list->offset != 0) {
        struct entry *entry = at(dict, list->offset);
        if (entry->type == TG_DICT_NUMBERS && !is_over(entry, now)) {
            list->count = entry->value_len / sizeof(double);
            list->numbers = numbers_of(entry);
        }
    }
}

/* Each shard once, in the order of the shards: so no two ever wait for each other. */
enum tg_rc
tg_dict_hold(struct tg_dict *dict, uint64_t now, struct tg_dict_list *lists, unsigned count, uint32_t *held)
{
    uint32_t wanted = 0;
    for (unsigned i = 0; i < count; i++) {
        struct shard *shard;
        const enum tg_rc rc = locate(dict, lists[i].key, lists[i].n, &shard, &lists[i].hash);
        if (rc != TG_OK) {
            return rc;
        }
        lists[i].shard = (uint32_t)(shard - dict->memory->shards);
        wanted |= 1U << lists[i].shard;
    }
    for (uint32_t left = wanted; left != 0; left &= left - 1) {
        const enum tg_rc rc = lock_shard(dict, &dict->memory->shards[__builtin_ctz(left)]);
        if (rc != TG_OK) {
            tg_dict_release(dict, wanted & ~left);
            return rc;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        look(dict, now, &lists[i]);
    }
    *held = wanted;
    return TG_OK;
}

enum tg_rc
tg_dict_keep(struct tg_dict *dict, uint64_t now, struct tg_dict_list *list, size_t count, uint64_t ttl)
{
    struct shard *shard = &dict->memory->shards[list->shard];
    const size_t size = count * sizeof(double);
    if (list->seen != dict->inserted) {
        look(dict, now, list);
    }
    struct entry *entry = list->offset == 0 ? NULL : at(dict, list->offset);
    const uint64_t expires = ttl == 0 ? 0 : now + ttl;
    if (entry != NULL && size > 0 && entry->value_len == size && entry->type == TG_DICT_NUMBERS) {
        if (list->count == 0) {
            memset(numbers_of(entry), 0, size);
        }
        entry->expires = expires;
    } else {
        if (entry != NULL) {
            drop(dict, shard, list->offset);
            list->offset = 0;
        }
        const struct tg_dict_value none = {.type = TG_DICT_NUMBERS, .n = size};
        const enum tg_rc rc = size == 0 ? TG_OK : insert(dict, shard, list->hash, list->key, list->n, expires, &none);
        look(dict, now, list);
        return rc;
    }
    list->numbers = numbers_of(entry);
    list->count = count;
    return TG_OK;
}

enum tg_rc
tg_dict_read(struct tg_dict *dict, const char *key, size_t n, uint64_t now, double *numbers, size_t max, size_t *count)
{
    struct tg_dict_list list = {.key = key, .n = n};
    uint32_t held;
    const enum tg_rc rc = tg_dict_hold(dict, now, &list, 1, &held);
    if (rc != TG_OK) {
        return rc;
    }
    *count = list.count;
    if (list.count > 0) {
        memcpy(numbers, list.numbers, (list.count < max ? list.count : max) * sizeof *numbers);
    }
    tg_dict_release(dict, held);
    return TG_OK;
}

enum tg_rc
tg_dict_swap(struct tg_dict *dict, uint64_t now, const struct tg_dict_change *changes, unsigned count)
{
    struct tg_dict_list lists[TG_DICT_SWAP_MAX];
    uint32_t held = 0;
    enum tg_rc rc = count == 0 || count > TG_DICT_SWAP_MAX ? TG_EINVAL : TG_OK;
    for (unsigned i = 0; i < count && rc == TG_OK; i++) {
        lists[i] = (struct tg_dict_list){.key = changes[i].key, .n = changes[i].n};
    }
    if (rc == TG_OK) {
        rc = tg_dict_hold(dict, now, lists, count, &held);
    }
    for (unsigned i = 0; i < count && rc == TG_OK; i++) {
        const size_t size = lists[i].count * sizeof(double);
        const bool same = lists[i].count == changes[i].old_count &&
                          (size == 0 || memcmp(lists[i].numbers, changes[i].old, size) == 0);
        rc = same ? TG_OK : TG_EBUSY;
    }
    for (unsigned i = 0; i < count && rc == TG_OK; i++) {
        rc = tg_dict_keep(dict, now, &lists[i], changes[i].new_count, changes[i].ttl);
        if (rc == TG_OK && changes[i].new_count > 0) {
            memcpy(lists[i].numbers, changes[i].new, changes[i].new_count * sizeof(double));
        }
    }
    tg_dict_release(dict, held);
    return rc;
}

enum tg_rc
tg_dict_delete(struct tg_dict *dict, const char *key, size_t n, uint64_t now)
{
    struct shard *shard;
    uint32_t hash;
    enum tg_rc rc = lock(dict, key, n, &shard, &hash);
    if (rc != TG_OK) {
        return rc;
    }
    const uint32_t offset = find(dict, shard, hash, key, n, now);
    if (offset != 0) {
        drop(dict, shard, offset);
    }
    unlock(shard);
    return offset == 0 ? TG_ENONE : TG_OK;
}

enum tg_rc
tg_dict_ttl(struct tg_dict *dict, const char *key, size_t n, uint64_t now, uint64_t *left)
{
    struct shard *shard;
    uint32_t hash;
    enum tg_rc rc = lock(dict, key, n, &shard, &hash);
    if (rc != TG_OK) {
        return rc;
    }
    const uint32_t offset = find(dict, shard, hash, key, n, now);
    if (offset != 0) {
        const uint64_t expires = at(dict, offset)->expires;
        *left = expires == 0 ? 0 : expires - now;
    }
    unlock(shard);
    return offset == 0 ? TG_ENONE : TG_OK;
}
