/*
 * forward.h - the states CONNECT, BALANCE and AWAIT: the request goes to a peer and its response head comes back.
 *
 * Owns: nothing; works on the exchange. Used by: machine.c. Does not know: how a peer is chosen.
 */
#ifndef TG_PROXY_FORWARD_H
#define TG_PROXY_FORWARD_H

#include "proxy/exchange.h"

enum tg_step tg_forward_connect(struct tg_exchange *exchange);
enum tg_step tg_forward_balance(struct tg_exchange *exchange);
enum tg_step tg_forward_await(struct tg_exchange *exchange);

/* The attempt has failed with `rc` before anything was answered: goes to BALANCE. */
void tg_forward_failed(struct tg_exchange *exchange, enum tg_rc rc);
/* The same for one that has taken too long after it began. */
void tg_forward_overdue(struct tg_exchange *exchange);
/* Another attempt is to be made: what this one has answered is not wanted. */
void tg_forward_drop_answer(struct tg_exchange *exchange);
/* The state changed or bytes came on the connection to the peer: `changed` of its struct tg_upstream. */
typedef void (*tg_forward_cb)(struct tg_upstream *upstream);
void tg_forward_init(struct tg_exchange *exchange, tg_forward_cb changed);

#endif
