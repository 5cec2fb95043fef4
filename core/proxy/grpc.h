/*
 * grpc.h - what a gateway must know of gRPC over HTTP/2: its deadlines, and its errors.
 *
 * Owns: nothing; works on the exchange. Used by: request.c, reply.c. Does not know: messages, protocol buffers.
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and http-grpc-status-mapping.md beside it.
 */
#ifndef TG_PROXY_GRPC_H
#define TG_PROXY_GRPC_H

#include "proxy/exchange.h"

/* Streams may be silent for long: between two messages this is allowed, in place of the times of bodies. */
enum { TG_GRPC_IDLE = 300000 /* milliseconds */ };

/* Whether the request is one of gRPC: its Content-Type says so, but for gRPC-Web. */
bool tg_grpc_is_request(const struct tg_message *request);

/* The limits of what goes upstream as a call: between two messages there may be TG_GRPC_IDLE. When it came as one, the
 * time that the client gives (grpc-timeout), if that is shorter, is that of the whole request, and the body has no
 * limit. Nothing is done for other requests. */
void tg_grpc_apply_limits(struct tg_exchange *exchange);

/* What an answer's head says of a call: its status, or TG_GRPC_CODES and the code of one that ends with its head. */
enum { TG_GRPC_CODES = 600 };
unsigned tg_grpc_outcome(const struct tg_exchange *exchange);

/* Turns a response of our own into one that clients of gRPC understand: 200 with grpc-status. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_grpc_translate_error(struct tg_exchange *exchange);

#endif
