/*
 * line_text.h - how strings and numbers stand in a line of a log: as JSON, or as text.
 *
 * Owns: nothing; the bytes are the caller's. Used by: abi_line. Does not know: exchanges.
 * Texts and numbers of a line always have room, and strings as much as those leave: the writer of the line says how
 * much that is (`behind`).
 */
#ifndef TG_VM_LINE_TEXT_H
#define TG_VM_LINE_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/slice.h"

enum {
    TG_LINE_STRING_MAX = 4096, /* bytes of a string, with its quotes */
    TG_LINE_NUMBER_MAX = 40,   /* bytes of whatever is no string */
    TG_LINE_SLACK = 16         /* bytes behind what is copied in such portions */
};

struct tg_line_text {
    char *p;
    char *end;     /* TG_LINE_SLACK bytes more may be written */
    char *easy;    /* up to here a string leaves room for all texts and numbers of a line */
    size_t behind; /* bytes of those that are still to come */
};

/* Without a call: most have a few bytes. Some are copied twice. */
static inline void
tg_line_put(struct tg_line_text *out, const char *p, size_t n)
{
    char *to = out->p;
    if (n >= 16) {
        for (size_t i = 0; i < n - 16; i += 16) {
            memcpy(to + i, p + i, 16);
        }
        memcpy(to + n - 16, p + n - 16, 16);
    } else if (n >= 8) {
        memcpy(to, p, 8);
        memcpy(to + n - 8, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(to, p, 4);
        memcpy(to + n - 4, p + n - 4, 4);
    } else if (n > 0) {
        to[0] = p[0];
        to[n / 2] = p[n / 2];
        to[n - 1] = p[n - 1];
    }
    out->p += n;
}

/* The same of a text of the line, behind which TG_LINE_SLACK bytes may be read: more of them are copied than there are,
 * into room that is there. */
static inline void
tg_line_put_literal(struct tg_line_text *out, const char *p, size_t n)
{
    memcpy(out->p, p, TG_LINE_SLACK);
    for (size_t i = TG_LINE_SLACK; i < n; i += TG_LINE_SLACK) {
        memcpy(out->p + i, p + i, TG_LINE_SLACK);
    }
    out->p += n;
}

/* Bytes that need no room kept for them, or a few of them. */
static inline void
tg_line_put_null(struct tg_line_text *out, bool json)
{
    memcpy(out->p, json ? "null" : "-   ", 4);
    out->p += json ? 4 : 1;
}

/* How much a string may take, and leave enough for all that follows. */
static inline size_t
tg_line_room(const struct tg_line_text *out)
{
    const size_t left = (size_t)(out->end - out->p);
    return left <= out->behind ? 0 : left - out->behind < TG_LINE_STRING_MAX ? left - out->behind : TG_LINE_STRING_MAX;
}

/* Whether a string has room, with quotes. */
static inline bool
tg_line_fits(const struct tg_line_text *out, size_t n)
{
    return (n + 2 <= TG_LINE_STRING_MAX && out->p + n + 2 <= out->easy) || n + 2 <= tg_line_room(out);
}

/* NULL is absent: null, or "-". Otherwise with what has to be escaped escaped, and cut where there is no room. */
void tg_line_put_string(struct tg_line_text *out, struct tg_slice s, bool json);

/* One that has no byte that is to be escaped. */
static inline void
tg_line_put_plain(struct tg_line_text *out, struct tg_slice s, bool json)
{
    if (s.p == NULL || !tg_line_fits(out, s.n)) {
        tg_line_put_string(out, s, json);
        return;
    }
    *out->p = '"';
    out->p += json;
    tg_line_put(out, s.p, s.n);
    *out->p = '"';
    out->p += json;
}

/* Of which there is room for the digits, as there is for the two below. */
void tg_line_put_whole(struct tg_line_text *out, uint64_t value);
/* With six digits behind the point; what is negative, or no time, is absent. */
void tg_line_put_seconds(struct tg_line_text *out, double seconds, bool json);
/* Seconds of the wall clock, by RFC 3339. */
void tg_line_put_date(struct tg_line_text *out, double seconds, bool json);

#endif
