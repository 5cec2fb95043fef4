#include "proxy/exchange.h"

#include <stdio.h>

#include "http/h1_write.h"
#include "proxy/mux.h"

enum { COPY_MAX = 16 * 1024 /* bytes that go into the arena */ };

struct tg_exchange *
tg_exchange_new(struct tg_downstream *down)
{
    struct tg_proxy *proxy = down->proxy;
    struct tg_exchange *x = proxy->free_exchanges;
    uint32_t serial = 1;
    uint32_t slot = 0;
    if (x != NULL) {
        proxy->free_exchanges = x->next;
        serial = x->abi.serial;
        slot = x->abi.slot;
    } else {
        if (proxy->exchanges >= proxy->exchanges_max) {
            return NULL;
        }
        x = tg_mem_alloc(sizeof *x);
        if (x == NULL) {
            return NULL;
        }
        slot = ++proxy->exchanges;
    }
    memset(x, 0, offsetof(struct tg_exchange, input));
    x->abi.serial = serial;
    x->abi.slot = slot;
    x->abi.upstream_time = -1;
    x->proxy = proxy;
    x->down = down;
    x->client = down->client;
    x->in = x->input;
    x->in_capacity = sizeof x->input;
    x->up.pool = &proxy->buffers;
    x->back.pool = &proxy->buffers;
    tg_arena_init(&x->arena, x->block, sizeof x->block, TG_EXCHANGE_ARENA_MAX);
    tg_message_init(&x->request, &x->arena);
    tg_message_init(&x->response, &x->arena);
    tg_message_init(&x->trailers, &x->arena);
    return x;
}

struct tg_slice
tg_exchange_client(struct tg_exchange *x)
{
    if (x->client_n == 0) {
        unsigned port;
        x->client_n = (uint8_t)tg_downstream_client(&x->client, x->client_text, &port);
        x->abi.client_port = (uint16_t)port;
    }
    return tg_slice_of(x->client_text, x->client_n);
}

static void
drop_body(struct tg_exchange_body *body)
{
    if (body->heap) {
        tg_mem_free(body->p);
    }
    *body = (struct tg_exchange_body){0};
}

void
tg_exchange_free(struct tg_exchange *x)
{
    tg_deadline_remove(&x->log_deadline);
    if (x->generation != NULL) {
        x->proxy->policy->end(x);
    }
    tg_upstream_release(&x->upstream, false);
    for (unsigned i = 0; i < TG_WATCHES; i++) {
        tg_watch_end(&x->proxy->peers.news, &x->abi.watch[i]);
    }
    tg_relay_fini(&x->up);
    tg_relay_fini(&x->back);
    if (x->response_buffer != NULL) {
        tg_buffer_give(&x->proxy->buffers, x->response_buffer);
        x->response_buffer = NULL;
    }
    tg_body_fini(&x->request_body);
    tg_body_fini(&x->response_body);
    drop_body(&x->buffered);
    tg_relay_copy_fini(&x->copy);
    drop_body(&x->answer);
    tg_arena_reset(&x->arena);
    x->abi.serial++;
    x->down = NULL;
    x->next = x->proxy->free_exchanges;
    x->proxy->free_exchanges = x;
}

enum tg_rc
tg_exchange_feed(struct tg_exchange *x, struct tg_slice left)
{
    if (left.n > x->in_capacity) {
        char *room = tg_arena_alloc(&x->arena, left.n);
        if (room == NULL) {
            return TG_ENOMEM;
        }
        x->in = room;
        x->in_capacity = left.n;
    }
    if (left.n > 0) {
        memcpy(x->in, left.p, left.n);
    }
    x->in_len = left.n;
    return TG_OK;
}

enum tg_rc
tg_exchange_make(struct tg_exchange *x, struct tg_exchange_body *body, struct tg_slice data)
{
    const bool heap = data.n > COPY_MAX;
    if (data.n > TG_EXCHANGE_BODY_MAX) {
        return TG_ELIMIT;
    }
    char *copy = heap ? tg_mem_alloc(data.n) : tg_arena_copy(&x->arena, data.p, data.n);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    if (heap) {
        memcpy(copy, data.p, data.n);
    }
    drop_body(body);
    *body = (struct tg_exchange_body){.p = copy, .n = data.n, .whole = true, .replaced = true, .heap = heap};
    return TG_OK;
}

enum tg_rc
tg_exchange_keep(struct tg_exchange_body *body, struct tg_slice data)
{
    if (body->n + data.n > body->max) {
        return TG_ELIMIT;
    }
    if (body->n + data.n > body->capacity) {
        size_t capacity = body->capacity == 0 ? 4096 : body->capacity;
        while (capacity < body->n + data.n) {
            capacity *= 2;
        }
        char *p = tg_mem_resize(body->p, capacity);
        if (p == NULL) {
            return TG_ENOMEM;
        }
        body->p = p;
        body->heap = true;
        body->capacity = capacity;
    }
    if (data.n > 0) {
        memcpy(body->p + body->n, data.p, data.n);
    }
    body->n += data.n;
    return TG_OK;
}

