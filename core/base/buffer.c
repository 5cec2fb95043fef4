#include "base/buffer.h"

#include "base/mem.h"

void
tg_buffer_pool_init(struct tg_buffer_pool *pool, unsigned free_max)
{
    *pool = (struct tg_buffer_pool){.free_max = free_max};
}

void
tg_buffer_pool_fini(struct tg_buffer_pool *pool)
{
    while (pool->free != NULL) {
        struct tg_buffer *next = pool->free->next;
        tg_mem_unpoison(pool->free, sizeof *pool->free);
        tg_mem_free(pool->free);
        pool->free = next;
    }
    pool->count = 0;
}

struct tg_buffer *
tg_buffer_take(struct tg_buffer_pool *pool)
{
    struct tg_buffer *buffer = pool->free;
    if (buffer != NULL) {
        pool->free = buffer->next;
        pool->count--;
        tg_mem_unpoison(buffer->headroom, sizeof *buffer - offsetof(struct tg_buffer, headroom));
    } else {
        buffer = tg_mem_alloc(sizeof *buffer);
        if (buffer == NULL) {
            return NULL;
        }
    }
    pool->taken++;
    return buffer;
}

void
tg_buffer_give(struct tg_buffer_pool *pool, struct tg_buffer *buffer)
{
    if (buffer == NULL) {
        return;
    }
    pool->taken--;
    if (pool->count >= pool->free_max) {
        tg_mem_free(buffer);
        return;
    }
    buffer->next = pool->free;
    pool->free = buffer;
    pool->count++;
    /* Whoever still reads it is found. */
    tg_mem_poison(buffer->headroom, sizeof *buffer - offsetof(struct tg_buffer, headroom));
}
