/*
 * hex.h - bytes as hexadecimal digits (Base16 of RFC 4648, section 8), in lower case.
 *
 * Owns: nothing; input and output are the caller's. Used by: the border.
 */
#ifndef TG_BASE_HEX_H
#define TG_BASE_HEX_H

#include <stddef.h>

#include "base/rc.h"

extern const char tg_hex_digits[16];

/* Writes 2 * `n` digits, without NUL; returns where they end. */
char *tg_hex_encode(char *out, const void *bytes, size_t n);
/* Writes `n` / 2 bytes. TG_EINVAL: not digits of either case in pairs; what is in `out` then has no meaning. */
TG_MUST_CHECK enum tg_rc tg_hex_decode(char *out, const char *text, size_t n);

#endif
