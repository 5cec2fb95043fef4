#include "proxy/call.h"

#include "base/mem.h"
#include "proxy/mux.h"

enum { CALL_ARENA_MAX = 256 * 1024, REFUSALS_MAX = 3 };

static void drive(struct tg_call *call);

static void
tell(struct tg_task *task)
{
    struct tg_call *call = (struct tg_call *)((char *)task - offsetof(struct tg_call, task));
    call->done(call);
}

static void
judge(struct tg_call *call, enum tg_rc rc, unsigned status)
{
    tg_attempt_judge(&call->proxy->peers.news, &call->upstream.attempt, rc, status, tg_loop_micros(call->proxy->loop));
}

static void
finish(struct tg_call *call, enum tg_rc rc)
{
    if (call->abi.state <= 0) {
        return;
    }
    if (rc != TG_ENOMEM) {
        judge(call, rc, 0); /* but for one that was judged by its head */
    }
    const bool whole = call->connects || (call->response.keep_alive && call->sent == call->request_len &&
                                          (!call->uploads || call->up.ended) && call->back.raw_len == 0);
    const bool clean = rc == TG_OK && !call->fresh && whole;
    tg_relay_fini(&call->back);
    tg_relay_fini(&call->up);
    tg_upstream_release(&call->upstream, clean);
    tg_deadline_remove(&call->connect_deadline);
    if (call->timer_set) {
        (void)event_del(&call->timer);
    }
    if (rc == TG_OK) {
        call->abi.body.p = call->data;
    }
    call->abi.answered = call->has_head || call->head.filled > 0 || call->head.interim > 0;
    call->abi.state = rc;
    tg_task_queue(call->proxy->loop, &call->task);
}

static void
wake(struct tg_call *call)
{
    if (call->waits) {
        call->waits = false;
        tg_task_queue(call->proxy->loop, &call->task);
    }
}

/* From now on for the time between two pieces. */
static void
set_timer(struct tg_call *call)
{
    const struct timeval timeout = {call->timeout / 1000, call->timeout % 1000 * 1000L};
    (void)event_add(&call->timer, &timeout);
}

static void
on_changed(struct tg_upstream *upstream)
{
    drive((struct tg_call *)((char *)upstream - offsetof(struct tg_call, upstream)));
}

static void
on_connect_expired(struct tg_deadline *deadline)
{
    finish((struct tg_call *)((char *)deadline - offsetof(struct tg_call, connect_deadline)), TG_ECONNECT);
}

static void
on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    finish(arg, TG_ETIMEOUT);
}

static void
open_upstream(struct tg_call *call, bool fresh)
{
    call->sent = 0;
    memset(&call->head, 0, sizeof call->head);
    const enum tg_rc rc = tg_upstream_open(&call->upstream, call->peer, fresh);
    if (rc == TG_OK) {
        drive(call);
    } else if (rc == TG_AGAIN) {
        tg_deadline_set(call->proxy->loop, &call->connect_deadline, call->connect_timeout);
    } else {
        finish(call, rc);
    }
}

