/*
 * slice.h - borrowed bytes (struct tg_slice of abi.h) and what is done with them.
 *
 * Owns: nothing; a slice is valid as long as what it points into. Used by: everything.
 */
#ifndef TG_BASE_SLICE_H
#define TG_BASE_SLICE_H

#include <stdbool.h>
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

/* Whether both are the same but for the case of ASCII letters. */
static inline bool
tg_slice_same_text(const char *a, const char *b, size_t n)
{
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
