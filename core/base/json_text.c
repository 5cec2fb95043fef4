#include "base/json_text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

enum { CAPACITY_MIN = 1024 };

enum tg_rc
tg_json_put(struct tg_json_text *text, const char *p, size_t n)
{
    if (n > text->max || text->n > text->max - n) {
        return TG_ELIMIT;
    }
    if (n > text->capacity - text->n) {
        const size_t wanted = text->n + n < CAPACITY_MIN ? CAPACITY_MIN : (text->n + n) * 2;
        char *grown = tg_mem_resize(text->p, wanted);
        if (grown == NULL) {
            return TG_ENOMEM;
        }
        text->p = grown;
        text->capacity = wanted;
    }
    if (n > 0) {
        memcpy(text->p + text->n, p, n);
        text->n += n;
    }
    return TG_OK;
}

/* Whether each of eight bytes stands for itself; a borrow between two of them comes from one that does not. */
static inline bool
is_plain_word(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101U;
    const uint64_t quotes = word ^ (ones * '"');
    const uint64_t slashes = word ^ (ones * '\\');
    const uint64_t deletes = word ^ (ones * 0x7f);
    return ((word | (word - ones * 0x20) | (quotes - ones) | (slashes - ones) | (deletes - ones)) & (ones * 0x80)) == 0;
}

static inline bool
is_plain8(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return is_plain_word(word);
}

/* Of 1 to 7 bytes: some of them twice. */
static inline bool
is_plain_short(const char *p, size_t n)
{
    if (n < 4) {
        const uint64_t word = (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << 8 |
                              (uint64_t)(unsigned char)p[n - 1] << 16;
        return is_plain_word(word | (uint64_t)0x3030303030 << 24);
    }
    uint32_t first;
    uint32_t last;
    memcpy(&first, p, 4);
    memcpy(&last, p + n - 4, 4);
    return is_plain_word((uint64_t)first << 32 | last);
}

size_t
tg_json_plain_length(const char *p, size_t n)
{
    size_t i = 0;
    if (n > 0 && n < 8 && is_plain_short(p, n)) {
        return n;
    }
    while (n - i >= 8 && is_plain8(p + i)) {
        i += 8;
    }
    if (n >= 8 && n - i < 8 && is_plain8(p + n - 8)) {
        return n;
    }
    while (i < n && p[i] >= 0x20 && p[i] < 0x7f && p[i] != '"' && p[i] != '\\') {
        i++;
    }
    return i;
}

/* Bytes that stand for themselves; what is no UTF-8 is none. */
static size_t
plain_length(const unsigned char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        i += tg_json_plain_length((const char *)p + i, n - i);
        if (i == n) {
            break;
        }
        const unsigned char c = p[i];
        const size_t length = c < 0x20 || c == 0x7f || c == '"' || c == '\\' ? 0
                              : c < 0x80                                     ? 1
                                                                             : tg_utf8_length(p + i, n - i);
        if (length == 0) {
            break;
        }
        i += length;
    }
    return i;
}

static enum tg_rc
put_escape(struct tg_json_text *text, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    if (c >= 0x80) {
        memcpy(escape, "\\ufffd", 6);
    } else if (c == '"' || c == '\\') {
        escape[1] = (char)c;
        return tg_json_put(text, escape, 2);
    } else if (c == '\n') {
        escape[1] = 'n';
        return tg_json_put(text, escape, 2);
    }
    return tg_json_put(text, escape, 6);
}

enum tg_rc
tg_json_put_string(struct tg_json_text *text, const char *p, size_t n)
{
    enum tg_rc rc = tg_json_put(text, "\"", 1);
    for (size_t i = 0; i < n && rc == TG_OK;) {
        const size_t plain = plain_length((const unsigned char *)p + i, n - i);
        rc = tg_json_put(text, p + i, plain);
        i += plain;
        if (i < n && rc == TG_OK) {
            rc = put_escape(text, (unsigned char)p[i]);
            i++;
        }
    }
    return rc == TG_OK ? tg_json_put(text, "\"", 1) : rc;
}

enum tg_rc
tg_json_put_string_cut(struct tg_json_text *text, const char *p, size_t n, size_t most)
{
    enum tg_rc rc = tg_json_put(text, "\"", 1);
    for (size_t i = 0; i < n && rc == TG_OK && text->n < most;) {
        const unsigned char c = (unsigned char)p[i];
        const size_t length = c < 0x80 ? 1 : tg_utf8_length((const unsigned char *)p + i, n - i);
        const bool plain = length > 1 || (length == 1 && plain_length((const unsigned char *)p + i, 1) == 1);
        rc = plain ? tg_json_put(text, p + i, length) : put_escape(text, c);
        i += plain ? length : 1;
    }
    return rc == TG_OK ? tg_json_put(text, "\"", 1) : rc;
}

enum tg_rc
tg_json_put_number(struct tg_json_text *text, double number)
{
    char digits[40];
    int n = 0;
    if (!isfinite(number)) {
        return TG_EINVAL;
    }
    if (number >= -9007199254740992.0 && number <= 9007199254740992.0 && number == (double)(int64_t)number) {
        n = snprintf(digits, sizeof digits, "%lld", (long long)number);
        return tg_json_put(text, digits, (size_t)n);
    }
    for (int precision = 15; precision <= 17; precision++) {
        n = snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (strtod(digits, NULL) == number) {
            break;
        }
    }
    return tg_json_put(text, digits, (size_t)n);
}

void
tg_json_text_clear(struct tg_json_text *text, size_t keep)
{
    text->n = 0;
    if (text->capacity > keep) {
        tg_mem_free(text->p);
        text->p = NULL;
        text->capacity = 0;
    }
}
