/*
 * map.h - from bytes to a number: made once, read for every request.
 *
 * Owns: copies of its keys. Used by: zone/ (the hash), vm/ (credentials and the like). A table of strings in Lua costs
 * a look-up several cache misses and an interned string; this costs one and none.
 */
#ifndef TG_BASE_MAP_H
#define TG_BASE_MAP_H

#include <stdint.h>

#include "base/rc.h"
#include "base/slice.h"

struct tg_map;

/* Depends on `seed`, so that who chooses keys cannot choose where they fall. */
uint64_t tg_hash(uint64_t seed, const char *p, size_t n);

/* An empty map, to be freed with tg_map_free; NULL when memory is short. */
struct tg_map *tg_map_new(void);
void tg_map_free(struct tg_map *map);
/* TG_EBUSY: the key is there already, and keeps its value. TG_EINVAL: a value of 0. TG_ELIMIT: 1 GiB of keys. */
TG_MUST_CHECK enum tg_rc tg_map_add(struct tg_map *map, const char *key, size_t n, uint32_t value);
/* The value of the key, 0 when there is none. */
uint32_t tg_map_find(const struct tg_map *map, const char *key, size_t n);
/*
 * Where the key is, which never changes, 0 when there is none: smaller than whatever would point to it. at: its value,
 * and *key until the next tg_map_add; `place` is one that place or next has told. next: the one that was added behind
 * it, of 0 the first; 0: there is no other one.
 */
uint32_t tg_map_place(const struct tg_map *map, const char *key, size_t n);
uint32_t tg_map_at(const struct tg_map *map, uint32_t place, struct tg_slice *key);
uint32_t tg_map_next(const struct tg_map *map, uint32_t place);

#endif
