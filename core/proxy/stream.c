#include "proxy/stream.h"

#include "proxy/request.h"

enum { ROUNDS_A_TURN = 16 /* pieces before others get their turn */ };

static struct tg_relay *
relay_of(struct tg_exchange *x, enum tg_abi_side side)
{
    return side == TG_SIDE_REQUEST ? &x->up : &x->back;
}

static bool
is_flowing(const struct tg_exchange *x, enum tg_abi_side side)
{
    const enum tg_exchange_state state = side == TG_SIDE_REQUEST ? TG_STATE_AWAIT : TG_STATE_RELAY;
    return x->flow[side].writes && x->state == state && !x->flow[side].ended && x->down != NULL;
}

/* The peer has answered before it had the whole request: whoever still makes it waits for the end of the exchange. */
static bool
is_over(const struct tg_exchange *x, enum tg_abi_side side)
{
    return side == TG_SIDE_REQUEST && x->state > TG_STATE_AWAIT && x->abi.attempt > 0;
}

bool
tg_stream_is_bodyless(const struct tg_exchange *x)
{
    return x->from_head || x->response.status == 204 || x->response.status == 304;
}

/* The peer's response: a policy may have changed the method. */
static bool
comes_without_body(const struct tg_exchange *x)
{
    return x->to_head || x->response.status == 204 || x->response.status == 304;
}

enum tg_rc
tg_stream_source(struct tg_exchange *x)
{
    struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    struct tg_buffer *buffer = x->response_buffer;
    const size_t begin = x->upstream_head.scan.pos;
    if (flow->sourced) {
        return TG_OK;
    }
    if (tg_message_move(&x->response, buffer->data, begin) != TG_OK) {
        return TG_ENOMEM;
    }
    tg_body_init(&x->response_body, x->response.framing, x->response.content_length);
    x->back.from = &x->upstream.link->transport;
    x->back.body = &x->response_body;
    x->back.limit = UINT64_MAX;
    x->response_buffer = NULL;
    tg_relay_source(&x->back, buffer->data + begin, x->upstream_head.filled - begin, buffer);
    flow->sourced = true;
    return TG_OK;
}

static enum tg_rc
rc_of(enum tg_relay_result result)
{
    switch (result) {
    case TG_RELAY_DONE:
        return TG_OK;
    case TG_RELAY_WAIT_FROM:
    case TG_RELAY_WAIT_TO:
    case TG_RELAY_WAIT_POLICY:
    case TG_RELAY_YIELD:
        return TG_AGAIN;
    case TG_RELAY_TOO_LARGE:
        return TG_ELIMIT;
    case TG_RELAY_MALFORMED:
        return TG_EPROTOCOL;
    case TG_RELAY_NO_MEMORY:
        return TG_ENOMEM;
    case TG_RELAY_FROM_FAILED:
    case TG_RELAY_TO_FAILED:
        break;
    }
    return TG_ERESET;
}

static enum tg_rc
settle(struct tg_flow *flow, enum tg_rc rc)
{
    flow->hungry = rc == TG_AGAIN;
    if (rc != TG_OK && rc != TG_AGAIN) {
        flow->failed = (int8_t)rc;
    }
    return rc;
}

/* What is not sent yet goes first: an exchange holds one buffer a direction. */
static enum tg_rc
pull_flowing(struct tg_exchange *x, enum tg_abi_side side, struct tg_slice *data)
{
    struct tg_flow *flow = &x->flow[side];
    struct tg_relay *relay = relay_of(x, side);
    const struct tg_h1_fault *fault = NULL;
    if (++flow->rounds > ROUNDS_A_TURN) {
        flow->hungry = true;
        tg_downstream_again(x->down);
        return TG_AGAIN;
    }
    enum tg_relay_result result = tg_relay_flush(relay);
    if (result == TG_RELAY_DONE) {
        result = tg_relay_pull(relay, data, &fault);
    }
    return settle(flow, rc_of(result));
}

/* Of a body that is there as a whole. */
static enum tg_rc
take_whole(struct tg_flow *flow, const struct tg_exchange_body *body, struct tg_slice *data)
{
    const size_t left = body->n - flow->at;
    *data = tg_slice_of(body->p + flow->at, left < TG_BUFFER_WINDOW ? left : TG_BUFFER_WINDOW);
    flow->at += data->n;
    return TG_OK;
}

