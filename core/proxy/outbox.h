/*
 * outbox.h - the frames of a connection of HTTP/2 on their way into its socket.
 *
 * Owns: what the socket had no room for, at most one write of it. Used by: session.c and mux.c.
 * As many frames as fit go with one write, which is one record of TLS.
 */
#ifndef TG_PROXY_OUTBOX_H
#define TG_PROXY_OUTBOX_H

#include "http/h2.h"
#include "net/transport.h"

/* Zero it to begin. */
struct tg_outbox {
    char *left;
    size_t begin;
    size_t end;
};

/*
 * Writes what there is. TG_OK: all of it. TG_AGAIN: when the peer reads on. TG_EBUSY: others want their turn, call
 * again in the next. TG_ERESET, TG_ENOMEM: the connection cannot go on.
 */
TG_MUST_CHECK enum tg_rc tg_outbox_flush(struct tg_outbox *outbox, struct tg_h2 *h2, struct tg_transport *transport);
void tg_outbox_fini(struct tg_outbox *outbox);

#endif
