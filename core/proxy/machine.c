#include "proxy/machine.h"

#include "base/log.h"
#include "proxy/forward.h"
#include "proxy/messages.h"
#include "proxy/reply.h"
#include "proxy/request.h"
#include "proxy/session.h"
#include "proxy/stream.h"
#include "proxy/tunnel.h"

#define FAREWELL "the gateway ends"

static void
head_expired(struct tg_exchange *x)
{
    x->proxy->policy->begin(x);
    tg_exchange_limited(x, TG_LIMIT_HEADER_TIMEOUT);
    tg_exchange_refuse(x, 408, "the request head did not come in time");
}

static void
request_expired(struct tg_exchange *x)
{
    if (x->buffered.wanted || x->flow[TG_SIDE_REQUEST].hungry) {
        tg_exchange_limited(x, tg_request_body_limit(x));
        tg_exchange_refuse(x, 408, "the request body did not come in time");
    } else {
        tg_exchange_limited(x, TG_LIMIT_TIMEOUT);
        tg_exchange_fail(x, 504, "the policies took too long");
    }
}

static void
attempt_expired(struct tg_exchange *x)
{
    tg_exchange_limited(x, TG_LIMIT_CONNECT_TIMEOUT);
    tg_forward_failed(x, TG_ETIMEOUT);
}

static void
await_expired(struct tg_exchange *x)
{
    if (!x->sent && x->up.out_first == x->up.out_end) {
        tg_exchange_limited(x, tg_request_body_limit(x));
        tg_exchange_refuse(x, 408, "the request body did not come in time");
    } else {
        tg_exchange_limited(x, x->sent ? TG_LIMIT_FIRST_BYTE_TIMEOUT : TG_LIMIT_IDLE_TIMEOUT);
        tg_forward_overdue(x);
    }
}

static void
response_expired(struct tg_exchange *x)
{
    tg_exchange_limited(x, TG_LIMIT_TIMEOUT);
    x->abi.wants &= (uint8_t)~TG_WANT_RESPONSE;
    tg_exchange_fail(x, 504, "the policies took too long");
}

static void
relay_expired(struct tg_exchange *x)
{
    const bool unsent = x->back.out_first != x->back.out_end;
    tg_exchange_limited(x, unsent ? TG_LIMIT_SEND_TIMEOUT : TG_LIMIT_IDLE_TIMEOUT);
    tg_exchange_abort(x, TG_ETIMEOUT);
}

static void
drain_expired(struct tg_exchange *x)
{
    x->keep = false;
    tg_exchange_go(x, TG_STATE_LOG);
}

#define TO(state) (1U << TG_STATE_##state)

static const struct state {
    const char *name;
    enum tg_step (*step)(struct tg_exchange *x);
    void (*expired)(struct tg_exchange *x);
    unsigned successors;
} states[TG_STATE_COUNT] = {
    [TG_STATE_HEAD] = {"head", tg_request_head, head_expired, TO(REQUEST) | TO(RESPONSE)},
    [TG_STATE_REQUEST] = {"request", tg_request_phases, request_expired, TO(CONNECT) | TO(RESPONSE) | TO(LOG)},
    [TG_STATE_CONNECT] = {"connect", tg_forward_connect, attempt_expired,
                          TO(BALANCE) | TO(AWAIT) | TO(RESPONSE) | TO(LOG)},
    [TG_STATE_BALANCE] = {"balance", tg_forward_balance, response_expired, TO(CONNECT) | TO(RESPONSE) | TO(LOG)},
    [TG_STATE_AWAIT] = {"await", tg_forward_await, await_expired, TO(CONNECT) | TO(BALANCE) | TO(RESPONSE) | TO(LOG)},
    [TG_STATE_RESPONSE] = {"response", tg_reply_phases, response_expired,
                           TO(RESPONSE) | TO(RELAY) | TO(TUNNEL) | TO(MESSAGES) | TO(LOG)},
    [TG_STATE_RELAY] = {"relay", tg_reply_relay, relay_expired, TO(RESPONSE) | TO(DRAIN) | TO(LOG)},
    [TG_STATE_TUNNEL] = {"tunnel", tg_tunnel_step, tg_tunnel_expired, TO(LOG)},
    [TG_STATE_MESSAGES] = {"messages", tg_messages_step, tg_messages_expired, TO(LOG)},
    [TG_STATE_DRAIN] = {"drain", tg_reply_drain, drain_expired, TO(LOG)},
    [TG_STATE_LOG] = {"log", tg_reply_log, NULL, TO(END)},
    [TG_STATE_END] = {"end", tg_reply_end, NULL, 0},
};

