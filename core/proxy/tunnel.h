/*
 * tunnel.h - the state TUNNEL: after a 101 both connections carry another protocol, whose bytes are none of ours.
 *
 * Owns: nothing; works on the exchange. Used by: reply.c, machine.c. RFC 9110, section 7.8.
 */
#ifndef TG_PROXY_TUNNEL_H
#define TG_PROXY_TUNNEL_H

#include "proxy/exchange.h"

/* The 101 `head` goes to the client first, and what has come behind either head is not lost. */
void tg_tunnel_begin(struct tg_exchange *exchange, struct tg_slice head);
enum tg_step tg_tunnel_step(struct tg_exchange *exchange);

#endif
