/*
 * policy.h - what the proxy asks of the policies above it: a struct of functions that vm/ passes in.
 *
 * Owns: nothing. Order of calls for one exchange: begin, then enter for REQUEST, perhaps BALANCE (again and again),
 * RESPONSE and LOG, then end; and for a body that a policy writes, once it may flow. Does not know Lua.
 */
#ifndef TG_PROXY_POLICY_H
#define TG_PROXY_POLICY_H

#include "abi.h"
#include "base/rc.h"

struct tg_exchange;

struct tg_policy {
    /* Binds the exchange to the current generation, which lives until `end`. Sets abi.wants and abi.route. */
    void (*begin)(struct tg_exchange *exchange);
    /* The head and the client are known now: it may be bound to a generation on trial in its place, or one in shadow
     * looks at it, too. */
    void (*settle)(struct tg_exchange *exchange);
    /* Gives the exchange an id, if it has none. */
    void (*identify)(struct tg_exchange *exchange);
    /*
     * TG_OK: the phases are through. TG_AGAIN: they wait; tg_machine_policy_done, or tg_machine_body_done, will be
     * called, not from inside.
     * TG_ESCRIPT: a policy raised, and it was logged.
     */
    enum tg_rc (*enter)(struct tg_exchange *exchange, enum tg_abi_entry entry);
    /* A response head is ready, and the exchange has a generation in shadow, which looks at it before any phase does;
     * it never waits. */
    void (*show)(struct tg_exchange *exchange);
    /* The exchange is over, and has one, which compares; the same holds. */
    void (*compare)(struct tg_exchange *exchange);
    /* The exchange is over: what is always done then, before it is entered for LOG. May set TG_WANT_LOG in abi.wants.
     */
    void (*over)(struct tg_exchange *exchange);
    /* The body that a policy waited for has come, or failed to (`rc`), or there is room for what it writes. */
    void (*body_ready)(struct tg_exchange *exchange, enum tg_rc rc);
    /* Ends what still runs for the exchange: coroutines, calls, timers. None of them is heard of again. */
    void (*cancel)(struct tg_exchange *exchange);
    /* Cancels, and lets go of the generation. */
    void (*end)(struct tg_exchange *exchange);
    void *arg;
};

#endif
