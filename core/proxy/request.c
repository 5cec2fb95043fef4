#include "proxy/request.h"

#include "base/log.h"
#include "http/h1_write.h"
#include "proxy/grpc.h"
#include "proxy/session.h"
#include "proxy/websocket.h"

enum { DISCARD_MAX = 64 * 1024 };

/* Bytes of a body may come slowly at first: this long a wait is free (SECURITY 1.2). */
enum { RATE_GRACE = 10000 /* milliseconds */ };

static const struct tg_h1_fault unknown_protocol = {501, "no protocol but websocket can be connected to",
                                                    TG_LIMIT_NONE};

static enum tg_step
refuse(struct tg_exchange *x, const struct tg_h1_fault *fault)
{
    char client[TG_ADDRESS_TEXT];
    unsigned port;
    (void)tg_downstream_client(&x->client, client, &port);
    tg_log(TG_LOG_INFO, "client %s:%u: %u %s", client, port, fault->status, fault->text);
    tg_exchange_limited(x, fault->limit);
    tg_exchange_refuse(x, fault->status, fault->text);
    return TG_STEP_NEXT;
}

static void
begin(struct tg_exchange *x)
{
    x->abi.started = tg_loop_wall(x->proxy->loop);
    x->proxy->policy->begin(x);
}

static enum tg_step
out_of_memory(struct tg_exchange *x)
{
    tg_exchange_refuse(x, 500, "out of memory");
    return TG_STEP_NEXT;
}

static bool
parse_node(struct tg_slice node, struct tg_address *address)
{
    char text[TG_ADDRESS_TEXT];
    if (node.n >= sizeof text) {
        return false;
    }
    memcpy(text, node.p, node.n);
    text[node.n] = '\0';
    return memchr(text, '\0', node.n) == NULL && tg_address_parse(address, text, 0) == TG_OK;
}

/* Behind a trusted peer the client is the right-most address that is not trusted (SECURITY 1.4). */
static void
believe(struct tg_exchange *x, const struct tg_downstream_config *config)
{
    struct tg_forwarded chain;
    struct tg_address address = {.len = sizeof x->client};
    memcpy(&address.sa, &x->client, sizeof x->client);
    if (!tg_cidr_list_match(config->trusted, &address)) {
        return;
    }
    x->trust = (uint8_t)config->trust;
    if (config->trust == TG_TRUST_FORWARDED) {
        tg_forwarded_parse(&chain, &x->request);
    } else {
        tg_forwarded_for(&chain, &x->request);
        const struct tg_field *proto = tg_message_find_id(&x->request, TG_FIELD_X_FORWARDED_PROTO);
        if (proto != NULL) {
            chain.proto = tg_slice_of(proto->value, proto->value_len);
        }
    }
    x->abi.secure = chain.proto.n > 0 ? tg_slice_is_text(chain.proto, "https", 5) : x->abi.secure;
    for (unsigned i = 0; i < chain.count && parse_node(chain.nodes[i], &address); i++) {
        memcpy(&x->client, &address.sa, sizeof x->client);
        if (!tg_cidr_list_match(config->trusted, &address)) {
            break;
        }
    }
}

static void
show_request(struct tg_exchange *x, const struct tg_target *target)
{
    struct tg_abi_exchange *abi = &x->abi;
    abi->method = x->request.method;
    abi->method_id = (uint16_t)tg_method_id(abi->method);
    abi->version_major = x->request.version_major;
    abi->version_minor = x->request.version_minor;
    abi->raw_path = target->raw_path;
    abi->path = target->path;
    abi->path_doubts = target->doubts;
    abi->query = target->query;
    abi->query_present = target->query_present;
    abi->host = target->host;
    abi->authority = target->authority;
    x->to_head = x->from_head = tg_slice_is(abi->method, "HEAD", 4);
}

