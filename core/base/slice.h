/*
 * slice.h - borrowed bytes (struct tg_slice of abi.h) and what is done with them.
 *
 * Owns: nothing; a slice is valid as long as what it points into. Used by: everything.
 */
#ifndef TG_BASE_SLICE_H
#define TG_BASE_SLICE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "abi.h"

#define TG_SLICE(literal) ((struct tg_slice){(literal), sizeof(literal) - 1})

static inline struct tg_slice
tg_slice_of(const char *p, size_t n)
{
    return (struct tg_slice){p, n};
}

static inline bool
tg_slice_is(struct tg_slice s, const char *p, size_t n)
{
    return s.n == n && memcmp(s.p, p, n) == 0;
}

/* ASCII only, by design: a locale must never change what a field name is. */
static inline char
tg_lower(char c)
{
    return (c >= 'A' && c <= 'Z') ? (char)(c | 0x20) : c;
}

/* The same for each of eight bytes: those above 'Z' and those from 'A' on carry into their highest bits. */
static inline uint64_t
tg_lower8(uint64_t bytes)
{
    const uint64_t ones = 0x0101010101010101ULL;
    const uint64_t low = bytes & (0x7f * ones);
    const uint64_t upper = (low + (0x80 - 'A') * ones) & ~(low + (0x7f - 'Z') * ones) & ~bytes & (0x80 * ones);
    return bytes | upper >> 2;
}

/* `n` bytes from 4 to 8, those in the middle perhaps twice. */
static inline uint64_t
tg_word_of(const char *p, size_t n)
{
    uint32_t first;
    uint32_t last;
    memcpy(&first, p, sizeof first);
    memcpy(&last, p + n - sizeof last, sizeof last);
    return (uint64_t)first << 32 | last;
}

/* Whether both are the same but for the case of ASCII letters. */
static inline bool
tg_slice_same_text(const char *a, const char *b, size_t n)
{
    while (n > 8) {
        if (tg_lower8(tg_word_of(a, 8)) != tg_lower8(tg_word_of(b, 8))) {
            return false;
        }
        const size_t step = n < 16 ? n - 8 : 8;
        a += step;
        b += step;
        n -= step;
    }
    if (n >= 4) {
        return tg_lower8(tg_word_of(a, n)) == tg_lower8(tg_word_of(b, n));
    }
    for (size_t i = 0; i < n; i++) {
        if (tg_lower(a[i]) != tg_lower(b[i])) {
            return false;
        }
    }
    return true;
}

static inline bool
tg_slice_is_text(struct tg_slice s, const char *p, size_t n)
{
    return s.n == n && tg_slice_same_text(s.p, p, n);
}

#endif
