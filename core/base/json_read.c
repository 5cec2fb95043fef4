#include "base/json_read.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/mem.h"

enum { DIGITS_EXACT = 15, NUMBER_MAX = 300 };

static const char *
skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }
    return p;
}

/* Behind the string whose first quote is at p. */
static const char *
skip_string(const char *p, const char *end)
{
    p++;
    while (p < end) {
        p += tg_json_plain(p, end);
        while (p < end && *p != '"' && *p != '\\') {
            p++;
        }
        if (p < end && *p == '"') {
            return p + 1;
        }
        p += end - p > 1 ? 2 : end - p;
    }
    return end;
}

static const char *
skip_value(const char *p, const char *end)
{
    size_t depth = 0;
    while (p < end) {
        const char c = *p;
        if (c == '"') {
            p = skip_string(p, end);
        } else if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
            return p;
        } else {
            depth += c == '{' || c == '[' ? 1 : 0;
            depth -= c == '}' || c == ']' ? 1 : 0;
            p++;
            if (depth > 0 || (c != '}' && c != ']')) {
                continue;
            }
        }
        if (depth == 0) {
            return p;
        }
    }
    return end;
}

enum tg_rc
tg_json_open(struct tg_json_step *step, struct tg_slice value)
{
    const char *end = value.p + value.n;
    const char *p = skip_blanks(value.p, end);
    if (p == end || (*p != '{' && *p != '[')) {
        return TG_EINVAL;
    }
    *step = (struct tg_json_step){p + 1, end, *p == '{', {NULL, 0}, {NULL, 0}};
    return TG_OK;
}

enum tg_rc
tg_json_next(struct tg_json_step *step)
{
    const char *p = skip_blanks(step->next, step->end);
    p = p < step->end && *p == ',' ? skip_blanks(p + 1, step->end) : p;
    if (p == step->end || *p == '}' || *p == ']') {
        return TG_ENONE;
    }
    if (step->object) {
        const char *name = p + 1;
        if (*p != '"') {
            return TG_ENONE;
        }
        p = skip_string(p, step->end);
        step->name = tg_slice_of(name, (size_t)(p - name) - (p > name ? 1 : 0));
        p = skip_blanks(p, step->end);
        p = p < step->end && *p == ':' ? skip_blanks(p + 1, step->end) : p;
    }
    const char *value = p;
    p = skip_value(p, step->end);
    step->next = p;
    while (p > value && (p[-1] == ' ' || p[-1] == '\n' || p[-1] == '\r' || p[-1] == '\t')) {
        p--;
    }
    step->value = tg_slice_of(value, (size_t)(p - value));
    return p == value ? TG_ENONE : TG_OK;
}

static bool
is_spelling_of(struct tg_slice spelled, const char *name, size_t n)
{
    char small[256];
    if (spelled.n == 0 || memchr(spelled.p, '\\', spelled.n) == NULL) {
        return tg_slice_is(spelled, name, n);
    }
    char *plain = spelled.n <= sizeof small ? small : tg_mem_alloc(spelled.n);
    const bool same = plain != NULL && tg_slice_is(tg_slice_of(plain, tg_json_unescape(spelled, plain)), name, n);
    if (plain != small) {
        tg_mem_free(plain);
    }
    return same;
}

/* A number of an item, or -1: no digits, or too many. */
static long
index_of(const char *p, size_t n)
{
    long value = 0;
    if (n == 0 || n > 9) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }
        value = value * 10 + (p[i] - '0');
    }
    return value;
}

enum tg_rc
tg_json_find(struct tg_slice value, const char *name, size_t n, struct tg_slice *found)
{
    struct tg_json_step step;
    if (tg_json_open(&step, value) != TG_OK) {
        return TG_ENONE;
    }
    long left = step.object ? 0 : index_of(name, n);
    if (left < 0) {
        return TG_ENONE;
    }
    while (tg_json_next(&step) == TG_OK) {
        if (step.object ? is_spelling_of(step.name, name, n) : left-- == 0) {
            *found = step.value;
            return TG_OK;
        }
    }
    return TG_ENONE;
}

/* ------------------------------------------------------------------ tokens */

void
tg_json_reader_init(struct tg_json_reader *reader, struct tg_slice value)
{
    char *room = reader->room;
    const size_t room_n = reader->room_n;
    *reader = (struct tg_json_reader){.p = value.p, .end = value.p + value.n, .room = room, .room_n = room_n};
}

