#include "proxy/relay.h"

#include <string.h>

#include "base/mem.h"

enum {
    ROUNDS_A_TURN = 16, /* reads of a whole buffer before others get their turn */
    CHUNK_FRAME = 20,   /* bytes at most around the data of a chunk */
    COPY_MIN = 4096
};

void
tg_relay_source(struct tg_relay *relay, char *raw, size_t raw_len, struct tg_buffer *buffer)
{
    relay->buffer = buffer;
    relay->raw = raw;
    relay->raw_len = raw_len;
    relay->bulk = false;
}

void
tg_relay_begin(struct tg_relay *relay, struct tg_slice head)
{
    relay->out_first = 0;
    relay->out_end = 0;
    relay->data_out = false;
    relay->ended = false;
    relay->started = false;
    relay->put = 0;
    if (head.n > 0) {
        relay->out[relay->out_end++] = (struct iovec){(void *)(uintptr_t)head.p, head.n};
    }
}

void
tg_relay_start(struct tg_relay *relay, struct tg_slice head, char *raw, size_t raw_len, struct tg_buffer *buffer)
{
    tg_relay_source(relay, raw, raw_len, buffer);
    tg_relay_begin(relay, head);
}

void
tg_relay_fini(struct tg_relay *relay)
{
    if (relay->buffer != NULL) {
        tg_buffer_give(relay->pool, relay->buffer);
        relay->buffer = NULL;
    }
    if (relay->made != NULL) {
        tg_buffer_give(relay->pool, relay->made);
        relay->made = NULL;
    }
    relay->made_len = 0;
    relay->raw_len = 0;
    relay->out_first = relay->out_end = 0;
}

/* What follows in memory what is there already needs no piece of its own: one piece costs the kernel less than two. */
static void
append(struct tg_relay *relay, const char *p, size_t n)
{
    struct iovec *last = relay->out_end > relay->out_first ? &relay->out[relay->out_end - 1] : NULL;
    if (last != NULL && (const char *)last->iov_base + last->iov_len == p) {
        last->iov_len += n;
        return;
    }
    relay->out[relay->out_end++] = (struct iovec){(void *)(uintptr_t)p, n};
}

/* Decodes a piece of what was read. */
static enum tg_relay_result
decode(struct tg_relay *relay, struct tg_slice *data, const struct tg_h1_fault **fault)
{
    size_t used = 0;
    enum tg_rc rc = tg_body_decode(relay->body, relay->raw, relay->raw_len, data, &used, fault);
    if (rc != TG_OK) {
        return rc == TG_ENOMEM ? TG_RELAY_NO_MEMORY : TG_RELAY_MALFORMED;
    }
    relay->raw += used;
    relay->raw_len -= used;
    return relay->body->total > relay->limit ? TG_RELAY_TOO_LARGE : TG_RELAY_DONE;
}

void
tg_relay_copy_fini(struct tg_relay_copy *copy)
{
    tg_mem_free(copy->p);
    *copy = (struct tg_relay_copy){.max = copy->max, .lost = true};
}

static void
keep(struct tg_relay_copy *copy, struct tg_slice data)
{
    if (copy->lost || data.n > copy->max - copy->n) {
        tg_relay_copy_fini(copy);
        return;
    }
    if (copy->n + data.n > copy->capacity) {
        size_t capacity = copy->capacity == 0 ? COPY_MIN : copy->capacity;
        while (capacity < copy->n + data.n) {
            capacity *= 2;
        }
        char *p = tg_mem_resize(copy->p, capacity);
        if (p == NULL) {
            tg_relay_copy_fini(copy);
            return;
        }
        copy->p = p;
        copy->capacity = capacity;
    }
    memcpy(copy->p + copy->n, data.p, data.n);
    copy->n += data.n;
}

/* Appends it, framed, to what is to be written. */
static void
frame(struct tg_relay *relay, struct tg_slice data)
{
    if (relay->copy != NULL) {
        keep(relay->copy, data);
    }
    if (relay->track != NULL) {
        (void)tg_ws_track(relay->track, data.p, data.n, TG_WS_NO_STOP);
    }
    relay->data_out = true;
    if (relay->chunked) {
        append(relay, relay->chunk_line, tg_body_chunk_line(relay->chunk_line, data.n));
        append(relay, data.p, data.n);
        append(relay, "\r\n", 2);
    } else {
        append(relay, data.p, data.n);
    }
}

void
tg_relay_finish(struct tg_relay *relay)
{
    relay->ended = true;
    if (relay->chunked) {
        append(relay, "0\r\n\r\n", 5);
    }
}