struct tg_call *
tg_call_start(struct tg_proxy *proxy, struct tg_peer *peer, const struct tg_call_request *request, tg_call_cb done,
              void *owner)
{
    struct tg_call *call = tg_mem_alloc(sizeof *call); /* set as a whole below */
    if (call == NULL) {
        return NULL;
    }
    *call = (struct tg_call){.abi = {.state = TG_CALL_RUNS},
                             .proxy = proxy,
                             .peer = peer,
                             .connect_deadline = {.expired = on_connect_expired},
                             .task = {.run = tell},
                             .done = done,
                             .owner = owner,
                             .holders = 1,
                             .request_len = request->head.n + request->body.n,
                             .max_body = request->max_body,
                             .connect_timeout = request->connect_timeout,
                             .timeout = request->timeout,
                             .to_head = request->to_head,
                             .streams = request->streams,
                             .uploads = request->uploads,
                             .fresh = request->fresh,
                             .connects = request->connects,
                             .back = {.pool = &proxy->buffers},
                             .up = {.pool = &proxy->buffers}};
    call->repeatable = request->head.n > 4 && (memcmp(request->head.p, "GET ", 4) == 0 || request->to_head);
    tg_arena_init(&call->arena, call->block, sizeof call->block, CALL_ARENA_MAX);
    tg_message_init(&call->response, &call->arena);
    tg_upstream_init(&call->upstream, &proxy->peers, on_changed);
    call->request = tg_mem_alloc(call->request_len);
    if (call->request == NULL) {
        tg_mem_free(call);
        return NULL;
    }
    memcpy(call->request, request->head.p, request->head.n);
    if (request->body.n > 0) {
        memcpy(call->request + request->head.n, request->body.p, request->body.n);
    }
    call->timer_set = event_assign(&call->timer, tg_loop_base(proxy->loop), -1, 0, on_timeout, call) == 0;
    if (call->timer_set) {
        set_timer(call);
    }
    if (request->watch != NULL) {
        tg_attempt_begin(&proxy->peers.news, &call->upstream.attempt, request->watch, !request->retry,
                         tg_loop_micros(proxy->loop));
    }
    open_upstream(call, request->fresh || request->connects);
    return call;
}

void
tg_call_hold(struct tg_call *call)
{
    call->holders++;
}

void
tg_call_let_go(struct tg_call *call)
{
    if (--call->holders == 0) {
        tg_arena_fini(&call->arena);
        tg_mem_free(call);
    }
}

void
tg_call_free(struct tg_call *call)
{
    if (call == NULL) {
        return;
    }
    tg_upstream_release(&call->upstream, false);
    tg_deadline_remove(&call->connect_deadline);
    tg_task_remove(call->proxy->loop, &call->task);
    if (call->timer_set) {
        (void)event_del(&call->timer);
    }
    if (call->buffer != NULL) {
        tg_buffer_give(&call->proxy->buffers, call->buffer);
        call->buffer = NULL;
    }
    tg_relay_fini(&call->back);
    tg_relay_fini(&call->up);
    tg_body_fini(&call->body);
    tg_mem_free(call->request);
    tg_mem_free(call->data);
    call->abi.state = TG_ECANCELLED;
    call->owner = NULL;
    tg_call_let_go(call);
}

/* TG_OK: all is sent. */
static enum tg_rc
send_request(struct tg_call *call)
{
    while (call->sent < call->request_len) {
        struct iovec v = {call->request + call->sent, call->request_len - call->sent};
        size_t sent = 0;
        const enum tg_rc rc = tg_transport_write(&call->upstream.link->transport, &v, 1, &sent);
        if (rc != TG_OK) {
            return rc;
        }
        call->sent += sent;
    }
    if (!call->uploads) {
        tg_mux_finish(call->upstream.link);
        return TG_OK;
    }
    if (call->up.to == NULL) {
        call->up.to = &call->upstream.link->transport;
        call->up.chunked = !call->upstream.link->single;
        if (call->written) {
            tg_relay_finish(&call->up);
        }
    }
    const enum tg_relay_result result = tg_relay_flush(&call->up);
    if (result == TG_RELAY_DONE && call->up.ended) {
        tg_mux_finish(call->upstream.link);
    }
    if (result == TG_RELAY_DONE && !call->up.ended) {
        wake(call);
    }
    return result == TG_RELAY_TO_FAILED ? TG_ERESET : TG_OK;
}

static enum tg_rc
collect(struct tg_call *call, struct tg_slice data)
{
    const size_t have = call->abi.body.n;
    if (have + data.n > call->max_body) {
        return TG_ELIMIT;
    }
    if (have + data.n > call->data_capacity) {
        size_t capacity = call->data_capacity == 0 ? 4096 : call->data_capacity * 2;
        while (capacity < have + data.n) {
            capacity *= 2;
        }
        char *p = tg_mem_resize(call->data, capacity);
        if (p == NULL) {
            return TG_ENOMEM;
        }
        call->data = p;
        call->data_capacity = capacity;
    }
    if (data.n > 0) {
        memcpy(call->data + have, data.p, data.n);
    }
    call->abi.body.n = have + data.n;
    return TG_OK;
}