const char *
tg_machine_state_name(const struct tg_exchange *x)
{
    return states[x->state].name;
}

void
tg_machine_drive(struct tg_exchange *x)
{
    enum tg_step step;
    do {
        const struct state *state = &states[x->state];
        tg_log_debug("exchange %u: %s", x->abi.slot, state->name);
        step = state->step(x);
        TG_ASSERT(step != TG_STEP_NEXT || (state->successors & (1U << x->state)) != 0);
    } while (step == TG_STEP_NEXT);
}

void
tg_machine_policy_done(struct tg_exchange *x, enum tg_rc rc)
{
    x->decided = true;
    x->outcome = (int8_t)rc;
    tg_machine_drive(x);
}

void
tg_machine_body_done(struct tg_exchange *x, enum tg_abi_side side, enum tg_rc rc)
{
    tg_stream_end(x, side, rc);
    tg_machine_drive(x);
}

void
tg_machine_message_done(struct tg_exchange *x, enum tg_abi_side side, enum tg_rc rc)
{
    tg_messages_done(x, side, rc);
    tg_machine_drive(x);
}

static void
on_upstream(struct tg_upstream *upstream)
{
    tg_machine_drive((struct tg_exchange *)((char *)upstream - offsetof(struct tg_exchange, upstream)));
}

static struct tg_exchange *
begin_exchange(struct tg_downstream *down)
{
    struct tg_exchange *x = tg_exchange_new(down);
    if (x != NULL) {
        tg_forward_init(x, on_upstream);
    }
    return x;
}

/*
 * While the request is judged or answered nothing is read from the client, but a broken connection is noticed: a reset
 * ends the exchange and all that runs for it; an end of the stream does not, since a client may close its half.
 */
static bool
is_client_gone(struct tg_exchange *x)
{
    return x->state != TG_STATE_HEAD && x->request_body.done && x->down->transport.readable &&
           tg_transport_peek(&x->down->transport) == TG_ERESET;
}

static void
on_downstream(struct tg_exchange *x)
{
    if (is_client_gone(x)) {
        tg_exchange_abort(x, TG_ERESET);
    }
    tg_machine_drive(x);
}

static void
on_expired(struct tg_exchange *x)
{
    const struct state *state = &states[x->state];
    if (state->expired != NULL) {
        state->expired(x);
        tg_machine_drive(x);
    }
}

const struct tg_downstream_hooks tg_machine_hooks = {.drive = on_downstream,
                                                     .expired = on_expired,
                                                     .begin = begin_exchange,
                                                     .session_begin = tg_session_begin,
                                                     .session_ready = tg_session_ready,
                                                     .session_expired = tg_session_expired,
                                                     .session_drain = tg_session_drain,
                                                     .session_free = tg_session_free};

void
tg_machine_farewell(struct tg_proxy *proxy)
{
    struct tg_downstream *next = NULL;
    for (struct tg_downstream *down = proxy->connections; down != NULL; down = next) {
        struct tg_exchange *x = down->exchange;
        next = down->next;
        if (x != NULL && x->state == TG_STATE_MESSAGES) {
            (void)tg_messages_close(x, TG_WS_GOING_AWAY, TG_SLICE(FAREWELL));
            tg_machine_drive(x);
        } else if (x != NULL && x->state == TG_STATE_TUNNEL && tg_tunnel_close(x, TG_SLICE(FAREWELL))) {
            tg_machine_drive(x);
        }
    }
}

void
tg_machine_shed(struct tg_proxy *proxy)
{
    struct tg_exchange *largest = NULL;
    for (struct tg_downstream *down = proxy->connections; down != NULL; down = down->next) {
        struct tg_exchange *x = down->exchange;
        if (x != NULL && (largest == NULL || x->buffered.capacity > largest->buffered.capacity)) {
            largest = x;
        }
    }
    if (largest != NULL && largest->buffered.capacity > 0) {
        tg_proxy_limited(proxy, TG_LIMIT_MEMORY);
        tg_exchange_abort(largest, TG_ENOMEM);
        tg_machine_drive(largest);
    }
}
