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

/* tg_lower of eight bytes at once: no sum crosses the border of a byte, since its top bit is left out. */
static inline uint64_t
tg_lower8(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101U;
    const uint64_t low = word & (ones * 0x7f);
    const uint64_t from_a = low + ones * (0x80 - 'A');
    const uint64_t behind_z = low + ones * (0x7f - 'Z');
    const uint64_t upper = ~word & (from_a ^ behind_z) & (ones * 0x80);
    return word | (upper >> 2);
}

/* The last up to eight of n bytes, some of them twice where there are fewer: equal texts of one length have equal ones.
 */
static inline uint64_t
tg_last8(const char *p, size_t n)
{
    uint64_t word = 0;
    if (n >= 8) {
        memcpy(&word, p + n - 8, 8);
    } else if (n >= 4) {
        uint32_t first;
        uint32_t last;
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
        word = (uint64_t)last << 32 | first;
    } else if (n > 0) {
        word = (uint64_t)(unsigned char)p[n - 1] << 16 | (uint64_t)(unsigned char)p[n / 2] << 8 | (unsigned char)p[0];
    }
    return word;
}

/* Whether both are the same but for the case of ASCII letters. */
static inline bool
tg_slice_same_text(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i + 8 < n; i += 8) {
        uint64_t left;
        uint64_t right;
        memcpy(&left, a + i, 8);
        memcpy(&right, b + i, 8);
        if (tg_lower8(left) != tg_lower8(right)) {
            return false;
        }
    }
    return tg_lower8(tg_last8(a, n)) == tg_lower8(tg_last8(b, n));
}

static inline bool
tg_slice_is_text(struct tg_slice s, const char *p, size_t n)
{
    return s.n == n && tg_slice_same_text(s.p, p, n);
}

#endif
