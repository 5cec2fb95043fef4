/*
 * proxy_protocol.h - the header of the PROXY protocol, versions 1 and 2, strictly.
 *
 * Owns: nothing. Used by: proxy/downstream.c, on listeners that are told to expect it from peers that are trusted; it
 * is never guessed whether a header is there (sections 2 and 5). Does not know: sockets, time, whom to believe.
 * "Section" is of "The PROXY protocol, Versions 1 & 2" of HAProxy (doc/proxy-protocol.txt, 2020/03/05).
 */
#ifndef TG_NET_PROXY_PROTOCOL_H
#define TG_NET_PROXY_PROTOCOL_H

#include "net/address.h"

enum {
    TG_PROXY_PROTOCOL_V1_MAX = 107, /* bytes of the longest line with its CRLF: section 2.1 */
    /*
     * Both formats are made to fit in the smallest segment that a TCP host must take, 576 - 40 bytes (section 2). The
     * length of version 2 would allow 64 KiB before a byte of the client's; nobody who keeps to the section needs it.
     */
    TG_PROXY_PROTOCOL_MAX = 536
};

enum tg_proxy_protocol_kind {
    TG_PROXY_PROTOCOL_LOCAL,    /* the sender speaks for itself (a health check): the socket's own addresses hold */
    TG_PROXY_PROTOCOL_UNKNOWN,  /* for a client that the header does not tell: the socket's own addresses hold */
    TG_PROXY_PROTOCOL_UNIX,     /* for a client on the sender's machine, thus with the sender's address */
    TG_PROXY_PROTOCOL_ADDRESSES /* for the client `source`, which had connected to `destination` */
};

struct tg_proxy_protocol {
    enum tg_proxy_protocol_kind kind;
    size_t length;                 /* bytes of the header: what follows is the client's */
    struct tg_address source;      /* ADDRESSES only; both are of one family, and IPv6 may be IPv4-mapped */
    struct tg_address destination; /* ADDRESSES only */
};

/*
 * Parses the header at the beginning of `n` bytes at `p`, which are all that has come so far. Keeps nothing between two
 * calls, so that it is called again with more: a head of at most 536 bytes is looked through again for less than a
 * state would cost.
 * TG_OK: *header is written. TG_AGAIN: more is needed, and no byte may be used yet. TG_EPROTOCOL: *why is a constant
 * text, the same however the bytes were cut; the connection must be closed without an answer. The bytes are unchanged.
 */
TG_MUST_CHECK enum tg_rc tg_proxy_protocol_parse(struct tg_proxy_protocol *header, const char *p, size_t n,
                                                 const char **why);

#endif
