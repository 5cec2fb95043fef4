/*
 * reply.h - the states RESPONSE, RELAY, DRAIN, LOG and END: the answer goes out and the connection goes on.
 *
 * Owns: nothing; works on the exchange. Used by: machine.c.
 */
#ifndef TG_PROXY_REPLY_H
#define TG_PROXY_REPLY_H

#include "proxy/exchange.h"

enum tg_step tg_reply_phases(struct tg_exchange *exchange);
enum tg_step tg_reply_relay(struct tg_exchange *exchange);
enum tg_step tg_reply_drain(struct tg_exchange *exchange);
enum tg_step tg_reply_log(struct tg_exchange *exchange);
enum tg_step tg_reply_end(struct tg_exchange *exchange);

#endif
