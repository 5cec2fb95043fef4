#include "proxy/forward.h"

#include "base/log.h"
#include "http/h1_write.h"
#include "proxy/grpc.h"
#include "proxy/mux.h"
#include "proxy/request.h"
#include "proxy/session.h"
#include "proxy/stream.h"

enum { HINTS_MAX = 8, /* SECURITY 1.1 */ REFUSALS_MAX = 3 };

void
tg_forward_init(struct tg_exchange *x, tg_forward_cb changed)
{
    tg_upstream_init(&x->upstream, &x->proxy->peers, changed);
}

static void
judge_attempt(struct tg_exchange *x, enum tg_rc rc, unsigned status)
{
    tg_attempt_judge(&x->proxy->peers.news, &x->upstream.attempt, rc, status, tg_loop_micros(x->proxy->loop));
}

void
tg_forward_failed(struct tg_exchange *x, enum tg_rc rc)
{
    const struct tg_peer *peer = x->upstream.peer;
    if (rc != TG_ENOMEM) {
        judge_attempt(x, rc, 0);
    }
    if (peer != NULL) {
        tg_log(TG_LOG_WARN, "upstream %s:%u: %s", peer->host, peer->port, tg_rc_name(rc));
    }
    x->abi.error = rc;
    x->abi.verdict = TG_VERDICT_NONE;
    x->abi.began = x->state != TG_STATE_CONNECT;
    x->abi.may_retry = x->abi.began ? 0 : 2;
    tg_forward_drop_answer(x);
    tg_exchange_go(x, TG_STATE_BALANCE);
}

/* All of it has come already, so that the connection serves for another request. */
static bool
is_answer_whole(const struct tg_exchange *x)
{
    const size_t body = x->upstream_head.filled - x->upstream_head.scan.pos;
    const bool none = x->response.framing == TG_FRAMING_NONE && body == 0;
    return x->abi.answered && x->sent && x->response.keep_alive &&
           (none || (x->response.framing == TG_FRAMING_LENGTH && body == x->response.content_length));
}

void
tg_forward_drop_answer(struct tg_exchange *x)
{
    tg_upstream_release(&x->upstream, is_answer_whole(x));
    tg_buffer_give(&x->proxy->buffers, x->response_buffer);
    x->response_buffer = NULL;
    x->abi.answered = 0;
    x->abi.status = 0;
}

/* How the body goes out: as it came, or with the length that buffering has found. */
static struct tg_h1_frame
request_frame(const struct tg_exchange *x)
{
    struct tg_h1_frame frame = {
        .framing = x->request.framing, .length = x->request.content_length, .upgrade = x->upgrade};
    if (x->flow[TG_SIDE_REQUEST].writes) {
        frame.framing = TG_FRAMING_CHUNKED;
    } else if (x->buffered.whole) {
        const bool none = x->buffered.n == 0 && x->request.framing == TG_FRAMING_NONE;
        frame.framing = none ? TG_FRAMING_NONE : TG_FRAMING_LENGTH;
        frame.length = x->buffered.n;
    }
    return frame;
}

static enum tg_rc
write_head(struct tg_exchange *x, const struct tg_h1_frame *frame, struct tg_slice *head)
{
    char peer[TG_ADDRESS_TEXT];
    unsigned port;
    struct tg_h1_forward forward = {
        .authority = x->abi.upstream_host.n > 0 ? x->abi.upstream_host : x->abi.authority,
        .proto = x->abi.secure ? TG_SLICE("https") : TG_SLICE("http"),
        .forwarded_host = x->abi.authority,
        .port = tg_downstream_config(x->down)->port,
        .trust = (enum tg_trust)x->trust,
    };
    forward.client_ip = tg_exchange_client(x);
    forward.peer_ip = forward.client_ip;
    if (x->trust != TG_TRUST_NONE) {
        forward.peer_ip = tg_slice_of(peer, tg_downstream_client(&x->down->client, peer, &port));
    }
    if (forward.authority.n == 0) { /* HTTP/1.0 without Host */
        forward.authority = tg_slice_of(x->upstream.peer->host, strlen(x->upstream.peer->host));
    }
    return tg_h1_write_request(&x->request, x->abi.raw_path, x->abi.query, x->abi.query_present != 0, &forward, frame,
                               head);
}

