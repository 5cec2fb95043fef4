#include "proxy/messages.h"

#include "base/log.h"
#include "base/mem.h"
#include "proxy/frames.h"

enum {
    TURNS = 64,       /* pieces a turn before others get theirs */
    KEPT_MIN = 4096,  /* bytes of a message that comes in pieces */
    COPY_MAX = 16384, /* larger ones are handed on as they are */
    CLOSE_TIME = 2000 /* milliseconds for both sides to end */
};

/* One direction. */
struct way {
    struct tg_relay *relay;
    struct tg_ws_reader reader;
    char *rest; /* read and not parsed yet; within the relay's buffer */
    size_t rest_n;
    char *kept; /* the begin of a message */
    size_t kept_n;
    size_t kept_max;
    struct tg_ws_piece now; /* what the policy looks at; a data message as a whole */
    char *made;             /* by the policy, in its place */
    size_t made_n;
    bool current; /* `now` is there */
    bool asked;   /* the policy has not answered yet */
    bool dropped;
    bool ended;              /* nothing more comes from its source */
    bool parted;             /* a close has gone to its destination */
    bool shut;               /* nothing more goes to its destination */
    struct tg_frames frames; /* to its destination */
};

struct tg_messages {
    struct way ways[2];
    uint16_t code; /* to close with; 0: not yet */
    uint8_t reason_len;
    bool closing;
    bool timed;
    bool full; /* a policy waits for room */
    char reason[TG_WS_REASON_MAX];
};

/* ------------------------------------------------------------------ frames */

/* Towards the upstream we are the client, and mask. */
static enum tg_rc
push(struct way *way, const struct tg_ws_piece *piece, char *heap)
{
    return tg_frames_push(&way->frames, piece, heap, way->reader.masked);
}

/* A close with this payload: a code and a reason, or nothing. */
static enum tg_rc
push_close(struct way *way, struct tg_slice payload)
{
    const struct tg_ws_piece piece = {.opcode = TG_WS_CLOSE, .end = true, .data = payload};
    if (way->parted) {
        return TG_OK;
    }
    way->parted = true;
    return push(way, &piece, NULL);
}

/* TG_OK: all is written. TG_AGAIN: the destination does not read. TG_ERESET. */
static enum tg_rc
flush(struct way *way, bool *moved)
{
    struct tg_relay *relay = way->relay;
    if (way->shut) {
        return TG_OK;
    }
    if (relay->out_first < relay->out_end) { /* the 101 */
        const enum tg_relay_result result = tg_relay_flush(relay);
        *moved |= result == TG_RELAY_DONE;
        if (result != TG_RELAY_DONE) {
            return result == TG_RELAY_WAIT_TO ? TG_AGAIN : TG_ERESET;
        }
    }
    return tg_frames_flush(&way->frames, relay->to, moved);
}

/* ------------------------------------------------------------------ closing */

static void
forget(struct way *way)
{
    tg_mem_free(way->kept);
    tg_mem_free(way->made);
    way->kept = way->made = NULL;
    way->kept_n = way->kept_max = way->made_n = 0;
    way->current = way->asked = way->dropped = false;
}

/* The first reason counts. */
static void
give_up(struct tg_exchange *x, enum tg_ws_code code, const char *reason, enum tg_rc rc)
{
    struct tg_messages *m = x->messages;
    if (m->code == 0) {
        x->abi.error = rc;
        (void)tg_messages_close(x, code, tg_slice_of(reason, strlen(reason)));
    }
}

static void
begin_close(struct tg_exchange *x)
{
    struct tg_messages *m = x->messages;
    char payload[TG_WS_CONTROL_MAX];
    payload[0] = (char)(m->code >> 8);
    payload[1] = (char)m->code;
    memcpy(payload + 2, m->reason, m->reason_len);
    m->closing = true;
    x->proxy->policy->cancel(x);
    for (unsigned i = 0; i < 2; i++) {
        struct way *way = &m->ways[i];
        forget(way);
        if (push_close(way, tg_slice_of(payload, 2U + m->reason_len)) != TG_OK) {
            way->shut = true;
        }
    }
}

