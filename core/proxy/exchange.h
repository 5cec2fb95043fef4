/*
 * exchange.h - one request and its response: what the rooms of the exchange share.
 *
 * Owns: the request in work on a connection, its memory (an arena) and its connection to a peer. Used by: request.c,
 * forward.c, reply.c (the states), machine.c (the table of them), and vm/, which shows it to Lua.
 * Lives in a slab: reused, never unmapped; abi.serial changes at its end.
 */
#ifndef TG_PROXY_EXCHANGE_H
#define TG_PROXY_EXCHANGE_H

#include "http/target.h"
#include "proxy/downstream.h"
#include "proxy/relay.h"
#include "proxy/upstream.h"

enum tg_exchange_state {
    TG_STATE_HEAD,     /* the request head comes */
    TG_STATE_REQUEST,  /* request phases */
    TG_STATE_CONNECT,  /* a connection to the peer is made */
    TG_STATE_BALANCE,  /* the attempt failed: balance phase */
    TG_STATE_AWAIT,    /* the request goes out, the response head comes */
    TG_STATE_RESPONSE, /* response phases */
    TG_STATE_RELAY,    /* the response goes out */
    TG_STATE_TUNNEL,   /* the connection has become another protocol's */
    TG_STATE_MESSAGES, /* the same, and a policy looks at its messages */
    TG_STATE_DRAIN,    /* what is left of the request is read away */
    TG_STATE_LOG,      /* log phase */
    TG_STATE_END,
    TG_STATE_COUNT
};

enum tg_step {
    TG_STEP_WAIT, /* for an event */
    TG_STEP_NEXT, /* the state has changed */
    TG_STEP_GONE  /* the exchange must not be touched again */
};

enum {
    TG_EXCHANGE_INPUT = 4096,
    TG_EXCHANGE_BLOCK = 4096,
    TG_EXCHANGE_ARENA_MAX = 1024 * 1024,
    TG_EXCHANGE_BODY_MAX = 64 * 1024 * 1024 /* bytes of a body that a policy makes as a whole */
};

/* A body as a whole: one that a policy reads, or has made. */
struct tg_exchange_body {
    char *p;
    size_t n;
    size_t capacity;
    size_t max;
    bool wanted;   /* a policy waits for it */
    int8_t failed; /* enum tg_rc: reading it went wrong, part of it is lost */
    bool whole;
    bool replaced; /* by a policy */
    bool heap;     /* p is ours; else it is borrowed */
};

/* A body that a policy reads or writes piece by piece. */
struct tg_flow {
    bool reads;            /* the policy reads it: it does not go on by itself */
    bool writes;           /* what goes on is written by the policy */
    bool sourced;          /* its relay knows where the body comes from */
    bool hungry;           /* the policy waits for a piece */
    bool full;             /* the policy waits for room */
    bool ended;            /* the policy has written all */
    int8_t failed;         /* enum tg_rc: how reading or writing ended */
    uint8_t rounds;        /* pieces in this turn */
    size_t at;             /* bytes read of a body that is there as a whole */
    struct tg_slice piece; /* the next one */
};

/* One direction of a tunnel. */
struct tg_tunnel_way {
    struct tg_ws_track track;
    struct tg_slice rest; /* read, but not sent: once the tunnel is closed */
    bool parted;          /* a close has gone to its destination, or nothing more can */
    bool shut;            /* its destination was told that it is the end */
    bool ended;           /* nothing more comes from its source */
};

