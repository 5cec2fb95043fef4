/*
 * h2_queue.h - the bytes of one stream that wait for its window.
 *
 * Owns: a ring of at most TG_H2_QUEUE_MAX bytes, as large as what has waited and gone as soon as nothing waits.
 * Used by: h2.c. Zero it to begin.
 */
#ifndef TG_HTTP_H2_QUEUE_H
#define TG_HTTP_H2_QUEUE_H

#include <stdint.h>
#include <sys/uio.h>

#include "base/rc.h"

enum { TG_H2_QUEUE_MAX = 64 * 1024 };

struct tg_h2_queue {
    char *bytes;
    uint32_t size; /* a power of two */
    uint32_t first;
    uint32_t used;
};

void tg_h2_queue_fini(struct tg_h2_queue *queue);
/* Appends as many bytes as there is room for. TG_ENOMEM: none. */
TG_MUST_CHECK enum tg_rc tg_h2_queue_put(struct tg_h2_queue *queue, const struct iovec *v, int count, size_t *taken);
/* Moves the first `n` bytes to `out`: not more than wait. */
void tg_h2_queue_take(struct tg_h2_queue *queue, char *out, size_t n);

#endif
