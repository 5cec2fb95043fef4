/*
 * client.h - how many connections each client address has open here.
 *
 * Owns: an entry for each address that has one. Used by: downstream.c. One table a worker; no locks.
 * IPv6 is counted by /64, which is what a single client is given (RFC 6177); IPv4-mapped addresses are IPv4.
 */
#ifndef TG_PROXY_CLIENT_H
#define TG_PROXY_CLIENT_H

#include <netinet/in.h>

#include "base/rc.h"
#include "net/address.h"

struct tg_client;

struct tg_clients {
    struct tg_client **buckets;
    unsigned bucket_count; /* a power of two; 0: nothing was counted yet */
    unsigned count;
    uint64_t seed;
};

/* Counts one more for the address; the entry, to be left again, or NULL when memory is short. *open: how many it has.
 */
struct tg_client *tg_client_enter(struct tg_clients *clients, const struct tg_address *address, unsigned *open);
void tg_client_leave(struct tg_clients *clients, struct tg_client *client);

#endif
