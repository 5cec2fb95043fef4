#include "vm/coroutine.h"

#include <lauxlib.h>

enum { POOL_MAX = 256 };

static void
unlink_from_exchange(struct tg_coroutine *co)
{
    if (co->exchange == NULL) {
        return;
    }
    struct tg_coroutine **link = (struct tg_coroutine **)&co->exchange->coroutines;
    while (*link != NULL && *link != co) {
        link = &(*link)->next;
    }
    if (*link == co) {
        *link = co->next;
    }
    co->exchange = NULL;
}

static void
unlink_ready(struct tg_coroutine *co)
{
    struct tg_host *host = co->vm->host;
    if (!co->is_ready) {
        return;
    }
    co->is_ready = false;
    for (struct tg_coroutine **link = &host->ready; *link != NULL; link = &(*link)->next_ready) {
        if (*link == co) {
            *link = co->next_ready;
            if (host->ready_last == &co->next_ready) {
                host->ready_last = link;
            }
            return;
        }
    }
}

/* An index for host->coroutines; 0 is never used, so that it can mean none. */
static uint32_t
find_index(struct tg_host *host)
{
    const unsigned old = host->coroutine_count;
    for (unsigned i = 1; i < old; i++) {
        const unsigned index = 1 + (host->coroutine_next + i) % (old - 1);
        if (host->coroutines[index] == NULL) {
            host->coroutine_next = index;
            return index;
        }
    }
    const unsigned count = old == 0 ? 64 : old * 2;
    if (count > TG_COROUTINES_MAX) {
        return 0;
    }
    struct tg_coroutine **list = tg_mem_resize(host->coroutines, count * sizeof(struct tg_coroutine *));
    if (list == NULL) {
        return 0;
    }
    memset(list + old, 0, (count - old) * sizeof(struct tg_coroutine *));
    host->coroutines = list;
    host->coroutine_count = count;
    host->coroutine_next = old;
    return old == 0 ? 1 : old;
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    tg_coroutine_ready(arg);
}

static struct tg_coroutine *
coroutine_new(struct tg_vm *vm)
{
    struct tg_host *host = vm->host;
    const uint32_t index = find_index(host);
    struct tg_coroutine *co = index == 0 ? NULL : tg_mem_new(struct tg_coroutine);
    if (co == NULL) {
        return NULL;
    }
    co->vm = vm;
    co->index = index;
    tg_heap_reserve(&vm->heap, true);
    co->L = lua_newthread(vm->L);                        /* thread */
    co->ref = luaL_ref(vm->L, LUA_REGISTRYINDEX);        /* */
    lua_rawgeti(co->L, LUA_REGISTRYINDEX, vm->main_ref); /* on the new one: main */
    tg_heap_reserve(&vm->heap, false);
    co->timer_set = event_assign(&co->timer, tg_loop_base(host->proxy->loop), -1, 0, on_timer, co) == 0;
    host->coroutines[index] = co;
    return co;
}

struct tg_coroutine *
tg_coroutine_take(struct tg_vm *vm, struct tg_exchange *x, uint32_t entry)
{
    static uint32_t serials;
    struct tg_coroutine *co = vm->pool;
    if (co != NULL) {
        vm->pool = co->next;
        vm->pooled--;
    } else if ((co = coroutine_new(vm)) == NULL) {
        return NULL;
    }
    co->serial = ++serials;
    co->entry = entry;
    co->exchange = x;
    co->waiting = false;
    co->phase = false;
    co->parked = false;
    co->holds = false;
    co->service = false;
    co->plugin = 0;
    co->route = 0;
    co->meter.what = 0;
    co->meter_index = 0;
    co->next = NULL;
    if (x != NULL) {
        co->exchange_serial = x->abi.serial;
        co->route = x->abi.route;
        co->next = x->coroutines;
        x->coroutines = co;
    }
    return co;
}

/* What a task has used is for the account of the call that has begun it, if that still goes on. */
static void
account(const struct tg_coroutine *co)
{
    struct tg_coroutine *parent = tg_coroutine_find(co->meter_index, co->meter_serial);
    if (parent != NULL) {
        tg_meter_join(&parent->meter, &co->meter);
    }
}

static void
free_waits(struct tg_coroutine *co)
{
    if (co->job != NULL) {
        tg_threads_drop(co->vm->host->threads, co->job);
        co->job = NULL;
    }
    while (co->calls != NULL) {
        struct tg_call *next = co->calls->next;
        tg_call_free(co->calls);
        co->calls = next;
    }
    while (co->commands != NULL) {
        struct tg_redis_command *next = co->commands->sibling;
        tg_redis_let_go(co->commands);
        co->commands = next;
    }
    if (co->timer_set) {
        (void)event_del(&co->timer);
    }
}

void
tg_coroutine_drop(struct tg_coroutine *co)
{
    struct tg_vm *vm = co->vm;
    const bool holds = co->holds;
    TG_ASSERT(vm->host->running != co);
    if (co->meter.what != 0) {
        account(co);
    }
    free_waits(co);
    unlink_ready(co);
    unlink_from_exchange(co);
    vm->host->coroutines[co->index] = NULL;
    tg_heap_reserve(&vm->heap, true);
    luaL_unref(vm->L, LUA_REGISTRYINDEX, co->ref);
    tg_heap_reserve(&vm->heap, false);
    tg_mem_free(co);
    if (holds) {
        vm->host->release(vm);
    }
}

