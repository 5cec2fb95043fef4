/*
 * listener.h - a listening socket of one worker slot.
 *
 * Owns: the event; the descriptor belongs to whoever opened it (the master keeps it for the slot's next worker).
 * Used by: process/. Does not know: what is done with a connection.
 */
#ifndef TG_NET_LISTENER_H
#define TG_NET_LISTENER_H

#include "net/address.h"
#include "net/loop.h"

enum { TG_LISTENER_ADDRESS = 112 }; /* bytes of an address to listen on, with its NUL: of IP, or a path */

struct tg_listener;
/* A new connection; `fd` is the callee's. -1: one was turned away, since no descriptor was left (`peer` is NULL). */
typedef void (*tg_accept_cb)(void *arg, int fd, const struct tg_address *peer);

/*
 * A bound, listening, non-blocking socket of its own (SO_REUSEPORT): one for each worker slot. -1 with `err` set. Where
 * `host` is a path, a UNIX socket that its owner alone may connect to; it takes the place of one whose
 * maker has ended. Of a path there is one, which all slots have in common.
 */
int tg_listener_bind(const char *host, unsigned port, struct tg_err *err);
/* Whether it is a path. */
bool tg_listener_is_path(const char *host);

/* Accepts on `fd` from the next turn on. NULL when memory is short. */
struct tg_listener *tg_listener_new(struct tg_loop *loop, int fd, tg_accept_cb accepted, void *arg);
/* Stops accepting; the descriptor stays open. NULL is allowed. */
void tg_listener_free(struct tg_listener *listener);
/* Leaves connections in the kernel's queue, or takes them again. */
void tg_listener_pause(struct tg_listener *listener, bool pause);
/* Takes what the kernel has already accepted, at most `max` connections. */
void tg_listener_drain(struct tg_listener *listener, unsigned max);

#endif