/* The request is parsed: what it is for, and from whom. */
static enum tg_step
accept_request(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_target target = {0};
    const struct tg_downstream_config *config = tg_downstream_config(x->down);
    const enum tg_rc rc = tg_target_parse(&target, &x->request, &x->arena, &fault);
    if (rc != TG_OK) {
        return rc == TG_EPROTOCOL ? refuse(x, fault) : out_of_memory(x);
    }
    const struct tg_tls *tls = tg_downstream_tls(x->down);
    x->abi.secure = tls != NULL;
    if (config->trusted != NULL) {
        believe(x, config);
    }
    x->proxy->policy->settle(x);
    show_request(x, &target);
    if (tls != NULL && !tg_tls_server_serves(tls, target.host)) {
        tg_exchange_refuse(x, 421, "this connection is for another host"); /* RFC 9110, section 15.5.20 */
        return TG_STEP_NEXT;
    }
    tg_exchange_go(x, TG_STATE_REQUEST);
    return TG_STEP_NEXT;
}

/* False: it was refused. */
static bool
has_memory(struct tg_exchange *x)
{
    begin(x);
    if (x->proxy->pressure >= TG_PRESSURE_SHED) {
        tg_exchange_limited(x, TG_LIMIT_MEMORY);
        tg_exchange_refuse(x, 503, "overloaded");
        return false;
    }
    return true;
}

/* The head is whole. */
static enum tg_step
parse(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    if (!has_memory(x)) {
        return TG_STEP_NEXT;
    }
    x->request.reading = tg_downstream_config(x->down)->reading;
    enum tg_rc rc = tg_h1_parse_request(&x->request, x->in + x->scan.start, x->scan.pos - x->scan.start, &fault);
    if (rc != TG_OK) {
        return rc == TG_EPROTOCOL ? refuse(x, fault) : out_of_memory(x);
    }
    x->keep = x->request.keep_alive;
    x->rest = x->in + x->scan.pos;
    x->rest_len = x->in_len - x->scan.pos;
    tg_body_init(&x->request_body, x->request.framing, x->request.content_length);
    return accept_request(x);
}

static enum tg_step
close_quietly(struct tg_exchange *x)
{
    struct tg_downstream *down = x->down;
    tg_exchange_free(x);
    tg_downstream_close(down, false);
    return TG_STEP_GONE;
}

/* A head that came as a field section. Its body comes without a framing of its own. */
static enum tg_step
take_stream_head(struct tg_exchange *x)
{
    const uint8_t framing = x->request.framing;
    if (x->down->transport.failed) { /* reset, or its connection is gone: nobody waits for what it would cost */
        return close_quietly(x);
    }
    if (x->head_fault != NULL) {
        begin(x);
        return refuse(x, x->head_fault);
    }
    if (!x->head_whole) {
        return TG_STEP_WAIT;
    }
    tg_deadline_clear(&x->down->deadline);
    if (!has_memory(x)) {
        return TG_STEP_NEXT;
    }
    if (x->extended.n > 0) {
        const enum tg_rc rc = tg_websocket_translate(x);
        tg_body_init(&x->request_body, TG_FRAMING_NONE, 0);
        return rc == TG_OK ? accept_request(x) : rc == TG_EINVAL ? refuse(x, &unknown_protocol) : out_of_memory(x);
    }
    x->grpc = tg_grpc_is_request(&x->request);
    tg_body_init(&x->request_body, framing == TG_FRAMING_CHUNKED ? TG_FRAMING_CLOSE : (enum tg_framing)framing,
                 x->request.content_length);
    return accept_request(x);
}

static enum tg_step
leave_idle(struct tg_exchange *x)
{
    struct tg_downstream *down = x->down;
    tg_exchange_free(x);
    down->exchange = NULL;
    return TG_STEP_GONE;
}

static bool
grow_input(struct tg_exchange *x, const struct tg_h1_limits *limits)
{
    const size_t capacity = (size_t)limits->head + 1;
    char *room = capacity > x->in_capacity ? tg_arena_alloc(&x->arena, capacity) : NULL;
    if (room == NULL) {
        return false;
    }
    memcpy(room, x->in, x->in_len);
    x->in = room;
    x->in_capacity = capacity;
    return true;
}