void
tg_json_reader_fini(struct tg_json_reader *reader)
{
    tg_mem_free(reader->room);
    reader->room = NULL;
    reader->room_n = 0;
}

/* A string at the quote reader->p: its text, without escapes. */
static enum tg_rc
read_string(struct tg_json_reader *reader)
{
    const char *begin = reader->p + 1;
    const char *behind = skip_string(reader->p, reader->end);
    struct tg_slice text = tg_slice_of(begin, behind > begin ? (size_t)(behind - begin) - 1 : 0);
    reader->p = behind;
    if (text.n > 0 && memchr(text.p, '\\', text.n) != NULL) {
        if (text.n > reader->room_n) {
            char *grown = tg_mem_resize(reader->room, text.n * 2);
            if (grown == NULL) {
                return TG_ENOMEM;
            }
            reader->room = grown;
            reader->room_n = text.n * 2;
        }
        text = tg_slice_of(reader->room, tg_json_unescape(text, reader->room));
    }
    reader->text = text;
    const char *next = skip_blanks(reader->p, reader->end);
    reader->token = next < reader->end && *next == ':' ? TG_JSON_NAME : TG_JSON_STRING;
    reader->p = reader->token == TG_JSON_NAME ? next + 1 : reader->p;
    return TG_OK;
}

static enum tg_rc
read_number(struct tg_json_reader *reader)
{
    const char *begin = reader->p;
    const char *p = begin + (*begin == '-' ? 1 : 0);
    const char *digits = p;
    int64_t value = 0;
    while (p < reader->end && *p >= '0' && *p <= '9') {
        value = p - digits < DIGITS_EXACT ? value * 10 + (*p - '0') : value;
        p++;
    }
    const bool whole = p == reader->end || (*p != '.' && *p != 'e' && *p != 'E');
    reader->token = TG_JSON_NUMBER;
    if (whole && p - digits <= DIGITS_EXACT) {
        reader->number = *begin == '-' ? -(double)value : (double)value;
        reader->p = p;
        return p == digits ? TG_EPROTOCOL : TG_OK;
    }
    char text[NUMBER_MAX + 1];
    const size_t most = (size_t)(reader->end - begin) < NUMBER_MAX ? (size_t)(reader->end - begin) : NUMBER_MAX;
    char *behind = NULL;
    memcpy(text, begin, most);
    text[most] = '\0';
    reader->number = strtod(text, &behind);
    reader->p = begin + (behind - text);
    reader->text = tg_slice_of(begin, (size_t)(behind - text));
    if (whole && tg_json_is_long(digits, (size_t)(p - digits))) {
        reader->token = TG_JSON_INTEGER;
    }
    return behind == text ? TG_EPROTOCOL : TG_OK;
}

static enum tg_rc
read_word(struct tg_json_reader *reader)
{
    const size_t left = (size_t)(reader->end - reader->p);
    const char c = *reader->p;
    const size_t n = c == 'f' ? 5 : 4;
    if ((c != 't' && c != 'f' && c != 'n') || n > left) {
        return TG_EPROTOCOL;
    }
    reader->token = c == 't' ? TG_JSON_TRUE : c == 'f' ? TG_JSON_FALSE : TG_JSON_NULL;
    reader->p += n;
    return TG_OK;
}

enum tg_rc
tg_json_read(struct tg_json_reader *reader)
{
    const char *p = skip_blanks(reader->p, reader->end);
    p = p < reader->end && *p == ',' ? skip_blanks(p + 1, reader->end) : p;
    reader->p = p;
    if (p == reader->end) {
        reader->token = TG_JSON_END;
        return TG_OK;
    }
    switch (*p) {
    case '{':
    case '}':
    case '[':
    case ']':
        reader->token = *p == '{'   ? TG_JSON_OBJECT
                        : *p == '}' ? TG_JSON_OBJECT_END
                        : *p == '[' ? TG_JSON_ARRAY
                                    : TG_JSON_ARRAY_END;
        reader->p++;
        return TG_OK;
    case '"':
        return read_string(reader);
    case 't':
    case 'f':
    case 'n':
        return read_word(reader);
    default:
        return read_number(reader);
    }
}
