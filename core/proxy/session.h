/*
 * session.h - a client's HTTP/2 connection: many exchanges on one transport.
 *
 * Owns: the HTTP/2 codec of the connection and its streams. Each stream is a downstream of its own, with a transport
 * whose layer reads and writes DATA frames: the exchange on it does not know, but for its head, which comes parsed and
 * goes as a field section. Used by: downstream.c, by its hooks, and the states that send heads. Does not know: Lua.
 * What streams write in a turn of the loop goes out together at its end.
 */
#ifndef TG_PROXY_SESSION_H
#define TG_PROXY_SESSION_H

#include "http/h1_write.h"
#include "proxy/exchange.h"

/* The bytes with which a client of HTTP/2 begins (RFC 9113, section 3.4), up to where a head of HTTP/1.1 would end. */
#define TG_SESSION_PREFACE "PRI * HTTP/2.0\r\n\r\n"

/* The connection speaks HTTP/2 from now on; `bytes` of it were read already. When memory is short it is closed. */
void tg_session_begin(struct tg_downstream *connection, struct tg_slice bytes);
/* Something may be read or written on the connection. */
void tg_session_ready(struct tg_downstream *connection);
/* The connection's deadline has passed. */
void tg_session_expired(struct tg_downstream *connection);
/* No stream begins any more; those that are there end. */
void tg_session_drain(struct tg_downstream *connection);
/* The connection goes: all that is left of its streams is told so. */
void tg_session_free(struct tg_downstream *connection);

/*
 * Sends the head of the response of an exchange on a stream; `frame` tells the length, `end` that no body comes.
 * TG_ENOMEM, TG_ERESET.
 */
TG_MUST_CHECK enum tg_rc tg_session_respond(struct tg_exchange *exchange, const struct tg_h1_frame *frame,
                                            struct tg_slice date, bool end);
/* The body is whole; `trailers` are copied, NULL: there are none. Nothing for an exchange that is not on a stream. */
void tg_session_finish(struct tg_exchange *exchange, const struct tg_message *trailers);
/* Sends an interim response (1xx) with the fields of `message`, or with none. */
TG_MUST_CHECK enum tg_rc tg_session_interim(struct tg_exchange *exchange, unsigned status,
                                            const struct tg_message *message);

#endif