/* All of the body has flowed to the last attempt, and was kept. */
static bool
has_copy(const struct tg_exchange *x)
{
    return x->copy.n > 0 && !x->copy.lost && x->request_body.done && x->up.from != NULL;
}

static void
take_copy(struct tg_exchange *x)
{
    x->buffered = (struct tg_exchange_body){
        .p = x->copy.p, .n = x->copy.n, .capacity = x->copy.capacity, .max = x->copy.max, .whole = true, .heap = true};
    x->copy = (struct tg_relay_copy){0};
    x->up.copy = NULL;
}

/* The connection is open: the request begins to go out. */
static enum tg_step
begin_sending(struct tg_exchange *x)
{
    if (has_copy(x)) {
        take_copy(x);
    }
    struct tg_slice head;
    const struct tg_h1_frame frame = request_frame(x);
    struct tg_relay *up = &x->up;
    if (write_head(x, &frame, &head) != TG_OK) {
        tg_exchange_fail(x, 500, "out of memory");
        return TG_STEP_NEXT;
    }
    up->to = &x->upstream.link->transport;
    up->body = &x->request_body;
    up->limit = x->abi.body_limit;
    up->chunked = frame.framing == TG_FRAMING_CHUNKED && !x->upstream.link->single;
    const bool writes = x->flow[TG_SIDE_REQUEST].writes;
    if (x->buffered.whole && !writes) {
        /* The body is there, decoded: it is relayed as one of known length. */
        tg_body_fini(&x->request_body);
        tg_body_init(&x->request_body, TG_FRAMING_LENGTH, x->buffered.n);
        up->from = NULL;
        up->limit = UINT64_MAX;
        tg_relay_start(up, head, x->buffered.p, x->buffered.n, up->buffer);
    } else {
        up->from = &x->down->transport;
        tg_relay_start(up, head, x->rest, x->rest_len, up->buffer);
        if (x->abi.keep_body != 0 && !writes && x->copy.p == NULL) {
            x->copy = (struct tg_relay_copy){.max = x->abi.keep_body};
            up->copy = &x->copy;
        }
    }
    x->upstream_head = (struct tg_upstream_head){
        .hints = x->request.version_major == 2 || x->request.version_minor == 1, .upgrade = x->upgrade};
    x->sent = false;
    tg_exchange_go(x, TG_STATE_AWAIT);
    if (writes) {
        tg_stream_begin(x, TG_SIDE_REQUEST);
    }
    tg_downstream_again(x->down);
    return TG_STEP_WAIT;
}

enum tg_step
tg_forward_connect(struct tg_exchange *x)
{
    enum tg_rc rc = TG_AGAIN;
    if (!x->entered) {
        x->entered = true;
        x->abi.attempt++;
        x->abi.connect_time = 0;
        const uint64_t now = tg_loop_clock();
        if (x->attempt_start == 0) {
            x->attempt_start = now;
        }
        if (!x->upstream.attempt.begun) {
            tg_attempt_begin(&x->proxy->peers.news, &x->upstream.attempt, x->abi.watch, x->abi.attempt == 1, now);
        }
        rc = tg_upstream_open(&x->upstream, x->proxy->peers.list[x->abi.peer], x->fresh);
        if (rc == TG_AGAIN) {
            x->abi.connect_time = -(double)now / 1e6; /* until it is over */
            tg_exchange_deadline(x, x->abi.connect_timeout);
        }
    } else if (x->upstream.state == TG_UPSTREAM_OPEN) {
        x->abi.connect_time += (double)tg_loop_micros(x->proxy->loop) / 1e6;
        rc = TG_OK;
    } else if (x->upstream.state == TG_UPSTREAM_CLOSED) {
        rc = x->upstream.rc;
    }
    if (rc == TG_AGAIN) {
        return TG_STEP_WAIT;
    }
    if (rc != TG_OK) {
        tg_forward_failed(x, rc);
        return TG_STEP_NEXT;
    }
    return begin_sending(x);
}

