#include "proxy/reply.h"

#include "base/log.h"
#include "http/edits.h"
#include "http/h1_write.h"
#include "proxy/count.h"
#include "proxy/grpc.h"
#include "proxy/messages.h"
#include "proxy/mux.h"
#include "proxy/request.h"
#include "proxy/session.h"
#include "proxy/stream.h"
#include "proxy/tunnel.h"
#include "proxy/websocket.h"

enum { DRAIN_MAX = 64 * 1024, DRAIN_TIME = 2000, LOG_TIME = 5000 /* milliseconds */ };

/* Whether the rest of the request can be read away, so that the connection can be kept. */
static bool
is_drainable(const struct tg_exchange *x)
{
    return x->request_body.done || (x->request_body.framing == TG_FRAMING_LENGTH && x->request_body.left <= DRAIN_MAX &&
                                    (!x->request.expect_continue || x->continued));
}

static struct tg_h1_frame
settle_frame(struct tg_exchange *x)
{
    const struct tg_message *response = &x->response;
    struct tg_h1_frame frame = {.framing = TG_FRAMING_NONE, .length = response->content_length};
    if (tg_stream_is_bodyless(x)) {
        if (response->has_length && response->status != 204) {
            frame.framing = TG_FRAMING_LENGTH;
        }
    } else if (response->framing == TG_FRAMING_LENGTH) {
        frame.framing = TG_FRAMING_LENGTH;
    } else if (x->request.version_minor == 1) {
        frame.framing = TG_FRAMING_CHUNKED;
    } else {
        frame.framing = TG_FRAMING_CLOSE;
        x->keep = false;
    }
    const struct tg_downstream *down = x->down;
    if (x->response.status == 101) {
        x->keep = false;
        return (struct tg_h1_frame){.framing = TG_FRAMING_NONE, .upgrade = x->upgrade};
    }
    if (down->requests + 1 >= tg_downstream_config(down)->keepalive_requests) {
        tg_exchange_limited(x, TG_LIMIT_KEEPALIVE_REQUESTS);
        x->keep = false;
    }
    x->keep = x->keep && !x->proxy->draining && x->proxy->pressure == TG_PRESSURE_NONE && is_drainable(x);
    frame.close = !x->keep;
    frame.keep_alive = x->keep && x->request.version_minor == 0;
    return frame;
}

/* Drops the upstream's answer, or what is left of it. */
static void
drop_upstream(struct tg_exchange *x)
{
    tg_relay_fini(&x->back);
    tg_upstream_release(&x->upstream, false);
    tg_buffer_give(&x->proxy->buffers, x->response_buffer);
    x->response_buffer = NULL;
}

/* A policy has made another method of HEAD: what comes by it is not for the client, who is told of its length alone. */
static enum tg_rc
drop_body(struct tg_exchange *x)
{
    if (x->response_buffer != NULL && tg_stream_source(x) != TG_OK) {
        return TG_ENOMEM;
    }
    struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    drop_upstream(x);
    x->response.has_length = x->response.has_length && !flow->writes;
    flow->writes = false;
    x->answer.whole = true;
    x->answer.n = 0;
    return TG_OK;
}

/* A body that a policy has made, or will, is framed as such; the upstream's goes nowhere. */
static enum tg_rc
settle_body(struct tg_exchange *x)
{
    const struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    if (x->from_head && !x->to_head && !x->answer.whole && x->upstream.peer != NULL) {
        return drop_body(x);
    }
    if (!flow->writes && !x->answer.whole) {
        return TG_OK;
    }
    if (x->response_buffer != NULL && tg_stream_source(x) != TG_OK) {
        return TG_ENOMEM;
    }
    if (x->answer.whole && x->upstream.peer != NULL) {
        drop_upstream(x);
    }
    x->response.has_length = !flow->writes;
    x->response.framing = flow->writes ? TG_FRAMING_CHUNKED : TG_FRAMING_LENGTH;
    x->response.content_length = x->answer.n;
    return TG_OK;
}

/*
 * A log phase may ask for the fields of the response when its buffer belongs to others: only then they are copied.
 * The new head goes where the old one was, so that head and body are one piece to send.
 */
