/*
 * forwarded.h - who a request has come through: X-Forwarded-For, and Forwarded (RFC 7239).
 *
 * Owns: nothing. Used by: proxy/request.c, when the peer is trusted to have written these fields.
 * Does not know: whom to believe.
 */
#ifndef TG_HTTP_FORWARDED_H
#define TG_HTTP_FORWARDED_H

#include "http/message.h"

enum { TG_FORWARDED_MAX = 32 }; /* nodes of a chain that are looked at, from the right */

/* A node of the chain: an address without brackets and port; or what else stood there (unknown, _hidden). */
struct tg_forwarded {
    struct tg_slice nodes[TG_FORWARDED_MAX]; /* [0] is the right-most: the peer of who has written it */
    unsigned count;
    struct tg_slice proto; /* of the right-most element of Forwarded; empty: not told */
};

/* Fills `out` from all fields X-Forwarded-For, right to left. Stops at a node that is empty. */
void tg_forwarded_for(struct tg_forwarded *out, const struct tg_message *message);
/* The same from all fields Forwarded. A malformed element ends the chain: what is left of it says nothing. */
void tg_forwarded_parse(struct tg_forwarded *out, const struct tg_message *message);
/* The element of Forwarded for this request (RFC 7239, section 4), at most 64 bytes more than its parts. */
char *tg_forwarded_write(char *p, struct tg_slice client, struct tg_slice host, struct tg_slice proto);

#endif
