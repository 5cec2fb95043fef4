#include "process/worker.h"

#include <event2/event.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "net/listener.h"
#include "process/channel.h"
#include "process/memory.h"
#include "process/preparation.h"
#include "process/profiler.h"
#include "process/tls_servers.h"
#include "process/vitals.h"
#include "proxy/machine.h"
#include "vm/enter.h"
#include "vm/vm.h"

enum {
    BEAT = 100 /* milliseconds */,
    ORPHAN_TIME = 60 /* seconds */,
    BUFFERS_KEPT = 64,
    TRIM_EVERY = 1000 /* milliseconds */,
    FAREWELL = 2000 /* milliseconds before the end of a drain */,
    HEAP_EBB = 2 * 1024 * 1024,
    HEAP_LARGE = 128 * 1024,
    LUA_FULL_BEATS = 50,
    EXCHANGES_MAX = 1U << 20
};

/* The listening socket of another slot, which has no worker for a while. */
struct lent {
    struct lent *next;
    struct tg_listener *listener;
    uint64_t slot;
    int fd;
};

struct place {
    struct tg_worker *worker;
    struct tg_listener *listener;
    unsigned index;
    int fd; /* -1: none */
    struct lent *lent;
    int staged; /* came with the generation that is being prepared; -1: none */
};

struct tg_worker {
    const struct tg_worker_start *start;
    struct tg_loop *loop;
    struct tg_proxy proxy;
    struct tg_proxy_counters counters;
    struct tg_cidr_list trusted[TG_LISTENERS_MAX];
    size_t memory;     /* bytes that it may use */
    unsigned lua_full; /* beats since the Lua state was too large also without its garbage; 0: it is not */
    uint64_t trimmed;  /* milliseconds; when free memory was last given back */
    struct tg_host host;
    struct place places[TG_LISTENERS_MAX];
    struct tg_preparation preparation;
    struct event *channel;
    struct event *beat;
    struct event *signals[4];
    bool waits; /* accepts nothing yet: another master's workers do */
    struct tg_vitals vitals;
    struct tg_profiler profiler;
    uint64_t drain_until;  /* milliseconds; 0: not draining */
    bool farewell;         /* was said */
    uint64_t orphan_until; /* milliseconds; 0: the master lives */
};

static void
on_accepted(void *arg, int fd, const struct tg_address *peer)
{
    struct place *place = arg;
    if (fd < 0) {
        tg_proxy_limited(&place->worker->proxy, TG_LIMIT_DESCRIPTORS);
        return;
    }
    tg_downstream_accept(&place->worker->proxy, place->index, fd, peer);
}

/* The gateway calls a listener of its own. One of another name may have taken its place since. */
static void
on_own(void *arg, unsigned own, int fd)
{
    struct tg_worker *worker = arg;
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        const struct tg_downstream_config *config = &worker->proxy.configs[i];
        if (config->ordinal != 0 && config->own == own && worker->places[i].listener != NULL) {
            tg_downstream_adopt(&worker->proxy, i, fd);
            return;
        }
    }
    close(fd);
}

/* Gives back those of `slot`, or all. What waits on them is the next worker's: nothing is lost by closing. */
static void
give_back(struct place *place, const uint64_t *slot)
{
    struct lent **p = &place->lent;
    while (*p != NULL) {
        struct lent *lent = *p;
        if (slot != NULL && lent->slot != *slot) {
            p = &lent->next;
            continue;
        }
        *p = lent->next;
        tg_listener_free(lent->listener);
        close(lent->fd);
        tg_mem_free(lent);
    }
}

