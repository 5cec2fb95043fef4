/*
 * address.h - socket addresses and their text.
 *
 * Owns: nothing. Used by: listener, resolver, pool. Names are not resolved here.
 */
#ifndef TG_NET_ADDRESS_H
#define TG_NET_ADDRESS_H

#include <sys/socket.h>

#include "base/rc.h"

enum { TG_ADDRESS_TEXT = 64 }; /* bytes of the longest text, with its NUL */

struct tg_address {
    struct sockaddr_storage sa;
    socklen_t len;
};

/* An IPv4 or IPv6 literal. TG_EINVAL: it is none. */
TG_MUST_CHECK enum tg_rc tg_address_parse(struct tg_address *address, const char *text, unsigned port);
/* Text of the address without its port, NUL-terminated; returns its length. */
size_t tg_address_text(const struct tg_address *address, char *out);
unsigned tg_address_port(const struct tg_address *address);

#endif