/* The time for the head runs from its first byte, however many pieces it comes in. */
static enum tg_step
wait_for_head(struct tg_exchange *x, const struct tg_downstream_config *config)
{
    const uint64_t spent = (tg_loop_micros(x->proxy->loop) - x->start) / 1000;
    tg_deadline_set(x->proxy->loop, &x->down->deadline,
                    spent < config->header_timeout ? config->header_timeout - spent : 0);
    return TG_STEP_WAIT;
}

/* The client speaks HTTP/2 without having asked for it (RFC 9113, section 3.3). */
static bool
is_preface(const struct tg_exchange *x, const struct tg_downstream_config *config)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\n";
    return config->http2 != 0 && x->down->requests == 0 && x->scan.start == 0 && x->scan.pos == sizeof preface - 1 &&
           memcmp(x->in, preface, sizeof preface - 1) == 0;
}

static enum tg_step
begin_session(struct tg_exchange *x)
{
    char bytes[TG_EXCHANGE_INPUT];
    struct tg_downstream *down = x->down;
    const size_t n = x->in_len;
    TG_ASSERT(n <= sizeof bytes); /* no head of this length needs more room */
    memcpy(bytes, x->in, n);
    tg_exchange_free(x);
    down->exchange = NULL;
    down->proxy->hooks->session_begin(down, tg_slice_of(bytes, n));
    return TG_STEP_GONE;
}

enum tg_step
tg_request_head(struct tg_exchange *x)
{
    const struct tg_downstream_config *config = tg_downstream_config(x->down);
    const struct tg_h1_fault *fault = NULL;
    if (x->down->is_stream) {
        return take_stream_head(x);
    }
    for (;;) {
        if (x->in_len > 0) {
            enum tg_rc rc = tg_h1_scan(&x->scan, x->in, x->in_len, &config->limits, true, &fault);
            if (x->start == 0) {
                x->start = tg_loop_micros(x->proxy->loop);
            }
            if (rc == TG_OK) {
                return is_preface(x, config) ? begin_session(x) : parse(x);
            }
            if (rc != TG_AGAIN) {
                begin(x);
                return refuse(x, fault);
            }
            if (x->in_len == x->in_capacity && !grow_input(x, &config->limits)) {
                begin(x);
                return out_of_memory(x);
            }
        }
        size_t got = 0;
        enum tg_rc rc = tg_transport_read(&x->down->transport, x->in + x->in_len, x->in_capacity - x->in_len, &got);
        if (rc == TG_AGAIN) {
            return x->in_len == 0 ? leave_idle(x) : wait_for_head(x, config);
        }
        if (rc != TG_OK) {
            return close_quietly(x);
        }
        x->in_len += got;
    }
}

enum tg_rc
tg_request_continue(struct tg_exchange *x)
{
    static const char answer[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!x->request.expect_continue || x->continued || x->rest_len > 0) {
        return TG_OK;
    }
    if (x->down->is_stream) {
        x->continued = true;
        return tg_session_interim(x, 100, NULL);
    }
    struct iovec v = {(void *)(uintptr_t)answer, sizeof answer - 1};
    size_t sent = 0;
    enum tg_rc rc = tg_transport_write(&x->down->transport, &v, 1, &sent);
    if (rc == TG_AGAIN) { /* it has yet to read an earlier answer: once more when it has */
        return rc;
    }
    x->continued = true;
    /* A send buffer with room for some of 25 bytes is a broken peer. */
    return rc == TG_OK && sent == sizeof answer - 1 ? TG_OK : TG_ERESET;
}

/*
 * The client's body is waited for: until its bytes have been missing for too long, or come too slowly as a whole. Only
 * waits count for the rate, not the time in which we do not read because the upstream is slow.
 */