static void
borrow(struct tg_worker *worker, const struct tg_channel_message *message, int fd)
{
    struct place *place = message->number < TG_LISTENERS_MAX ? &worker->places[message->number] : NULL;
    struct lent *lent = place != NULL && place->listener != NULL && fd >= 0 ? tg_mem_new(struct lent) : NULL;
    struct tg_listener *listener = lent != NULL ? tg_listener_new(worker->loop, fd, on_accepted, place) : NULL;
    if (listener == NULL) {
        tg_mem_free(lent);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    *lent = (struct lent){.next = place->lent, .listener = listener, .slot = message->serial, .fd = fd};
    place->lent = lent;
}

static void
close_place(struct place *place)
{
    give_back(place, NULL);
    if (place->listener != NULL) {
        /* What the kernel has accepted for us would be reset otherwise. */
        tg_listener_drain(place->listener, 4096);
        tg_listener_free(place->listener);
        place->listener = NULL;
    }
    if (place->fd >= 0) {
        close(place->fd);
        place->fd = -1;
    }
}

/* The list of the manifest's listener `k` becomes that of place `i`. */
static void
apply_trusted(struct tg_worker *worker, struct tg_manifest *manifest, unsigned i, unsigned k)
{
    struct tg_cidr_list *list = &worker->trusted[i];
    tg_cidr_list_fini(list);
    *list = manifest->trusted[k];
    manifest->trusted[k] = (struct tg_cidr_list){0};
    worker->proxy.configs[i].trusted = list->count > 0 ? list : NULL;
}

/* New connections get what the manifest's listener `k` says; those that are there keep what they began with. */
static void
apply_tls(struct tg_worker *worker, struct tg_tls_server *old, unsigned i, unsigned k)
{
    tg_tls_server_unref(old);
    worker->proxy.configs[i].tls = worker->preparation.tls[k];
    worker->preparation.tls[k] = NULL;
}

static void
apply_limits(struct tg_worker *worker, const struct tg_manifest *manifest)
{
    const unsigned most = tg_memory_connections();
    tg_resolver_use(worker->proxy.peers.resolver, manifest->resolvers);
    worker->memory = manifest->memory != 0 ? manifest->memory : tg_memory_share(worker->start->workers);
    worker->proxy.connections_max =
        manifest->connections != 0 && manifest->connections < most ? manifest->connections : most;
}

/* A place whose connections nobody takes is tried again with each beat: the kernel still gives it its share. */
static void
listen_on_places(struct tg_worker *worker)
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX && !worker->waits; i++) {
        struct place *place = &worker->places[i];
        if (place->listener == NULL && place->fd >= 0) {
            place->listener = tg_listener_new(worker->loop, place->fd, on_accepted, place);
            if (place->listener == NULL) {
                tg_log(TG_LOG_ERROR, "listener %u cannot accept: memory is short", i);
            }
        }
    }
}

/* Makes the listeners those of the manifest. A place keeps its connections when only its limits change. */
static void
apply_listens(struct tg_worker *worker, struct tg_manifest *manifest, const struct tg_worker_listen *known)
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        struct place *place = &worker->places[i];
        struct tg_downstream_config *config = &worker->proxy.configs[i];
        const struct tg_manifest_listen *wanted = NULL;
        unsigned from = 0;
        for (unsigned k = 0; k < manifest->listen_count && known[i].used; k++) {
            const struct tg_manifest_listen *listen = &manifest->listens[k];
            if (listen->config.port == known[i].listen.config.port &&
                strcmp(listen->address, known[i].listen.address) == 0) {
                wanted = listen;
                from = k;
            }
        }
        if (place->staged >= 0) {
            place->fd = place->staged;
            place->staged = -1;
        }
        if (wanted == NULL) {
            config->ordinal = 0;
            close_place(place);
            tg_tls_server_unref(config->tls);
            config->tls = NULL;
            continue;
        }
        struct tg_tls_server *old = config->tls;
        *config = wanted->config;
        apply_trusted(worker, manifest, i, from);
        apply_tls(worker, old, i, from);
    }
    listen_on_places(worker);
}

static void
set_log_level(const char *name)
{
    enum tg_log_level level;
    if (tg_log_level_of(name, &level) == TG_OK) {
        tg_log_set_level(level);
    }
}

/* Asks the master: what is written to the other end of `fd` is a command to it. */
static enum tg_rc
on_ask(void *arg, int fd)
{
    const struct tg_worker *worker = arg;
    const struct tg_channel_message message = {.type = TG_CHANNEL_ASK};
    return tg_channel_send(worker->start->channel, &message, fd);
}

static void
on_differs(void *arg, uint64_t serial, uint32_t kind, struct tg_slice example)
{
    const struct tg_worker *worker = arg;
    struct tg_channel_message message = {.type = TG_CHANNEL_DIFFERS, .serial = serial, .number = kind};
    (void)snprintf(message.text, sizeof message.text, "%.*s", (int)example.n, example.p);
    const enum tg_rc rc = tg_channel_send(worker->start->channel, &message, -1);
    (void)rc; /* the numbers are counted elsewhere */
}