enum tg_relay_result
tg_relay_flush(struct tg_relay *relay)
{
    while (relay->out_first < relay->out_end) {
        size_t sent = 0;
        enum tg_rc rc = !tg_transport_is_open(relay->to)
                            ? TG_ERESET
                            : tg_transport_write(relay->to, relay->out + relay->out_first,
                                                 (int)(relay->out_end - relay->out_first), &sent);
        if (rc == TG_AGAIN) {
            relay->bulk = false; /* a slow reader shall not hold more than a window */
            return TG_RELAY_WAIT_TO;
        }
        if (rc != TG_OK) {
            return TG_RELAY_TO_FAILED;
        }
        relay->progress = true;
        relay->started = true;
        while (relay->out_first < relay->out_end && sent >= relay->out[relay->out_first].iov_len) {
            sent -= relay->out[relay->out_first++].iov_len;
        }
        if (sent > 0) {
            struct iovec *v = &relay->out[relay->out_first];
            v->iov_base = (char *)v->iov_base + sent;
            v->iov_len -= sent;
        }
    }
    relay->out_first = relay->out_end = 0;
    relay->data_out = false;
    if (relay->made != NULL) {
        tg_buffer_give(relay->pool, relay->made);
        relay->made = NULL;
        relay->made_len = 0;
    }
    return TG_RELAY_DONE;
}

static enum tg_relay_result
fill(struct tg_relay *relay)
{
    if (relay->from == NULL) {
        return TG_RELAY_FROM_FAILED;
    }
    if (relay->buffer == NULL && (relay->buffer = tg_buffer_take(relay->pool)) == NULL) {
        return TG_RELAY_NO_MEMORY;
    }
    size_t got = 0;
    const size_t window = relay->bulk ? TG_BUFFER_SIZE : TG_BUFFER_WINDOW;
    enum tg_rc rc = !tg_transport_is_open(relay->from)
                        ? TG_ERESET
                        : tg_transport_read(relay->from, relay->buffer->data, window, &got);
    if (rc == TG_OK) {
        relay->bulk = got >= TG_BUFFER_WINDOW;
        relay->raw = relay->buffer->data;
        relay->raw_len = got;
        relay->progress = true;
        return TG_RELAY_DONE;
    }
    tg_buffer_give(relay->pool, relay->buffer);
    relay->buffer = NULL;
    if (rc == TG_AGAIN) {
        return TG_RELAY_WAIT_FROM;
    }
    return rc == TG_ECLOSED && tg_body_end(relay->body) == TG_OK ? TG_RELAY_DONE : TG_RELAY_FROM_FAILED;
}

enum tg_relay_result
tg_relay_step(struct tg_relay *relay, const struct tg_h1_fault **fault)
{
    relay->progress = false;
    for (unsigned round = 0;; round++) {
        enum tg_relay_result result = TG_RELAY_DONE;
        if (!relay->data_out && relay->raw_len > 0 && !relay->body->done) {
            struct tg_slice data = {0};
            result = decode(relay, &data, fault);
            if (result == TG_RELAY_DONE && data.n > 0) {
                frame(relay, data);
            }
        }
        if (result == TG_RELAY_DONE && relay->body->done && !relay->ended) {
            tg_relay_finish(relay);
        }
        if (result == TG_RELAY_DONE) {
            result = tg_relay_flush(relay);
        }
        if (result != TG_RELAY_DONE || relay->ended) {
            return result;
        }
        if (relay->raw_len > 0) {
            continue;
        }
        if (round == ROUNDS_A_TURN) {
            return TG_RELAY_YIELD;
        }
        result = fill(relay);
        if (result != TG_RELAY_DONE) {
            return result;
        }
    }
}

enum tg_relay_result
tg_relay_pull(struct tg_relay *relay, struct tg_slice *data, const struct tg_h1_fault **fault)
{
    for (;;) {
        *data = (struct tg_slice){0};
        if (relay->raw_len > 0 && !relay->body->done) {
            const enum tg_relay_result result = decode(relay, data, fault);
            if (result != TG_RELAY_DONE || data->n > 0) {
                return result;
            }
        }
        if (relay->body->done) {
            return TG_RELAY_DONE;
        }
        if (relay->raw_len == 0) {
            const enum tg_relay_result result = fill(relay);
            if (result != TG_RELAY_DONE) {
                return result;
            }
        }
    }
}

enum tg_rc
tg_relay_put(struct tg_relay *relay, struct tg_slice data, size_t *taken)
{
    const size_t around = relay->chunked ? CHUNK_FRAME : 0;
    if (relay->made == NULL && (relay->made = tg_buffer_take(relay->pool)) == NULL) {
        return TG_ENOMEM;
    }
    if (relay->made_len + around >= TG_BUFFER_WINDOW) {
        return TG_AGAIN;
    }
    const size_t room = TG_BUFFER_WINDOW - relay->made_len - around;
    const size_t n = data.n < room ? data.n : room;
    char *begin = relay->made->data + relay->made_len;
    char *end = begin;
    if (relay->chunked) {
        end += tg_body_chunk_line(end, n);
    }
    memcpy(end, data.p, n);
    end += n;
    if (relay->chunked) {
        memcpy(end, "\r\n", 2);
        end += 2;
    }
    relay->made_len += (size_t)(end - begin);
    relay->put += n;
    relay->progress = true;
    append(relay, begin, (size_t)(end - begin));
    *taken = n;
    return TG_OK;
}
