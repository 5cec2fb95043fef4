#include "vm/vm.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vm/backtrace.h"
#include "vm/embedded.h"
#include "vm/load.h"
#include "vm/steps.h"

enum {
    CLOSE_CYCLES = 2,              /* of the collector: what it has marked already outlives the one that it is in */
    STEP_MULTIPLE = 200,           /* percent, of the collector: how much one of its steps does */
    BUILD_GARBAGE = 2,             /* of what lives, the part that may come on top before it is looked for */
    BUILD_LEAST = 8 * 1024 * 1024, /* bytes that always may */
    GARBAGE_MIN = 16 * 1024, /* KiB that may gather before a collection: a small heap would be marked all the time */
    PAUSE_MIN = 200,
    PAUSE_MAX = 2000
};

TG_ABI struct tg_abi_vm tg_abi_vm;

/* What is not Lua's. */
static void
forget(struct tg_vm *vm)
{
    tg_host_release_redis(vm->host, &vm->redis);
    tg_names_free(vm->names);
    tg_steps_free(vm->steps);
    tg_mem_free(vm);
}

/* Whether a cycle of the collector has ended by then. */
static bool
collect_until(struct tg_vm *vm, uint64_t until)
{
    do {
        if (lua_gc(vm->L, LUA_GCSTEP, 0) != 0) {
            return true;
        }
    } while (tg_loop_clock() < until);
    return false;
}

static void
on_close_task(struct tg_task *task)
{
    struct tg_vm *vm = (struct tg_vm *)((char *)task - offsetof(struct tg_vm, collect_task));
    /* lua_close in one go would stall the loop, by a second where there are 10,000 routes: what is garbage is collected
     * before it, in steps. */
    vm->closing += collect_until(vm, tg_loop_spare(vm->host->proxy->loop));
    if (vm->closing < CLOSE_CYCLES) {
        tg_task_queue_spare(vm->host->proxy->loop, &vm->collect_task);
        return;
    }
    tg_heap_release(&vm->heap, vm->L);
    tg_backtrace_hold(true);
    lua_close(vm->L);
    tg_backtrace_hold(false);
    if (vm->host->score != NULL) {
        vm->host->score->generations--;
    }
    vm->host->closing--;
    forget(vm);
}

/* Pops a table that is not to lead anywhere any more. To replace it is not enough: all functions of C know the globals.
 */
static void
empty(lua_State *L)
{
    lua_pushnil(L); /* table nil */
    while (lua_next(L, -2) != 0) {
        lua_pop(L, 1);        /* table key */
        lua_pushvalue(L, -1); /* table key key */
        lua_pushnil(L);       /* table key key nil */
        lua_rawset(L, -4);    /* table key */
    }
    lua_pop(L, 1); /* */
}

static void
drop_roots(struct tg_vm *vm)
{
    lua_State *L = vm->L;
    while (vm->pool != NULL) {
        struct tg_coroutine *co = vm->pool;
        vm->pool = co->next;
        tg_coroutine_drop(co);
    }
    luaL_unref(L, LUA_REGISTRYINDEX, vm->main_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, vm->error_ref);
    lua_settop(L, 0);
    lua_pushvalue(L, LUA_GLOBALSINDEX);            /* globals */
    empty(L);                                      /* */
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED"); /* loaded */
    /* LuaJIT's own finalizers run on a table that nothing but this library holds. */
    lua_getfield(L, -1, "ffi");                     /* loaded ffi */
    lua_setfield(L, LUA_REGISTRYINDEX, "ffi");      /* loaded */
    empty(L);                                       /* */
    lua_pushnil(L);                                 /* nil */
    lua_setfield(L, LUA_REGISTRYINDEX, "tidegate"); /* */
    lua_pushliteral(L, "");                         /* string */
    if (lua_getmetatable(L, -1) != 0) {             /* string metatable: its methods are ours */
        empty(L);                                   /* string */
    }
    lua_pop(L, 1);                                    /* */
    (void)lua_gc(L, LUA_GCSETSTEPMUL, STEP_MULTIPLE); /* it may be in a hurry, and would do all at once */
}

void
tg_vm_ref(struct tg_vm *vm)
{
    vm->refs++;
}

/* The runtime's own tasks. */
enum { TASK_START = 0, TASK_STOP = 1, TASK_SHUTDOWN = 2, TASK_TRACE = 3 };

/* In a coroutine that holds the generation. */
static bool
begin_stop(struct tg_vm *vm)
{
    vm->has_stop = false;
    struct tg_coroutine *co = tg_coroutine_take(vm, NULL, TG_ENTRY_TASK);
    if (co == NULL) {
        return false;
    }
    co->task = vm->shutdown ? TASK_SHUTDOWN : TASK_STOP;
    co->holds = true;
    vm->refs = 1;
    tg_coroutine_ready(co);
    return true;
}

