/*
 * coroutine.h - the coroutines that policies run in: a bounded pool for each VM, and their resumption.
 *
 * Owns: every lua_State thread, and which exchange it runs for. Used by: vm.c and the border.
 * The one function that resumes is here: it checks that the exchange still lives (SECURITY, Envoy CVE-2023-27492).
 * A coroutine runs the main function of the runtime: it yields nothing when its work is done, and something to wait.
 */
#ifndef TG_VM_COROUTINE_H
#define TG_VM_COROUTINE_H

#include <event2/event_struct.h>
#include <lua.h>

#include "net/threads.h"
#include "proxy/call.h"
#include "vm/heap.h"
#include "vm/host.h"
#include "vm/meter.h"
#include "vm/names.h"

struct tg_steps;

/* One generation's Lua state; vm.c makes and ends it. */
struct tg_vm {
    struct tg_host *host;
    lua_State *L;
    lua_State *builder; /* the coroutine that builds it; NULL: it is finished */
    int builder_ref;
    struct tg_heap heap;
    struct tg_coroutine *pool;
    unsigned pooled;
    unsigned refs;
    uint64_t serial;   /* of the generation */
    uint64_t mark;     /* of it, in cells */
    int main_ref;      /* the function that coroutines run */
    int error_ref;     /* what judges an error value */
    uint8_t wants;     /* TG_WANT_LOG: of exchanges that never reach a route */
    bool wants_stop;   /* there is something to be done at the generation's end, */
    bool has_stop;     /* and yet to be done, for it was current once; */
    bool shutdown;     /* its end is the worker's, too */
    uint8_t closing;   /* cycles of the collector since nobody needs it */
    uint32_t listener; /* on trial: the coroutine that is to hear of cells once it is the current one */
    uint32_t listener_serial;
    uint64_t redis;         /* bits of the clients of host->redis that it holds */
    struct tg_names *names; /* for lines of logs; NULL: none are wanted */
    struct tg_steps *steps; /* what is done without Lua being entered; NULL: nothing */
    unsigned strip_count;
    uint32_t strip[TG_HOST_STRIP]; /* hashes of identity headers, taken from clients */
    struct tg_task collect_task;
    bool collecting;   /* a cycle of the collector has begun while it is built, */
    size_t collect_at; /* as it does when it has more bytes than these */
};

struct tg_coroutine {
    lua_State *L;
    struct tg_vm *vm;
    struct tg_exchange *exchange; /* NULL: none */
    struct tg_coroutine *next;    /* of the exchange's list, or of the pool */
    struct tg_coroutine *next_ready;
    struct tg_call *calls;
    struct tg_job *job; /* what it waits for in another thread, or has not asked the result of */
    struct tg_redis_command *commands;
    struct event timer;
    struct tg_meter meter; /* of the call that is measured in it, or for which it is a task */
    uint32_t meter_index;  /* the coroutine that it is a task of then */
    uint32_t meter_serial;
    int ref;        /* in the registry: keeps the thread */
    uint32_t index; /* in host->coroutines */
    uint32_t serial;
    uint32_t exchange_serial;
    uint32_t entry;
    uint32_t task;
    uint32_t quiet;  /* so many calls may end well without waking it */
    uint32_t plugin; /* mark to be restored */
    uint32_t route;
    bool is_ready;
    bool waiting; /* has yielded to wait */
    bool phase;   /* the exchange waits for its end */
    bool parked;  /* it waits for the exchange's next phase */
    bool holds;   /* of no exchange: its generation lives until it has ended */
    bool service; /* of no exchange: it ends when its generation is no longer the current one */
    bool timer_set;
};

enum tg_coroutine_result { TG_COROUTINE_DONE, TG_COROUTINE_PARKED, TG_COROUTINE_WAITS, TG_COROUTINE_FAILED };

/* One of the pool, or a new one; NULL when there are too many or memory is short. */
struct tg_coroutine *tg_coroutine_take(struct tg_vm *vm, struct tg_exchange *exchange, uint32_t entry);
/*
 * Runs it. DONE: it has gone back to the pool. PARKED: it is through with the phase, and kept for the next. FAILED: the
 * error value is on top of its stack; it must be dropped.
 */
enum tg_coroutine_result tg_coroutine_resume(struct tg_coroutine *coroutine);
/* Ends it, wherever it waits; its calls and its job end with it. */
void tg_coroutine_drop(struct tg_coroutine *coroutine);
/* Ends all of an exchange; `parked`: also the one that waits for its next phase. */
void tg_coroutine_drop_all(struct tg_exchange *exchange, bool parked);
/* Ends the services of a generation. */
void tg_coroutine_drop_services(struct tg_vm *vm);
/* Will be resumed at the end of this turn, unless it is queued already. */
void tg_coroutine_ready(struct tg_coroutine *coroutine);
/* The measurement in it is over, if there is one: its result is tg_abi_vm.used. It has been paused. */
void tg_coroutine_measured(struct tg_coroutine *coroutine);
/* The one with this index and serial, or NULL. */
struct tg_coroutine *tg_coroutine_find(uint32_t index, uint32_t serial);

#endif
