/*
 * resolver.h - names to addresses, without blocking the loop (c-ares).
 *
 * Owns: the channel and its sockets. Used by: proxy/peer.c, which keeps the answers. Does not cache.
 */
#ifndef TG_NET_RESOLVER_H
#define TG_NET_RESOLVER_H

#include "net/address.h"
#include "net/loop.h"

enum { TG_RESOLVER_ADDRESSES = 16 };

struct tg_resolver;

struct tg_resolved {
    enum tg_rc rc;   /* TG_OK, TG_EDNS */
    const char *why; /* static text, for the log */
    unsigned count;
    unsigned ttl; /* seconds */
    struct tg_address addresses[TG_RESOLVER_ADDRESSES];
};

/* Called once for each start, never from inside it, and not after tg_resolver_free. `result` is borrowed. */
typedef void (*tg_resolver_cb)(void *arg, const struct tg_resolved *result);

/* NULL when memory is short or the system's resolver configuration cannot be read. */
struct tg_resolver *tg_resolver_new(struct tg_loop *loop);
/* Asks these servers from the next question on: "address:port,...", at most 511 bytes; empty: the system's. */
void tg_resolver_use(struct tg_resolver *resolver, const char *servers);
void tg_resolver_free(struct tg_resolver *resolver);

/* TG_OK: `done` will be called. TG_ENOMEM: it will not. */
TG_MUST_CHECK enum tg_rc tg_resolver_start(struct tg_resolver *resolver, const char *name, unsigned port,
                                           tg_resolver_cb done, void *arg);

enum { TG_RESOLVER_SERVICES = 64 };

/* RFC 2782. */
struct tg_service {
    char host[256]; /* NUL-terminated, without the last dot */
    unsigned port;
    unsigned priority; /* the lowest first */
    unsigned weight;
};

struct tg_services {
    enum tg_rc rc;
    const char *why;
    unsigned count;
    unsigned ttl; /* seconds */
    struct tg_service services[TG_RESOLVER_SERVICES];
};

typedef void (*tg_services_cb)(void *arg, const struct tg_services *result);

/* The same for the SRV records of a name ("_http._tcp.example.com"). */
TG_MUST_CHECK enum tg_rc tg_resolver_services(struct tg_resolver *resolver, const char *name, tg_services_cb done,
                                              void *arg);

#endif