static void
start_generation(struct tg_worker *worker, struct tg_vm *vm, const struct tg_generation *generation)
{
    struct tg_vm *old = worker->host.current;
    const bool on_trial = worker->host.trial.vm == vm;
    worker->host.current = vm;
    worker->start->score->generation = vm->serial;
    set_log_level(generation->manifest->log_level);
    if (on_trial) {
        tg_vm_promote(vm);
    } else {
        tg_vm_start(vm);
    }
    tg_vm_retire(old, false);
}

/* Its listeners are those of the current generation, under the numbers that its own configuration has for them. */
static void
begin_trial(struct tg_worker *worker, const struct tg_worker_listen *known, const struct tg_channel_message *message)
{
    struct tg_host_trial *trial = &worker->host.trial;
    struct tg_vm *vm = worker->preparation.vm;
    if (vm == NULL || vm->serial != message->serial || trial->vm != NULL) {
        return;
    }
    const struct tg_manifest *manifest = worker->preparation.generation->manifest;
    *trial = (struct tg_host_trial){.vm = vm, .share = message->number, .shadow = message->type == TG_CHANNEL_SHADOW};
    (void)sscanf(message->text, "header %71s", trial->header);
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        for (unsigned k = 0; k < manifest->listen_count && known[i].used; k++) {
            const struct tg_manifest_listen *listen = &manifest->listens[k];
            if (worker->proxy.configs[i].ordinal != 0 && listen->config.port == known[i].listen.config.port &&
                strcmp(listen->address, known[i].listen.address) == 0) {
                trial->ordinals[i] = (uint16_t)listen->config.ordinal;
            }
        }
    }
    tg_vm_start(vm);
}

static void
answer(struct tg_worker *worker, enum tg_channel_type type, uint64_t serial, const char *text)
{
    struct tg_channel_message message = {.type = (uint32_t)type, .serial = serial};
    (void)snprintf(message.text, sizeof message.text, "%s", text);
    if (tg_channel_send(worker->start->channel, &message, -1) != TG_OK) {
        tg_log(TG_LOG_ERROR, "the master cannot be reached");
    }
}

static void
on_prepared(void *arg, uint64_t serial, const char *why)
{
    answer(arg, *why == '\0' ? TG_CHANNEL_PREPARED : TG_CHANNEL_FAILED, serial, why);
}

static void
begin_drain(struct tg_worker *worker)
{
    if (worker->drain_until != 0) {
        return;
    }
    worker->drain_until = tg_loop_now(worker->loop) + worker->start->drain_timeout * 1000ULL + 1;
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        close_place(&worker->places[i]);
    }
    tg_proxy_drain(&worker->proxy);
}

static void
commit(struct tg_worker *worker, struct tg_worker_listen *known, uint64_t serial)
{
    /* One that was forked while the others prepared knows the old generation only: it gives way to one that does not.
     */
    struct tg_preparation *next = &worker->preparation;
    if (next->vm == NULL || next->vm->serial != serial) {
        tg_log(TG_LOG_ERROR, "a generation is committed that this worker has not prepared; it ends");
        begin_drain(worker);
        return;
    }
    apply_listens(worker, next->generation->manifest, known);
    apply_limits(worker, next->generation->manifest);
    start_generation(worker, next->vm, next->generation);
    next->vm = NULL;
    tg_preparation_forget(next);
}

/* Listening sockets that came with a generation which did not become current. */
static void
forget_staged(struct tg_worker *worker, struct tg_worker_listen *known)
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        if (worker->places[i].staged >= 0) {
            close(worker->places[i].staged);
            worker->places[i].staged = -1;
            known[i].used = false;
        }
    }
}

/* A listening socket that comes with the next generation: which address it has stands in `text`. */
static void
stage_listen(struct tg_worker *worker, struct tg_worker_listen *known, const struct tg_channel_message *message, int fd)
{
    if (message->number >= TG_LISTENERS_MAX || fd < 0) {
        return;
    }
    struct place *place = &worker->places[message->number];
    struct tg_worker_listen *entry = &known[message->number];
    if (place->staged >= 0) {
        close(place->staged);
    }
    place->staged = fd;
    entry->used = sscanf(message->text, "%111s %u", entry->listen.address, &entry->listen.config.port) == 2;
}

