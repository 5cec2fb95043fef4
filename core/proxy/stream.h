/*
 * stream.h - bodies that a policy reads and writes: whole, or piece by piece while they flow.
 *
 * Owns: nothing; works on the exchange. Used by: forward.c and reply.c, for bodies that pass through a policy, and vm/,
 * which gives pieces to Lua and takes them from it. `side` is TG_SIDE_REQUEST or TG_SIDE_RESPONSE.
 * A policy that is told TG_AGAIN hears of more by policy->body_ready.
 */
#ifndef TG_PROXY_STREAM_H
#define TG_PROXY_STREAM_H

#include "proxy/exchange.h"

/*
 * The next piece of the body, valid until the next call; none: its end. From the first call on the body goes no
 * further by itself. TG_AGAIN. TG_EINVAL: it is not there to be read now. TG_ELIMIT: it is larger than the route
 * allows. TG_ERESET, TG_EPROTOCOL, TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_stream_read(struct tg_exchange *exchange, enum tg_abi_side side, struct tg_slice *data);

/* The whole body, at most `max` bytes; it is kept, and goes on. TG_AGAIN, TG_ELIMIT: it is larger; else as read. */
TG_MUST_CHECK enum tg_rc tg_stream_whole(struct tg_exchange *exchange, enum tg_abi_side side, size_t max,
                                         struct tg_slice *data);

/* What goes on will be written by the policy, which is entered for it once the head is on its way. TG_EINVAL: it has.
 */
TG_MUST_CHECK enum tg_rc tg_stream_open(struct tg_exchange *exchange, enum tg_abi_side side);
/* Takes a copy of `data`, or of its first bytes. TG_OK: *taken > 0. TG_AGAIN: the reader is slow. TG_ERESET, TG_ENOMEM,
 * TG_EINVAL. */
TG_MUST_CHECK enum tg_rc tg_stream_write(struct tg_exchange *exchange, enum tg_abi_side side, struct tg_slice data,
                                         size_t *taken);
/* The policy is through with the body: TG_OK all is written, else it must not be taken for a whole one. */
void tg_stream_end(struct tg_exchange *exchange, enum tg_abi_side side, enum tg_rc rc);

/* Enters the policy for a body whose relay has started. */
void tg_stream_begin(struct tg_exchange *exchange, enum tg_abi_side side);
/* Moves what can be moved; in place of tg_relay_step. */
TG_MUST_CHECK enum tg_relay_result tg_stream_step(struct tg_exchange *exchange, enum tg_abi_side side,
                                                  const struct tg_h1_fault **fault);

/* RFC 9112, section 6.3: HEAD, 204 and 304 have no body, whatever their fields say. */
bool tg_stream_is_bodyless(const struct tg_exchange *exchange);
/* Response phases wait for the upstream's body: goes on reading it. */
void tg_stream_pump(struct tg_exchange *exchange);
/* The upstream's body becomes the source of x->back, and its fields no longer depend on the buffer. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_stream_source(struct tg_exchange *exchange);

#endif
