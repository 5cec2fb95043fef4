/*
 * coding.h - content codings of bodies (RFC 9110, section 8.4.1), undone and applied piece by piece.
 *
 * Owns: the state of zlib, brotli or zstd for one body, and counts and bounds the memory that they take for it; no
 * buffer: input and output are the caller's. Used by: vm/, when a plugin asks. Does not know: fields and messages.
 */
#ifndef TG_BASE_CODING_H
#define TG_BASE_CODING_H

#include <stdint.h>

#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_CODING_ROOM_MIN = 16,                 /* of an output: less than a flush needs would never finish one */
    TG_CODING_PIECE_MAX = 1 << 30,           /* of an input, and of an output */
    TG_CODING_MEMORY_MAX = 32 * 1024 * 1024, /* bytes of one body: brotli's largest window, while it grows */
    TG_CODING_ZSTD_WINDOW = 23               /* log2; RFC 9659, section 3 */
};

enum tg_coding_kind {
    TG_CODING_GZIP,
    TG_CODING_DEFLATE, /* in zlib's wrapping; without it is read as well, as browsers do */
    TG_CODING_BROTLI,
    TG_CODING_ZSTD
};

/* What may come out of a decoder (SECURITY 1.2). 0: no such limit. */
struct tg_coding_limits {
    uint64_t output_max;
    uint64_t ratio_max;  /* bytes out for a byte in */
    uint64_t ratio_from; /* bytes out before the ratio counts */
};

/* 10 MiB, and 100 to 1 from 1 MiB on: blanks and zeros pass 100 with a few KiB, and so little harms nobody. */
extern const struct tg_coding_limits tg_coding_limits_default;

/* Both ends move on as bytes are taken and put. */
struct tg_coding_io {
    const char *in;
    size_t in_n;
    char *out;
    size_t out_n; /* room; TG_CODING_ROOM_MIN at least */
    bool last;    /* nothing comes behind this input */
};

struct tg_coding;

/* The kind of a registered name, in any case: "gzip", "x-gzip", "deflate", "br" or "zstd". TG_ENONE: another one. */
TG_MUST_CHECK enum tg_rc tg_coding_find(const char *name, size_t n, enum tg_coding_kind *out);

/*
 * A decoder or an encoder for one body, to be freed with tg_coding_free; NULL when memory is short. `level`, of an
 * encoder, is 1 (fast) to 9, 0 for one that suits bodies made on the fly; more than a kind can do within its memory is
 * its most. `limits`, of a decoder, are copied; NULL: the default.
 */
struct tg_coding *tg_coding_new(enum tg_coding_kind kind, bool decode, int level,
                                const struct tg_coding_limits *limits);
/* NULL is allowed. */
void tg_coding_free(struct tg_coding *coding);

/*
 * TG_OK: all input is taken, and all that follows from it is put out: an encoder flushes each piece, so that an event
 * is not held back. With `last`, the body has ended well, and this was the last call. TG_AGAIN: there is more to put
 * out; to be called with new room, the rest of the same input and the same `last`.
 * Errors leave `io` as it was, and come again from each later call: TG_EPROTOCOL: malformed, cut short at `last`, or
 * something stands behind the end; TG_ELIMIT: more came out than may; TG_ENOMEM. TG_EINVAL: called after the end, or
 * with a size that may not be.
 * gzip and zstd may have several members, one behind the other; nothing at all is cut short in every coding.
 */
TG_MUST_CHECK enum tg_rc tg_coding_run(struct tg_coding *coding, struct tg_coding_io *io);

/* Bytes that it holds now. */
size_t tg_coding_memory(const struct tg_coding *coding);

#endif
