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
/* The UNIX socket at this path. TG_EINVAL: it is empty or too long. */
TG_MUST_CHECK enum tg_rc tg_address_of_path(struct tg_address *address, const char *path);
/* Text of the address without its port, NUL-terminated; returns its length. */
size_t tg_address_text(const struct tg_address *address, char *out);
/*
 * Whether it is not one of the open Internet: this host, private, shared, link-local, benchmarking, multicast and
 * reserved ones (RFC 6890), also where IPv6 only wraps them (RFC 4291, RFC 6052, RFC 3056). Other families are private.
 */
bool tg_address_is_private(const struct tg_address *address);
unsigned tg_address_port(const struct tg_address *address);

#endif