static void
handle(struct tg_worker *worker, const struct tg_channel_message *message, int fd)
{
    struct tg_worker_listen *known = (struct tg_worker_listen *)(uintptr_t)worker->start->listens;
    switch (message->type) {
    case TG_CHANNEL_DICT:
        if (tg_host_add_dict(&worker->host, message->text, fd) != TG_OK) {
            tg_log(TG_LOG_ERROR, "dictionary %s cannot be opened", message->text);
        }
        break;
    case TG_CHANNEL_LISTEN:
        stage_listen(worker, known, message, fd);
        return;
    case TG_CHANNEL_LEND:
        borrow(worker, message, fd);
        return;
    case TG_CHANNEL_RETURN:
        for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
            give_back(&worker->places[i], &message->serial);
        }
        break;
    case TG_CHANNEL_PREPARE:
        tg_preparation_begin(&worker->preparation, fd, message->serial, message->text, message->number == 1);
        return;
    case TG_CHANNEL_CANARY:
    case TG_CHANNEL_SHADOW:
        begin_trial(worker, known, message);
        break;
    case TG_CHANNEL_COMMIT:
        commit(worker, known, message->serial);
        break;
    case TG_CHANNEL_ABORT:
        tg_preparation_forget(&worker->preparation);
        forget_staged(worker, known);
        break;
    case TG_CHANNEL_DRAIN:
        begin_drain(worker);
        break;
    case TG_CHANNEL_REOPEN:
        tg_host_each_sink(&worker->host, tg_sink_reopen);
        break;
    case TG_CHANNEL_PROFILE:
        tg_profiler_start(&worker->profiler, &worker->host, worker->start->channel, message, fd);
        return;
    case TG_CHANNEL_TRACE:
        tg_vm_trace(&worker->host, message->serial, message->text, message->number);
        break;
    case TG_CHANNEL_LOG:
        set_log_level(message->text);
        break;
    case TG_CHANNEL_ACCEPT:
        worker->waits = false;
        listen_on_places(worker);
        break;
    default:
        break;
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void
on_channel(evutil_socket_t channel, short what, void *arg)
{
    struct tg_worker *worker = arg;
    struct tg_channel_message message;
    int fd = -1;
    (void)what;
    enum tg_rc rc;
    while ((rc = tg_channel_receive(channel, &message, &fd)) == TG_OK) {
        handle(worker, &message, fd);
    }
    if (rc != TG_AGAIN && worker->waits) {
        tg_loop_stop(worker->loop); /* the master that had nothing to say yet has failed */
    } else if (rc != TG_AGAIN) {
        /* The master is gone: serve on for a while, so that a restart finds no gap, then end in order. */
        tg_log(TG_LOG_ERROR, "the master has ended; serving on for %d s", ORPHAN_TIME);
        (void)event_del(worker->channel);
        worker->orphan_until = tg_loop_now(worker->loop) + ORPHAN_TIME * 1000ULL;
    }
}

/*
 * SECURITY 1.2: a Lua state that is too large is collected; when that does not help, new requests get 503, and a worker
 * that does not shrink is replaced.
 */
static enum tg_pressure
watch_lua(struct tg_worker *worker)
{
    const size_t max = worker->host.lua_memory;
    if (worker->host.current == NULL) {
        return TG_PRESSURE_NONE;
    }
    if (tg_vm_bytes(worker->host.current) <= max) {
        worker->lua_full = 0;
        return TG_PRESSURE_NONE;
    }
    tg_proxy_limited(&worker->proxy, TG_LIMIT_LUA_MEMORY);
    if (tg_vm_collect(worker->host.current) <= max) {
        worker->lua_full = 0;
        return TG_PRESSURE_NONE;
    }
    if (worker->lua_full++ == 0) {
        tg_log(TG_LOG_ERROR, "Lua holds %zu MiB, more than lua_memory: new requests get 503",
               tg_vm_bytes(worker->host.current) >> 20);
    } else if (worker->lua_full == LUA_FULL_BEATS) {
        tg_log(TG_LOG_ERROR, "Lua does not give its memory back: this worker is replaced");
        begin_drain(worker);
    }
    return TG_PRESSURE_SHED;
}

/* SECURITY 2: what is done depends on how much is left; the worker goes back to normal by itself. */
static void
watch_memory(struct tg_worker *worker)
{
    const enum tg_pressure before = worker->proxy.pressure;
    const enum tg_pressure lua = watch_lua(worker);
    enum tg_pressure pressure = tg_memory_pressure(tg_memory_used(), worker->memory);
    pressure = pressure < lua ? lua : pressure;
    const uint64_t now = tg_loop_now(worker->loop);
    worker->proxy.pressure = pressure;
    worker->start->score->pressure = pressure;
    if (pressure != before) {
        static const char *const deeds[] = {"all is well", "no connection is kept", "new requests get 503",
                                            "nothing is accepted"};
        tg_log(TG_LOG_WARN, "memory: %zu of %zu MiB in use: %s", tg_memory_used() >> 20, worker->memory >> 20,
               deeds[pressure]);
        for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
            if (worker->places[i].listener != NULL) {
                tg_listener_pause(worker->places[i].listener, pressure == TG_PRESSURE_STOP);
            }
        }
    }
    if (pressure == TG_PRESSURE_STOP) {
        tg_machine_shed(&worker->proxy);
    }
    if (pressure != TG_PRESSURE_NONE && now >= worker->trimmed + TRIM_EVERY) {
        worker->trimmed = now;
        (void)malloc_trim(0); /* what was freed would count as used otherwise */
    }
}

