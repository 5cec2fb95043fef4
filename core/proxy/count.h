/*
 * count.h - an exchange that is over, in numbers: those of its route and its generation, and what is remembered of it.
 *
 * Owns: nothing; writes the worker's own row of zone/metric.h. Used by: reply.c, once for each exchange, and the border
 * to Lua.
 */
#ifndef TG_PROXY_COUNT_H
#define TG_PROXY_COUNT_H

#include "proxy/exchange.h"

/* `x` will be counted for its route, which is known now: where that is done is fetched meanwhile. */
void tg_count_expect(const struct tg_exchange *x);

/* `x` is over, and its duration is known. */
void tg_count_exchange(struct tg_exchange *x);

#endif
