#include "proxy/tunnel.h"

#include <openssl/rand.h>

enum {
    TURNS = 64,               /* pieces a turn before others get theirs */
    LAST_MESSAGE_TIME = 1000, /* milliseconds for those under way to end, */
    CLOSE_TIME = 1000         /* then for both sides to */
};

/* Nobody can begin in the middle. */
static void
track(struct tg_exchange *x)
{
    tg_ws_track_init(&x->tunnel[TG_SIDE_REQUEST].track, true);
    tg_ws_track_init(&x->tunnel[TG_SIDE_RESPONSE].track, false);
    x->up.track = &x->tunnel[TG_SIDE_REQUEST].track;
    x->back.track = &x->tunnel[TG_SIDE_RESPONSE].track;
}

void
tg_tunnel_begin(struct tg_exchange *x, struct tg_slice head)
{
    struct tg_relay *up = &x->up;
    struct tg_relay *back = &x->back;
    struct tg_buffer *buffer = x->response_buffer;
    const size_t begin = x->upstream_head.scan.pos;
    tg_body_init(&x->response_body, TG_FRAMING_CLOSE, 0);
    back->from = &x->upstream.link->transport;
    back->to = &x->down->transport;
    back->body = &x->response_body;
    back->limit = UINT64_MAX;
    back->chunked = false;
    x->response_buffer = NULL;
    tg_relay_start(back, head, buffer->data + begin, x->upstream_head.filled - begin, buffer);

    tg_body_fini(&x->request_body);
    tg_body_init(&x->request_body, TG_FRAMING_CLOSE, 0);
    up->from = &x->down->transport;
    up->to = &x->upstream.link->transport;
    up->limit = UINT64_MAX;
    up->chunked = false;
    tg_relay_start(up, TG_SLICE(""), x->rest, x->rest_len, up->buffer);
    x->rest_len = 0;
    if (x->messages == NULL && tg_slice_is_text(x->upgrade, "websocket", 9)) {
        track(x);
    }
    x->abi.status = x->response.status;
    x->proxy->counters->requests++;
}

/* One direction. The end of its bytes is passed on as such: the other direction may go on. */
static enum tg_relay_result
move(struct tg_relay *relay, bool *again, bool *progress)
{
    const struct tg_h1_fault *fault = NULL;
    const bool ended = relay->ended && relay->out_first == relay->out_end;
    const enum tg_relay_result result = ended ? TG_RELAY_DONE : tg_relay_step(relay, &fault);
    *progress |= !ended && relay->progress;
    *again |= result == TG_RELAY_YIELD;
    if (!ended && result == TG_RELAY_DONE) {
        tg_transport_shutdown(relay->to);
    }
    return result;
}

static bool
is_failed(enum tg_relay_result result)
{
    return result != TG_RELAY_DONE && result != TG_RELAY_WAIT_FROM && result != TG_RELAY_WAIT_TO &&
           result != TG_RELAY_YIELD;
}

/* ------------------------------------------------------------------ closing */

/* Nothing can be said to the destination any more. */
static void
cut_off(struct tg_tunnel_way *way, struct tg_relay *relay)
{
    relay->out_first = relay->out_end = 0;
    way->parted = way->shut = true;
}

/* Towards the upstream we are the client, and mask. */
static enum tg_rc
put_close(const struct tg_exchange *x, struct tg_relay *relay, bool masks)
{
    char frame[TG_WS_HEAD_MAX + TG_WS_CONTROL_MAX];
    char mask[4];
    const size_t n = 2 + x->tunnel_reason.n;
    size_t taken = 0;
    if (masks && RAND_bytes((unsigned char *)mask, sizeof mask) != 1) {
        return TG_ENOMEM;
    }
    const size_t head = tg_ws_write_head(frame, TG_WS_CLOSE, false, n, masks ? mask : NULL);
    frame[head] = (char)(TG_WS_GOING_AWAY >> 8);
    frame[head + 1] = (char)(TG_WS_GOING_AWAY & 0xff);
    memcpy(frame + head + 2, x->tunnel_reason.p, x->tunnel_reason.n);
    if (masks) {
        tg_ws_mask(frame + head, n, mask, 0);
    }
    return tg_relay_put(relay, tg_slice_of(frame, head + n), &taken);
}

