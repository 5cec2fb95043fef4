/*
 * call.h - a request of our own to a peer, whose whole response is collected: what Lua's HTTP client is made of.
 *
 * Owns: the connection, the request's bytes and the response. Used by: vm/abi_io.c. Does not know: Lua.
 */
#ifndef TG_PROXY_CALL_H
#define TG_PROXY_CALL_H

#include <event2/event_struct.h>

#include "proxy/downstream.h"
#include "proxy/upstream.h"

struct tg_call;
/* The call is over: abi.state is 0 or a negative enum tg_rc. Never from inside tg_call_start. */
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
    char block[1024];
};

struct tg_call_request {
    struct tg_slice head;
    struct tg_slice body;
    unsigned connect_timeout; /* milliseconds */
    unsigned timeout;         /* milliseconds */
    size_t max_body;          /* bytes of the response's body */
    bool to_head;
};

/* Starts; copies the request. NULL when memory is short. */
struct tg_call *tg_call_start(struct tg_proxy *proxy, struct tg_peer *peer, const struct tg_call_request *request,
                              tg_call_cb done, void *owner);
/* Ends it, running or not; `done` is not called any more. */
void tg_call_free(struct tg_call *call);

#endif