/* The source of `side` has ended without a close. */
static void
lost(struct tg_exchange *x, enum tg_abi_side side)
{
    struct tg_messages *m = x->messages;
    const struct way *other = &m->ways[1 - side];
    const bool is_client = side == TG_SIDE_REQUEST;
    if (other->reader.closed) { /* it was asked to, and did so without a word */
        const unsigned code = other->reader.code == TG_WS_NO_CODE ? TG_WS_NORMAL : other->reader.code;
        give_up(x, (enum tg_ws_code)code, "", TG_OK);
        return;
    }
    x->abi.aborted = 1;
    give_up(x, is_client ? TG_WS_GOING_AWAY : TG_WS_INTERNAL_ERROR,
            is_client ? "the client is gone" : "the upstream is gone", TG_ERESET);
}

/* Nothing can be said to the destination of `way` any more. */
static void
cut_off(struct way *way)
{
    tg_frames_drop(&way->frames);
    way->relay->out_first = way->relay->out_end = 0;
    way->parted = way->shut = true;
}

/* What is left goes out, what still comes is read away, so that no reset destroys the last words. */
static bool
part(struct way *way)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_slice data = {0};
    bool moved = false;
    const enum tg_rc rc = flush(way, &moved);
    if (rc == TG_OK && !way->shut) {
        tg_transport_shutdown(way->relay->to);
        way->shut = true;
    } else if (rc == TG_ERESET) {
        cut_off(way);
    }
    if (way->ended) {
        return moved;
    }
    const enum tg_relay_result result = tg_relay_pull(way->relay, &data, &fault);
    if (result == TG_RELAY_WAIT_FROM) {
        return moved;
    }
    way->ended = result != TG_RELAY_DONE || data.n == 0;
    return true;
}

/* ------------------------------------------------------------------ messages */

/* What the policy has left of the message goes on. */
static enum tg_rc
pass(struct way *way)
{
    struct tg_ws_piece piece = way->now;
    char *heap = NULL;
    if (piece.opcode == TG_WS_CLOSE) {
        return push_close(way, tg_slice_of(way->reader.held, way->reader.held_len));
    }
    if (way->dropped || way->parted) {
        return TG_OK;
    }
    if (way->made != NULL) {
        piece.data = tg_slice_of(way->made, way->made_n);
        piece.compressed = false;
        heap = way->made;
        way->made = NULL;
    } else if (way->kept != NULL && piece.data.p == way->kept && piece.data.n > COPY_MAX) {
        heap = way->kept;
        way->kept = NULL;
    }
    return push(way, &piece, heap);
}

/* Only a control frame leaves the begin of a message behind it. */
static void
settle(struct tg_exchange *x, struct way *way, enum tg_rc rc)
{
    const bool is_control = way->now.opcode >= TG_WS_CLOSE;
    way->asked = false;
    if (rc == TG_OK) {
        rc = pass(way);
    }
    way->current = way->dropped = false;
    tg_mem_free(way->made);
    way->made = NULL;
    if (!is_control) {
        tg_mem_free(way->kept);
        way->kept = NULL;
        way->kept_n = way->kept_max = 0;
    }
    if (rc != TG_OK) {
        x->proxy->counters->failed++;
        give_up(x, TG_WS_INTERNAL_ERROR, rc == TG_ESCRIPT ? "a policy failed" : "memory is short", rc);
    }
}

static void
ask(struct tg_exchange *x, enum tg_abi_side side, const struct tg_ws_piece *piece)
{
    struct way *way = &x->messages->ways[side];
    way->now = *piece;
    way->current = true;
    way->asked = true;
    const enum tg_rc rc =
        x->proxy->policy->enter(x, side == TG_SIDE_REQUEST ? TG_ENTRY_REQUEST_MESSAGE : TG_ENTRY_RESPONSE_MESSAGE);
    if (rc != TG_AGAIN) {
        settle(x, way, rc);
    }
}

static enum tg_rc
keep(struct way *way, struct tg_slice data)
{
    if (way->kept_n + data.n > way->kept_max) {
        size_t max = way->kept_max == 0 ? KEPT_MIN : way->kept_max;
        while (max < way->kept_n + data.n) {
            max *= 2;
        }
        char *p = tg_mem_resize(way->kept, max);
        if (p == NULL) {
            return TG_ENOMEM;
        }
        way->kept = p;
        way->kept_max = max;
    }
    if (data.n > 0) {
        memcpy(way->kept + way->kept_n, data.p, data.n);
    }
    way->kept_n += data.n;
    return TG_OK;
}

