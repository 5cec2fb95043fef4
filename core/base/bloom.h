/*
 * bloom.h - a Bloom filter: a set of names that may take a stranger for one of them, but never one of them for a
 * stranger.
 *
 * Owns: its bits, 16 for each name that it is made for: of strangers it then takes 6 in 10,000 for one of its names,
 * and more when there are more names than that. Used by: lists of what was revoked, which ask a server only of those
 * that are in it. A name can be added, but not taken out: who wants that makes a new one. No locks.
 */
#ifndef TG_BASE_BLOOM_H
#define TG_BASE_BLOOM_H

#include "base/rc.h"
#include "base/slice.h"

enum { TG_BLOOM_MIN = 1024, TG_BLOOM_MAX = 64 * 1024 * 1024 }; /* names that one is made for: 2 KiB to 128 MiB */

struct tg_bloom;

/* An empty filter for so many names, or for MIN or MAX of them, to be freed with tg_bloom_free; NULL when memory is
 * short. */
struct tg_bloom *tg_bloom_new(size_t names);
void tg_bloom_free(struct tg_bloom *bloom);
/* Bytes of its bits. */
size_t tg_bloom_size(const struct tg_bloom *bloom);
/* A name is of a kind, and of two kinds the same name is two: so neither has to be joined with the other. */
void tg_bloom_add(struct tg_bloom *bloom, struct tg_slice kind, struct tg_slice name);
/* false: it was never added. */
bool tg_bloom_has(const struct tg_bloom *bloom, struct tg_slice kind, struct tg_slice name);

#endif