static enum tg_step
give_up(struct tg_exchange *x)
{
    switch (x->abi.error) {
    case TG_ETIMEOUT:
        tg_exchange_fail(x, 504, "the upstream did not answer in time");
        break;
    case TG_EPROTOCOL:
        tg_exchange_fail(x, 502, "the upstream sent an invalid response");
        break;
    case TG_ENOMEM:
        tg_exchange_fail(x, 500, "out of memory");
        break;
    default:
        tg_exchange_fail(x, 502, "the upstream could not be reached");
    }
    return TG_STEP_NEXT;
}

enum tg_step
tg_forward_balance(struct tg_exchange *x)
{
    if (!x->entered) {
        x->entered = true;
        enum tg_rc rc = x->proxy->policy->enter(x, TG_ENTRY_BALANCE);
        if (rc == TG_AGAIN) {
            tg_exchange_deadline(x, x->abi.total_timeout);
            return TG_STEP_WAIT;
        }
        x->decided = true;
        x->outcome = (int8_t)rc;
    }
    if (!x->decided) {
        return TG_STEP_WAIT;
    }
    if (x->outcome != TG_OK) {
        tg_exchange_fail(x, 503, "a policy failed");
    } else if (x->abi.verdict == TG_VERDICT_PROXY) {
        tg_forward_drop_answer(x);
        tg_exchange_go(x, TG_STATE_CONNECT);
    } else if (x->abi.verdict == TG_VERDICT_RESPOND) {
        tg_exchange_go(x, TG_STATE_RESPONSE);
    } else if (x->abi.answered) {
        tg_exchange_go(x, TG_STATE_RESPONSE);
    } else {
        return give_up(x);
    }
    return TG_STEP_NEXT;
}

/* RFC 9110, section 9.2.2. */
static bool
is_idempotent(struct tg_slice method)
{
    static const char *const names[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (tg_slice_is(method, names[i], strlen(names[i]))) {
            return true;
        }
    }
    return false;
}

/* What tg_abi_exchange.may_retry says, apart from what was answered. `refused`: the peer says that it has not begun. */
static uint8_t
repeatable(const struct tg_exchange *x, bool refused)
{
    const bool whole = x->buffered.whole || has_copy(x) || x->request.framing == TG_FRAMING_NONE ||
                       (x->request.framing == TG_FRAMING_LENGTH && x->request.content_length == 0);
    if (!whole || x->flow[TG_SIDE_REQUEST].writes) {
        return 0;
    }
    return refused || !x->up.started || is_idempotent(x->abi.method) ? 2 : 1;
}

static bool
is_answered(const struct tg_exchange *x)
{
    return x->upstream_head.filled != 0 || x->upstream_head.interim != 0;
}

/* The connection broke before a response. One from the pool may have been closed just before: that is no failure yet.
 */
static enum tg_step
lost_connection(struct tg_exchange *x, enum tg_rc rc)
{
    const bool refused = tg_mux_is_refused(x->upstream.link);
    const uint8_t again = is_answered(x) ? 0 : repeatable(x, refused);
    if (again == 2 && (refused ? x->refusals < REFUSALS_MAX : x->upstream.reused)) {
        tg_upstream_drop(&x->upstream);
        tg_buffer_give(&x->proxy->buffers, x->response_buffer);
        x->response_buffer = NULL;
        x->refusals += refused ? 1 : 0;
        x->fresh = !refused;
        x->abi.attempt--;
        tg_exchange_go(x, TG_STATE_CONNECT);
        return TG_STEP_NEXT;
    }
    tg_forward_failed(x, rc);
    x->abi.may_retry = again;
    return TG_STEP_NEXT;
}

void
tg_forward_overdue(struct tg_exchange *x)
{
    const uint8_t again = is_answered(x) ? 0 : repeatable(x, false);
    tg_forward_failed(x, TG_ETIMEOUT);
    x->abi.may_retry = again;
}

/* The policy may want another attempt in place of this answer. */
static bool
is_questionable(const struct tg_exchange *x, unsigned outcome)
{
    const struct tg_abi_rules *rules = x->upstream.attempt.watch[TG_WATCH_PEER].rules;
    return rules != NULL && tg_status_is_in(rules->retried, outcome) && x->sent && repeatable(x, false) != 0;
}