/* A message that came in one piece is shown where it stands. */
static void
take(struct tg_exchange *x, enum tg_abi_side side, struct tg_ws_piece *piece)
{
    struct way *way = &x->messages->ways[side];
    if (piece->opcode < TG_WS_CLOSE && (!piece->end || way->kept_n > 0)) {
        if (keep(way, piece->data) != TG_OK) {
            give_up(x, TG_WS_INTERNAL_ERROR, "memory is short", TG_ENOMEM);
            return;
        }
        piece->data = tg_slice_of(way->kept, way->kept_n);
    }
    if (piece->end) {
        ask(x, side, piece);
    }
}

static void
refuse(struct tg_exchange *x, enum tg_abi_side side)
{
    const struct tg_ws_reader *reader = &x->messages->ways[side].reader;
    tg_log_debug("exchange %u: %s sent %s", x->abi.slot, reader->masked ? "the client" : "the upstream", reader->why);
    if (reader->code == TG_WS_TOO_BIG) {
        tg_exchange_limited(x, TG_LIMIT_MESSAGE);
    }
    give_up(x, (enum tg_ws_code)reader->code, reader->why, reader->code == TG_WS_TOO_BIG ? TG_ELIMIT : TG_EPROTOCOL);
}

/* Parses what was read, or reads. False: nothing is there. */
static bool
advance(struct tg_exchange *x, enum tg_abi_side side)
{
    struct way *way = &x->messages->ways[side];
    const struct tg_h1_fault *fault = NULL;
    struct tg_slice data = {0};
    if (way->rest_n == 0) {
        const enum tg_relay_result result = tg_relay_pull(way->relay, &data, &fault);
        if (result == TG_RELAY_WAIT_FROM) {
            return false;
        }
        if (result != TG_RELAY_DONE || data.n == 0) {
            way->ended = true;
            if (result == TG_RELAY_NO_MEMORY) {
                give_up(x, TG_WS_INTERNAL_ERROR, "memory is short", TG_ENOMEM);
            } else {
                lost(x, side);
            }
            return true;
        }
        way->rest = (char *)(uintptr_t)data.p; /* the relay's own buffer, which is ours until it reads again */
        way->rest_n = data.n;
    }
    struct tg_ws_piece piece;
    size_t used = 0;
    const enum tg_rc rc = tg_ws_read(&way->reader, way->rest, way->rest_n, &used, &piece);
    way->rest += used;
    way->rest_n -= used;
    if (rc == TG_OK) {
        take(x, side, &piece);
    } else if (rc == TG_EPROTOCOL) {
        refuse(x, side);
    }
    return true;
}

/* One step of one direction; whether anything has moved. */
static bool
go_on(struct tg_exchange *x, enum tg_abi_side side)
{
    struct tg_messages *m = x->messages;
    struct way *way = &m->ways[side];
    bool moved = false;
    const enum tg_rc rc = flush(way, &moved);
    if (rc == TG_AGAIN) {
        return moved;
    }
    if (rc != TG_OK) {
        cut_off(way);
        lost(x, (enum tg_abi_side)(1 - side));
        return true;
    }
    if (m->full) {
        m->full = false;
        x->proxy->policy->body_ready(x, TG_OK);
    }
    if (way->asked || way->ended || way->reader.closed) {
        return moved;
    }
    return advance(x, side) || moved;
}

/* ------------------------------------------------------------------ the state */

/* Whether the members of a field are permessage-deflate, at most once, and nothing else. */
static enum tg_rc
judge_extensions(const struct tg_field *field, bool may_deflate, bool *deflate)
{
    static const char name[] = "permessage-deflate";
    const char *p = field->value;
    const char *end = p + field->value_len;
    while (p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma == NULL ? end : comma;
        while (p < stop && (*p == ' ' || *p == '\t')) {
            p++;
        }
        const char *last = p;
        while (last < stop && *last != ';' && *last != ' ' && *last != '\t') {
            last++;
        }
        if (last > p) {
            if (!may_deflate || *deflate ||
                !tg_slice_is_text(tg_slice_of(p, (size_t)(last - p)), name, sizeof name - 1)) {
                return TG_EPROTOCOL;
            }
            *deflate = true;
        }
        p = stop + 1;
    }
    return TG_OK;
}