static enum tg_rc
move_head(struct tg_exchange *x, struct tg_slice *head)
{
    struct tg_buffer *buffer = x->response_buffer;
    const size_t begin = x->upstream_head.scan.pos;
    if (buffer != NULL && ((x->abi.wants & TG_WANT_LOG) != 0 || x->shadow != NULL) &&
        tg_message_move(&x->response, buffer->data, begin) != TG_OK) {
        return TG_ENOMEM;
    }
    if (x->unsent.n > 0) { /* the rest of early hints goes first */
        char *joined = tg_arena_alloc(&x->arena, x->unsent.n + head->n);
        if (joined == NULL) {
            return TG_ENOMEM;
        }
        memcpy(joined, x->unsent.p, x->unsent.n);
        memcpy(joined + x->unsent.n, head->p, head->n);
        *head = tg_slice_of(joined, x->unsent.n + head->n);
        x->unsent.n = 0;
    }
    if (buffer != NULL && head->n > 0 && head->n <= sizeof buffer->headroom) {
        char *place = (char *)buffer + offsetof(struct tg_buffer, data) + begin - head->n;
        memcpy(place, head->p, head->n);
        head->p = place;
    }
    return TG_OK;
}

/* Where the body comes from; its relay begins with the head. */
static void
start_relay(struct tg_exchange *x, struct tg_slice head)
{
    struct tg_relay *back = &x->back;
    struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    if (flow->writes || x->answer.whole) {
        flow->writes = flow->writes && !tg_stream_is_bodyless(x);
        if (x->answer.whole) {
            const bool none = flow->writes || tg_stream_is_bodyless(x);
            tg_body_fini(&x->response_body);
            tg_body_init(&x->response_body, none ? TG_FRAMING_NONE : TG_FRAMING_LENGTH, x->answer.n);
            back->from = NULL;
            tg_relay_source(back, x->answer.p, none ? 0 : x->answer.n, NULL);
        }
        tg_relay_begin(back, head);
        return;
    }
    struct tg_buffer *buffer = x->response_buffer;
    const size_t begin = x->upstream_head.scan.pos;
    tg_body_init(&x->response_body, x->response.framing, x->response.content_length);
    back->from = &x->upstream.link->transport;
    x->response_buffer = NULL;
    tg_relay_start(back, head, buffer->data + begin, x->upstream_head.filled - begin, buffer);
}

/* No byte of a body will come: the head alone may end the stream. gRPC tells errors so. */
static bool
is_empty(const struct tg_exchange *x)
{
    if (x->response.status == 101 || x->trailers.count > 0) {
        return false;
    }
    if (tg_stream_is_bodyless(x)) {
        return true;
    }
    if (x->flow[TG_SIDE_RESPONSE].writes) {
        return false;
    }
    if (x->answer.whole) {
        return x->answer.n == 0;
    }
    return tg_mux_is_bodyless(x->upstream.link) && tg_mux_trailers(x->upstream.link) == NULL;
}

/* The bytes that the answer begins with; on a stream the head goes its own way, and there are none. */
static enum tg_rc
make_head(struct tg_exchange *x, const struct tg_h1_frame *frame, struct tg_slice *head)
{
    const struct tg_slice date = tg_slice_of(tg_loop_http_date(x->proxy->loop), 29);
    enum tg_rc rc = TG_OK;
    *head = (struct tg_slice){0};
    if (x->response.status == 101 && x->extended.n > 0 && !tg_websocket_is_accepted(x)) {
        return TG_EPROTOCOL;
    }
    if (x->down->is_stream) {
        rc = tg_session_respond(x, frame, date, is_empty(x));
    } else {
        rc = tg_h1_write_response(&x->response, frame, date, head);
    }
    return rc == TG_OK ? move_head(x, head) : rc;
}

/* RFC 8441, section 5: to an extended CONNECT any 2xx would mean that the tunnel begins. */
static bool
is_no_tunnel(const struct tg_exchange *x)
{
    return x->extended.n > 0 && x->response.status >= 200 && x->response.status < 300;
}

