/*
 * upstream.h - a connection to a peer for one request: from the pool, or made anew.
 *
 * Owns: the connection between open and release. Used by: exchange.c and call.c, each of which embeds one.
 * Does not know: what is sent. Deadlines are the owner's.
 */
#ifndef TG_PROXY_UPSTREAM_H
#define TG_PROXY_UPSTREAM_H

#include "base/buffer.h"
#include "http/body.h"
#include "proxy/peer.h"

enum tg_upstream_state {
    TG_UPSTREAM_CLOSED,
    TG_UPSTREAM_RESOLVING,
    TG_UPSTREAM_WAITING, /* for a connection that another one makes */
    TG_UPSTREAM_CONNECTING,
    TG_UPSTREAM_HANDSHAKE, /* of TLS */
    TG_UPSTREAM_OPEN
};

struct tg_upstream;
/* The state has changed, or the open connection may be read or written. Not after tg_upstream_release. */
typedef void (*tg_upstream_cb)(struct tg_upstream *upstream);

struct tg_upstream {
    struct tg_peers *peers;
    struct tg_peer *peer;
    struct tg_pool_link *link;
    struct tg_peer_wait wait;
    tg_upstream_cb changed;
    enum tg_upstream_state state;
    enum tg_rc rc;              /* why it is closed: TG_EDNS, TG_ECONNECT, TG_ETLS, TG_ENOMEM */
    bool reused;                /* came from the pool: its peer may have closed it a moment ago */
    unsigned tried;             /* addresses */
    struct tg_pool_link *racer; /* the connection to an earlier address, which may still be the first */
    struct tg_deadline stagger; /* until another address is tried beside it */
    struct tg_upstream *next_queued;
    struct tg_attempt attempt;
};

void tg_upstream_init(struct tg_upstream *upstream, struct tg_peers *peers, tg_upstream_cb changed);

/*
 * TG_OK: open. TG_AGAIN: `changed` will be called when it is open or closed. Otherwise it is closed; the reason is
 * `rc`. `fresh` does without the pool.
 */
TG_MUST_CHECK enum tg_rc tg_upstream_open(struct tg_upstream *upstream, struct tg_peer *peer, bool fresh);

/* Gives the connection back to the pool (`reusable`: request and response were whole), or closes it. */
void tg_upstream_release(struct tg_upstream *upstream, bool reusable);
/* Closes the connection; the attempt goes on with another one to the same peer. */
void tg_upstream_drop(struct tg_upstream *upstream);

/* Progress of reading a response head into a buffer. Zero it to begin. */
struct tg_upstream_head {
    struct tg_h1_scan scan;
    size_t filled;           /* bytes in the buffer */
    unsigned interim;        /* 1xx answers consumed */
    bool hints;              /* 103 is wanted, not consumed */
    struct tg_slice upgrade; /* what was asked for; empty: a 101 is an error */
};

/*
 * Reads and parses the response head into `buffer`; interim answers (1xx) are consumed, but for a 103 that is wanted
 * and a 101 that was asked for.
 * TG_OK: `message` is filled; head->scan.pos is where the body begins. TG_AGAIN: wait; the buffer is needed until then
 * when head->filled > 0. TG_ECLOSED, TG_ERESET: the connection ended first. TG_EPROTOCOL: *fault says why. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_upstream_read_head(struct tg_upstream *upstream, struct tg_upstream_head *head,
                                               struct tg_buffer *buffer, struct tg_message *message, bool to_head,
                                               const struct tg_h1_fault **fault);

/* The interim answer that was read is done with: what follows it is a head again. TG_EPROTOCOL: there are too many. */
TG_MUST_CHECK enum tg_rc tg_upstream_next_head(struct tg_upstream_head *head, struct tg_buffer *buffer,
                                               const struct tg_h1_fault **fault);

#endif
