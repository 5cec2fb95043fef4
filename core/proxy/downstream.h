/*
 * downstream.h - the connections of clients.
 *
 * Owns: each accepted connection, and what holds for all of them (struct tg_proxy). Used by: exchange.c, which runs on
 * a connection, and process/, which accepts and drains. Does not know: what an exchange does; it calls upwards through
 * struct tg_downstream_hooks. A connection without a request in work holds no buffer and no exchange.
 */
#ifndef TG_PROXY_DOWNSTREAM_H
#define TG_PROXY_DOWNSTREAM_H

#include <netinet/in.h>

#include "base/buffer.h"
#include "base/limit.h"
#include "http/h1_parse.h"
#include "net/cidr.h"
#include "net/tls_server.h"
#include "proxy/client.h"
#include "proxy/peer.h"
#include "proxy/policy.h"
#include "zone/metric.h"

enum { TG_LISTENERS_MAX = 64 };

/* What a listener's connections may do. Milliseconds and bytes; defaults and statuses are in the configuration. */
struct tg_downstream_config {
    unsigned ordinal; /* of the listener in the configuration; 0: it is no longer there */
    unsigned port;
    struct tg_h1_limits limits;
    unsigned handshakes;        /* of TLS that go on at once, in this worker */
    unsigned handshake_timeout; /* of TLS, as a whole */
    unsigned plain_text;        /* is served, too, where TLS is spoken */
    unsigned header_timeout;
    unsigned body_timeout; /* between bytes */
    unsigned send_timeout; /* between bytes */
    unsigned keepalive_timeout;
    unsigned keepalive_requests;
    unsigned http2;              /* is served: by ALPN, and in plain text to who begins with it */
    unsigned streams;            /* of HTTP/2, at once */
    unsigned resets;             /* of streams that may be reset in 30 s beyond those that were answered */
    unsigned controls;           /* frames of HTTP/2 a second that carry nothing */
    unsigned body_rate;          /* bytes a second that a request's body needs after its first seconds; 0: none */
    unsigned client_connections; /* of one client address, in this worker; 0: no limit */
    unsigned own;                /* what the gateway's own upstreams call it by; 0: nothing */
    unsigned proxy_protocol;     /* connections begin with its header, and come from trusted addresses only */
    unsigned trust;              /* enum tg_trust: which fields of trusted peers are believed */
    struct tg_reading reading;
    const struct tg_cidr_list *trusted; /* of the worker; NULL: none */
    struct tg_tls_server *tls;          /* of the worker; NULL: plain text */
};

struct tg_downstream;

struct tg_downstream_hooks {
    /* Something happened on a connection with an exchange. */
    void (*drive)(struct tg_exchange *exchange);
    /* The connection's deadline passed while it has an exchange. */
    void (*expired)(struct tg_exchange *exchange);
    /* The first bytes of a request may be there. NULL: memory is short. */
    struct tg_exchange *(*begin)(struct tg_downstream *down);
    /* Of a connection of HTTP/2: see session.h. */
    void (*session_begin)(struct tg_downstream *down, struct tg_slice bytes);
    void (*session_ready)(struct tg_downstream *down);
    void (*session_expired)(struct tg_downstream *down);
    void (*session_drain)(struct tg_downstream *down);
    void (*session_free)(struct tg_downstream *down);
};

struct tg_proxy_counters {
    uint64_t connections;            /* accepted */
    uint64_t requests;               /* answered */
    uint64_t active;                 /* connections open now */
    uint64_t failed;                 /* answered by the gateway with 5xx, or cut */
    uint64_t secured;                /* handshakes of TLS that went well, */
    uint64_t resumed;                /* of which these went on with a session, */
    uint64_t tls13;                  /* these have made TLS 1.3, */
    uint64_t kernel;                 /* and for these the kernel encrypts what is written */
    uint64_t unshaken;               /* that came to nothing */
    uint64_t sessions;               /* connections of HTTP/2 */
    uint64_t limits[TG_LIMIT_COUNT]; /* how often each was reached */
};

/* How short memory is (SECURITY 2). */
enum tg_pressure {
    TG_PRESSURE_NONE,
    TG_PRESSURE_CLOSE, /* 85 %: no keep-alive */
    TG_PRESSURE_SHED,  /* 92 %: new requests are answered with 503 */
    TG_PRESSURE_STOP   /* 95 %: nothing is accepted, the largest body is given up */
};

