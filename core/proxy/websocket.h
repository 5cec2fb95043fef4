/*
 * websocket.h - WebSocket over HTTP/2 (RFC 8441) as the upgrade of HTTP/1.1 (RFC 6455) that upstreams know.
 *
 * Owns: nothing; works on the exchange. Used by: request.c and reply.c. Does not know: frames.
 */
#ifndef TG_PROXY_WEBSOCKET_H
#define TG_PROXY_WEBSOCKET_H

#include "proxy/exchange.h"

/* Turns an extended CONNECT into a GET that asks for an upgrade, with a key of ours. TG_EINVAL: another protocol. */
TG_MUST_CHECK enum tg_rc tg_websocket_translate(struct tg_exchange *exchange);

/* Whether the 101 of the upstream answers our key (RFC 6455, section 4.1); the answer is removed: it is not the
 * client's. */
bool tg_websocket_is_accepted(struct tg_exchange *exchange);

#endif