static enum tg_step
upload_failed(struct tg_exchange *x, enum tg_relay_result result, const struct tg_h1_fault *fault)
{
    switch (result) {
    case TG_RELAY_TOO_LARGE:
        tg_exchange_limited(x, TG_LIMIT_BODY);
        tg_exchange_refuse(x, 413, "request body too large");
        return TG_STEP_NEXT;
    case TG_RELAY_MALFORMED:
        tg_exchange_limited(x, fault->limit);
        tg_exchange_refuse(x, 400, fault->text);
        return TG_STEP_NEXT;
    case TG_RELAY_NO_MEMORY:
        tg_exchange_refuse(x, 500, "out of memory");
        return TG_STEP_NEXT;
    default:
        if (x->flow[TG_SIDE_REQUEST].failed == TG_ESCRIPT) {
            tg_exchange_refuse(x, 500, "a policy failed");
        } else { /* the client is gone */
            tg_exchange_abort(x, TG_ERESET);
        }
        return TG_STEP_NEXT;
    }
}

/* The time of a wait runs on when the wake-up was for something else: bytes of the response, or of the client. */
static void
wait_for_upload(struct tg_exchange *x, bool for_client)
{
    const bool renew = x->up.progress || !x->entered;
    x->entered = true;
    x->up.progress = false;
    if (for_client && renew) {
        tg_request_wait_body(x);
    } else if (for_client) {
        x->body_since = tg_loop_micros(x->proxy->loop);
    } else if (renew) {
        tg_exchange_deadline(x, x->abi.idle_timeout);
    }
}

/* TG_STEP_NEXT: the state has changed; WAIT: go on with the response. */
static enum tg_step
send_more(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_flow *flow = &x->flow[TG_SIDE_REQUEST];
    tg_request_waited_body(x);
    const bool unread = x->request_body.done || (flow->writes && !flow->reads);
    const enum tg_rc rc = unread ? TG_OK : tg_request_continue(x);
    if (rc == TG_AGAIN) {
        wait_for_upload(x, true);
        return TG_STEP_WAIT;
    }
    if (rc != TG_OK) {
        tg_exchange_abort(x, TG_ERESET);
        return TG_STEP_NEXT;
    }
    const enum tg_relay_result result =
        flow->writes ? tg_stream_step(x, TG_SIDE_REQUEST, &fault) : tg_relay_step(&x->up, &fault);
    x->abi.bytes_in = x->request_body.total;
    switch (result) {
    case TG_RELAY_DONE:
        x->sent = true;
        tg_mux_finish(x->upstream.link);
        if (!x->buffered.whole || flow->writes) {
            x->rest = x->up.raw;
            x->rest_len = x->up.raw_len;
        }
        tg_exchange_deadline(x, x->abi.first_byte_timeout);
        return TG_STEP_WAIT;
    case TG_RELAY_WAIT_FROM:
        wait_for_upload(x, true);
        return TG_STEP_WAIT;
    case TG_RELAY_YIELD:
        wait_for_upload(x, false);
        tg_downstream_again(x->down);
        return TG_STEP_WAIT;
    case TG_RELAY_WAIT_TO:
    case TG_RELAY_WAIT_POLICY:
        wait_for_upload(x, false);
        return TG_STEP_WAIT;
    case TG_RELAY_TO_FAILED:
        x->sent = true; /* an answer may have come before the peer closed: it is looked for once */
        x->upstream.link->transport.readable = true;
        return TG_STEP_WAIT;
    default:
        return upload_failed(x, result, fault);
    }
}

/*
 * RFC 9110, section 15.2.4: early hints go on to the client. They are no answer: what does not fit into the socket now
 * waits for the response, and further ones are left out.
 */
static void
pass_hint(struct tg_exchange *x)
{
    const struct tg_h1_frame frame = {.framing = TG_FRAMING_NONE};
    const struct tg_slice date = tg_slice_of(tg_loop_http_date(x->proxy->loop), 29);
    struct tg_slice head;
    size_t sent = 0;
    if (x->down->is_stream) {
        const bool ok = ++x->hints <= HINTS_MAX && tg_session_interim(x, 103, &x->response) == TG_OK;
        (void)ok; /* the response tells when the stream is gone */
        return;
    }
    if (++x->hints > HINTS_MAX || x->unsent.n > 0 || tg_h1_write_response(&x->response, &frame, date, &head) != TG_OK) {
        return;
    }
    struct iovec v = {(void *)(uintptr_t)head.p, head.n};
    if (tg_transport_write(&x->down->transport, &v, 1, &sent) == TG_OK) {
        x->unsent = tg_slice_of(head.p + sent, head.n - sent);
    }
}

