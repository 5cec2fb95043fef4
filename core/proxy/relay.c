#include "proxy/relay.h"

enum { ROUNDS_A_TURN = 16 }; /* reads of a whole buffer before others get their turn */

void
tg_relay_start(struct tg_relay *relay, struct tg_slice head, char *raw, size_t raw_len, struct tg_buffer *buffer)
{
    relay->buffer = buffer;
    relay->raw = raw;
    relay->raw_len = raw_len;
    relay->out_first = 0;
    relay->out_end = 0;
    relay->data_out = false;
    relay->ended = false;
    relay->started = false;
    relay->bulk = false;
    if (head.n > 0) {
        relay->out[relay->out_end++] = (struct iovec){(void *)(uintptr_t)head.p, head.n};
    }
}

void
tg_relay_fini(struct tg_relay *relay)
{
    if (relay->buffer != NULL) {
        tg_buffer_give(relay->pool, relay->buffer);
        relay->buffer = NULL;
    }
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

/* Decodes what was read and appends it, framed, to what is to be written. */
static enum tg_relay_result
decode(struct tg_relay *relay, const struct tg_h1_fault **fault)
{
    struct tg_slice data = {0};
    size_t used = 0;
    enum tg_rc rc = tg_body_decode(relay->body, relay->raw, relay->raw_len, &data, &used, fault);
    if (rc != TG_OK) {
        return rc == TG_ENOMEM ? TG_RELAY_NO_MEMORY : TG_RELAY_MALFORMED;
    }
    relay->raw += used;
    relay->raw_len -= used;
    if (relay->body->total > relay->limit) {
        return TG_RELAY_TOO_LARGE;
    }
    if (data.n == 0) {
        return TG_RELAY_DONE;
    }
    relay->data_out = true;
    if (relay->chunked) {
        append(relay, relay->chunk_line, tg_body_chunk_line(relay->chunk_line, data.n));
        append(relay, data.p, data.n);
        append(relay, "\r\n", 2);
    } else {
        append(relay, data.p, data.n);
    }
    return TG_RELAY_DONE;
}

static void
end_message(struct tg_relay *relay)
{
    relay->ended = true;
    if (relay->chunked) {
        append(relay, "0\r\n\r\n", 5);
    }
}

/* Writes all of `out`: TG_RELAY_DONE, WAIT_TO or TO_FAILED. */
static enum tg_relay_result
flush(struct tg_relay *relay)
{
    while (relay->out_first < relay->out_end) {
        size_t sent = 0;
        enum tg_rc rc = relay->to->fd < 0 ? TG_ERESET
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
    enum tg_rc rc = relay->from->fd < 0 ? TG_ERESET : tg_transport_read(relay->from, relay->buffer->data, window, &got);
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
            result = decode(relay, fault);
        }
        if (result == TG_RELAY_DONE && relay->body->done && !relay->ended) {
            end_message(relay);
        }
        if (result == TG_RELAY_DONE) {
            result = flush(relay);
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
