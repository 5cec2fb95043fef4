/*
 * body.h - where a message's body ends, and what of the bytes is data (RFC 9112, sections 6 and 7.1).
 *
 * Owns: nothing. Used by: proxy/relay.c and proxy/call.c. Decodes in place; knows neither socket nor clock.
 */
#ifndef TG_HTTP_BODY_H
#define TG_HTTP_BODY_H

#include "http/h1_parse.h"

enum {
    TG_CHUNK_EXTENSION_MAX = 256,       /* bytes of a chunk line after the size */
    TG_CHUNK_EXTENSIONS_MAX = 4 * 1024, /* bytes of them in a message */
    TG_TRAILERS_MAX = 4 * 1024,
    TG_TRAILER_FIELDS_MAX = 32
};

struct tg_body {
    uint8_t framing; /* enum tg_framing */
    uint8_t state;
    uint8_t digits;      /* of the chunk size so far */
    bool done;           /* the body is whole */
    uint16_t line;       /* bytes of the current chunk line's extension */
    uint16_t extensions; /* bytes of all */
    uint16_t trailer_len;
    uint64_t left;  /* bytes of the body (LENGTH) or of the chunk */
    uint64_t total; /* bytes of data so far */
    char *trailer;  /* TG_TRAILERS_MAX bytes, only once trailers come; freed by tg_body_fini */
};

/* `length` is for TG_FRAMING_LENGTH. A body of TG_FRAMING_NONE or of length 0 is done at once. */
void tg_body_init(struct tg_body *body, enum tg_framing framing, uint64_t length);
void tg_body_fini(struct tg_body *body);

/*
 * Decodes `n` bytes at `p`. *data is where the decoded bytes stand afterwards (inside p; later pieces are moved up to
 * the first), *used how many bytes were read: less than `n` only when the body is done; what follows is another
 * message. TG_OK, TG_ENOMEM, or TG_EPROTOCOL with *fault; then nothing more may be read.
 */
TG_MUST_CHECK enum tg_rc tg_body_decode(struct tg_body *body, char *p, size_t n, struct tg_slice *data, size_t *used,
                                        const struct tg_h1_fault **fault);

/* The connection has ended: TG_OK when that ends the body, TG_EPROTOCOL when the body is cut. */
TG_MUST_CHECK enum tg_rc tg_body_end(struct tg_body *body);

/* Writes the size line of a chunk; returns its length. `out` has room for 18 bytes. */
size_t tg_body_chunk_line(char *out, size_t size);

#endif
