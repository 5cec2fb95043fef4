/*
 * base64.h - bytes as text in the two alphabets of RFC 4648, sections 4 and 5.
 *
 * Owns: nothing; input and output are the caller's. Used by: the border. One text for each string of bytes: a decoder
 * that passes over blanks or unused bits would let a signed value be written in many ways.
 */
#ifndef TG_BASE_BASE64_H
#define TG_BASE_BASE64_H

#include <stddef.h>

#include "base/rc.h"

enum tg_base64_kind {
    TG_BASE64_PLAIN, /* padded */
    TG_BASE64_URL    /* written without padding, read with or without it */
};

/* Room that is enough for the text of `n` bytes, and for the bytes of a text of `n` characters. */
#define TG_BASE64_ROOM(n) (((n) + 2) / 3 * 4)
#define TG_BASE64_BYTES(n) (((n) + 3) / 4 * 3)

/* Writes the text, without NUL; returns where it ends. */
char *tg_base64_encode(char *out, const void *bytes, size_t n, enum tg_base64_kind kind);
/*
 * TG_OK: *out_n bytes are in `out`. TG_EINVAL: a character that is not in the alphabet, a length that cannot be,
 * padding that is wrong, or unused bits that are not zero; *out_n is untouched then, and `out` has no meaning.
 */
TG_MUST_CHECK enum tg_rc tg_base64_decode(char *out, size_t *out_n, const char *text, size_t n,
                                          enum tg_base64_kind kind);

#endif
