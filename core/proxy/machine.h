/*
 * machine.h - the state machine of the exchange: which state calls what, what a passed deadline means in it.
 *
 * Owns: the table of states. Used by: vm/ (when policies are through) and process/ (which sets the hooks).
 */
#ifndef TG_PROXY_MACHINE_H
#define TG_PROXY_MACHINE_H

#include "proxy/exchange.h"

/* What downstream.c calls. */
extern const struct tg_downstream_hooks tg_machine_hooks;

/* The phases that policy->enter has answered TG_AGAIN for are through, with `rc`. May free the exchange. */
void tg_machine_policy_done(struct tg_exchange *exchange, enum tg_rc rc);
/* The same for a body that the policy reads or writes. */
void tg_machine_body_done(struct tg_exchange *exchange, enum tg_abi_side side, enum tg_rc rc);
/* The same for a message that the policy looks at. */
void tg_machine_message_done(struct tg_exchange *exchange, enum tg_abi_side side, enum tg_rc rc);
/* Goes on with an exchange that waits. May free it. */
void tg_machine_drive(struct tg_exchange *exchange);

const char *tg_machine_state_name(const struct tg_exchange *exchange);

/* The end is near: who talks by messages is told so. Tunnels that nobody looks into have no words that we know. */
void tg_machine_farewell(struct tg_proxy *proxy);

/* Memory is nearly gone: gives up the exchange that holds the largest body. */
void tg_machine_shed(struct tg_proxy *proxy);

#endif
