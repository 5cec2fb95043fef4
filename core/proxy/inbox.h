/*
 * inbox.h - bytes of a stream of HTTP/2 that have come and were not read yet.
 *
 * Owns: its memory. Used by: session.c and mux.c. Never more than a window of flow control.
 */
#ifndef TG_PROXY_INBOX_H
#define TG_PROXY_INBOX_H

#include <stddef.h>

#include "base/rc.h"

/* Zero it to begin. */
struct tg_inbox {
    char *p;
    size_t begin;
    size_t end;
    size_t capacity;
};

/* TG_ENOMEM: nothing was added. */
TG_MUST_CHECK enum tg_rc tg_inbox_put(struct tg_inbox *inbox, const char *p, size_t n);
/* Copies at most `n` bytes; they stay. Returns how many. */
size_t tg_inbox_look(const struct tg_inbox *inbox, char *p, size_t n);
void tg_inbox_drop(struct tg_inbox *inbox, size_t n);
static inline size_t
tg_inbox_size(const struct tg_inbox *inbox)
{
    return inbox->end - inbox->begin;
}
void tg_inbox_fini(struct tg_inbox *inbox);

#endif
