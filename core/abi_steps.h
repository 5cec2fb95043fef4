/*
 * abi_steps.h - the part of abi.h about what the core does itself with each exchange of a generation, in place of
 * phases of plugins: when its head is there, and when it is over. Lua is entered for neither.
 */
#ifndef TG_ABI_STEPS_H
#define TG_ABI_STEPS_H

#include "abi_line.h"

/*
 * What the parts of a line say of an exchange, by number, of the generation that is being built or that runs: of a
 * route its name and that of the upstream it leads to, of an upstream that a policy has chosen (its number is
 * tg_abi_exchange.upstream), of a peer, and the generation itself. Copied. -TG_EINVAL, -TG_ENOMEM.
 */
enum tg_abi_name {
    TG_NAME_ROUTE = 0,
    TG_NAME_ROUTE_UPSTREAM = 1,
    TG_NAME_UPSTREAM = 2,
    TG_NAME_PEER = 3,
    TG_NAME_GENERATION = 4, /* number 0 */
    TG_NAMES = 5
};
TG_ABI int tg_abi_name(int kind, uint32_t number, const char *p, size_t n);

/* The text of the exchange's consumer (NULL: it has none any more), and the ids of the trace in which it is recorded
 * (32 and 16 digits). Copied. */
TG_ABI int tg_abi_set_consumer(struct tg_abi_exchange *x, const char *p, size_t n);
TG_ABI int tg_abi_set_recorded(struct tg_abi_exchange *x, const char *trace, const char *span);

/*
 * What is done when a request's head is there, before Lua is entered, in this order; of the generation that is being
 * built. correlate: tg_abi_correlate; trace: tg_abi_trace_join, once at most; tg_abi_exchange.asks is set when Lua has
 * to decide: the client has it recorded, or the share is within `ratio`, or a client's trace is not followed. except:
 * not for requests of this listener. -TG_ELIMIT: more than 8; -TG_EINVAL: no name, or the gateway's own.
 */
TG_ABI int tg_abi_open_correlate(const char *name, size_t name_len, int keep, int version);
TG_ABI int tg_abi_open_trace(double ratio, int follows);
TG_ABI void tg_abi_open_except(uint32_t listener);

/*
 * What is done when an exchange is over. Made in set-up, and as lasting as the generation, as are the lines. line: goes
 * into a sink, for a `sample` of the exchanges (0 to 1), from a `status` on, from so many seconds on, and without an
 * answer; -TG_ELIMIT: more than 16. failures: Lua is entered for its log phase, too, when the status is 5xx, or there
 * is no answer and the client has not gone. of: what exchanges of this route end with; of the generation that is being
 * built. Route 0: those that have none. NULL: nothing is done.
 */
struct tg_abi_ending;
TG_ABI struct tg_abi_ending *tg_abi_ending_new(void);
TG_ABI void tg_abi_ending_free(struct tg_abi_ending *ending);
TG_ABI int tg_abi_ending_line(struct tg_abi_ending *ending, struct tg_abi_line *line, uint32_t sink, double sample,
                              uint32_t status, double seconds);
TG_ABI void tg_abi_ending_failures(struct tg_abi_ending *ending);
TG_ABI int tg_abi_ending_of(uint32_t route, const struct tg_abi_ending *ending);

#endif
