/*
 * The border: coroutines, timers, peers and calls. Contracts are in abi.h.
 */
#include <event2/event.h>

#include "vm/coroutine.h"

enum { TASKS_MAX = 32 };

/* SECURITY 1.2: so many of them for one exchange, beside the phase that runs. */
static bool
has_room(const struct tg_exchange *x)
{
    unsigned count = 0;
    for (const struct tg_coroutine *co = x == NULL ? NULL : x->coroutines; co != NULL; co = co->next) {
        count++;
    }
    return count <= TASKS_MAX;
}

int
tg_abi_spawn(uint32_t task, int kind)
{
    const struct tg_coroutine *parent = tg_host->running;
    struct tg_exchange *x = parent == NULL || kind != TG_TASK_CHILD ? NULL : parent->exchange;
    if (!has_room(x)) {
        return TG_ELIMIT;
    }
    struct tg_coroutine *co = parent == NULL ? NULL : tg_coroutine_take(parent->vm, x, TG_ENTRY_TASK);
    if (co == NULL) {
        return TG_ENOMEM;
    }
    co->task = task;
    co->plugin = tg_abi_vm.mark[0];
    if (parent->meter.what != 0 && kind == TG_TASK_CHILD) {
        tg_meter_branch(&co->meter, &parent->meter);
        co->meter_index = parent->index;
        co->meter_serial = parent->serial;
    }
    co->service = kind == TG_TASK_SERVICE || (kind == TG_TASK_CHILD && parent->service);
    co->holds = kind == TG_TASK_BACKGROUND || (kind == TG_TASK_CHILD && parent->holds);
    parent->vm->refs += co->holds;
    tg_coroutine_ready(co);
    return TG_OK;
}

void
tg_abi_wake(uint32_t coroutine, uint32_t serial)
{
    struct tg_coroutine *co = tg_coroutine_find(coroutine, serial);
    if (co != NULL) {
        tg_coroutine_ready(co);
    }
}

void
tg_abi_cancel(uint32_t coroutine, uint32_t serial)
{
    struct tg_coroutine *co = tg_coroutine_find(coroutine, serial);
    if (co != NULL && co != tg_host->running && !co->phase) {
        tg_coroutine_drop(co);
    }
}

int
tg_abi_timer(double seconds)
{
    struct tg_coroutine *co = tg_host->running;
    if (co == NULL || !(seconds >= 0) || seconds > 1e9) {
        return TG_EINVAL;
    }
    const struct timeval wait = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    return event_add(&co->timer, &wait) == 0 ? TG_OK : TG_ENOMEM;
}

void
tg_abi_timer_stop(void)
{
    if (tg_host->running != NULL) {
        (void)event_del(&tg_host->running->timer);
    }
}

static bool
is_peer(const struct tg_peer_key *key)
{
    const bool is_path = key->host.n > 0 && key->host.p[0] == '/'; /* tg_address_is_private: closed to guarded ones */
    return key->host.n > 0 && key->host.n <= 255 && memchr(key->host.p, '\0', key->host.n) == NULL &&
           (key->port > 0 || is_path) && key->port <= 65535 && key->tls <= tg_host->proxy->peers.tls_count;
}

int
tg_abi_peer(const char *host, size_t host_len, uint32_t port, uint32_t tls, int http2, const struct tg_abi_pool *pool)
{
    const struct tg_pool_limits limits = {pool->idle, pool->idle_timeout, pool->requests, pool->age, pool->connections};
    const struct tg_peer_key key = {tg_slice_of(host, host_len), port, tls, http2 != 0};
    unsigned index = 0;
    if (!is_peer(&key)) {
        return TG_EINVAL;
    }
    const enum tg_rc rc = tg_peers_intern(&tg_host->proxy->peers, &key, &limits, &index);
    return rc == TG_OK ? (int)index : (int)rc;
}

int
tg_abi_guarded_peer(const char *host, size_t host_len, uint32_t port, uint32_t tls)
{
    static const struct tg_pool_limits limits = {.idle_max = 16, .idle_timeout = 60000, .requests = 10000};
    const struct tg_peer_key key = {tg_slice_of(host, host_len), port, tls, false};
    unsigned index = 0;
    if (!is_peer(&key)) {
        return TG_EINVAL;
    }
    const enum tg_rc rc = tg_peers_intern_guarded(&tg_host->proxy->peers, &key, &limits, &index);
    return rc == TG_OK ? (int)index : (int)rc;
}

uint32_t
tg_abi_peer_idle(uint32_t peer)
{
    const struct tg_peers *peers = &tg_host->proxy->peers;
    return peer < peers->count ? peers->list[peer]->pool.idle_count : 0;
}

uint32_t
tg_abi_peer_in_flight(uint32_t peer)
{
    const struct tg_peers *peers = &tg_host->proxy->peers;
    return peer < peers->count ? peers->list[peer]->in_flight : 0;
}

static void
on_call_done(struct tg_call *call)
{
    struct tg_coroutine *co = call->owner;
    if (co == NULL) { /* it is between two of them: the next one looks by itself */
        return;
    }
    if (co->quiet > 0 && call->abi.state == TG_CALL_DONE && call->abi.status < 300) {
        co->quiet--;
        return;
    }
    tg_coroutine_ready(co);
}

