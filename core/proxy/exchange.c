#include "proxy/exchange.h"

#include <stdio.h>

#include "http/h1_write.h"

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
    return x;
}

void
tg_exchange_free(struct tg_exchange *x)
{
    tg_deadline_remove(&x->log_deadline);
    if (x->generation != NULL) {
        x->proxy->policy->end(x);
    }
    tg_upstream_release(&x->upstream, false);
    tg_relay_fini(&x->up);
    tg_relay_fini(&x->back);
    if (x->response_buffer != NULL) {
        tg_buffer_give(&x->proxy->buffers, x->response_buffer);
        x->response_buffer = NULL;
    }
    tg_body_fini(&x->request_body);
    tg_body_fini(&x->response_body);
    if (!x->buffered.replaced) {
        tg_mem_free(x->buffered.p);
    }
    x->buffered.p = NULL;
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

void
tg_exchange_respond(struct tg_exchange *x, unsigned status, struct tg_slice body)
{
    tg_message_init(&x->response, &x->arena);
    x->response.status = (uint16_t)status;
    x->response.has_length = true;
    x->response.framing = TG_FRAMING_LENGTH;
    x->response.content_length = body.n;
    x->response.keep_alive = true;
    x->reply = body;
    x->local = true;
    x->abi.status = (uint16_t)status;
}

void
tg_exchange_fail(struct tg_exchange *x, unsigned status, const char *reason)
{
    char body[256];
    const int n = snprintf(body, sizeof body, "{\"title\":\"%s\",\"status\":%u,\"detail\":\"%s\"}\n",
                           tg_h1_reason(status), status, reason);
    char *copy = n > 0 && (size_t)n < sizeof body ? tg_arena_copy(&x->arena, body, (size_t)n) : NULL;
    tg_upstream_release(&x->upstream, false);
    if (x->generation != NULL) {
        x->proxy->policy->cancel(x);
    }
    tg_exchange_respond(x, status, tg_slice_of(copy == NULL ? "" : copy, copy == NULL ? 0 : (size_t)n));
    if (tg_message_add(&x->response, TG_SLICE("Content-Type"), TG_SLICE("application/problem+json")) != TG_OK) {
        x->reply.n = 0; /* memory is short: the status alone must do */
        x->response.content_length = 0;
    }
    if (status == 503 && tg_message_add(&x->response, TG_SLICE("Retry-After"), TG_SLICE("1")) != TG_OK) {
        x->response.count = 0; /* as above */
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

void
tg_exchange_deadline(struct tg_exchange *x, uint64_t milliseconds)
{
    if (x->down == NULL) {
        return;
    }
    if (x->abi.total_timeout != 0 && x->state < TG_STATE_RELAY) {
        const uint64_t spent = (tg_loop_micros(x->proxy->loop) - x->start) / 1000;
        const uint64_t left = spent < x->abi.total_timeout ? x->abi.total_timeout - spent : 0;
        if (milliseconds > left) {
            milliseconds = left;
        }
    }
    tg_deadline_set(x->proxy->loop, &x->down->deadline, milliseconds);
}
