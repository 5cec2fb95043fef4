/*
 * pool.h - idle upstream connections of one peer, kept for the next exchange.
 *
 * Owns: every connection given to it, until it is taken again or closed by age, by number or by its peer.
 * Used by: proxy/upstream.c, which alone decides whether a connection is fit to be kept (RFC 9112, section 9.3).
 * Knows nothing of HTTP. No locks. The most recently used connection is taken first.
 */
#ifndef TG_NET_POOL_H
#define TG_NET_POOL_H

#include "net/transport.h"

struct tg_pool_limits {
    unsigned idle_max;     /* connections kept */
    unsigned idle_timeout; /* milliseconds */
    unsigned requests;     /* on one connection; 0: no limit */
    unsigned age;          /* milliseconds that one is used for; 0: no limit */
    unsigned connections;  /* that are open at once, in use or idle; 0: no limit. Kept by who opens them */
};

/* Connections of several pools together. */
struct tg_pool_totals {
    unsigned open; /* in use or idle */
    unsigned idle;
};

struct tg_pool {
    struct tg_loop *loop;
    struct tg_pool_limits limits;
    struct tg_pool_totals *totals; /* of it and of others; outlives them */
    struct tg_pool_link *idle;
    unsigned idle_count;
    unsigned open;  /* connections, in use or idle */
    unsigned epoch; /* connections of an earlier one are not kept */
};

/* A connection to the peer. While it is taken, `ready` of its transport is the taker's. */
struct tg_pool_link {
    struct tg_transport transport; /* first: the event leads back to the link */
    struct tg_pool *pool;
    struct tg_pool_link *next;
    struct tg_pool_link **link; /* NULL: taken */
    struct tg_deadline idle;
    void *owner;
    uint64_t made; /* milliseconds */
    unsigned requests;
    unsigned epoch;
    bool single;                             /* for one request: it is closed when it is given back */
    void (*gone)(struct tg_pool_link *link); /* takes the memory of a closed one; NULL: it is freed */
};

void tg_pool_init(struct tg_pool *pool, struct tg_loop *loop, const struct tg_pool_limits *limits,
                  struct tg_pool_totals *totals);
/* Closes all idle connections; taken ones must have been closed. */
void tg_pool_fini(struct tg_pool *pool);

/* An idle connection on which nothing has arrived, or NULL. */
struct tg_pool_link *tg_pool_take(struct tg_pool *pool, tg_transport_cb ready, void *owner);

/* The peer has other addresses: idle connections are closed, taken ones will be when they are given back. */
void tg_pool_renew(struct tg_pool *pool);

/* A taken link around the connecting `fd`, which is the link's then; NULL: memory is short, the descriptor is closed.
 */
struct tg_pool_link *tg_pool_link_new(struct tg_pool *pool, int fd, tg_transport_cb ready, void *owner);

/* Gives the link back; the pool may close it at once. The caller must not touch it again. */
void tg_pool_give(struct tg_pool_link *link);
/* Closes a taken link and frees it. */
void tg_pool_link_close(struct tg_pool_link *link);

#endif
