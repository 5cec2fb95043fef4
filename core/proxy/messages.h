/*
 * messages.h - the state MESSAGES: a WebSocket whose messages a policy looks at, one after the other, in each
 * direction.
 *
 * Owns: the message that is read, up to its limit, and the frames that are not written yet. Used by: reply.c, machine.c
 * and vm/. Tunnels that nobody looks into stay tunnel.c's. Rules: nothing is read for a direction while something of it
 * is unwritten or judged, so that order is kept and memory bounded; what breaks the protocol, or a policy that raises,
 * closes both sides; a close is said to both sides before their connections end.
 * A side is where a message goes: TG_SIDE_REQUEST to the upstream, TG_SIDE_RESPONSE to the client.
 */
#ifndef TG_PROXY_MESSAGES_H
#define TG_PROXY_MESSAGES_H

#include "http/ws_frame.h"
#include "proxy/exchange.h"

/* Before the 101 goes out, and tg_tunnel_begin does the rest. TG_EPROTOCOL: the upstream has chosen an extension that
 * we do not know. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_messages_prepare(struct tg_exchange *exchange);
enum tg_step tg_messages_step(struct tg_exchange *exchange);
/* Nothing came for too long, or a side does not end. */
void tg_messages_expired(struct tg_exchange *exchange);
/* Frees what it holds; one that has none is left alone. */
void tg_messages_end(struct tg_exchange *exchange);

/* The policy that was entered for a message is through with it, with `rc`. */
void tg_messages_done(struct tg_exchange *exchange, enum tg_abi_side side, enum tg_rc rc);

/* What the policy was entered for, in *piece; *code is that of a close. TG_ENONE: it is over. */
TG_MUST_CHECK enum tg_rc tg_messages_current(const struct tg_exchange *exchange, enum tg_abi_side side,
                                             struct tg_ws_piece *piece, unsigned *code);
/* In its place goes a copy of `data`; twice: the later. TG_EINVAL: it is a close, text that is no UTF-8, a ping with
 * more than 125 bytes. TG_ENONE, TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_messages_replace(struct tg_exchange *exchange, enum tg_abi_side side, struct tg_slice data);
/* It does not go on. TG_EINVAL: it is a close. TG_ENONE. */
TG_MUST_CHECK enum tg_rc tg_messages_drop(struct tg_exchange *exchange, enum tg_abi_side side);
/* Another message, a copy of `data`, to `side`. TG_AGAIN: whoever is there does not read; policy->body_ready will be
 * called. TG_EINVAL: as above. TG_ECLOSED: a close has gone there already. TG_ELIMIT. TG_ENOMEM: both sides will be
 * closed. */
TG_MUST_CHECK enum tg_rc tg_messages_send(struct tg_exchange *exchange, enum tg_abi_side side, enum tg_ws_opcode opcode,
                                          struct tg_slice data);
/* Closes both sides, in the next turn; the first that does so counts. TG_EINVAL: the code may not be sent, the reason
 * is no UTF-8 or too long. TG_ENONE: no messages flow. */
enum tg_rc tg_messages_close(struct tg_exchange *exchange, unsigned code, struct tg_slice reason);

#endif