/* What ends the message, or the frame, goes on; what is behind it is left. */
static enum tg_rc
finish(const struct tg_exchange *x, struct tg_tunnel_way *way, struct tg_relay *relay)
{
    struct tg_ws_track ahead = way->track;
    const size_t n = tg_ws_track(&ahead, way->rest.p, way->rest.n, (enum tg_ws_stop)x->tunnel_end);
    size_t taken = 0;
    const enum tg_rc rc = tg_relay_put(relay, tg_slice_of(way->rest.p, n), &taken);
    if (rc == TG_OK) {
        (void)tg_ws_track(&way->track, way->rest.p, taken, TG_WS_NO_STOP);
        way->rest = tg_slice_of(way->rest.p + taken, way->rest.n - taken);
    }
    return rc == TG_OK && way->track.broken ? TG_EPROTOCOL : rc;
}

static bool
may_part(const struct tg_exchange *x, const struct tg_tunnel_way *way)
{
    return tg_ws_track_is_between(&way->track) && (x->tunnel_end == TG_WS_STOP_FRAME || !way->track.in_message);
}

/* One direction, whose destination has taken all so far. TG_AGAIN: nothing has happened. */
static enum tg_rc
advance(struct tg_exchange *x, enum tg_abi_side side)
{
    struct tg_tunnel_way *way = &x->tunnel[side];
    struct tg_relay *relay = side == TG_SIDE_REQUEST ? &x->up : &x->back;
    const struct tg_h1_fault *fault = NULL;
    if (!way->parted && (way->track.closed || may_part(x, way))) {
        way->parted = true;
        return way->track.closed ? TG_OK : put_close(x, relay, side == TG_SIDE_REQUEST);
    }
    if (way->rest.n == 0) {
        const enum tg_relay_result result = way->ended ? TG_RELAY_WAIT_FROM : tg_relay_pull(relay, &way->rest, &fault);
        if (result == TG_RELAY_WAIT_FROM) {
            return TG_AGAIN;
        }
        if (result != TG_RELAY_DONE || way->rest.n == 0) {
            way->rest = (struct tg_slice){0};
            way->ended = way->parted = true;
            return TG_OK;
        }
    }
    if (!way->parted) {
        return finish(x, way, relay);
    }
    /* Behind a close nothing may go: it is read away, up to the close of the other side, and its end. */
    (void)tg_ws_track(&way->track, way->rest.p, way->rest.n, TG_WS_NO_STOP);
    way->rest = (struct tg_slice){0};
    return TG_OK;
}

static enum tg_rc
part(struct tg_exchange *x, enum tg_abi_side side)
{
    struct tg_tunnel_way *way = &x->tunnel[side];
    const struct tg_tunnel_way *other = &x->tunnel[1 - side];
    struct tg_relay *relay = side == TG_SIDE_REQUEST ? &x->up : &x->back;
    const enum tg_relay_result result = tg_relay_flush(relay);
    if (result == TG_RELAY_WAIT_TO) {
        return TG_AGAIN;
    }
    if (result != TG_RELAY_DONE) {
        cut_off(way, relay);
    }
    /* Its destination has said so, too. */
    if (way->parted && !way->shut && (other->track.closed || other->ended)) {
        tg_transport_shutdown(relay->to);
        way->shut = true;
    }
    return advance(x, side);
}

