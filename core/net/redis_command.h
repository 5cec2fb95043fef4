/*
 * redis_command.h - commands to Redis on their way: made, timed, answered, given back.
 *
 * Owns: all commands of one client, the free ones too, and the clock that ends those which take too long. Used by:
 * redis_link.c, which has them in its queue, redis.c, and the border to Lua, which owns them meanwhile. Does not know:
 * connections.
 * A command is held by its owner, by the queue of a connection, or by both: a reply that nobody waits for any more is
 * still owed, in its turn, so the command stays in its queue until that has come and is thrown away.
 */
#ifndef TG_NET_REDIS_COMMAND_H
#define TG_NET_REDIS_COMMAND_H

#include <event2/event_struct.h>

#include "net/loop.h"
#include "net/resp.h"

enum {
    TG_REDIS_TICK = 2, /* milliseconds: a timeout is late by at most twice this */
    TG_REDIS_WHEEL = 128
};

struct tg_redis_link;

struct tg_redis_command {
    struct tg_abi_redis_command abi; /* first: the pointer that Lua holds is this one */
    struct tg_redis_commands *commands;
    struct tg_redis_command *next;     /* in a queue, or among the free ones */
    struct tg_redis_link *link;        /* in whose queue it is; NULL: in none */
    struct tg_redis_link *own;         /* the connection that it alone has, which it is freed with; NULL: none */
    struct tg_redis_command *later;    /* in the wheel */
    struct tg_redis_command **earlier; /* NULL: not in the wheel */
    uint64_t at;                       /* milliseconds: when it is too late */
    unsigned timeout;                  /* milliseconds; 0: none */
    void *owner;                       /* NULL: nobody waits */
    struct tg_redis_command *sibling;  /* of the same owner */
    struct tg_resp_reply reply;
};

typedef void (*tg_redis_command_cb)(struct tg_redis_command *command);

struct tg_redis_commands {
    struct tg_loop *loop;
    tg_redis_command_cb done; /* it is over, and has an owner; called from inside of anything: it may only take note */
    tg_redis_command_cb late; /* it took too long, and a connection owes its reply still; may end other commands */
    struct tg_redis_command *free;
    unsigned free_count;
    unsigned count;
    unsigned timed;
    uint64_t swept;
    struct event tick;
    bool ticking;
    struct tg_redis_command *wheel[TG_REDIS_WHEEL];
};

/* TG_ENOMEM when memory is short. */
TG_MUST_CHECK enum tg_rc tg_redis_commands_init(struct tg_redis_commands *commands, struct tg_loop *loop,
                                                tg_redis_command_cb done, tg_redis_command_cb late);
/* There must be no command left but free ones. */
void tg_redis_commands_fini(struct tg_redis_commands *commands);

/* One that runs, and has an owner; its time begins now. 0: it has as long as it takes. NULL when memory is short. */
struct tg_redis_command *tg_redis_command_new(struct tg_redis_commands *commands, void *owner, unsigned timeout);
/* It is over: its state becomes `rc`, or, when that is TG_OK, what became of its reply. One that is over stays so. */
void tg_redis_command_end(struct tg_redis_command *command, enum tg_rc rc);
/* The owner lets go of it. */
void tg_redis_command_disown(struct tg_redis_command *command);
/* Its queue lets go of it. */
void tg_redis_command_dequeue(struct tg_redis_command *command);

#endif