struct tg_exchange {
    struct tg_abi_exchange abi; /* first: the pointer that Lua holds is this one */
    struct tg_exchange *next;   /* in the free list */
    struct tg_proxy *proxy;
    struct tg_downstream *down; /* NULL: the connection is gone, or has gone on to the next request */
    void *generation;           /* of the policy's */
    void *shadow;               /* of the policy's: a generation that judges it, too; NULL: none does */
    void *coroutines;           /* of the policy's */
    void *calls;                /* of the policy's: on the way from one coroutine to another */
    uint8_t state;
    bool entered;         /* the policy was entered for this state, */
    bool decided;         /* and is through with it, */
    int8_t outcome;       /* with this enum tg_rc */
    bool keep;            /* the connection is kept after this exchange */
    bool continued;       /* 100 was sent */
    bool sent;            /* the request went out whole */
    bool fresh;           /* the next attempt does without the pool */
    bool to_head;         /* the method is HEAD, towards the peer */
    bool from_head;       /* what the client sent: it gets no body */
    bool local;           /* the response is our own */
    bool grpc;            /* the request is one of gRPC */
    bool duplex;          /* the request's body goes on while the response comes */
    uint8_t trust;        /* enum tg_trust */
    uint8_t hints;        /* 103 answers passed on */
    uint8_t refusals;     /* times that a peer of HTTP/2 has refused to look at the request */
    uint64_t body_since;  /* microseconds; when the wait for the request's body began, 0: there is none */
    uint64_t body_waited; /* microseconds of such waits before */
    uint64_t start;       /* microseconds */
    uint64_t attempt_start;
    struct tg_arena arena; /* messages, heads, copies: all that lives as long as the exchange */
    struct tg_message request;
    struct tg_message response;
    struct tg_message trailers;  /* of the response */
    bool has_trailers;           /* the upstream's were looked for */
    const struct tg_told *told;  /* set in whatever response there will be; in the arena */
    struct tg_message *original; /* the request as it came, once somebody asks */
    struct tg_h1_scan scan;
    bool head_whole;                      /* on a stream: `request` is there, */
    const struct tg_h1_fault *head_fault; /* or was refused for this */
    struct tg_slice extended;             /* what an extended CONNECT (RFC 8441) asks for; empty: it is none */
    struct tg_slice websocket_key;        /* of ours, in its place */
    char *in; /* received: the head, then perhaps the begin of the body or of another request */
    size_t in_len;
    size_t in_capacity;
    char *rest; /* received and not consumed, once the head is parsed */
    size_t rest_len;
    struct tg_body request_body;
    struct tg_body response_body;
    struct tg_exchange_body buffered; /* of the request */
    struct tg_exchange_body answer;   /* of the response */
    struct tg_relay_copy copy;        /* of the request's body, while it flows */
    struct tg_flow flow[2];           /* by enum tg_abi_side */
    struct tg_relay up;               /* client to peer */
    struct tg_relay back;             /* peer to client */
    struct tg_upstream upstream;
    struct tg_upstream_head upstream_head;
    struct tg_buffer *response_buffer; /* while the response head is read */
    struct tg_deadline log_deadline;   /* of the log phase, when the connection is another's */
    unsigned tunnel_timeout;           /* milliseconds */
    struct tg_slice upgrade;           /* what the connection becomes when the peer agrees; in the request's head */
    struct tg_tunnel_way tunnel[2];    /* by enum tg_abi_side, where the bytes go */
    uint8_t tunnel_end;                /* enum tg_ws_stop: where the gateway closes the tunnel; 0: it does not */
    struct tg_slice tunnel_reason;     /* for which it does so */
    struct tg_messages *messages;      /* in the state MESSAGES */
    uint32_t message_max;              /* bytes of a message of WebSocket that a policy looks at; 0: it looks at none */
    bool messages_deflate;             /* they may be compressed */
    struct tg_slice unsent;            /* rest of a 103, which goes before the response */
    struct sockaddr_in6 client;        /* who the request is for, as far as can be believed */
    uint8_t client_n;                  /* bytes of client_text; 0: it was not asked for yet */
    char input[TG_EXCHANGE_INPUT];
    char block[TG_EXCHANGE_BLOCK];
    char client_text[TG_ADDRESS_TEXT];
};

/* An exchange for the next request of `down`; NULL when memory is short or there are too many. */
struct tg_exchange *tg_exchange_new(struct tg_downstream *down);
/* Lets go of all that it holds; the connection is not touched. */
void tg_exchange_free(struct tg_exchange *exchange);

/* Puts `left` (bytes of the next request, read already) into a fresh exchange. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_exchange_feed(struct tg_exchange *exchange, struct tg_slice left);

/* The address of the client as text, which lives as long as the exchange. Not before its head was parsed. */
struct tg_slice tg_exchange_client(struct tg_exchange *exchange);

/* Makes the response our own with `status` and `reason` (static, for the client: no details) and goes to RESPONSE. */
void tg_exchange_fail(struct tg_exchange *exchange, unsigned status, const char *reason);
/* As tg_exchange_fail, and nothing more is read from the client. */
void tg_exchange_refuse(struct tg_exchange *exchange, unsigned status, const char *reason);
/* The client is gone or its answer is cut: goes to LOG, with the connection closed by a reset. */
void tg_exchange_abort(struct tg_exchange *exchange, enum tg_rc rc);
/* A limit was reached: see tg_proxy_limited. TG_LIMIT_NONE is allowed. */
void tg_exchange_limited(struct tg_exchange *exchange, enum tg_limit limit);
/* Begins a response of our own with an empty head and body; what was made for an earlier one is dropped. */
void tg_exchange_respond(struct tg_exchange *exchange, unsigned status);

/* Makes a copy of `data` the body. TG_ELIMIT: it is larger than TG_EXCHANGE_BODY_MAX. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_exchange_make(struct tg_exchange *exchange, struct tg_exchange_body *body,
                                          struct tg_slice data);
/* Adds a piece to a body that is read. TG_ELIMIT: it is larger than body->max. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_exchange_keep(struct tg_exchange_body *body, struct tg_slice data);

/* The upstream's response has been read: what came behind its body is among the trailers. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_exchange_keep_trailers(struct tg_exchange *exchange);

/* The exchange that the pointer in Lua's hands is of. */
static inline struct tg_exchange *
tg_exchange_of(struct tg_abi_exchange *abi)
{
    return (struct tg_exchange *)abi;
}

/* Whether a number from Lua is an enum tg_abi_side of a message that flows. */
static inline bool
tg_exchange_is_side(int side)
{
    return side == TG_SIDE_REQUEST || side == TG_SIDE_RESPONSE;
}

/* Goes to another state; its policy has not been entered yet. */
static inline void
tg_exchange_go(struct tg_exchange *exchange, enum tg_exchange_state state)
{
    exchange->state = (uint8_t)state;
    exchange->entered = false;
    exchange->decided = false;
}

/* Gives the phase `milliseconds`, or what is left of the whole request's time. */
void tg_exchange_deadline(struct tg_exchange *exchange, uint64_t milliseconds);

#endif