void
tg_vm_retire(struct tg_vm *vm, bool shutdown)
{
    if (vm != NULL) {
        vm->shutdown = shutdown;
        tg_coroutine_drop_services(vm);
        tg_vm_unref(vm);
    }
}

/* One that is not finished: nothing of it has run but its set-up. */
static void
drop_unfinished(struct tg_vm *vm)
{
    tg_heap_release(&vm->heap, vm->L);
    tg_backtrace_hold(true);
    lua_close(vm->L);
    tg_backtrace_hold(false);
    forget(vm);
}

void
tg_vm_unref(struct tg_vm *vm)
{
    if (vm == NULL || --vm->refs > 0 || (vm->has_stop && begin_stop(vm))) {
        return;
    }
    if (vm->builder != NULL) {
        drop_unfinished(vm);
        return;
    }
    drop_roots(vm);
    tg_task_remove(vm->host->proxy->loop, &vm->collect_task);
    vm->collect_task.run = on_close_task;
    vm->host->closing++;
    tg_task_queue_spare(vm->host->proxy->loop, &vm->collect_task);
}

size_t
tg_vm_bytes(struct tg_vm *vm)
{
    tg_heap_settle(&vm->heap);
    return vm->heap.bytes;
}

size_t
tg_vm_collect(struct tg_vm *vm)
{
    tg_heap_collect(&vm->heap);
    return vm->heap.bytes;
}

/* runtime.boot's start(core), in a coroutine of its own: it gives way when the step has taken its time, also between
 * the modules that it needs. */
static bool
begin_runtime(struct tg_vm *vm, const char *id, bool shadow, struct tg_err *err)
{
    static const char start[] = "return require('runtime.boot').start(...)";
    lua_State *L = vm->L;
    if (luaL_loadbuffer(L, start, sizeof start - 1, "=start") != 0) { /* start */
        tg_load_error(L, err);
        return false;
    }
    vm->builder = lua_newthread(L);                    /* start thread */
    vm->builder_ref = luaL_ref(L, LUA_REGISTRYINDEX);  /* start */
    lua_createtable(L, 0, 5);                          /* start core */
    lua_pushboolean(L, shadow);                        /* start core shadow */
    lua_setfield(L, -2, "shadow");                     /* start core */
    lua_pushstring(L, id);                             /* start core id */
    lua_setfield(L, -2, "id");                         /* start core */
    lua_pushnumber(L, (lua_Number)vm->serial);         /* start core serial */
    lua_setfield(L, -2, "serial");                     /* start core */
    lua_pushinteger(L, (lua_Integer)vm->host->worker); /* start core worker */
    lua_setfield(L, -2, "worker");                     /* start core */
    lua_getfield(L, LUA_REGISTRYINDEX, "tidegate");    /* start core files */
    lua_setfield(L, -2, "files");                      /* start core */
    lua_xmove(L, vm->builder, 2);                      /* */
    return true;
}

/* start -> main, judge, wants_log, wants_stop */
static void
end_runtime(struct tg_vm *vm)
{
    lua_State *L = vm->builder;
    (void)lua_gc(L, LUA_GCRESTART, 0);
    vm->wants_stop = lua_toboolean(L, -1) != 0;
    vm->wants = lua_toboolean(L, -2) ? TG_WANT_LOG : 0;
    lua_pop(L, 2);                                  /* main judge */
    vm->error_ref = luaL_ref(L, LUA_REGISTRYINDEX); /* main */
    vm->main_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    luaL_unref(vm->L, LUA_REGISTRYINDEX, vm->builder_ref);
    vm->builder = NULL;
    lua_settop(vm->L, 0);
}

static void
set_collector(lua_State *L)
{
    const int heap = lua_gc(L, LUA_GCCOUNT, 0) + 1;
    const int pause = 100 + GARBAGE_MIN * 100 / heap;
    lua_gc(L, LUA_GCSETPAUSE, pause < PAUSE_MIN ? PAUSE_MIN : pause > PAUSE_MAX ? PAUSE_MAX : pause);
}

struct tg_vm *
tg_vm_begin(struct tg_host *host, struct tg_slice bundle, uint64_t serial, const char *id, bool shadow,
            struct tg_err *err)
{
    struct tg_vm *vm = tg_mem_new(struct tg_vm);
    if (vm == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "memory is short");
        return NULL;
    }
    *vm = (struct tg_vm){.host = host, .refs = 1, .serial = serial, .mark = tg_cells_mark(id)};
    vm->L = tg_load_state(bundle, err);
    if (vm->L == NULL) {
        tg_mem_free(vm);
        return NULL;
    }
    tg_heap_bound(&vm->heap, vm->L, host->lua_memory * 2);
    vm->collect_at = BUILD_LEAST;
    struct tg_vm *building = host->building;
    host->building = vm;
    tg_backtrace_hold(true);
    const bool ok = begin_runtime(vm, id, shadow, err);
    tg_backtrace_hold(false);
    host->building = building;
    if (!ok) {
        drop_unfinished(vm);
        return NULL;
    }
    return vm;
}