static enum tg_step
begin_reply(struct tg_exchange *x)
{
    struct tg_slice head;
    struct tg_relay *back = &x->back;
    if (is_no_tunnel(x)) {
        x->abi.wants &= (uint8_t)~TG_WANT_RESPONSE;
        tg_exchange_fail(x, 502, "the upstream did not switch protocols");
        return TG_STEP_NEXT;
    }
    if (x->response.status == 101 && x->message_max > 0) {
        const enum tg_rc rc = tg_messages_prepare(x);
        if (rc != TG_OK) {
            x->abi.wants &= (uint8_t)~TG_WANT_RESPONSE;
            tg_exchange_fail(x, rc == TG_ENOMEM ? 503 : 502, "the upstream chose an extension that was not offered");
            return TG_STEP_NEXT;
        }
    }
    if ((x->grpc && x->local && tg_grpc_translate_error(x) != TG_OK) || settle_body(x) != TG_OK) {
        tg_exchange_abort(x, TG_ENOMEM);
        return TG_STEP_NEXT;
    }
    const struct tg_h1_frame frame = settle_frame(x);
    const enum tg_rc rc = make_head(x, &frame, &head);
    if (rc != TG_OK) {
        tg_exchange_abort(x, rc);
        return TG_STEP_NEXT;
    }
    back->to = &x->down->transport;
    back->body = &x->response_body;
    back->limit = UINT64_MAX;
    back->chunked = frame.framing == TG_FRAMING_CHUNKED && !x->down->is_stream;
    if (x->response.status == 101) {
        tg_tunnel_begin(x, head);
        tg_exchange_go(x, x->messages != NULL ? TG_STATE_MESSAGES : TG_STATE_TUNNEL);
        return TG_STEP_NEXT;
    }
    start_relay(x, head);
    x->abi.status = x->response.status;
    x->proxy->counters->requests++;
    tg_exchange_go(x, TG_STATE_RELAY);
    if (x->flow[TG_SIDE_RESPONSE].writes) {
        tg_stream_begin(x, TG_SIDE_RESPONSE);
    }
    return TG_STEP_NEXT;
}

/* The policy that read the body away has not put another in its place. */
static bool
is_body_lost(const struct tg_exchange *x)
{
    const struct tg_flow *flow = &x->flow[TG_SIDE_RESPONSE];
    const bool lost = flow->reads || flow->failed != TG_OK;
    return lost && !flow->writes && !x->answer.whole && !tg_stream_is_bodyless(x);
}

static enum tg_rc
edit_response(struct tg_exchange *x)
{
    const struct tg_edits *edits = (const struct tg_edits *)x->abi.edits;
    if (edits != NULL && tg_edits_take_id(edits) && x->abi.id.n == 0) {
        x->proxy->policy->identify(x);
    }
    const enum tg_rc rc = tg_edits_apply_told(edits, x->abi.id, x->told, &x->response);
    if (rc != TG_OK) {
        tg_log(TG_LOG_ERROR, "the headers of a response: %s", rc == TG_ELIMIT ? "too many" : "memory is short");
    }
    return rc;
}

enum tg_step
tg_reply_phases(struct tg_exchange *x)
{
    if (x->shadow != NULL && !x->entered && x->outcome == TG_OK) {
        x->proxy->policy->show(x);
    }
    if (!x->entered && (x->abi.edits != NULL || x->told != NULL) && edit_response(x) != TG_OK) {
        drop_upstream(x);
        x->abi.edits = NULL; /* or the next response would have the same fault */
        x->told = NULL;
        x->abi.wants &= (uint8_t)~TG_WANT_RESPONSE;
        tg_exchange_fail(x, 500, "a policy failed");
        return TG_STEP_NEXT;
    }
    if (!x->entered && (x->abi.wants & TG_WANT_RESPONSE) != 0 && x->outcome == TG_OK) {
        x->entered = true;
        x->abi.verdict = TG_VERDICT_NONE;
        enum tg_rc rc = x->proxy->policy->enter(x, TG_ENTRY_RESPONSE);
        if (rc == TG_AGAIN) {
            if (!x->flow[TG_SIDE_RESPONSE].hungry) {
                tg_exchange_deadline(x, x->abi.total_timeout);
            }
            return TG_STEP_WAIT;
        }
        x->decided = true;
        x->outcome = (int8_t)rc;
    }
    if (x->entered && !x->decided) {
        tg_stream_pump(x);
        if (x->flow[TG_SIDE_REQUEST].hungry && x->abi.attempt == 0) {
            tg_request_pump(x);
        }
        return TG_STEP_WAIT;
    }
    if (x->entered && x->outcome == TG_OK && is_body_lost(x)) {
        tg_log(TG_LOG_ERROR, "a policy has read the response's body away and set no other");
        x->outcome = TG_ESCRIPT;
    }
    if (x->entered && x->outcome != TG_OK) {
        drop_upstream(x);
        x->abi.wants &= (uint8_t)~TG_WANT_RESPONSE; /* what raised is not asked about its own error */
        tg_exchange_fail(x, 500, "a policy failed");
        return TG_STEP_NEXT;
    }
    if (x->local && x->upstream.peer != NULL) {
        x->abi.source = TG_SOURCE_LUA;
        drop_upstream(x);
    }
    return begin_reply(x);
}

