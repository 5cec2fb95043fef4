/*
 * mux.h - connections of HTTP/2 to a peer, whose streams pass for connections of HTTP/1.1.
 *
 * Owns: each such connection, until it is idle for too long or ends. Used by: upstream.c, which hands out a stream in
 * place of a connection, and the states that end requests. Does not know: exchanges, calls.
 * The layer of a stream takes a request head as h1_write.h makes it, with a body that is not chunked, and gives the
 * body of the response; its head, which h2_head.h has judged as h1_parse.h would, is read by tg_mux_read_head.
 */
#ifndef TG_PROXY_MUX_H
#define TG_PROXY_MUX_H

#include "http/message.h"
#include "proxy/peer.h"

enum { TG_MUX_STREAMS = 100 /* at once on a connection, as far as the peer lets us */ };

/*
 * The open connection `link`, which was taken, speaks HTTP/2 from now on, and belongs to the peer. Its first stream, as
 * a link that is taken; NULL: memory is short. Who waits for `owner` to connect waits until the peer has told how many
 * streams it allows.
 */
struct tg_pool_link *tg_mux_open(struct tg_peer *peer, struct tg_pool_link *link, tg_transport_cb ready, void *owner);
/* A stream, as a link that is taken; NULL: no connection has room, or memory is short. */
struct tg_pool_link *tg_mux_take(struct tg_peer *peer, tg_transport_cb ready, void *owner);
/* The request is whole. Nothing on a link that is no stream. */
void tg_mux_finish(struct tg_pool_link *link);
/* The peer has done nothing of the request, and says so (RFC 9113, section 8.7), or nothing of it was sent. */
bool tg_mux_is_refused(const struct tg_pool_link *link);
/*
 * The next head of a link that is a stream: of a 103, or of the response, after which there is none. `message` is
 * filled, the bytes of its fields stand in the first *n of the `room` at `p`. TG_AGAIN: wait. TG_ECLOSED, TG_ERESET:
 * the stream ended first. TG_ELIMIT: there is no room for it. TG_EPROTOCOL: more than TG_INTERIM_MAX came before
 * the response. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_mux_read_head(struct tg_pool_link *link, char *p, size_t room, struct tg_message *message,
                                          bool to_head, size_t *n);
/* The response has ended with its head. */
bool tg_mux_is_bodyless(const struct tg_pool_link *link);
/* The trailers of a response that has been read to its end; NULL: there are none. They last as long as the link. */
const struct tg_message *tg_mux_trailers(const struct tg_pool_link *link);
#endif
