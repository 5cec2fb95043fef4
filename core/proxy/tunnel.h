/*
 * tunnel.h - the state TUNNEL: after a 101 both connections carry another protocol, whose bytes are none of ours.
 *
 * Owns: nothing; works on the exchange. Used by: reply.c, machine.c. RFC 9110, section 7.8.
 * Of WebSockets it follows where frames end, and nothing more, so that the gateway can close them when it ends itself.
 */
#ifndef TG_PROXY_TUNNEL_H
#define TG_PROXY_TUNNEL_H

#include "proxy/exchange.h"

/* The 101 `head` goes to the client first, and what has come behind either head is not lost. */
void tg_tunnel_begin(struct tg_exchange *exchange, struct tg_slice head);
enum tg_step tg_tunnel_step(struct tg_exchange *exchange);
/* Nothing came for too long, or one that is closed does not end. */
void tg_tunnel_expired(struct tg_exchange *exchange);

/*
 * Sends to both sides a close frame, 1001 with `reason` (static, at most 123 bytes), each where the message ends that
 * is under way, if it does so within a second; then where a frame ends. Whoever does not answer within another second
 * is cut. To be driven then. False: it is no WebSocket, its bytes are no frames, or it is closed already.
 */
bool tg_tunnel_close(struct tg_exchange *exchange, struct tg_slice reason);

#endif