/* The response is out: the connection to the peer is kept when nothing of either message is left on it. */
static void
finish_upstream(struct tg_exchange *x)
{
    const bool clean = x->back.raw_len == 0 && x->response_body.done && x->response.keep_alive && x->sent &&
                       x->request_body.done && x->up.out_first == x->up.out_end && !x->local;
    tg_relay_fini(&x->back);
    tg_upstream_release(&x->upstream, clean);
}

/* The response cannot be completed. What has not begun is answered; what has is cut visibly. */
static enum tg_step
cut(struct tg_exchange *x, const char *why)
{
    if (x->upstream.peer != NULL) {
        tg_log(TG_LOG_WARN, "upstream %s:%u: %s", x->upstream.peer->host, x->upstream.peer->port, why);
    }
    if (x->back.started) {
        tg_exchange_abort(x, TG_EPROTOCOL);
        return TG_STEP_NEXT;
    }
    tg_relay_fini(&x->back);
    if (x->flow[TG_SIDE_RESPONSE].failed == TG_ESCRIPT) {
        x->abi.wants &= (uint8_t)~TG_WANT_RESPONSE; /* as above */
        tg_exchange_fail(x, 500, "a policy failed");
    } else {
        tg_exchange_fail(x, 502, "the upstream sent an invalid response");
    }
    return TG_STEP_NEXT;
}

/* The request's body, whose answer has begun already. TG_ERESET: it cannot go on. */
static enum tg_rc
upload_more(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    const enum tg_relay_result result = tg_relay_step(&x->up, &fault);
    x->abi.bytes_in = x->request_body.total;
    switch (result) {
    case TG_RELAY_DONE:
        x->sent = true;
        x->duplex = false;
        tg_mux_finish(x->upstream.link);
        return TG_OK;
    case TG_RELAY_YIELD:
        tg_downstream_again(x->down);
        return TG_OK;
    case TG_RELAY_WAIT_FROM:
    case TG_RELAY_WAIT_TO:
        return TG_OK;
    case TG_RELAY_TO_FAILED:
        x->duplex = false; /* the response tells how it ended */
        return TG_OK;
    default:
        return TG_ERESET;
    }
}

enum tg_step
tg_reply_relay(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    if (x->duplex && upload_more(x) != TG_OK) {
        tg_exchange_abort(x, TG_ERESET);
        return TG_STEP_NEXT;
    }
    if (x->flow[TG_SIDE_REQUEST].hungry && x->abi.attempt == 0) {
        tg_request_pump(x);
    }
    const bool stream = x->flow[TG_SIDE_RESPONSE].writes;
    const enum tg_relay_result result =
        stream ? tg_stream_step(x, TG_SIDE_RESPONSE, &fault) : tg_relay_step(&x->back, &fault);
    x->abi.bytes_out = stream ? x->back.put : x->response_body.total;
    switch (result) {
    case TG_RELAY_DONE:
        if (tg_exchange_keep_trailers(x) != TG_OK) {
            tg_exchange_abort(x, TG_ENOMEM);
            return TG_STEP_NEXT;
        }
        tg_session_finish(x, x->trailers.count > 0 ? &x->trailers : NULL);
        finish_upstream(x);
        tg_exchange_go(x, x->request_body.done || !x->keep ? TG_STATE_LOG : TG_STATE_DRAIN);
        return TG_STEP_NEXT;
    case TG_RELAY_WAIT_FROM:
    case TG_RELAY_WAIT_POLICY:
        if (x->back.progress || x->up.progress || !x->entered) {
            tg_exchange_deadline(x, x->abi.idle_timeout);
        }
        x->back.progress = x->up.progress = false;
        x->entered = true;
        return TG_STEP_WAIT;
    case TG_RELAY_WAIT_TO:
        if (x->back.progress || !x->entered) {
            tg_exchange_deadline(x, tg_downstream_config(x->down)->send_timeout);
        }
        x->back.progress = false;
        x->entered = true;
        return TG_STEP_WAIT;
    case TG_RELAY_YIELD:
        tg_exchange_deadline(x, x->abi.idle_timeout);
        tg_downstream_again(x->down);
        return TG_STEP_WAIT;
    case TG_RELAY_FROM_FAILED:
        return cut(x, "the response was cut");
    case TG_RELAY_MALFORMED:
        return cut(x, fault->text);
    case TG_RELAY_NO_MEMORY:
        return cut(x, "out of memory");
    case TG_RELAY_TOO_LARGE:
        return cut(x, "the response is too large");
    case TG_RELAY_TO_FAILED:
        break;
    }
    tg_exchange_abort(x, TG_ERESET);
    return TG_STEP_NEXT;
}

