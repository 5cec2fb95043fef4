/*
 * transport.h - a connected socket and its events, perhaps with a layer above it that changes the bytes (TLS).
 *
 * Owns: the descriptor and one persistent, edge-triggered event for both directions, registered once; and the layer.
 * Used by: proxy/, pool.c and the layers. Knows nothing of HTTP.
 * Rule of reading: try first, wait when told TG_AGAIN. After a short read the next one still asks the kernel: the edge
 * of a reset that came with the last data comes once, and libevent does not tell it from data.
 */
#ifndef TG_NET_TRANSPORT_H
#define TG_NET_TRANSPORT_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/uio.h>

#include "net/address.h"
#include "net/loop.h"

struct tg_transport;
/* Something may be read or written. Called at any time after tg_transport_open, until tg_transport_close. */
typedef void (*tg_transport_cb)(struct tg_transport *transport);

/* What stands between the socket and its user. Results are those of the functions of the same name below. */
struct tg_layer {
    enum tg_rc (*read)(struct tg_transport *transport, char *p, size_t n, size_t *got);
    enum tg_rc (*write)(struct tg_transport *transport, struct iovec *v, int count, size_t *sent);
    enum tg_rc (*look)(struct tg_transport *transport, char *p, size_t n, size_t *got);
    void (*shutdown)(struct tg_transport *transport);
    bool (*holds)(const struct tg_transport *transport);       /* NULL: never */
    void (*close)(struct tg_transport *transport, bool reset); /* frees itself; a socket is closed afterwards */
};

struct tg_transport {
    struct event event;
    int fd;                        /* -1: closed, or the layer has none */
    const struct tg_layer **layer; /* NULL: none. The layer's own object begins with this pointer */
    bool readable;
    bool writable;
    bool unsure; /* something was read since the kernel last said that there is no more */
    bool ended;  /* the peer's end was announced: read until it is seen */
    bool failed; /* an error was announced */
    tg_transport_cb ready;
};

/* Whether it can still be read or written. */
static inline bool
tg_transport_is_open(const struct tg_transport *transport)
{
    return transport->fd >= 0 || transport->layer != NULL;
}

/* Takes over the connected or connecting `fd`, also on failure. TG_ENOMEM or TG_ESYSTEM: the descriptor is closed. */
TG_MUST_CHECK enum tg_rc tg_transport_open(struct tg_transport *transport, struct tg_loop *loop, int fd,
                                           tg_transport_cb ready);
/* Closes at once. A closed one is left alone. */
void tg_transport_close(struct tg_transport *transport);
/* Closes with a reset, so that the other side cannot take what it got for the whole. */
void tg_transport_reset(struct tg_transport *transport);
/* Whether a close would now lose bytes that were written. No event tells when it would not any more. */
bool tg_transport_holds(const struct tg_transport *transport);
/* No more is written; reading goes on. */
void tg_transport_shutdown(struct tg_transport *transport);

/* Reads at most `n` bytes. TG_OK: *got > 0. TG_AGAIN: wait. TG_ECLOSED: end of the stream. TG_ERESET: it broke. */
TG_MUST_CHECK enum tg_rc tg_transport_read(struct tg_transport *transport, char *p, size_t n, size_t *got);
/* Writes. TG_OK: *sent > 0, perhaps not all. TG_AGAIN: wait. TG_ERESET: it broke. */
TG_MUST_CHECK enum tg_rc tg_transport_write(struct tg_transport *transport, struct iovec *v, int count, size_t *sent);
/* Reads without taking, else as tg_transport_read: what is there is there for the next read. */
TG_MUST_CHECK enum tg_rc tg_transport_look(struct tg_transport *transport, char *p, size_t n, size_t *got);
/* Looks without taking: TG_OK there is something, TG_AGAIN nothing, TG_ECLOSED, TG_ERESET. */
TG_MUST_CHECK enum tg_rc tg_transport_peek(struct tg_transport *transport);

/* The same of the socket itself, for layers. */
TG_MUST_CHECK enum tg_rc tg_transport_read_socket(struct tg_transport *transport, char *p, size_t n, size_t *got);
TG_MUST_CHECK enum tg_rc tg_transport_write_socket(struct tg_transport *transport, struct iovec *v, int count,
                                                   size_t *sent);

#endif
