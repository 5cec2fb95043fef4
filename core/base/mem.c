#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

enum { BLOCK_SIZE = 16 * 1024 };

struct tg_arena_block {
    struct tg_arena_block *next;
    size_t size;
};

static unsigned long fail_at;

static bool
must_fail(void)
{
    return fail_at != 0 && --fail_at == 0;
}

void
tg_mem_fail_at(unsigned long n)
{
    fail_at = n;
}

void
tg_mem_poison(const void *p, size_t n)
{
    ASAN_POISON_MEMORY_REGION(p, n);
}

void
tg_mem_unpoison(const void *p, size_t n)
{
    ASAN_UNPOISON_MEMORY_REGION(p, n);
}

void *
tg_mem_zero(size_t n)
{
    return must_fail() ? NULL : calloc(1, n);
}

void *
tg_mem_alloc(size_t n)
{
    return must_fail() ? NULL : malloc(n);
}

void *
tg_mem_resize(void *p, size_t n)
{
    return must_fail() ? NULL : realloc(p, n);
}

char *
tg_mem_text(const char *p, size_t n)
{
    char *text = tg_mem_alloc(n + 1);
    if (text != NULL) {
        if (n > 0) {
            memcpy(text, p, n);
        }
        text[n] = '\0';
    }
    return text;
}

void
tg_mem_free(void *p)
{
    free(p);
}

void
tg_arena_init(struct tg_arena *arena, void *first, size_t first_size, size_t max)
{
    const size_t skip = (8 - (uintptr_t)first % 8) % 8; /* all that is handed out is aligned to 8 */
    *arena = (struct tg_arena){.first = (char *)first + skip, .first_size = first_size - skip, .max = max};
    first_size -= skip;
    arena->pos = arena->first;
    arena->end = arena->first + first_size;
    ASAN_POISON_MEMORY_REGION(arena->first, first_size);
}

void
tg_arena_reset(struct tg_arena *arena)
{
    while (arena->blocks != NULL) {
        struct tg_arena_block *next = arena->blocks->next;
        ASAN_UNPOISON_MEMORY_REGION(arena->blocks, arena->blocks->size);
        tg_mem_free(arena->blocks);
        arena->blocks = next;
    }
    arena->total = 0;
    arena->pos = arena->first;
    arena->end = arena->first + arena->first_size;
    ASAN_POISON_MEMORY_REGION(arena->first, arena->first_size);
}

void
tg_arena_fini(struct tg_arena *arena)
{
    tg_arena_reset(arena);
    ASAN_UNPOISON_MEMORY_REGION(arena->first, arena->first_size);
}

static void *
alloc_in_new_block(struct tg_arena *arena, size_t n)
{
    size_t size = sizeof(struct tg_arena_block) + n;
    if (size < BLOCK_SIZE) {
        size = BLOCK_SIZE;
    }
    if (size < n || arena->total + size > arena->max) {
        return NULL;
    }
    struct tg_arena_block *block = tg_mem_alloc(size);
    if (block == NULL) {
        return NULL;
    }
    block->next = arena->blocks;
    block->size = size;
    arena->blocks = block;
    arena->total += size;
    char *data = (char *)(block + 1);
    /* A large piece gets a block of its own and leaves the room in the current one to the small. */
    if (size > BLOCK_SIZE) {
        return data;
    }
    arena->pos = data + n;
    arena->end = (char *)block + size;
    ASAN_POISON_MEMORY_REGION(arena->pos, (size_t)(arena->end - arena->pos));
    return data;
}

void *
tg_arena_alloc(struct tg_arena *arena, size_t n)
{
    const size_t rounded = (n + 7) & ~(size_t)7;
    if (rounded < n) {
        return NULL;
    }
    if ((size_t)(arena->end - arena->pos) < rounded) {
        return alloc_in_new_block(arena, rounded);
    }
    char *p = arena->pos;
    arena->pos += rounded;
    ASAN_UNPOISON_MEMORY_REGION(p, rounded);
    return p;
}

char *
tg_arena_copy(struct tg_arena *arena, const char *p, size_t n)
{
    char *copy = tg_arena_alloc(arena, n == 0 ? 1 : n);
    if (copy != NULL && n > 0) {
        memcpy(copy, p, n);
    }
    return copy;
}