enum tg_rc
tg_messages_prepare(struct tg_exchange *x)
{
    static const struct tg_slice name = {"Sec-WebSocket-Extensions", 24};
    bool deflate = false;
    unsigned from = 0;
    const struct tg_field *field;
    while ((field = tg_message_find(&x->response, name.p, name.n, &from)) != NULL) {
        if (judge_extensions(field, x->messages_deflate, &deflate) != TG_OK) {
            return TG_EPROTOCOL;
        }
    }
    struct tg_messages *m = tg_mem_new(struct tg_messages);
    if (m == NULL) {
        return TG_ENOMEM;
    }
    x->messages = m;
    for (unsigned i = 0; i < 2; i++) {
        struct way *way = &m->ways[i];
        way->relay = i == TG_SIDE_REQUEST ? &x->up : &x->back;
        tg_frames_init(&way->frames);
        tg_ws_reader_init(&way->reader, i == TG_SIDE_REQUEST, deflate, x->message_max);
    }
    return TG_OK;
}

static void
set_deadline(struct tg_exchange *x, bool progress)
{
    struct tg_messages *m = x->messages;
    unsigned time = x->tunnel_timeout;
    if (m->closing) {
        progress = !m->timed;
        m->timed = true;
        time = CLOSE_TIME;
    } else if (m->ways[0].reader.closed || m->ways[1].reader.closed) {
        /* Once one side has said so, the other has the time of a send to do so, too. */
        const unsigned send = tg_downstream_config(x->down)->send_timeout;
        time = send < time ? send : time;
    }
    if (progress) {
        tg_deadline_set(x->proxy->loop, &x->down->deadline, time);
    }
}

enum tg_step
tg_messages_step(struct tg_exchange *x)
{
    struct tg_messages *m = x->messages;
    struct way *ways = m->ways;
    bool progress = !x->entered;
    bool moved = true;
    x->entered = true;
    for (unsigned turn = 0; moved && turn < TURNS; turn++) {
        moved = false;
        if (m->code != 0 && !m->closing) {
            begin_close(x);
        }
        for (unsigned i = 0; i < 2; i++) {
            moved |= m->closing ? part(&ways[i]) : m->code != 0 || go_on(x, (enum tg_abi_side)i);
        }
        /* Both have said so. */
        m->closing |= ways[0].parted && ways[1].parted && tg_frames_are_out(&ways[0].frames) &&
                      tg_frames_are_out(&ways[1].frames);
        progress |= moved;
        if (m->closing && ways[0].shut && ways[0].ended && ways[1].shut && ways[1].ended) {
            x->proxy->policy->cancel(x);
            tg_exchange_go(x, TG_STATE_LOG);
            return TG_STEP_NEXT;
        }
    }
    x->abi.bytes_in = x->request_body.total;
    x->abi.bytes_out = x->response_body.total;
    if (moved) {
        tg_downstream_again(x->down);
    }
    set_deadline(x, progress);
    return TG_STEP_WAIT;
}

void
tg_messages_expired(struct tg_exchange *x)
{
    if (x->messages->closing) {
        tg_exchange_go(x, TG_STATE_LOG);
        return;
    }
    tg_exchange_limited(x, TG_LIMIT_TUNNEL_TIMEOUT);
    give_up(x, TG_WS_GOING_AWAY, "nothing was said for too long", TG_ETIMEOUT);
}

void
tg_messages_end(struct tg_exchange *x)
{
    struct tg_messages *m = x->messages;
    if (m == NULL) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        forget(&m->ways[i]);
        tg_frames_drop(&m->ways[i].frames);
    }
    x->messages = NULL;
    tg_mem_free(m);
}

/* ------------------------------------------------------------------ the policy */

void
tg_messages_done(struct tg_exchange *x, enum tg_abi_side side, enum tg_rc rc)
{
    struct way *way = x->messages != NULL ? &x->messages->ways[side] : NULL;
    if (way != NULL && way->asked) {
        settle(x, way, rc);
    }
}

