/*
 * redis.h - one Redis as the configuration names it: its servers, which of them a key is on, and which are alive.
 *
 * Owns: the servers, their connections, and all commands on their way. Used by: vm/abi_redis.c. Does not know: Lua, how
 * a cluster or a sentinel is asked, nor what a command means; who does tells it which slot leads to which server.
 * A server has a breaker: after TG_REDIS_FAILURES in a row its connections are closed, and commands to it fail at once
 * until a probe of our own, after 1 s at first and 10 s at most, has been answered. So a dead one costs no time.
 */
#ifndef TG_NET_REDIS_H
#define TG_NET_REDIS_H

#include "net/redis_link.h"

enum {
    TG_REDIS_NODES = 512,
    TG_REDIS_CONNECTIONS = 16, /* to one server */
    TG_REDIS_OWN = 256,        /* connections to one server that belong to a command or a subscription */
    TG_REDIS_FAILURES = 5,
    TG_REDIS_OPEN_MIN = 1000, /* milliseconds */
    TG_REDIS_OPEN_MAX = 10000
};

struct tg_redis;

struct tg_redis_request {
    int node;     /* -1: where the key leads to */
    unsigned key; /* the word that is one; 0: none is */
    unsigned timeout;
    unsigned count;
    const char *const *words;
    const size_t *lengths;
    struct tg_redis_command *after; /* on the same connection, behind it; NULL: anywhere */
    unsigned flags;                 /* bits of enum tg_abi_redis_flag */
    void *owner;
};

/*
 * A client without servers; copies the settings. `tls` is borrowed, and outlives it; NULL: plain text. `done` takes
 * note that a command is over, or that a subscriber may look. NULL when memory is short. tg_redis_free: no command may
 * have an owner any more.
 */
struct tg_redis *tg_redis_new(struct tg_loop *loop, struct tg_resolver *resolver, struct tg_tls_client *tls,
                              const struct tg_abi_redis_settings *settings, tg_redis_command_cb done);
void tg_redis_free(struct tg_redis *redis);

/* The index of a server, new or known; or TG_ENOMEM, TG_ELIMIT. */
int tg_redis_node(struct tg_redis *redis, struct tg_slice host, unsigned port);
/* The slots lead there from now on. TG_EINVAL: there is no such slot, or node. */
TG_MUST_CHECK enum tg_rc tg_redis_assign(struct tg_redis *redis, unsigned first, unsigned last, unsigned node);
/* The same for those who read from replicas; -1: there is none. */
TG_MUST_CHECK enum tg_rc tg_redis_assign_replica(struct tg_redis *redis, unsigned first, unsigned last, int node);
/* Where a slot leads to, or TG_ENONE. */
int tg_redis_node_of(const struct tg_redis *redis, unsigned slot);
/* Frees the servers that no slot leads to, if nothing is under way there. */
void tg_redis_settle(struct tg_redis *redis);
/* "host:port", and why it last failed; empty when there is none. */
struct tg_slice tg_redis_node_name(const struct tg_redis *redis, unsigned node);
struct tg_slice tg_redis_node_why(const struct tg_redis *redis, unsigned node);

/* What it has done; valid as long as the client. */
const struct tg_abi_redis_counts *tg_redis_counts(const struct tg_redis *redis);

/*
 * Sends; copies the words. NULL: *rc is TG_ENONE no server is known, TG_EOPEN its breaker is open, TG_ECONNECT it is
 * not tried again yet, TG_EBUSY, TG_ELIMIT, TG_ENOMEM. *node is the server, if one was found.
 */
struct tg_redis_command *tg_redis_send(struct tg_redis *redis, const struct tg_redis_request *request, enum tg_rc *rc,
                                       unsigned *node);
/* On a connection of its own: see tg_redis_link_next of `own`. The key is none. */
struct tg_redis_command *tg_redis_subscribe(struct tg_redis *redis, const struct tg_redis_request *request,
                                            enum tg_rc *rc);
/* The owner lets go of a command, or of a subscription, which then ends. */
void tg_redis_let_go(struct tg_redis_command *command);

#endif