void
tg_coroutine_drop_all(struct tg_exchange *x, bool parked)
{
    struct tg_coroutine *co = x->coroutines;
    tg_call_free(x->calls);
    x->calls = NULL;
    while (co != NULL) {
        struct tg_coroutine *next = co->next;
        if (parked || !co->parked) {
            tg_coroutine_drop(co);
        }
        co = next;
    }
}

void
tg_coroutine_drop_services(struct tg_vm *vm)
{
    const struct tg_host *host = vm->host;
    for (unsigned i = 0; i < host->coroutine_count; i++) {
        struct tg_coroutine *co = host->coroutines[i];
        if (co != NULL && co->vm == vm && co->serial != 0 && co->service && co != host->running) {
            tg_coroutine_drop(co);
        }
    }
}

static void
give(struct tg_coroutine *co)
{
    struct tg_vm *vm = co->vm;
    if (co->meter.what != 0) {
        account(co);
        co->meter.what = 0;
    }
    free_waits(co);
    unlink_ready(co);
    unlink_from_exchange(co);
    if (vm->pooled >= POOL_MAX || co->holds) {
        tg_coroutine_drop(co);
        return;
    }
    co->serial = 0;
    co->next = vm->pool;
    vm->pool = co;
    vm->pooled++;
}

enum tg_coroutine_result
tg_coroutine_resume(struct tg_coroutine *co)
{
    struct tg_host *host = co->vm->host;
    struct tg_exchange *x = co->exchange;
    struct tg_loop *loop = host->proxy->loop;
    TG_ASSERT(host->running == NULL);
    TG_ASSERT(x == NULL || x->abi.serial == co->exchange_serial);
    tg_abi_vm.resumes++;
    tg_abi_vm.exchange = x == NULL ? NULL : &x->abi;
    tg_abi_vm.entry = co->entry;
    tg_abi_vm.task = co->task;
    tg_abi_vm.coroutine = co->index;
    tg_abi_vm.coroutine_serial = co->serial;
    tg_abi_vm.monotonic = (double)tg_loop_now(loop) / 1000;
    tg_abi_vm.now = tg_loop_wall(loop);
    tg_abi_vm.mark[0] = co->plugin;
    tg_abi_vm.mark[1] = co->route;
    tg_abi_vm.mark[2] = (uint32_t)co->vm->serial;
    co->waiting = false;
    tg_heap_enter(&co->vm->heap);
    host->running = co;
    if (co->meter.what != 0) {
        tg_meter_go_on(&co->meter, co->vm->heap.made);
    }
    const int status = lua_resume(co->L, 0);
    if (co->meter.what != 0) {
        tg_meter_pause(&co->meter, co->vm->heap.made);
    }
    host->running = NULL;
    co->plugin = tg_abi_vm.mark[0];
    co->route = tg_abi_vm.mark[1];
    tg_abi_vm.mark[0] = 0;
    if (status == LUA_YIELD && tg_abi_vm.entry == 0) {
        lua_settop(co->L, 0);
        give(co);
        return TG_COROUTINE_DONE;
    }
    if (status == LUA_YIELD && tg_abi_vm.entry == TG_ENTRY_PARKED) {
        lua_settop(co->L, 0);
        co->parked = true;
        co->phase = false;
        return TG_COROUTINE_PARKED;
    }
    if (status == LUA_YIELD) {
        lua_settop(co->L, 0);
        co->waiting = true;
        return TG_COROUTINE_WAITS;
    }
    return TG_COROUTINE_FAILED;
}

void
tg_coroutine_ready(struct tg_coroutine *co)
{
    struct tg_host *host = co->vm->host;
    if (co->is_ready) {
        return;
    }
    co->is_ready = true;
    co->next_ready = NULL;
    *host->ready_last = co;
    host->ready_last = &co->next_ready;
    tg_task_queue(host->proxy->loop, &host->ready_task);
}

struct tg_coroutine *
tg_coroutine_find(uint32_t index, uint32_t serial)
{
    struct tg_coroutine *co = index < tg_host->coroutine_count ? tg_host->coroutines[index] : NULL;
    return co != NULL && co->serial == serial && serial != 0 ? co : NULL;
}

void
tg_coroutine_measured(struct tg_coroutine *co)
{
    const struct tg_meter *meter = &co->meter;
    struct tg_abi_use *used = &tg_abi_vm.used;
    /* A task's is not its own: what it has used is joined when it ends. */
    used->what = co->meter_index == 0 ? meter->what : 0;
    if (used->what != 0) {
        used->weight = meter->weight;
        used->seconds = (double)(tg_loop_clock() - meter->began) / 1e6;
        used->cpu = (double)meter->cpu / 1e9;
        used->bytes = (double)meter->bytes;
        co->meter.what = 0;
    }
}