/* When the last connection is gone, `stop` hooks and what runs in the background still have the rest of the time. */
static void
end_when_drained(struct tg_worker *worker)
{
    const bool overdue = tg_loop_now(worker->loop) >= worker->drain_until;
    if (worker->counters.active == 0 && worker->host.current != NULL) {
        struct tg_vm *last = worker->host.current;
        worker->host.current = NULL;
        tg_vm_retire(last, true);
    }
    if (!worker->farewell && tg_loop_now(worker->loop) + FAREWELL >= worker->drain_until) {
        worker->farewell = true;
        tg_machine_farewell(&worker->proxy);
    }
    if (overdue || (worker->host.current == NULL && worker->start->score->generations == 0)) {
        tg_loop_stop(worker->loop);
    }
}

static void
on_beat(evutil_socket_t fd, short what, void *arg)
{
    struct tg_worker *worker = arg;
    (void)fd;
    (void)what;
    tg_vitals_beat(&worker->vitals, &worker->host);
    watch_memory(worker);
    listen_on_places(worker);
    tg_profiler_check(&worker->profiler, &worker->host);
    tg_host_each_sink(&worker->host, tg_sink_flush);
    if (worker->orphan_until != 0 && tg_loop_now(worker->loop) >= worker->orphan_until) {
        begin_drain(worker);
    }
    if (worker->drain_until != 0) {
        end_when_drained(worker);
    }
}

static void
on_signal(evutil_socket_t number, short what, void *arg)
{
    struct tg_worker *worker = arg;
    (void)what;
    if (number == SIGQUIT) {
        begin_drain(worker);
    } else if (number == SIGTERM) {
        tg_machine_farewell(&worker->proxy);
        tg_loop_stop(worker->loop);
    }
}

static enum tg_rc
open_events(struct tg_worker *worker)
{
    static const int numbers[] = {SIGQUIT, SIGTERM, SIGINT, SIGHUP};
    static const struct timeval beat = {0, BEAT * 1000L};
    struct event_base *base = tg_loop_base(worker->loop);
    for (unsigned i = 0; i < 4; i++) {
        worker->signals[i] = evsignal_new(base, numbers[i], on_signal, worker);
        if (worker->signals[i] == NULL || event_add(worker->signals[i], NULL) < 0) {
            return TG_ENOMEM;
        }
    }
    worker->channel = event_new(base, worker->start->channel, EV_READ | EV_PERSIST, on_channel, worker);
    worker->beat = event_new(base, -1, EV_PERSIST, on_beat, worker);
    if (worker->channel == NULL || worker->beat == NULL || event_add(worker->channel, NULL) < 0 ||
        event_add(worker->beat, &beat) < 0) {
        return TG_ENOMEM;
    }
    return TG_OK;
}