void
tg_request_wait_body(struct tg_exchange *x)
{
    const struct tg_downstream_config *config = tg_downstream_config(x->down);
    uint64_t wait = x->grpc ? TG_GRPC_IDLE : config->body_timeout;
    x->body_since = tg_loop_micros(x->proxy->loop);
    if (config->body_rate != 0 && !x->grpc) {
        const uint64_t due = x->request_body.total * 1000 / config->body_rate;
        const uint64_t allowed = due > RATE_GRACE ? due : RATE_GRACE;
        const uint64_t waited = x->body_waited / 1000;
        wait = waited >= allowed ? 0 : wait < allowed - waited ? wait : allowed - waited;
    }
    tg_exchange_deadline(x, wait);
}

void
tg_request_waited_body(struct tg_exchange *x)
{
    if (x->body_since != 0) {
        x->body_waited += tg_loop_micros(x->proxy->loop) - x->body_since;
        x->body_since = 0;
    }
}

enum tg_limit
tg_request_body_limit(struct tg_exchange *x)
{
    tg_request_waited_body(x);
    const struct tg_downstream_config *config = tg_downstream_config(x->down);
    const bool slow = config->body_rate != 0 && x->body_waited / 1000 + TG_LOOP_TICK >= RATE_GRACE &&
                      x->request_body.total * 1000 < config->body_rate * (x->body_waited / 1000);
    return slow ? TG_LIMIT_BODY_RATE : TG_LIMIT_BODY_TIMEOUT;
}

/* More bytes of the body into x->rest. */
static enum tg_rc
read_rest(struct tg_exchange *x)
{
    size_t got = 0;
    enum tg_rc rc = tg_request_continue(x);
    if (rc != TG_OK) {
        return rc;
    }
    if (x->up.buffer == NULL && (x->up.buffer = tg_buffer_take(&x->proxy->buffers)) == NULL) {
        return TG_ENOMEM;
    }
    rc = tg_transport_read(&x->down->transport, x->up.buffer->data, TG_BUFFER_WINDOW, &got);
    if (rc == TG_OK) {
        x->rest = x->up.buffer->data;
        x->rest_len = got;
    } else {
        tg_buffer_give(&x->proxy->buffers, x->up.buffer);
        x->up.buffer = NULL;
    }
    return rc == TG_ECLOSED && tg_body_end(&x->request_body) == TG_OK ? TG_OK : rc;
}

/* Decodes x->rest; *data is valid until the next read. */
static enum tg_rc
decode_rest(struct tg_exchange *x, struct tg_slice *data)
{
    const struct tg_h1_fault *fault = NULL;
    size_t used = 0;
    enum tg_rc rc = tg_body_decode(&x->request_body, x->rest, x->rest_len, data, &used, &fault);
    x->rest += used;
    x->rest_len -= used;
    if (rc == TG_EPROTOCOL) {
        tg_exchange_limited(x, fault->limit);
    }
    return rc;
}

enum tg_rc
tg_request_piece(struct tg_exchange *x, struct tg_slice *data)
{
    *data = (struct tg_slice){0};
    while (!x->request_body.done && data->n == 0) {
        enum tg_rc rc = x->rest_len > 0 ? TG_OK : read_rest(x);
        if (rc == TG_OK && !x->request_body.done) {
            rc = decode_rest(x, data);
        }
        if (rc != TG_OK) {
            return rc;
        }
    }
    return TG_OK;
}

static enum tg_rc
buffer_body(struct tg_exchange *x)
{
    tg_request_waited_body(x);
    while (!x->request_body.done) {
        struct tg_slice data;
        enum tg_rc rc = tg_request_piece(x, &data);
        if (rc == TG_OK) {
            rc = tg_exchange_keep(&x->buffered, data);
        }
        if (rc != TG_OK) {
            return rc;
        }
    }
    x->buffered.whole = true;
    x->abi.bytes_in = x->buffered.n;
    return TG_OK;
}