static enum tg_step
close_step(struct tg_exchange *x)
{
    const struct tg_tunnel_way *ways = x->tunnel;
    bool moved = true;
    for (unsigned turn = 0; moved && turn < TURNS; turn++) {
        const enum tg_rc up = part(x, TG_SIDE_REQUEST);
        const enum tg_rc back = part(x, TG_SIDE_RESPONSE);
        if ((up != TG_OK && up != TG_AGAIN) || (back != TG_OK && back != TG_AGAIN)) {
            tg_exchange_abort(x, up != TG_OK && up != TG_AGAIN ? up : back);
            return TG_STEP_NEXT;
        }
        moved = up == TG_OK || back == TG_OK;
    }
    x->abi.bytes_in = x->request_body.total;
    x->abi.bytes_out = x->response_body.total;
    if (ways[0].shut && ways[0].ended && ways[1].shut && ways[1].ended) {
        tg_exchange_go(x, TG_STATE_LOG);
        return TG_STEP_NEXT;
    }
    if (moved) {
        tg_downstream_again(x->down);
    }
    return TG_STEP_WAIT;
}

bool
tg_tunnel_close(struct tg_exchange *x, struct tg_slice reason)
{
    if (x->up.track == NULL || x->up.track->broken || x->back.track->broken || x->tunnel_end != TG_WS_NO_STOP) {
        return false;
    }
    x->tunnel_end = TG_WS_STOP_MESSAGE;
    x->tunnel_reason = reason;
    for (unsigned i = 0; i < 2; i++) {
        const struct tg_relay *relay = i == TG_SIDE_REQUEST ? &x->up : &x->back;
        x->tunnel[i].ended = x->tunnel[i].parted = relay->ended;
        x->tunnel[i].shut = relay->ended && relay->out_first == relay->out_end;
    }
    tg_deadline_set(x->proxy->loop, &x->down->deadline, LAST_MESSAGE_TIME);
    return true;
}

void
tg_tunnel_expired(struct tg_exchange *x)
{
    const struct tg_tunnel_way *ways = x->tunnel;
    if (x->tunnel_end == TG_WS_STOP_MESSAGE) {
        x->tunnel_end = TG_WS_STOP_FRAME;
        tg_deadline_set(x->proxy->loop, &x->down->deadline, CLOSE_TIME);
    } else if (x->tunnel_end == TG_WS_STOP_FRAME && ways[0].parted && ways[1].parted) {
        tg_exchange_go(x, TG_STATE_LOG);
    } else {
        if (x->tunnel_end == TG_WS_NO_STOP) {
            tg_exchange_limited(x, TG_LIMIT_TUNNEL_TIMEOUT);
        }
        tg_exchange_abort(x, TG_ETIMEOUT);
    }
}

/* ------------------------------------------------------------------ the state */

enum tg_step
tg_tunnel_step(struct tg_exchange *x)
{
    bool again = false;
    bool progress = !x->entered;
    x->entered = true;
    if (x->tunnel_end != TG_WS_NO_STOP) {
        return close_step(x);
    }
    const enum tg_relay_result up = move(&x->up, &again, &progress);
    const enum tg_relay_result back = move(&x->back, &again, &progress);
    x->abi.bytes_in = x->request_body.total;
    x->abi.bytes_out = x->response_body.total;
    if (is_failed(up) || is_failed(back)) {
        tg_exchange_abort(x, TG_ERESET);
        return TG_STEP_NEXT;
    }
    if (up == TG_RELAY_DONE && back == TG_RELAY_DONE) {
        tg_exchange_go(x, TG_STATE_LOG);
        return TG_STEP_NEXT;
    }
    if (again) {
        tg_downstream_again(x->down);
    }
    if (progress) {
        /* Once one side has ended, the other has the time of a send to do so, too. */
        const bool half = up == TG_RELAY_DONE || back == TG_RELAY_DONE;
        const unsigned send = tg_downstream_config(x->down)->send_timeout;
        tg_deadline_set(x->proxy->loop, &x->down->deadline,
                        half && send < x->tunnel_timeout ? send : x->tunnel_timeout);
    }
    return TG_STEP_WAIT;
}
