/*
 * h2_memory.h - the memory of one HTTP/2 session, which can be given back also when the session cannot be trusted.
 *
 * Owns: all that the session has taken. Used by: h2.c. nghttp2 1.52 frees twice when memory was short at the wrong
 * moment: from the first failure on nothing is freed until the connection goes, then all at once. What the session
 * gives back is kept, since streams come and go many at a time. 32 bytes a piece, and up to 63 more.
 */
#ifndef TG_HTTP_H2_MEMORY_H
#define TG_HTTP_H2_MEMORY_H

#include <nghttp2/nghttp2.h>

#include "base/mem.h"

struct tg_h2_piece;

enum { TG_H2_MEMORY_STEP = 64, TG_H2_MEMORY_SIZES = 24, TG_H2_MEMORY_SPARE_MAX = 128 * 1024 };

/* Zero it to begin. It must stay where it is. */
struct tg_h2_memory {
    struct tg_h2_piece *pieces;
    struct tg_h2_piece *spare[TG_H2_MEMORY_SIZES]; /* given back, by size, for the streams that come next */
    size_t spare_size;                             /* bytes of them */
    bool failed;
};

nghttp2_mem tg_h2_memory_of(struct tg_h2_memory *memory);
/* Frees what was given back. To be called when no stream is open any more. */
void tg_h2_memory_trim(struct tg_h2_memory *memory);
/* Frees all pieces. A session that has not failed has given them back by then. */
void tg_h2_memory_fini(struct tg_h2_memory *memory);

#endif
