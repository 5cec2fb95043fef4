/*
 * tickets.h - the keys of TLS session tickets (RFC 5077, RFC 8446 section 4.6.1), shared by all workers.
 *
 * Owns: a page of shared memory; the master makes and rotates them, the workers read. Used by: tls_server.c, process/.
 * A ticket can be opened until its key was replaced twice: 12 to 24 hours.
 */
#ifndef TG_NET_TICKETS_H
#define TG_NET_TICKETS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/rc.h"

enum { TG_TICKET_NAME = 16, TG_TICKET_SECRET = 32, TG_TICKETS_KEPT = 2, TG_TICKETS_HOURS = 12 };

struct tg_ticket_key {
    unsigned char name[TG_TICKET_NAME];
    unsigned char secret[TG_TICKET_SECRET];
};

struct tg_tickets {
    _Atomic uint64_t version;                   /* odd: being written */
    uint64_t rotate_at;                         /* milliseconds of the monotonic clock */
    struct tg_ticket_key keys[TG_TICKETS_KEPT]; /* the first one seals */
};

/* Shared with processes forked afterwards, locked into memory where that is allowed. NULL when memory is short. */
struct tg_tickets *tg_tickets_new(void);
void tg_tickets_free(struct tg_tickets *tickets);
/* A new key when it is time. */
void tg_tickets_rotate(struct tg_tickets *tickets, uint64_t now);

/* The key that seals (`name` NULL), or that of this name. TG_ENONE. *old: another one seals by now. */
TG_MUST_CHECK enum tg_rc tg_tickets_find(const struct tg_tickets *tickets, const unsigned char *name,
                                         struct tg_ticket_key *out, bool *old);

#endif
