/*
 * count.h - an exchange that is over, in numbers: those of its route and its generation, and what is remembered of it.
 *
 * Owns: nothing; writes the worker's own row of zone/metric.h. Used by: reply.c, once for each exchange.
 */
#ifndef TG_PROXY_COUNT_H
#define TG_PROXY_COUNT_H

#include "proxy/exchange.h"

/* `x` is over, and its duration is known. */
void tg_count_exchange(struct tg_exchange *x);

#endif
