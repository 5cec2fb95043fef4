/*
 * memory.h - how much memory a worker may use, and how much it does.
 *
 * Owns: nothing. Used by: worker.c, several times a second.
 */
#ifndef TG_PROCESS_MEMORY_H
#define TG_PROCESS_MEMORY_H

#include "proxy/downstream.h"

/* Bytes that each of `workers` may use: a share of the least of the machine's memory and the cgroup's limits. */
size_t tg_memory_share(unsigned workers);
/* Bytes of this process that are nobody else's; 0 when the kernel does not tell. */
size_t tg_memory_used(void);
/* SECURITY 2: 85, 92 and 95 % of `max`. */
enum tg_pressure tg_memory_pressure(size_t used, size_t max);

/* Connections that a worker may have by its descriptors: 80 % of them, less what the gateway itself needs
 * (SECURITY 1.2). A proxied exchange takes two. */
unsigned tg_memory_connections(void);

#endif