/* The one that the policy looks at, or NULL. */
static struct way *
asked_way(const struct tg_exchange *x, enum tg_abi_side side)
{
    struct way *way = x->messages != NULL ? &x->messages->ways[side] : NULL;
    return way != NULL && way->current && way->asked ? way : NULL;
}

static bool
is_sendable(unsigned opcode, struct tg_slice data)
{
    struct tg_ws_utf8 text = {0};
    switch (opcode) {
    case TG_WS_TEXT:
        return tg_ws_utf8(&text, data.p, data.n) && text.left == 0;
    case TG_WS_BINARY:
        return true;
    case TG_WS_PING:
    case TG_WS_PONG:
        return data.n <= TG_WS_CONTROL_MAX;
    default:
        return false;
    }
}

enum tg_rc
tg_messages_current(const struct tg_exchange *x, enum tg_abi_side side, struct tg_ws_piece *piece, unsigned *code)
{
    const struct way *way = asked_way(x, side);
    if (way == NULL) {
        return TG_ENONE;
    }
    *piece = way->now;
    if (way->made != NULL) {
        piece->data = tg_slice_of(way->made, way->made_n);
        piece->compressed = false;
    }
    *code = way->reader.code;
    return TG_OK;
}

enum tg_rc
tg_messages_replace(struct tg_exchange *x, enum tg_abi_side side, struct tg_slice data)
{
    struct way *way = asked_way(x, side);
    if (way == NULL) {
        return TG_ENONE;
    }
    if (!is_sendable(way->now.opcode, data)) {
        return TG_EINVAL;
    }
    char *made = tg_mem_alloc(data.n + 1);
    if (made == NULL) {
        return TG_ENOMEM;
    }
    memcpy(made, data.p, data.n);
    tg_mem_free(way->made);
    way->made = made;
    way->made_n = data.n;
    return TG_OK;
}

enum tg_rc
tg_messages_drop(struct tg_exchange *x, enum tg_abi_side side)
{
    struct way *way = asked_way(x, side);
    if (way == NULL || way->now.opcode == TG_WS_CLOSE) {
        return way == NULL ? TG_ENONE : TG_EINVAL;
    }
    way->dropped = true;
    return TG_OK;
}

enum tg_rc
tg_messages_send(struct tg_exchange *x, enum tg_abi_side side, enum tg_ws_opcode opcode, struct tg_slice data)
{
    struct tg_messages *m = x->messages;
    const struct tg_ws_piece piece = {.opcode = (uint8_t)opcode, .end = true, .data = data};
    if (m == NULL || m->code != 0 || m->ways[side].parted) {
        return TG_ECLOSED;
    }
    if (!is_sendable(opcode, data) || data.n > TG_EXCHANGE_BODY_MAX) {
        return data.n > TG_EXCHANGE_BODY_MAX ? TG_ELIMIT : TG_EINVAL;
    }
    if (m->ways[side].frames.waiting >= TG_BUFFER_WINDOW) {
        m->full = true;
        return TG_AGAIN;
    }
    const enum tg_rc rc = push(&m->ways[side], &piece, NULL);
    if (rc == TG_OK) {
        tg_downstream_again(x->down);
    } else { /* who waits for it would wait in vain */
        give_up(x, TG_WS_INTERNAL_ERROR, "memory is short", rc);
    }
    return rc;
}

enum tg_rc
tg_messages_close(struct tg_exchange *x, unsigned code, struct tg_slice reason)
{
    struct tg_messages *m = x->messages;
    struct tg_ws_utf8 text = {0};
    if (m == NULL) {
        return TG_ENONE;
    }
    if (!tg_ws_is_code(code) || reason.n > TG_WS_REASON_MAX || !tg_ws_utf8(&text, reason.p, reason.n) ||
        text.left > 0) {
        return TG_EINVAL;
    }
    if (m->code == 0) {
        m->code = (uint16_t)code;
        m->reason_len = (uint8_t)reason.n;
        memcpy(m->reason, reason.p, reason.n);
        tg_downstream_again(x->down);
    }
    return TG_OK;
}
