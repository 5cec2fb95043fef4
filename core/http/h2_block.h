/*
 * h2_block.h - a field section that is to be sent over HTTP/2: names and values in order.
 *
 * Owns: nothing; the array lives in an arena, names and values are borrowed. Used by: proxy/, which fills it, and h2.c,
 * which sends it. Names may come in any case: they go out in lower case (RFC 9113, section 8.2).
 */
#ifndef TG_HTTP_H2_BLOCK_H
#define TG_HTTP_H2_BLOCK_H

#include <nghttp2/nghttp2.h>

#include "http/h1_write.h"

enum { TG_H2_PSEUDO_MAX = 5 }; /* :method, :scheme, :authority, :path, :protocol */

struct tg_h2_block {
    struct tg_arena *arena; /* borrowed */
    nghttp2_nv *fields;     /* places for the pseudo-header fields come first */
    unsigned count;         /* without those */
    unsigned capacity;
};

void tg_h2_block_init(struct tg_h2_block *block, struct tg_arena *arena);
/* Appends a field. TG_EINVAL: no token, no value, or a field that HTTP/2 does not have. TG_ENOMEM, TG_ELIMIT. */
TG_MUST_CHECK enum tg_rc tg_h2_block_add(struct tg_h2_block *block, struct tg_slice name, struct tg_slice value);
/* Of a field: */
enum {
    TG_H2_FIELD_INDEXED =
        1,                /* it may have a place in the table of HPACK; else nobody on the way may give it one either */
    TG_H2_FIELD_KNOWN = 2 /* its name is in lower case and lasts */
};
/* The same, of one that needs no judgement. TG_ENOMEM, TG_ELIMIT. */
TG_MUST_CHECK enum tg_rc tg_h2_block_put(struct tg_h2_block *block, struct tg_slice name, struct tg_slice value,
                                         unsigned flags);
/*
 * Appends the fields of a response or of trailers that may go on: all but hop-by-hop ones and Host, which is
 * :authority. So neither Content-Length nor TE: who knows that they hold adds them.
 */
TG_MUST_CHECK enum tg_rc tg_h2_block_message(struct tg_h2_block *block, const struct tg_message *message);

/*
 * Appends the fields of a request as tg_h1_write_request would: those that go on, and the ones that tell who it has
 * come from. They last as long as the arena of the message.
 */
TG_MUST_CHECK enum tg_rc tg_h2_block_request(struct tg_h2_block *block, const struct tg_message *message,
                                             const struct tg_h1_forward *forward);

/* Puts a pseudo-header field, whose name lasts, before the first of `*count` fields at `*first`, which are a block's.
 */
void tg_h2_block_pseudo(nghttp2_nv **first, size_t *count, struct tg_slice name, struct tg_slice value);

#endif
