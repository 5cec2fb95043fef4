/*
 * mem.h - the only place that asks the C library for memory, and arenas.
 *
 * Owns: nothing globally but the fault counter of tests. Used by: everything. An arena gives memory that is freed all
 * at once; what it has not handed out is poisoned under AddressSanitizer, so that an overrun inside it is seen.
 */
#ifndef TG_BASE_MEM_H
#define TG_BASE_MEM_H

#include <stddef.h>

#include "abi.h"
#include "base/rc.h"

/* Zeroed memory, or NULL. To be freed with tg_mem_free. */
void *tg_mem_zero(size_t n);
/* Memory as it comes, or NULL. */
void *tg_mem_alloc(size_t n);
/* Grows or shrinks `p` as realloc does; on NULL `p` is untouched. */
void *tg_mem_resize(void *p, size_t n);
/* A NUL-terminated copy of `n` bytes, or NULL. */
char *tg_mem_text(const char *p, size_t n);
void tg_mem_free(void *p);

#define tg_mem_new(type) ((type *)tg_mem_zero(sizeof(type)))

/* AddressSanitizer finds who touches these bytes, until they are forgiven. Nothing without it. */
void tg_mem_poison(const void *p, size_t n);
void tg_mem_unpoison(const void *p, size_t n);

/* Tests: the n-th allocation from now fails (1 is the next), 0 switches it off. */
void tg_mem_fail_at(unsigned long n);

struct tg_arena_block;

/* Bump allocator. `first` is the caller's memory and outlives the arena; more blocks come from the heap up to `max`. */
struct tg_arena {
    char *pos;
    char *end;
    char *first;
    size_t first_size;
    struct tg_arena_block *blocks;
    size_t total; /* bytes of heap blocks */
    size_t max;   /* of total */
};

void tg_arena_init(struct tg_arena *arena, void *first, size_t first_size, size_t max);
/* Frees all but `first`, which is empty again. */
void tg_arena_reset(struct tg_arena *arena);
/* Frees all, and gives `first` back as it came. */
void tg_arena_fini(struct tg_arena *arena);
/* `n` bytes aligned to 8, valid until reset; NULL when memory is short or `max` is reached. */
void *tg_arena_alloc(struct tg_arena *arena, size_t n);
/* A copy of `n` bytes at `p`, or NULL. */
char *tg_arena_copy(struct tg_arena *arena, const char *p, size_t n);

#endif
