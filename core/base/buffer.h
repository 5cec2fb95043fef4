/*
 * buffer.h - large buffers, borrowed while bytes flow and given back when they do not.
 *
 * Owns: the free ones, up to a maximum. Used by: whoever reads from a socket. One pool a worker; no locks.
 * Last given, first taken, so that the same few stay in the processor's cache.
 */
#ifndef TG_BASE_BUFFER_H
#define TG_BASE_BUFFER_H

#include <stddef.h>

#include "base/rc.h"

enum {
    TG_BUFFER_HEADROOM = 1024,    /* bytes before the data, where a head may be put in front of a body */
    TG_BUFFER_WINDOW = 64 * 1024, /* bytes read at once as long as nothing is known of the pace */
    TG_BUFFER_SIZE = 256 * 1024   /* bytes read at once while both sides keep up: a third fewer cycles a byte */
};

struct tg_buffer {
    struct tg_buffer *next; /* in the pool only */
    char headroom[TG_BUFFER_HEADROOM];
    char data[TG_BUFFER_SIZE];
};

struct tg_buffer_pool {
    struct tg_buffer *free;
    unsigned count;    /* free ones */
    unsigned free_max; /* more are returned to the C library */
    unsigned long taken;
};

void tg_buffer_pool_init(struct tg_buffer_pool *pool, unsigned free_max);
/* Frees the free ones; taken ones are their takers'. */
void tg_buffer_pool_fini(struct tg_buffer_pool *pool);
/* A buffer with arbitrary content, or NULL when memory is short. */
struct tg_buffer *tg_buffer_take(struct tg_buffer_pool *pool);
/* NULL is allowed. */
void tg_buffer_give(struct tg_buffer_pool *pool, struct tg_buffer *buffer);

#endif
