/*
 * host.h - what a worker lends to the Lua states in it, and what the functions of the border find.
 *
 * Owns: the dictionaries, sinks and Redis clients that were opened, by index. Used by: the rooms of vm/ and
 * process/worker.c. The functions of abi.h take no context, so there is one host a process, set by its owner in
 * process/.
 */
#ifndef TG_VM_HOST_H
#define TG_VM_HOST_H

#include "base/sink.h"
#include "net/redis.h"
#include "net/threads.h"
#include "proxy/exchange.h"
#include "zone/dict.h"
#include "zone/scoreboard.h"

enum {
    TG_HOST_DICTS = 256,
    TG_HOST_SINKS = 64,
    TG_HOST_STRIP = 256,
    TG_HOST_STRIP_NAME = 128,
    TG_COROUTINES_MAX = 65536,
    TG_HOST_REDIS = 64
};

struct tg_vm;
struct tg_coroutine;

struct tg_host_dict {
    char name[64];
    struct tg_dict *dict;
};

/* One Redis, for all generations that have the same settings of it. */
struct tg_host_redis {
    struct tg_redis *client; /* NULL: the place is free */
    char *key;
    size_t key_len;
    unsigned refs; /* generations */
};

/* A generation on trial. */
struct tg_host_trial {
    struct tg_vm *vm;                    /* NULL: there is none */
    bool shadow;                         /* it answers nothing: it says what it would do */
    unsigned share;                      /* of 10,000 */
    char header[72];                     /* whose value decides; empty: the client's address does */
    uint16_t ordinals[TG_LISTENERS_MAX]; /* of the listeners in its configuration, by place; 0: it does not know it */
};

/* Which requests somebody wants to be told of. */
struct tg_host_trace {
    uint64_t serial; /* 0: none yet */
    uint64_t until;  /* milliseconds */
    char question[1024];
};

struct tg_host {
    struct tg_proxy *proxy; /* NULL in a process that only validates */
    struct tg_score *score;
    struct tg_threads *threads; /* NULL until somebody needs them */
    unsigned worker;
    size_t lua_memory;      /* bytes at which a Lua state is collected; what is made next may have twice that */
    struct tg_vm *current;  /* what new exchanges begin on */
    struct tg_vm *building; /* whose set-up runs */
    unsigned closing;       /* generations that nobody needs, and whose memory is not free yet */
    struct tg_host_trace trace;
    uint64_t build_until; /* microseconds; 0: as long as it takes */
    struct tg_host_trial trial;
    struct tg_host_dict dicts[TG_HOST_DICTS];
    unsigned dict_count;
    struct tg_host_redis redis[TG_HOST_REDIS];
    struct tg_sink *sinks[TG_HOST_SINKS];
    unsigned sink_count;
    struct tg_coroutine **coroutines; /* by index; NULL: free */
    unsigned coroutine_count;
    unsigned coroutine_next;    /* where the search for a free index begins */
    struct tg_coroutine *ready; /* to be resumed */
    struct tg_coroutine **ready_last;
    struct tg_task ready_task;
    void (*release)(struct tg_vm *vm);    /* a coroutine that held it has ended */
    enum tg_rc (*ask)(void *arg, int fd); /* the master hears on `fd` from now on; it stays the caller's */
    void *ask_arg;                        /* of `differs`, too */
    /* The master is told of a difference between the generation in shadow and the current one. */
    void (*differs)(void *arg, uint64_t serial, uint32_t kind, struct tg_slice example);
    struct tg_coroutine *running;
    uint32_t mark[3];  /* where score is not shared */
    uint32_t listener; /* the coroutine that hears of cells, by index and serial */
    uint32_t listener_serial;
    struct tg_abi_watch watch[TG_WATCHES]; /* of the next call */
};

/* The host of this process. */
extern struct tg_host *tg_host;

/* Opens a dictionary by its descriptor under `name`; one that is there under it is kept. TG_ELIMIT, TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_host_add_dict(struct tg_host *host, const char *name, int fd);
/* Does something to all sinks. */
void tg_host_each_sink(const struct tg_host *host, void (*deed)(struct tg_sink *sink));
/* The index of the dictionary of this name, or TG_ENONE. */
int tg_host_find_dict(const struct tg_host *host, struct tg_slice name);
/*
 * The index of the client with this key, made when there is none; `held` are the bits of those that a generation holds,
 * which it then is one of. TG_ELIMIT, TG_ENOMEM.
 */
int tg_host_hold_redis(struct tg_host *host, uint64_t *held, struct tg_slice key,
                       const struct tg_abi_redis_settings *settings, tg_redis_command_cb done);
/* The generation is gone. */
void tg_host_release_redis(struct tg_host *host, uint64_t *held);

#endif
