/*
 * redis_link.h - one connection to a Redis server, on which the commands of all coroutines follow each other.
 *
 * Owns: the socket, what is not sent yet, and the queue of commands whose replies are to come. Used by: redis.c, which
 * decides when it is opened and what its failures mean. Does not know: Lua, slots, other connections.
 * Commands are gathered and written once at the end of a loop's turn: a system call for all of them. They may be given
 * to a connection that is still being made; its greeting (AUTH, SELECT) has been answered before they are sent, so that
 * none runs as another user or in another database.
 */
#ifndef TG_NET_REDIS_LINK_H
#define TG_NET_REDIS_LINK_H

#include "net/redis_command.h"
#include "net/resolver.h"
#include "net/tls_client.h"

enum { TG_REDIS_PENDING = 16384 /* commands on one connection */, TG_REDIS_WHY = 160 };

enum tg_redis_link_state {
    TG_REDIS_CLOSED,
    TG_REDIS_RESOLVING,
    TG_REDIS_CONNECTING,
    TG_REDIS_HANDSHAKE, /* of TLS */
    TG_REDIS_GREETING,
    TG_REDIS_OPEN
};

struct tg_redis_link_hooks {
    void (*opened)(struct tg_redis_link *link);
    /* It was lost, or could not be made; its commands have ended. `why` is for people. */
    void (*closed)(struct tg_redis_link *link, enum tg_rc rc, const char *why);
    /* In time. The command is the caller's no longer when this returns; the link may be closed meanwhile. */
    void (*answered)(struct tg_redis_link *link, struct tg_redis_command *command);
};

/* What the connections to one server have in common; outlives them. */
struct tg_redis_server {
    struct tg_loop *loop;
    struct tg_resolver *resolver;
    const struct tg_abi_redis_settings *settings;
    const struct tg_redis_link_hooks *hooks;
    char *host; /* begins with a slash: a socket's path */
    unsigned port;
    struct tg_tls_client *tls;    /* NULL: plain text */
    struct tg_tls_memory session; /* cleared by whoever frees the server, when no link is open any more */
};

struct tg_redis_lookup;

struct tg_redis_link {
    struct tg_transport transport; /* first: the event leads back to the link */
    struct tg_redis_server *server;
    enum tg_redis_link_state state;
    struct tg_deadline deadline; /* until it is open; with a subscriber: of silence */
    struct tg_task task;         /* writes what has been gathered, and reads on */
    struct tg_resp resp;
    struct tg_redis_command *first; /* in the order in which replies come */
    struct tg_redis_command **last;
    unsigned pending;
    bool owed;      /* when it closed: replies, or that it opens */
    uint64_t heard; /* milliseconds: when bytes came, or something was sent while nothing was owed */
    struct tg_redis_command *subscriber; /* gets all that comes; NULL: this is no subscription */
    bool asked;                          /* whether it still lives */
    unsigned greetings;                  /* replies still to come of what was said first */
    size_t greeting;                     /* bytes of `out` that it takes */
    struct tg_resp_reply said;           /* to it */
    char *out;
    size_t used;
    size_t sent;
    size_t size;
    struct tg_redis_lookup *lookup;
    struct tg_address addresses[TG_RESOLVER_ADDRESSES];
    unsigned count;
    unsigned tried;
    char why[TG_REDIS_WHY]; /* the last address failed */
};

/* Closed. To be ended with tg_redis_link_close. */
void tg_redis_link_init(struct tg_redis_link *link, struct tg_redis_server *server);
/* Begins to connect; the hooks are never called from inside. Closed it must be. */
void tg_redis_link_open(struct tg_redis_link *link);
/* Closes it and ends its commands with `rc`; without a hook. A closed one is left alone. */
void tg_redis_link_close(struct tg_redis_link *link, enum tg_rc rc);

/* Whether nothing has been heard for so many milliseconds, though something is owed. */
bool tg_redis_link_is_silent(const struct tg_redis_link *link, uint64_t milliseconds);

/*
 * Puts a command into the queue. TG_EBUSY: too many are in it, or too many bytes; TG_ELIMIT: it is too large for any;
 * TG_ENOMEM. `joined`: it belongs to the one before, so neither number nor bytes are looked at.
 */
TG_MUST_CHECK enum tg_rc tg_redis_link_send(struct tg_redis_link *link, struct tg_redis_command *command,
                                            unsigned count, const char *const *words, const size_t *lengths,
                                            bool joined);
/* These words, whose answers are the subscriber's. As above. */
TG_MUST_CHECK enum tg_rc tg_redis_link_subscribe(struct tg_redis_link *link, struct tg_redis_command *subscriber,
                                                 unsigned count, const char *const *words, const size_t *lengths);
/*
 * The next message into the subscriber's reply, in place of the one before. TG_AGAIN: its owner will be told. Otherwise
 * the link is closed.
 */
TG_MUST_CHECK enum tg_rc tg_redis_link_next(struct tg_redis_link *link);

#endif
