#include "http/h2_queue.h"

#include <string.h>

#include "base/mem.h"

enum { FIRST_SIZE = 1024 }; /* most answers of an API fit */

void
tg_h2_queue_fini(struct tg_h2_queue *queue)
{
    tg_mem_free(queue->bytes);
    *queue = (struct tg_h2_queue){0};
}

/* Copies without taking. */
static void
peek(const struct tg_h2_queue *queue, char *out, size_t n)
{
    const size_t to_end = queue->size - queue->first;
    const size_t head = n < to_end ? n : to_end;
    memcpy(out, queue->bytes + queue->first, head);
    memcpy(out + head, queue->bytes, n - head);
}

static enum tg_rc
reserve(struct tg_h2_queue *queue, size_t n)
{
    uint32_t size = queue->size == 0 ? FIRST_SIZE : queue->size;
    while (size < n) {
        size *= 2;
    }
    if (size == queue->size) {
        return TG_OK;
    }
    char *bytes = tg_mem_alloc(size);
    if (bytes == NULL) {
        return TG_ENOMEM;
    }
    if (queue->used > 0) {
        peek(queue, bytes, queue->used);
    }
    tg_mem_free(queue->bytes);
    queue->bytes = bytes;
    queue->size = size;
    queue->first = 0;
    return TG_OK;
}

static void
append(struct tg_h2_queue *queue, const char *p, size_t n)
{
    const size_t at = (queue->first + queue->used) & (queue->size - 1);
    const size_t to_end = queue->size - at;
    const size_t head = n < to_end ? n : to_end;
    memcpy(queue->bytes + at, p, head);
    memcpy(queue->bytes, p + head, n - head);
    queue->used += (uint32_t)n;
}

enum tg_rc
tg_h2_queue_put(struct tg_h2_queue *queue, const struct iovec *v, int count, size_t *taken)
{
    size_t room = TG_H2_QUEUE_MAX - queue->used;
    size_t n = 0;
    for (int i = 0; i < count && n < room; i++) {
        n += v[i].iov_len < room - n ? v[i].iov_len : room - n;
    }
    if (n > 0 && reserve(queue, queue->used + n) != TG_OK) {
        return TG_ENOMEM;
    }
    *taken = n;
    for (int i = 0; n > 0; i++) {
        const size_t size = v[i].iov_len < n ? v[i].iov_len : n;
        if (size > 0) {
            append(queue, v[i].iov_base, size);
        }
        n -= size;
    }
    return TG_OK;
}

void
tg_h2_queue_take(struct tg_h2_queue *queue, char *out, size_t n)
{
    TG_ASSERT(n <= queue->used);
    if (n == 0) {
        return;
    }
    peek(queue, out, n);
    queue->first = (queue->first + (uint32_t)n) & (queue->size - 1);
    queue->used -= (uint32_t)n;
    if (queue->used == 0) {
        tg_h2_queue_fini(queue);
    }
}