enum tg_step
tg_reply_drain(struct tg_exchange *x)
{
    if (!x->entered) {
        x->entered = true;
        tg_exchange_deadline(x, DRAIN_TIME);
    }
    const enum tg_rc rc = tg_request_discard(x);
    if (rc == TG_AGAIN) {
        return TG_STEP_WAIT;
    }
    x->keep = x->keep && rc == TG_OK;
    tg_exchange_go(x, TG_STATE_LOG);
    return TG_STEP_NEXT;
}

/* What of the next request was read already goes to an exchange of its own. */
static struct tg_exchange *
next_exchange(struct tg_exchange *x, bool *lost)
{
    *lost = false;
    if (x->rest_len == 0) {
        return NULL;
    }
    struct tg_exchange *next = x->proxy->hooks->begin(x->down);
    if (next == NULL || tg_exchange_feed(next, tg_slice_of(x->rest, x->rest_len)) != TG_OK) {
        *lost = true;
        if (next != NULL) {
            tg_exchange_free(next);
        }
        return NULL;
    }
    return next;
}

/* Lets the connection go on without this exchange. */
static void
leave_connection(struct tg_exchange *x)
{
    struct tg_downstream *down = x->down;
    if (down == NULL) {
        return;
    }
    bool lost = false;
    down->requests++;
    struct tg_exchange *next = x->keep ? next_exchange(x, &lost) : NULL;
    x->down = NULL;
    if (x->keep && !lost) {
        tg_downstream_done(down, next);
    } else {
        tg_downstream_linger(down);
    }
}

/* Nobody waits for a log phase, so it must end by itself: it would hold its exchange and its generation. */
static void
on_log_expired(struct tg_deadline *deadline)
{
    struct tg_exchange *x = (struct tg_exchange *)((char *)deadline - offsetof(struct tg_exchange, log_deadline));
    tg_log(TG_LOG_ERROR, "a log phase took longer than %d s and was ended", LOG_TIME / 1000);
    x->proxy->policy->cancel(x);
    tg_exchange_go(x, TG_STATE_END);
    (void)tg_reply_end(x);
}

/* A client that goes away says nothing about the route. */
static void
judge_route(struct tg_exchange *x)
{
    struct tg_abi_watch *watch = &x->abi.watch[TG_WATCH_ROUTE];
    const uint64_t now = tg_loop_micros(x->proxy->loop);
    if (!x->abi.aborted || x->abi.error != TG_ERESET) {
        tg_watch_judge(&x->proxy->peers.news, watch, TG_OK, x->abi.status, now - x->start, now);
        watch->probe = 0;
    }
    tg_watch_end(&x->proxy->peers.news, watch);
}

enum tg_step
tg_reply_log(struct tg_exchange *x)
{
    if (!x->entered) {
        x->entered = true;
        tg_messages_end(x);
        tg_upstream_release(&x->upstream, false);
        x->abi.duration = (double)(tg_loop_clock() - x->start) / 1e6;
        tg_count_exchange(x);
        if (x->abi.watch[TG_WATCH_ROUTE].cell != NULL) {
            judge_route(x);
        }
        if (x->shadow != NULL) {
            x->proxy->policy->compare(x);
        }
        x->proxy->policy->over(x);
        x->decided = (x->abi.wants & TG_WANT_LOG) == 0 || x->proxy->policy->enter(x, TG_ENTRY_LOG) != TG_AGAIN;
        leave_connection(x);
    }
    if (!x->decided) {
        x->log_deadline.expired = on_log_expired;
        tg_deadline_set(x->proxy->loop, &x->log_deadline, LOG_TIME);
        return TG_STEP_WAIT;
    }
    tg_exchange_go(x, TG_STATE_END);
    return TG_STEP_NEXT;
}

enum tg_step
tg_reply_end(struct tg_exchange *x)
{
    tg_exchange_free(x);
    return TG_STEP_GONE;
}