/* Decodes `n` bytes of the body. TG_OK when it is whole, TG_AGAIN when more must come. */
static enum tg_rc
take_body(struct tg_call *call, char *p, size_t n)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_slice data = {0};
    size_t used = 0;
    enum tg_rc rc = n == 0 ? TG_OK : tg_body_decode(&call->body, p, n, &data, &used, &fault);
    if (rc == TG_OK) {
        rc = collect(call, data);
    }
    if (rc == TG_OK && call->body.done && used < n) {
        call->response.keep_alive = false; /* what follows belongs to no request of ours */
    }
    return rc != TG_OK || call->body.done ? rc : TG_AGAIN;
}

/* The fields outlive the buffer: they are copied, since the body reuses it. */
static enum tg_rc
keep_fields(struct tg_call *call)
{
    for (unsigned i = 0; i < call->response.count; i++) {
        struct tg_field *field = &call->response.fields[i];
        char *copy = tg_arena_alloc(&call->arena, (size_t)field->name_len + field->value_len);
        if (copy == NULL) {
            return TG_ENOMEM;
        }
        memcpy(copy, field->name, field->name_len);
        memcpy(copy + field->name_len, field->value, field->value_len);
        field->name = copy;
        field->value = copy + field->name_len;
    }
    return TG_OK;
}

/* The head is there: the body waits for its reader. */
static void
begin_stream(struct tg_call *call)
{
    call->back.from = &call->upstream.link->transport;
    call->back.body = &call->body;
    call->back.limit = UINT64_MAX;
    tg_relay_source(&call->back, call->buffer->data + call->head.scan.pos, call->head.filled - call->head.scan.pos,
                    call->buffer);
    call->buffer = NULL;
    call->abi.state = TG_CALL_HEAD;
    call->waits = false;
    tg_task_queue(call->proxy->loop, &call->task);
}

static enum tg_rc
read_response(struct tg_call *call)
{
    struct tg_transport *transport = &call->upstream.link->transport;
    const struct tg_h1_fault *fault = NULL;
    if (call->buffer == NULL && (call->buffer = tg_buffer_take(&call->proxy->buffers)) == NULL) {
        return TG_ENOMEM;
    }
    if (!call->has_head) {
        enum tg_rc rc =
            tg_upstream_read_head(&call->upstream, &call->head, call->buffer, &call->response, call->to_head, &fault);
        if (rc == TG_OK) {
            rc = keep_fields(call);
        }
        if (rc != TG_OK) {
            return rc;
        }
        call->has_head = true;
        judge(call, TG_OK, call->response.status);
        call->abi.status = call->response.status;
        call->abi.field_count = (uint16_t)call->response.count;
        tg_body_init(&call->body, call->response.framing, call->response.content_length);
        if (call->streams) {
            begin_stream(call);
            return TG_AGAIN;
        }
        rc = take_body(call, call->buffer->data + call->head.scan.pos, call->head.filled - call->head.scan.pos);
        if (rc != TG_AGAIN) {
            return rc;
        }
    }
    for (;;) {
        size_t got = 0;
        enum tg_rc rc = tg_transport_read(transport, call->buffer->data, TG_BUFFER_WINDOW, &got);
        if (rc == TG_ECLOSED) {
            return tg_body_end(&call->body) == TG_OK ? TG_OK : TG_ERESET;
        }
        if (rc == TG_OK) {
            rc = take_body(call, call->buffer->data, got);
            if (rc == TG_AGAIN) {
                continue;
            }
        }
        return rc;
    }
}