static enum tg_rc
open_worker(struct tg_worker *worker, const struct tg_worker_start *start)
{
    worker->start = start;
    worker->waits = start->waits;
    worker->loop = tg_loop_new();
    if (worker->loop == NULL || tg_peers_init(&worker->proxy.peers, worker->loop) != TG_OK) {
        return TG_ENOMEM;
    }
    worker->proxy.peers.own = on_own;
    worker->proxy.peers.own_arg = worker;
    struct tg_proxy *proxy = &worker->proxy;
    proxy->loop = worker->loop;
    proxy->policy = &tg_vm_policy;
    proxy->hooks = &tg_machine_hooks;
    proxy->counters = &worker->counters;
    proxy->exchanges_max = EXCHANGES_MAX;
    tg_buffer_pool_init(&proxy->buffers, BUFFERS_KEPT);
    struct tg_host *host = &worker->host;
    host->proxy = proxy;
    host->score = start->score;
    host->worker = start->slot;
    host->ready_last = &host->ready;
    host->ready_task.run = tg_vm_run_ready;
    host->release = tg_vm_unref;
    host->ask = on_ask;
    host->ask_arg = worker;
    host->differs = on_differs;
    tg_host = host;
    tg_abi_vm.worker = start->slot;
    tg_abi_vm.mark = (uint32_t *)(uintptr_t)start->score->mark;
    tg_abi_vm.now = tg_loop_wall(worker->loop);
    tg_abi_vm.monotonic = (double)tg_loop_now(worker->loop) / 1000;
    for (unsigned i = 0; i < start->dict_count; i++) {
        if (tg_host_add_dict(host, start->dicts[i].name, start->dicts[i].fd) != TG_OK) {
            return TG_ENOMEM;
        }
    }
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        const bool used = start->listens[i].used;
        worker->places[i] =
            (struct place){.worker = worker, .index = i, .fd = used ? start->listens[i].fd : -1, .staged = -1};
    }
    if (tg_news_open(&proxy->peers.news, worker->loop, start->cells, start->bells, start->side, start->slot,
                     start->workers) != TG_OK) {
        return TG_ENOMEM;
    }
    tg_vitals_open(&worker->vitals, start->score, start->metrics,
                   tg_metrics_row(start->metrics, start->first_row + start->slot), proxy, BEAT);
    return open_events(worker);
}

int
tg_worker_run(const struct tg_worker_start *start)
{
    char who[32];
    struct tg_err err = {0};
    struct tg_worker *worker = tg_mem_new(struct tg_worker);
    (void)snprintf(who, sizeof who, "worker %u", start->slot);
    tg_log_set(tg_log_get_level(), who);
    (void)prctl(PR_SET_NAME, who);
    /* Many small objects come and go together: the C library would give the top of the heap back at each ebb. */
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_EBB);
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_LARGE);
    if (tg_privilege_drop(start->privilege, &err) != TG_OK) {
        tg_log(TG_LOG_ERROR, "cannot start: %s", err.text);
        return 1;
    }
    if (worker == NULL || open_worker(worker, start) != TG_OK) {
        tg_log(TG_LOG_ERROR, "cannot start: memory is short");
        return 1;
    }
    worker->host.lua_memory = start->generation->manifest->lua_memory;
    worker->preparation =
        (struct tg_preparation){.host = &worker->host, .tickets = start->tickets, .done = on_prepared, .arg = worker};
    struct tg_vm *vm =
        tg_vm_new(&worker->host, start->generation->bytes, start->generation->serial, start->generation->id, &err);
    if (vm == NULL) {
        tg_log(TG_LOG_ERROR, "cannot start: %s", err.text);
        return 1;
    }
    if (tg_tls_servers_make(worker->preparation.tls, start->generation, start->tickets, &worker->host, &err) != TG_OK) {
        tg_log(TG_LOG_ERROR, "cannot start: %s", err.text);
        return 1;
    }
    start_generation(worker, vm, start->generation);
    apply_listens(worker, start->generation->manifest, start->listens);
    apply_limits(worker, start->generation->manifest);
    start->score->heartbeat = tg_loop_now(worker->loop);
    tg_loop_run(worker->loop);
    tg_threads_free(worker->host.threads);
    tg_host_each_sink(&worker->host, tg_sink_close);
    return 0;
}