static enum tg_rc
read_request(struct tg_exchange *x, struct tg_slice *data)
{
    struct tg_flow *flow = &x->flow[TG_SIDE_REQUEST];
    if (x->buffered.whole) {
        return take_whole(flow, &x->buffered, data);
    }
    /* A handler may also read while it answers. */
    const bool ours = x->state == TG_STATE_REQUEST || (x->abi.attempt == 0 && x->state <= TG_STATE_RELAY);
    if (!ours || x->down == NULL) {
        return is_flowing(x, TG_SIDE_REQUEST) ? pull_flowing(x, TG_SIDE_REQUEST, data) : TG_EINVAL;
    }
    enum tg_rc rc = tg_request_piece(x, data);
    if (rc == TG_OK && x->request_body.total > x->abi.body_limit) {
        rc = TG_ELIMIT;
    }
    if (rc == TG_AGAIN) {
        tg_request_wait_body(x);
    }
    return settle(flow, rc);
}

static enum tg_rc
read_response(struct tg_exchange *x, struct tg_slice *data)
{
    struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    const struct tg_h1_fault *fault = NULL;
    if (x->answer.whole) {
        return take_whole(flow, &x->answer, data);
    }
    if (x->state != TG_STATE_RESPONSE || x->upstream.link == NULL) {
        return is_flowing(x, TG_SIDE_RESPONSE) ? pull_flowing(x, TG_SIDE_RESPONSE, data) : TG_EINVAL;
    }
    if (comes_without_body(x)) {
        return TG_OK;
    }
    enum tg_rc rc = tg_stream_source(x);
    if (rc == TG_OK) {
        rc = rc_of(tg_relay_pull(&x->back, data, &fault));
    }
    if (rc == TG_AGAIN) {
        tg_exchange_deadline(x, x->abi.idle_timeout);
    }
    return settle(flow, rc);
}

enum tg_rc
tg_stream_read(struct tg_exchange *x, enum tg_abi_side side, struct tg_slice *data)
{
    struct tg_flow *flow = &x->flow[side];
    *data = (struct tg_slice){0};
    if (is_over(x, side)) {
        return TG_AGAIN;
    }
    if (flow->failed != TG_OK) {
        return (enum tg_rc)flow->failed;
    }
    flow->reads = true;
    if (flow->piece.n > 0) {
        *data = flow->piece;
        flow->piece.n = 0;
        return TG_OK;
    }
    return side == TG_SIDE_REQUEST ? read_request(x, data) : read_response(x, data);
}

/* The body was read to its end: the connection to the peer is of use to others. */
static void
release_upstream(struct tg_exchange *x)
{
    const bool clean = x->back.raw_len == 0 && x->response.keep_alive && x->sent && x->request_body.done &&
                       x->up.out_first == x->up.out_end;
    tg_relay_fini(&x->back);
    tg_upstream_release(&x->upstream, clean);
}

static enum tg_rc
keep_response(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    for (;;) {
        struct tg_slice data = {0};
        enum tg_rc rc = rc_of(tg_relay_pull(&x->back, &data, &fault));
        if (rc == TG_OK && data.n == 0) {
            x->answer.whole = true;
            rc = tg_exchange_keep_trailers(x);
            release_upstream(x);
            return rc;
        }
        if (rc == TG_OK) {
            rc = tg_exchange_keep(&x->answer, data);
        }
        if (rc != TG_OK) {
            return rc;
        }
    }
}

static enum tg_rc
whole_response(struct tg_exchange *x, size_t max)
{
    struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    if (x->answer.whole) {
        return x->answer.n > max ? TG_ELIMIT : TG_OK;
    }
    if (flow->failed != TG_OK) {
        return (enum tg_rc)flow->failed;
    }
    if (x->state != TG_STATE_RESPONSE || x->upstream.link == NULL || flow->reads) {
        return TG_EINVAL;
    }
    if (comes_without_body(x)) {
        return TG_OK;
    }
    if (x->response.framing == TG_FRAMING_LENGTH && x->response.content_length > max) {
        return TG_ELIMIT;
    }
    x->answer.max = max;
    enum tg_rc rc = tg_stream_source(x);
    if (rc == TG_OK) {
        rc = keep_response(x);
    }
    x->answer.wanted = rc == TG_AGAIN;
    if (rc == TG_AGAIN) {
        tg_exchange_deadline(x, x->abi.idle_timeout);
    }
    return settle(flow, rc);
}

enum tg_rc
tg_stream_whole(struct tg_exchange *x, enum tg_abi_side side, size_t max, struct tg_slice *data)
{
    const bool request = side == TG_SIDE_REQUEST;
    const enum tg_rc rc = request ? tg_request_want_body(x, max) : whole_response(x, max);
    const struct tg_exchange_body *body = request ? &x->buffered : &x->answer;
    *data = tg_slice_of(body->p, rc == TG_OK ? body->n : 0);
    return rc;
}