/* The head of the final response; hints before it are passed on. */
static enum tg_rc
read_response_head(struct tg_exchange *x, const struct tg_h1_fault **fault)
{
    for (;;) {
        enum tg_rc rc =
            tg_upstream_read_head(&x->upstream, &x->upstream_head, x->response_buffer, &x->response, x->to_head, fault);
        if (rc != TG_OK || x->response.status != 103) {
            return rc;
        }
        pass_hint(x);
        rc = tg_upstream_next_head(&x->upstream_head, x->response_buffer, fault);
        if (rc != TG_OK) {
            return rc;
        }
    }
}

/* Between two streams both directions are independent (RFC 9113, section 8.1): that is what calls of gRPC are made of.
 */
static bool
is_duplex(const struct tg_exchange *x)
{
    return x->upstream.link->single && x->down->is_stream && x->up.from != NULL && !x->flow[TG_SIDE_REQUEST].writes;
}

enum tg_step
tg_forward_await(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    if (!x->sent) {
        const enum tg_step step = send_more(x);
        if (step != TG_STEP_WAIT) {
            return step;
        }
    }
    if (!x->upstream.link->transport.readable) {
        return TG_STEP_WAIT;
    }
    if (x->response_buffer == NULL && (x->response_buffer = tg_buffer_take(&x->proxy->buffers)) == NULL) {
        tg_exchange_refuse(x, 500, "out of memory");
        return TG_STEP_NEXT;
    }
    enum tg_rc rc = read_response_head(x, &fault);
    if (rc == TG_AGAIN) {
        if (x->upstream_head.filled == 0) {
            tg_buffer_give(&x->proxy->buffers, x->response_buffer);
            x->response_buffer = NULL;
        }
        /* To what could not be sent comes no answer any more. */
        return x->upstream.link->transport.failed ? lost_connection(x, TG_ERESET) : TG_STEP_WAIT;
    }
    if (rc == TG_EPROTOCOL) {
        tg_log(TG_LOG_WARN, "upstream %s:%u: %s", x->upstream.peer->host, x->upstream.peer->port, fault->text);
        tg_exchange_limited(x, fault->limit);
        tg_forward_failed(x, rc);
        return TG_STEP_NEXT;
    }
    if (rc != TG_OK) {
        return lost_connection(x, rc);
    }
    if (x->to_head && !tg_stream_is_bodyless(x)) { /* a policy has asked for the head alone: its length is of no body */
        x->response.framing = TG_FRAMING_LENGTH;
        x->response.content_length = 0;
        x->response.has_length = true;
    }
    x->duplex = !x->sent && is_duplex(x);
    if (!x->sent && !x->duplex) {
        /* An early answer ends the upload: the rest of the body goes nowhere (RFC 9112, section 9.5). */
        x->rest = x->up.raw;
        x->rest_len = x->up.raw_len;
        x->up.out_first = x->up.out_end = 0;
    }
    x->abi.source = TG_SOURCE_UPSTREAM;
    x->abi.status = x->response.status;
    x->abi.error = TG_OK;
    x->abi.upstream_time = (double)(tg_loop_micros(x->proxy->loop) - x->attempt_start) / 1e6;
    const unsigned outcome = tg_grpc_outcome(x);
    judge_attempt(x, TG_OK, outcome);
    if (is_questionable(x, outcome)) {
        x->abi.verdict = TG_VERDICT_NONE;
        x->abi.answered = 1;
        x->abi.began = 1;
        x->abi.may_retry = repeatable(x, false);
        tg_exchange_go(x, TG_STATE_BALANCE);
        return TG_STEP_NEXT;
    }
    tg_exchange_go(x, TG_STATE_RESPONSE);
    return TG_STEP_NEXT;
}
