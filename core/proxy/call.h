/*
 * call.h - a request of our own to a peer: what Lua's HTTP client is made of. Its response is collected, or read in
 * pieces; its body is there at once, or written in pieces.
 *
 * Owns: the connection, the request's bytes and the response. Used by: vm/abi_io.c. Does not know: Lua.
 */
#ifndef TG_PROXY_CALL_H
#define TG_PROXY_CALL_H

#include <event2/event_struct.h>

#include "proxy/downstream.h"
#include "proxy/relay.h"
#include "proxy/upstream.h"

struct tg_call;
/*
 * The call is over: abi.state is 0 or a negative enum tg_rc; or its owner, who waits, may go on. Never from inside a
 * function of the call.
 */
typedef void (*tg_call_cb)(struct tg_call *call);

struct tg_call {
    struct tg_abi_call abi; /* first: the pointer that Lua holds is this one */
    struct tg_proxy *proxy;
    struct tg_upstream upstream;
    struct tg_peer *peer;
    struct tg_deadline connect_deadline;
    struct event timer; /* of the whole call: promised more exactly than a deadline's tick */
    struct tg_task task;
    tg_call_cb done;
    void *owner;
    struct tg_call *next; /* of the owner's list */
    unsigned holders;
    struct tg_arena arena;
    struct tg_message response;
    struct tg_upstream_head head;
    struct tg_body body;
    struct tg_buffer *buffer;
    char *request;
    size_t request_len;
    size_t sent;
    char *data; /* body of the response */
    size_t data_capacity;
    size_t max_body;
    unsigned connect_timeout;
    bool to_head;
    bool repeatable; /* the method is idempotent */
    bool has_head;
    bool timer_set;
    bool streams;  /* the response's body is read in pieces */
    bool uploads;  /* the request's body is written in pieces, */
    bool written;  /* and is whole */
    bool waits;    /* the owner waits for a piece, or for room */
    bool connects; /* nothing is sent */
    bool fresh;    /* the connection is not kept */
    unsigned timeout;
    unsigned refusals; /* times that a peer of HTTP/2 has refused to look at the request */
    struct tg_relay back;
    struct tg_relay up;
    char block[1024];
};

struct tg_call_request {
    struct tg_slice head;
    struct tg_slice body;
    unsigned connect_timeout; /* milliseconds */
    unsigned timeout;         /* milliseconds */
    size_t max_body;          /* bytes of the response's body */
    bool to_head;
    bool streams;
    bool uploads;               /* chunked; `head` says so */
    bool fresh;                 /* on a connection of its own */
    bool connects;              /* is over when the connection is there: nothing is sent */
    bool retry;                 /* of a call that has failed */
    struct tg_abi_watch *watch; /* what it is counted in; taken over. NULL: nothing */
};

/* Starts; copies the request. NULL when memory is short. */
struct tg_call *tg_call_start(struct tg_proxy *proxy, struct tg_peer *peer, const struct tg_call_request *request,
                              tg_call_cb done, void *owner);
/* The next piece of a streamed response's body; none: its end. TG_AGAIN; TG_EINVAL: there is no such. Or why it broke.
 */
TG_MUST_CHECK enum tg_rc tg_call_read(struct tg_call *call, struct tg_slice *data);
/* As tg_stream_write, for a request that uploads. TG_ENONE: the peer has answered and wants no more. */
TG_MUST_CHECK enum tg_rc tg_call_write(struct tg_call *call, struct tg_slice data, size_t *taken);
/* The request's body is whole. */
void tg_call_finish(struct tg_call *call);
/* Ends it, running or not; `done` is not called any more. Its memory stays for as long as somebody else holds it. */
void tg_call_free(struct tg_call *call);
void tg_call_hold(struct tg_call *call);
void tg_call_let_go(struct tg_call *call);

#endif
