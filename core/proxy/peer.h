/*
 * peer.h - the addresses that upstreams consist of, one object for each host and port, whoever names it.
 *
 * Owns: the peers, their pools of idle connections and what their names resolved to; they outlive generations, so that
 * a reload closes no connection. Used by: upstream.c, and the border to Lua, which knows them by index. Does not know:
 * which upstream a peer belongs to, nor how one is chosen.
 */
#ifndef TG_PROXY_PEER_H
#define TG_PROXY_PEER_H

#include "abi.h"
#include "net/pool.h"
#include "net/resolver.h"
#include "net/tls_client.h"
#include "proxy/attempt.h"

enum { TG_PEERS_MAX = 65536, TG_PEERS_GUARDED = 4096, TG_PEERS_TLS = 4096 };

struct tg_peer {
    struct tg_pool pool;
    char *host; /* NUL-terminated */
    unsigned port;
    unsigned in_flight;    /* exchanges and calls that use it */
    unsigned count;        /* addresses; 0: not resolved yet */
    unsigned next;         /* the address that is tried first */
    uint64_t fresh_until;  /* milliseconds; UINT64_MAX for a literal */
    uint64_t usable_until; /* a name that no longer resolves keeps its last addresses until then */
    bool resolving;
    bool guarded; /* named by a plugin at run time: private addresses are not connected to */
    bool own;     /* a listener of this gateway, by its number as port: no network is between */
    struct tg_address *addresses;
    struct tg_peer_wait *waiting;
    struct tg_tls_client *tls; /* of the peers; NULL: plain text */
    struct tg_tls_memory session;
    bool asked_http2;
    bool http2;                /* is spoken: by ALPN, or without asking where there is no TLS */
    struct tg_mux *muxes;      /* its connections of HTTP/2 */
    void *connecting;          /* who makes another one, or the one whose peer has said nothing yet, */
    struct tg_upstream *queue; /* and who waits for it */
    struct tg_upstream **queue_last;
    struct tg_task settle; /* lets the next of them go on */
};

/* One who waits for a name. Embedded in its owner. */
struct tg_peer_wait {
    struct tg_peer_wait *next;
    struct tg_peer *peer; /* NULL: not waiting */
    void (*resolved)(struct tg_peer_wait *wait, enum tg_rc rc);
};

/* Takes over one end of a connection to a listener of this gateway. */
typedef void (*tg_peer_own_cb)(void *arg, unsigned own, int fd);

struct tg_peers {
    struct tg_loop *loop;
    struct tg_resolver *resolver;
    struct tg_peer **list;
    unsigned count;
    unsigned capacity;
    unsigned guarded;
    struct tg_tls_client *tls[TG_PEERS_TLS]; /* each way of speaking TLS that was asked for, once */
    unsigned tls_count;
    tg_peer_own_cb own;
    void *own_arg;
    struct tg_news news;
    struct tg_pool_totals connections;
    uint64_t opened; /* connections, for requests */
    uint64_t reused; /* requests that went out on one that was there */
};

/* TG_ENOMEM when memory is short. */
TG_MUST_CHECK enum tg_rc tg_peers_init(struct tg_peers *peers, struct tg_loop *loop);
void tg_peers_fini(struct tg_peers *peers);

/* Who is meant. `tls` is a number of tg_peers_tls; 0: plain text. */
struct tg_peer_key {
    struct tg_slice host;
    unsigned port;
    unsigned tls;
    bool http2;
};

/* The number, from 1 on, of a way to speak TLS, made when it is new; it is kept. TG_ELIMIT, or TG_EINVAL and `err`. */
TG_MUST_CHECK enum tg_rc tg_peers_tls(struct tg_peers *peers, const struct tg_tls_client_options *options,
                                      unsigned *number, struct tg_err *err);

/*
 * The index of the peer, made when it is new. A host that begins with "@" is a listener of this gateway. The last
 * limits that were asked for hold. TG_ENOMEM, TG_ELIMIT.
 */
TG_MUST_CHECK enum tg_rc tg_peers_intern(struct tg_peers *peers, const struct tg_peer_key *key,
                                         const struct tg_pool_limits *limits, unsigned *index);

/*
 * The same for one that a plugin names by a URL: it has a pool of its own, and leads nowhere but to public addresses.
 * At most TG_PEERS_GUARDED.
 */
TG_MUST_CHECK enum tg_rc tg_peers_intern_guarded(struct tg_peers *peers, const struct tg_peer_key *key,
                                                 const struct tg_pool_limits *limits, unsigned *index);

/*
 * Addresses of the peer. TG_OK: there are some. TG_AGAIN: wait->resolved will be called. TG_EDNS, TG_ENOMEM: none.
 * Answers of the name service are kept for their time to live, and for 5 minutes more when it fails (SECURITY 2).
 */
TG_MUST_CHECK enum tg_rc tg_peer_resolve(struct tg_peers *peers, struct tg_peer *peer, struct tg_peer_wait *wait);
/* A kept connection is used: whether its address is still right is asked in time, and nobody waits for the answer. */
void tg_peer_refresh(struct tg_peers *peers, struct tg_peer *peer);
void tg_peer_wait_cancel(struct tg_peer_wait *wait);

#endif
