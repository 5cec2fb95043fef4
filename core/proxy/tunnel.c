#include "proxy/tunnel.h"

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

enum tg_step
tg_tunnel_step(struct tg_exchange *x)
{
    bool again = false;
    bool progress = !x->entered;
    x->entered = true;
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