/* While it is built the collector runs between the steps only: within one it would take the time of many. Whether the
 * step has time left. */
static bool
collect_built(struct tg_vm *vm, uint64_t until)
{
    (void)lua_gc(vm->L, LUA_GCSETSTEPMUL, STEP_MULTIPLE);
    vm->collecting = vm->collecting || vm->heap.bytes > vm->collect_at;
    if (vm->collecting && collect_until(vm, until)) {
        vm->collecting = false;
        vm->collect_at = vm->heap.bytes + vm->heap.bytes / BUILD_GARBAGE + BUILD_LEAST;
    }
    (void)lua_gc(vm->L, LUA_GCSTOP, 0);
    tg_heap_grow(&vm->heap);
    return !vm->collecting && tg_loop_clock() < until;
}

enum tg_rc
tg_vm_build(struct tg_vm *vm, uint64_t until, struct tg_err *err)
{
    struct tg_host *host = vm->host;
    if (until == 0) {
        (void)lua_gc(vm->L, LUA_GCRESTART, 0);
        vm->collecting = true; /* by itself, and where it will be at the end is not known */
    } else if (!collect_built(vm, until)) {
        return TG_AGAIN;
    }
    struct tg_vm *building = host->building;
    host->building = vm;
    host->build_until = until;
    const int arguments = lua_status(vm->builder) == LUA_YIELD ? 0 : 1;
    tg_backtrace_hold(true);
    const int status = lua_resume(vm->builder, arguments);
    tg_backtrace_hold(false);
    host->build_until = 0;
    host->building = building;
    if (status == LUA_YIELD) {
        return TG_AGAIN;
    }
    if (status != 0) {
        tg_load_error(vm->builder, err);
        return TG_ESCRIPT;
    }
    end_runtime(vm);
    if (host->score != NULL) {
        host->score->generations++;
    }
    return TG_OK;
}

struct tg_vm *
tg_vm_new(struct tg_host *host, struct tg_slice bundle, uint64_t serial, const char *id, struct tg_err *err)
{
    struct tg_vm *vm = tg_vm_begin(host, bundle, serial, id, false, err);
    if (vm != NULL && tg_vm_build(vm, 0, err) != TG_OK) {
        drop_unfinished(vm);
        vm = NULL;
    }
    return vm;
}

/* What loading left is collected in steps; only then it is known how large the heap is. A cycle that began while it was
 * loading has marked what is garbage now, so another follows. */
static void
on_settle_task(struct tg_task *task)
{
    struct tg_vm *vm = (struct tg_vm *)((char *)task - offsetof(struct tg_vm, collect_task));
    const bool whole = collect_until(vm, tg_loop_spare(vm->host->proxy->loop));
    if (!whole || vm->collecting) {
        vm->collecting = vm->collecting && !whole;
        tg_task_queue_spare(vm->host->proxy->loop, &vm->collect_task);
        return;
    }
    set_collector(vm->L);
}

void
tg_vm_start(struct tg_vm *vm)
{
    vm->collect_task.run = on_settle_task;
    tg_task_queue_spare(vm->host->proxy->loop, &vm->collect_task);
    struct tg_coroutine *co = tg_coroutine_take(vm, NULL, TG_ENTRY_TASK);
    vm->has_stop = vm->wants_stop;
    if (co != NULL) {
        co->task = TASK_START;
        co->service = true;
        tg_coroutine_ready(co);
    }
}

static void
begin_trace(struct tg_vm *vm)
{
    struct tg_coroutine *co = vm == NULL ? NULL : tg_coroutine_take(vm, NULL, TG_ENTRY_TASK);
    if (co != NULL) {
        co->task = TASK_TRACE;
        co->service = true;
        tg_coroutine_ready(co);
    }
}

/* Those that are made later ask when they start. */
void
tg_vm_trace(struct tg_host *host, uint64_t serial, const char *question, uint32_t milliseconds)
{
    struct tg_host_trace *trace = &host->trace;
    *trace = (struct tg_host_trace){.serial = serial, .until = tg_loop_now(host->proxy->loop) + milliseconds};
    (void)snprintf(trace->question, sizeof trace->question, "%s", question);
    if (milliseconds != 0) {
        begin_trace(host->current);
        begin_trace(host->trial.vm);
    }
}

double
tg_abi_trace_asked(void)
{
    const struct tg_host_trace *trace = &tg_host->trace;
    tg_abi_vm.out = tg_slice_of(trace->question, strlen(trace->question));
    return trace->until > tg_loop_now(tg_host->proxy->loop) ? (double)trace->serial : 0;
}

void
tg_vm_promote(struct tg_vm *vm)
{
    struct tg_host *host = vm->host;
    host->trial = (struct tg_host_trial){0};
    host->current = vm;
    struct tg_coroutine *co = tg_coroutine_find(vm->listener, vm->listener_serial);
    if (co != NULL) {
        tg_coroutine_ready(co);
    }
}
