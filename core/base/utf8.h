/*
 * utf8.h - characters of UTF-8 (RFC 3629).
 *
 * Owns: nothing. Used by: who reads or writes text that came from elsewhere.
 */
#ifndef TG_BASE_UTF8_H
#define TG_BASE_UTF8_H

#include <stddef.h>

/* Bytes of the character that `n` bytes at p begin with, 0 when they are none: overlong, a surrogate, cut. n > 0. */
size_t tg_utf8_length(const unsigned char *p, size_t n);
/* Writes a code point below 0x110000, 4 bytes at most; returns what is behind it. */
char *tg_utf8_put(char *out, unsigned c);

#endif