void
tg_abi_calls_gather(uint32_t n)
{
    if (tg_host->running != NULL) {
        tg_host->running->quiet = n == 0 ? 0 : n - 1;
    }
}

struct tg_abi_call *
tg_abi_call_start(uint32_t peer, const char *head, size_t head_len, const char *body, size_t body_len,
                  uint32_t connect_timeout, uint32_t timeout, size_t max_body, uint32_t flags)
{
    struct tg_coroutine *co = tg_host->running;
    struct tg_proxy *proxy = tg_host->proxy;
    if (co == NULL || peer >= proxy->peers.count) {
        return NULL;
    }
    const struct tg_call_request request = {
        .head = tg_slice_of(head, head_len),
        .body = tg_slice_of(body, body_len),
        .connect_timeout = connect_timeout,
        .timeout = timeout,
        .max_body = max_body,
        .to_head = (flags & TG_CALL_TO_HEAD) != 0,
        .streams = (flags & TG_CALL_STREAMS) != 0,
        .uploads = (flags & TG_CALL_UPLOADS) != 0,
        .fresh = (flags & TG_CALL_FRESH) != 0,
        .connects = (flags & TG_CALL_CONNECTS) != 0,
        .retry = (flags & TG_CALL_RETRY) != 0,
        .watch = tg_host->watch,
    };
    struct tg_call *call = tg_call_start(proxy, proxy->peers.list[peer], &request, on_call_done, co);
    if (call == NULL) {
        return NULL;
    }
    call->abi.peer = peer;
    call->next = co->calls;
    co->calls = call;
    if (request.streams) {
        tg_call_hold(call); /* by Lua's handle */
    }
    return &call->abi;
}

static void
unlink_call(struct tg_call *call)
{
    struct tg_coroutine *co = call->owner;
    struct tg_call **link = &co->calls;
    while (*link != call) {
        link = &(*link)->next;
    }
    *link = call->next;
}

void
tg_abi_call_let_go(struct tg_abi_call *call)
{
    tg_call_let_go((struct tg_call *)call);
}

int
tg_abi_call_hand_over(struct tg_abi_call *abi)
{
    struct tg_call *call = (struct tg_call *)abi;
    const struct tg_coroutine *co = call->owner;
    struct tg_exchange *x = co == NULL ? NULL : co->exchange;
    if (x == NULL || x->calls != NULL) {
        return TG_EINVAL;
    }
    unlink_call(call);
    call->owner = NULL;
    call->next = NULL;
    x->calls = call;
    return TG_OK;
}

int
tg_abi_call_take_over(struct tg_abi_call *abi)
{
    struct tg_call *call = (struct tg_call *)abi;
    struct tg_coroutine *co = tg_host->running;
    if (co == NULL || co->exchange == NULL || co->exchange->calls != call) {
        return TG_EINVAL;
    }
    co->exchange->calls = NULL;
    call->owner = co;
    call->next = co->calls;
    co->calls = call;
    return TG_OK;
}

int
tg_abi_call_read(struct tg_abi_call *call)
{
    const enum tg_rc rc = tg_call_read((struct tg_call *)call, &tg_abi_vm.out);
    return rc == TG_OK && tg_abi_vm.out.n == 0 ? TG_ENONE : rc;
}

int
tg_abi_call_write(struct tg_abi_call *call, const char *p, size_t n)
{
    size_t done = 0;
    enum tg_rc rc = TG_OK;
    while (rc == TG_OK && done < n) {
        size_t taken = 0;
        rc = tg_call_write((struct tg_call *)call, tg_slice_of(p + done, n - done), &taken);
        done += taken;
    }
    tg_abi_vm.number = (double)done;
    return rc;
}

void
tg_abi_call_finish(struct tg_abi_call *call)
{
    tg_call_finish((struct tg_call *)call);
}

int
tg_abi_call_field(struct tg_abi_call *abi, uint32_t index, struct tg_slice *name)
{
    const struct tg_call *call = (const struct tg_call *)abi;
    if (index >= call->response.count) {
        return TG_ENONE;
    }
    const struct tg_field *field = &call->response.fields[index];
    *name = tg_slice_of(field->name, field->name_len);
    tg_abi_vm.out = tg_slice_of(field->value, field->value_len);
    return TG_OK;
}

int
tg_abi_call_find(struct tg_abi_call *abi, const char *name, size_t n)
{
    const struct tg_call *call = (const struct tg_call *)abi;
    for (unsigned i = 0; i < call->response.count; i++) {
        const struct tg_field *field = &call->response.fields[i];
        if (tg_slice_is_text(tg_slice_of(field->name, field->name_len), name, n)) {
            tg_abi_vm.out = tg_slice_of(field->value, field->value_len);
            return TG_OK;
        }
    }
    return TG_ENONE;
}

void
tg_abi_call_free(struct tg_abi_call *abi)
{
    struct tg_call *call = (struct tg_call *)abi;
    if (call->owner != NULL) {
        unlink_call(call);
        tg_call_free(call);
    }
}
