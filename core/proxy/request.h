/*
 * request.h - the states HEAD and REQUEST: a request comes in and the policies judge it.
 *
 * Owns: nothing; works on the exchange. Used by: machine.c, and vm/ for bodies that a policy wants to read.
 * Does not know: peers.
 */
#ifndef TG_PROXY_REQUEST_H
#define TG_PROXY_REQUEST_H

#include "proxy/exchange.h"

enum tg_step tg_request_head(struct tg_exchange *exchange);
enum tg_step tg_request_phases(struct tg_exchange *exchange);

/*
 * Wants the whole body, at most `max` bytes, in exchange->buffered. TG_OK: it is there. TG_AGAIN: policy->body_ready
 * will be called. TG_ELIMIT: it is larger. TG_EINVAL: it has begun to flow upstream. TG_EPROTOCOL, TG_ECLOSED,
 * TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_request_want_body(struct tg_exchange *exchange, size_t max);

/* The next piece of the body, valid until the next call; none: its end. TG_AGAIN, or an error as of want_body. */
TG_MUST_CHECK enum tg_rc tg_request_piece(struct tg_exchange *exchange, struct tg_slice *data);

/* Goes on reading for a policy that waits: see exchange->buffered.wanted and the flow of the request. */
void tg_request_pump(struct tg_exchange *exchange);

/* A wait for the request's body begins, with its deadline; and ends. */
void tg_request_wait_body(struct tg_exchange *exchange);
void tg_request_waited_body(struct tg_exchange *exchange);
/* Which limit ended such a wait. */
enum tg_limit tg_request_body_limit(struct tg_exchange *exchange);

/* Tells a client that waits for it to go on (RFC 9110, section 10.1.1). TG_ERESET: it is gone. */
TG_MUST_CHECK enum tg_rc tg_request_continue(struct tg_exchange *exchange);

/* Reads away what is left of the request's body. TG_OK, TG_AGAIN; otherwise the connection must be closed. */
TG_MUST_CHECK enum tg_rc tg_request_discard(struct tg_exchange *exchange);

#endif