static void
drive(struct tg_call *call)
{
    if (call->abi.state == TG_CALL_HEAD) {
        wake(call); /* it reads */
    }
    if (call->abi.state != TG_CALL_RUNS) {
        return;
    }
    if (call->upstream.state == TG_UPSTREAM_CLOSED) {
        finish(call, call->upstream.rc);
        return;
    }
    if (call->upstream.state != TG_UPSTREAM_OPEN) {
        return;
    }
    tg_deadline_clear(&call->connect_deadline);
    call->abi.began = 1;
    if (call->connects) {
        finish(call, TG_OK);
        return;
    }
    enum tg_rc rc = send_request(call);
    if (rc == TG_ERESET) {
        call->upstream.link->transport.readable = true; /* an answer may have come before the peer closed */
    }
    if (rc == TG_OK || rc == TG_ERESET) {
        const bool failed = rc == TG_ERESET;
        rc = read_response(call);
        rc = failed && rc == TG_AGAIN ? TG_ERESET : rc; /* to what could not be sent comes no answer any more */
    }
    if (call->buffer != NULL && (call->has_head || call->head.filled == 0)) {
        tg_buffer_give(&call->proxy->buffers, call->buffer);
        call->buffer = NULL;
    }
    if (rc == TG_AGAIN) {
        return;
    }
    const bool lost = rc == TG_ECLOSED || rc == TG_ERESET;
    const bool refused = call->upstream.link != NULL && tg_mux_is_refused(call->upstream.link);
    const bool again = refused ? call->refusals < REFUSALS_MAX : call->upstream.reused && call->repeatable;
    if (lost && again && !call->uploads && !call->has_head && call->head.filled == 0 && call->head.interim == 0) {
        tg_upstream_drop(&call->upstream);
        call->refusals += refused ? 1 : 0;
        open_upstream(call, !refused); /* the pool's connection had been closed just before */
        return;
    }
    finish(call, lost ? TG_ERESET : rc);
}

enum tg_rc
tg_call_read(struct tg_call *call, struct tg_slice *data)
{
    const struct tg_h1_fault *fault = NULL;
    enum tg_rc rc = TG_OK;
    *data = (struct tg_slice){0};
    if (call->abi.state != TG_CALL_HEAD) {
        return call->abi.state == TG_OK ? TG_OK : call->abi.state < 0 ? (enum tg_rc)call->abi.state : TG_EINVAL;
    }
    switch (tg_relay_pull(&call->back, data, &fault)) {
    case TG_RELAY_DONE:
        break;
    case TG_RELAY_WAIT_FROM:
        call->waits = true;
        set_timer(call);
        return TG_AGAIN;
    case TG_RELAY_MALFORMED:
        rc = TG_EPROTOCOL;
        break;
    case TG_RELAY_NO_MEMORY:
        rc = TG_ENOMEM;
        break;
    default:
        rc = TG_ERESET;
    }
    (void)event_del(&call->timer); /* the reader takes its time */
    if (rc != TG_OK || data->n == 0) {
        finish(call, rc);
    }
    return rc;
}

enum tg_rc
tg_call_write(struct tg_call *call, struct tg_slice data, size_t *taken)
{
    *taken = 0;
    if (!call->uploads || call->written) {
        return TG_EINVAL;
    }
    if (call->abi.state != TG_CALL_RUNS) {
        return call->abi.state < 0 ? (enum tg_rc)call->abi.state : TG_ENONE;
    }
    if (data.n == 0) {
        return TG_OK;
    }
    /* How it is framed is known once the request is on its way. */
    enum tg_rc rc = call->up.to == NULL ? TG_AGAIN : tg_relay_put(&call->up, data, taken);
    if (rc == TG_AGAIN && call->up.to != NULL && tg_relay_flush(&call->up) == TG_RELAY_DONE) {
        rc = tg_relay_put(&call->up, data, taken);
    }
    call->waits = rc == TG_AGAIN;
    set_timer(call);
    return rc;
}

void
tg_call_finish(struct tg_call *call)
{
    if (!call->uploads || call->written || call->abi.state != TG_CALL_RUNS) {
        return;
    }
    call->written = true;
    set_timer(call);
    if (call->up.to == NULL) {
        return;
    }
    tg_relay_finish(&call->up);
    const enum tg_relay_result result = tg_relay_flush(&call->up);
    if (result == TG_RELAY_DONE) {
        tg_mux_finish(call->upstream.link);
    } else if (result == TG_RELAY_TO_FAILED) {
        call->upstream.link->transport.readable = true; /* perhaps there is an answer */
    }
}