/* A worker's proxy: what its connections and exchanges share. */
struct tg_proxy {
    struct tg_loop *loop;
    struct tg_buffer_pool buffers;
    struct tg_peers peers;
    const struct tg_policy *policy;
    const struct tg_downstream_hooks *hooks;
    struct tg_downstream *connections;
    struct tg_exchange *free_exchanges;
    unsigned exchanges; /* made so far */
    unsigned exchanges_max;
    unsigned connections_max;
    unsigned handshakes; /* of TLS that go on now */
    bool draining;       /* no keep-alive any more */
    enum tg_pressure pressure;
    struct tg_clients clients;
    struct tg_proxy_counters *counters;
    struct tg_metrics *metrics;    /* NULL, as the next: exchanges are not counted */
    struct tg_metric_row *counted; /* this worker's */
    uint64_t slow;                 /* microseconds up to the response head from which on an exchange is remembered */
    struct tg_downstream_config configs[TG_LISTENERS_MAX];
};

enum tg_downstream_mode {
    TG_DOWNSTREAM_ANNOUNCED, /* the header of the PROXY protocol comes first, */
    TG_DOWNSTREAM_HANDSHAKE, /* then that of TLS */
    TG_DOWNSTREAM_OPEN,
    TG_DOWNSTREAM_SESSION, /* speaks HTTP/2 */
    TG_DOWNSTREAM_LINGER
};

struct tg_downstream {
    struct tg_transport transport; /* first: the event leads back here */
    struct tg_proxy *proxy;
    struct tg_exchange *exchange; /* NULL: idle */
    struct tg_deadline deadline;
    struct tg_task task; /* drives the exchange in the next turn */
    struct tg_downstream *next;
    struct tg_downstream **link;
    struct tg_client *counted;
    struct tg_tls_server *tls;    /* held; NULL: plain text */
    struct tg_session *session;   /* HTTP/2 is spoken */
    struct tg_downstream *parent; /* of a stream: its connection; NULL: it is gone */
    bool is_stream;
    struct sockaddr_in6 client; /* or a sockaddr_in: who has connected, or who was announced */
    uint16_t listener;
    uint8_t mode;
    uint32_t requests;
    uint32_t lingered; /* bytes */
    uint32_t part_by;  /* closed as soon as that loses nothing, and at this time: milliseconds of the loop, modulo 2^32;
                          0: it is not to be closed */
};

/* Takes over `fd`. Closes it when memory is short or there are too many. */
void tg_downstream_accept(struct tg_proxy *proxy, unsigned listener, int fd, const struct tg_address *client);

/*
 * The same for a connection of the gateway's own. Its client has the unspecified address: no rule that lets addresses
 * pass may take it for one of them (SECURITY, the batch plugin that came from 127.0.0.1).
 */
void tg_downstream_adopt(struct tg_proxy *proxy, unsigned listener, int fd);

/*
 * A stream of `connection`, in an object of `size` bytes that begins with its downstream, with an exchange. Its
 * transport has no socket, and needs a layer. NULL: memory is short. To be ended by the functions below.
 */
struct tg_downstream *tg_downstream_branch(struct tg_downstream *connection, size_t size);

/* The TLS of the connection, or NULL. */
struct tg_tls *tg_downstream_tls(const struct tg_downstream *down);

/* The exchange is over; `exchange` is a next one whose first bytes are already there, or NULL. */
void tg_downstream_done(struct tg_downstream *down, struct tg_exchange *exchange);
/* Sends the end, reads at most 64 KiB or 2 s of what still comes, and closes: a reset would destroy the answer. */
void tg_downstream_linger(struct tg_downstream *down);
/*
 * Closes at once, or without `reset` when that loses nothing of what was written, after send_timeout at most. `reset`:
 * so that a cut answer is seen as one. Its exchange, if any, must have let go of it.
 */
void tg_downstream_close(struct tg_downstream *down, bool reset);

/* A limit was reached: counts it, and says so at debug level. */
void tg_proxy_limited(struct tg_proxy *proxy, enum tg_limit limit);

/* Drives the connection's exchange in the next turn. */
void tg_downstream_again(struct tg_downstream *down);

/* From now on no connection is kept alive; idle ones are closed when a request that is on its way has had time. */
void tg_proxy_drain(struct tg_proxy *proxy);

/* The address of the client as text, NUL-terminated; returns its length. */
size_t tg_downstream_client(const struct sockaddr_in6 *client, char out[TG_ADDRESS_TEXT], unsigned *port);

static inline const struct tg_downstream_config *
tg_downstream_config(const struct tg_downstream *down)
{
    return &down->proxy->configs[down->listener];
}

#endif