enum tg_rc
tg_exchange_keep_trailers(struct tg_exchange *x)
{
    const struct tg_message *from = x->has_trailers ? NULL : tg_mux_trailers(x->upstream.link);
    for (unsigned i = 0; from != NULL && i < from->count; i++) {
        struct tg_field field = from->fields[i];
        field.name = tg_arena_copy(&x->arena, field.name, field.name_len);
        field.value = tg_arena_copy(&x->arena, field.value, field.value_len);
        const enum tg_rc rc =
            field.name == NULL || field.value == NULL ? TG_ENOMEM : tg_message_push(&x->trailers, &field);
        if (rc != TG_OK) {
            return rc;
        }
    }
    x->has_trailers = x->has_trailers || from != NULL;
    return TG_OK;
}

void
tg_exchange_respond(struct tg_exchange *x, unsigned status)
{
    tg_relay_fini(&x->back);
    tg_buffer_give(&x->proxy->buffers, x->response_buffer);
    x->response_buffer = NULL;
    tg_message_init(&x->response, &x->arena);
    tg_message_init(&x->trailers, &x->arena);
    x->has_trailers = true; /* the upstream's are not ours */
    x->response.status = (uint16_t)status;
    x->response.keep_alive = true;
    drop_body(&x->answer);
    x->answer.whole = true;
    x->answer.replaced = true;
    x->flow[TG_SIDE_RESPONSE] = (struct tg_flow){0};
    x->local = true;
    x->abi.status = (uint16_t)status;
}

void
tg_exchange_fail(struct tg_exchange *x, unsigned status, const char *reason)
{
    char body[256];
    const int n = snprintf(body, sizeof body, "{\"title\":\"%s\",\"status\":%u,\"detail\":\"%s\"}\n",
                           tg_h1_reason(status), status, reason);
    tg_upstream_release(&x->upstream, false);
    if (x->generation != NULL) {
        x->proxy->policy->cancel(x);
    }
    tg_exchange_respond(x, status);
    /* When memory is short the status alone must do. */
    const struct tg_slice text = tg_slice_of(body, n > 0 && (size_t)n < sizeof body ? (size_t)n : 0);
    if (tg_message_add(&x->response, TG_SLICE("Content-Type"), TG_SLICE("application/problem+json")) == TG_OK &&
        tg_exchange_make(x, &x->answer, text) != TG_OK) {
        x->response.count = 0;
    }
    if (status == 503 && tg_message_add(&x->response, TG_SLICE("Retry-After"), TG_SLICE("1")) != TG_OK) {
        x->response.count = 0;
    }
    x->abi.source = TG_SOURCE_GATEWAY;
    if (status >= 500) {
        x->proxy->counters->failed++;
    }
    tg_exchange_go(x, TG_STATE_RESPONSE);
}

void
tg_exchange_limited(struct tg_exchange *x, enum tg_limit limit)
{
    if (limit != TG_LIMIT_NONE) {
        tg_proxy_limited(x->proxy, limit);
    }
}

void
tg_exchange_refuse(struct tg_exchange *x, unsigned status, const char *reason)
{
    x->keep = false;
    x->rest_len = 0;
    tg_body_fini(&x->request_body);
    tg_body_init(&x->request_body, TG_FRAMING_NONE, 0);
    tg_exchange_fail(x, status, reason);
}

void
tg_exchange_abort(struct tg_exchange *x, enum tg_rc rc)
{
    x->abi.aborted = 1;
    x->abi.error = rc;
    x->keep = false;
    x->proxy->counters->failed++;
    tg_upstream_release(&x->upstream, false);
    if (x->generation != NULL) {
        x->proxy->policy->cancel(x);
    }
    if (x->down != NULL) {
        x->down->exchange = NULL;
        tg_downstream_close(x->down, true);
        x->down = NULL;
    }
    tg_exchange_go(x, TG_STATE_LOG);
}

/* The time of an attempt does not run while the client is slow to send. */
static uint64_t
within_attempt(const struct tg_exchange *x, uint64_t milliseconds)
{
    const bool runs = x->state == TG_STATE_CONNECT || (x->state == TG_STATE_AWAIT && (x->sent || x->up.from == NULL));
    if (x->abi.try_timeout == 0 || !runs) {
        return milliseconds;
    }
    const uint64_t spent = (tg_loop_micros(x->proxy->loop) - x->upstream.attempt.start) / 1000;
    const uint64_t left = spent < x->abi.try_timeout ? x->abi.try_timeout - spent : 0;
    return milliseconds < left ? milliseconds : left;
}

void
tg_exchange_deadline(struct tg_exchange *x, uint64_t milliseconds)
{
    if (x->down == NULL) {
        return;
    }
    if (x->abi.total_timeout != 0 && x->state < TG_STATE_RELAY) {
        milliseconds = within_attempt(x, milliseconds);
        const uint64_t spent = (tg_loop_micros(x->proxy->loop) - x->start) / 1000;
        const uint64_t left = spent < x->abi.total_timeout ? x->abi.total_timeout - spent : 0;
        if (milliseconds > left) {
            milliseconds = left;
        }
    }
    tg_deadline_set(x->proxy->loop, &x->down->deadline, milliseconds);
}
