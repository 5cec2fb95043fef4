/*
 * hints.h - what a peer says on a stream of HTTP/2 before its response: 1xx, of which the early hints (103) are kept.
 *
 * Owns: nothing; what is kept lies in the arena of the stream, and is gone with it. Used by: mux.c.
 * A stream that is read late may have several of them by then, and its one message is that of the last head.
 */
#ifndef TG_PROXY_HINTS_H
#define TG_PROXY_HINTS_H

#include "http/message.h"

enum { TG_INTERIM_MAX = 16 /* 1xx answers before a response (SECURITY 1.1) */ };

/* Zero it to begin. */
struct tg_hints {
    struct tg_hint *first; /* the oldest that was not taken yet */
    unsigned interim;      /* heads that came */
};

/* A head came that is none of a response. Fields are borrowed from the message's arena; short of it, a hint is left
 * out. */
void tg_hints_put(struct tg_hints *hints, const struct tg_message *message);
/* The oldest 103, once; NULL: there is none. */
const struct tg_message *tg_hints_take(struct tg_hints *hints);

#endif