void
tg_stream_pump(struct tg_exchange *x)
{
    struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    const struct tg_h1_fault *fault = NULL;
    if (!flow->hungry || x->upstream.link == NULL) {
        return;
    }
    const enum tg_rc rc = x->answer.wanted ? keep_response(x) : rc_of(tg_relay_pull(&x->back, &flow->piece, &fault));
    if (settle(flow, rc) == TG_AGAIN) {
        tg_exchange_deadline(x, x->abi.idle_timeout);
        return;
    }
    x->answer.wanted = false;
    x->proxy->policy->body_ready(x, rc);
}

enum tg_rc
tg_stream_open(struct tg_exchange *x, enum tg_abi_side side)
{
    const enum tg_exchange_state last = side == TG_SIDE_REQUEST ? TG_STATE_REQUEST : TG_STATE_RESPONSE;
    if (x->state > last) {
        return TG_EINVAL;
    }
    x->flow[side].writes = true;
    return TG_OK;
}

enum tg_rc
tg_stream_write(struct tg_exchange *x, enum tg_abi_side side, struct tg_slice data, size_t *taken)
{
    struct tg_flow *flow = &x->flow[side];
    struct tg_relay *relay = relay_of(x, side);
    *taken = 0;
    if (is_over(x, side)) {
        return TG_AGAIN;
    }
    if (!is_flowing(x, side)) {
        return TG_EINVAL;
    }
    if (flow->failed != TG_OK) {
        return (enum tg_rc)flow->failed;
    }
    if (data.n == 0) {
        return TG_OK;
    }
    enum tg_rc rc = tg_relay_put(relay, data, taken);
    if (rc == TG_AGAIN) {
        rc = rc_of(tg_relay_flush(relay));
        if (rc == TG_OK) {
            rc = tg_relay_put(relay, data, taken);
        }
    } else if (rc == TG_OK) {
        tg_downstream_again(x->down); /* what comes meanwhile goes with it */
    }
    flow->full = rc == TG_AGAIN;
    if (rc != TG_OK && rc != TG_AGAIN) {
        flow->failed = (int8_t)rc;
    }
    return rc;
}

void
tg_stream_end(struct tg_exchange *x, enum tg_abi_side side, enum tg_rc rc)
{
    struct tg_flow *flow = &x->flow[side];
    if (rc != TG_OK && flow->failed == TG_OK) {
        flow->failed = TG_ESCRIPT;
    }
    flow->ended = true;
}

void
tg_stream_begin(struct tg_exchange *x, enum tg_abi_side side)
{
    const enum tg_abi_entry entry = side == TG_SIDE_REQUEST ? TG_ENTRY_REQUEST_BODY : TG_ENTRY_RESPONSE_BODY;
    x->flow[side].at = 0;
    const enum tg_rc rc = x->proxy->policy->enter(x, entry);
    if (rc != TG_AGAIN) {
        tg_stream_end(x, side, rc);
    }
}

enum tg_relay_result
tg_stream_step(struct tg_exchange *x, enum tg_abi_side side, const struct tg_h1_fault **fault)
{
    struct tg_flow *flow = &x->flow[side];
    struct tg_relay *relay = relay_of(x, side);
    flow->rounds = 0;
    if (flow->failed != TG_OK && !relay->started) { /* nothing has gone out: there may still be a clear answer */
        return flow->failed == TG_ELIMIT ? TG_RELAY_TOO_LARGE : TG_RELAY_FROM_FAILED;
    }
    enum tg_relay_result result = tg_relay_flush(relay);
    if (flow->failed != TG_OK && result != TG_RELAY_TO_FAILED) {
        return flow->failed == TG_ELIMIT ? TG_RELAY_TOO_LARGE : TG_RELAY_FROM_FAILED;
    }
    if (result != TG_RELAY_DONE) {
        return result;
    }
    if (flow->ended) {
        if (!relay->ended) {
            tg_relay_finish(relay);
        }
        return tg_relay_flush(relay);
    }
    if (flow->full) {
        flow->full = false;
        x->proxy->policy->body_ready(x, TG_OK);
    } else if (flow->hungry) {
        result = tg_relay_pull(relay, &flow->piece, fault);
        if (result == TG_RELAY_WAIT_FROM) {
            return result;
        }
        relay->progress = true;
        (void)settle(flow, rc_of(result));
        x->proxy->policy->body_ready(x, TG_OK);
        if (result != TG_RELAY_DONE) {
            return result;
        }
    }
    return TG_RELAY_WAIT_POLICY;
}