enum tg_rc
tg_request_want_body(struct tg_exchange *x, size_t max)
{
    if (x->buffered.whole) {
        return x->buffered.n > max ? TG_ELIMIT : TG_OK;
    }
    if (x->buffered.failed != TG_OK) {
        return (enum tg_rc)x->buffered.failed;
    }
    if (x->state != TG_STATE_REQUEST || x->down == NULL || x->flow[TG_SIDE_REQUEST].reads) {
        return TG_EINVAL;
    }
    if (x->request.framing == TG_FRAMING_LENGTH && x->request.content_length > max) {
        return TG_ELIMIT;
    }
    x->buffered.max = max;
    enum tg_rc rc = buffer_body(x);
    x->buffered.wanted = rc == TG_AGAIN;
    if (rc == TG_AGAIN) {
        tg_request_wait_body(x);
    } else {
        x->buffered.failed = (int8_t)rc;
    }
    return rc;
}

enum tg_rc
tg_request_discard(struct tg_exchange *x)
{
    size_t budget = DISCARD_MAX;
    while (!x->request_body.done) {
        struct tg_slice data;
        const enum tg_rc rc = tg_request_piece(x, &data);
        if (rc != TG_OK) {
            return rc;
        }
        if (data.n > budget || x->request_body.total > DISCARD_MAX + x->abi.bytes_in) {
            return TG_ELIMIT;
        }
        budget -= data.n;
    }
    return TG_OK;
}

/* A policy waits for the body, or for a piece of it: goes on reading it. */
void
tg_request_pump(struct tg_exchange *x)
{
    struct tg_flow *flow = &x->flow[TG_SIDE_REQUEST];
    tg_request_waited_body(x);
    const enum tg_rc rc = flow->hungry ? tg_request_piece(x, &flow->piece) : buffer_body(x);
    if (rc == TG_AGAIN) {
        tg_request_wait_body(x);
        return;
    }
    if (flow->hungry) {
        flow->failed = (int8_t)rc;
    } else {
        x->buffered.failed = (int8_t)rc;
    }
    flow->hungry = false;
    x->buffered.wanted = false;
    x->proxy->policy->body_ready(x, rc);
}

static enum tg_step
act_on_verdict(struct tg_exchange *x)
{
    if (x->outcome != TG_OK) {
        tg_exchange_fail(x, 500, "a policy failed");
        return TG_STEP_NEXT;
    }
    switch (x->abi.verdict) {
    case TG_VERDICT_RESPOND:
        tg_exchange_go(x, TG_STATE_RESPONSE);
        break;
    case TG_VERDICT_PROXY:
        tg_grpc_apply_limits(x);
        if (x->flow[TG_SIDE_REQUEST].reads && !x->flow[TG_SIDE_REQUEST].writes && !x->buffered.replaced) {
            tg_log(TG_LOG_ERROR, "a policy has read the request's body away and set no other");
            tg_exchange_fail(x, 500, "a policy failed");
            break;
        }
        if (x->buffered.failed != TG_OK && !x->buffered.replaced) {
            tg_exchange_limited(x, TG_LIMIT_BODY);
            tg_exchange_refuse(x, 413, "request body too large to be judged");
            break;
        }
        if (x->request.framing == TG_FRAMING_LENGTH && x->request.content_length > x->abi.body_limit) {
            tg_exchange_limited(x, TG_LIMIT_BODY);
            tg_exchange_refuse(x, 413, "request body too large");
            break;
        }
        tg_exchange_go(x, TG_STATE_CONNECT);
        break;
    default:
        tg_exchange_fail(x, 500, "no policy answered");
    }
    return TG_STEP_NEXT;
}

enum tg_step
tg_request_phases(struct tg_exchange *x)
{
    if (!x->entered) {
        x->entered = true;
        enum tg_rc rc = x->proxy->policy->enter(x, TG_ENTRY_REQUEST);
        if (rc == TG_AGAIN) {
            if (!x->buffered.wanted && !x->flow[TG_SIDE_REQUEST].hungry) {
                tg_exchange_deadline(x, x->abi.total_timeout);
            }
            return TG_STEP_WAIT;
        }
        x->decided = true;
        x->outcome = (int8_t)rc;
    }
    if (x->buffered.wanted || x->flow[TG_SIDE_REQUEST].hungry) {
        tg_request_pump(x);
    }
    return x->decided ? act_on_verdict(x) : TG_STEP_WAIT;
}
