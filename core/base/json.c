#include "base/json.h"

#include <endian.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { SLOTS_MIN = 64, FEW = 16 };

/* The names seen so far: a hash of 64 bits of the object's number and the name stands for both. */
struct names {
    uint64_t seed;
    uint64_t *slots; /* 0: free */
    size_t mask;
    size_t count;
};

static uint64_t *
slot_of(uint64_t *slots, size_t mask, uint64_t hash)
{
    size_t i = (size_t)hash & mask;
    while (slots[i] != 0 && slots[i] != hash) {
        i = (i + 1) & mask;
    }
    return &slots[i];
}

static enum tg_rc
grow(struct names *names)
{
    const size_t size = names->slots == NULL ? SLOTS_MIN : (names->mask + 1) * 2;
    uint64_t *slots = tg_mem_zero(size * sizeof *slots);
    if (slots == NULL) {
        return TG_ENOMEM;
    }
    for (size_t i = 0; names->slots != NULL && i <= names->mask; i++) {
        if (names->slots[i] != 0) {
            *slot_of(slots, size - 1, names->slots[i]) = names->slots[i];
        }
    }
    tg_mem_free(names->slots);
    names->slots = slots;
    names->mask = size - 1;
    return TG_OK;
}

static enum tg_rc
remember(struct names *names, uint64_t object, uint64_t hash)
{
    if (names->count * 2 >= names->mask && grow(names) != TG_OK) {
        return TG_ENOMEM;
    }
    hash = (hash ^ object * 0x9e3779b97f4a7c15ULL) | 1;
    uint64_t *slot = slot_of(names->slots, names->mask, hash);
    if (*slot != 0) {
        return TG_EBUSY;
    }
    *slot = hash;
    names->count++;
    return TG_OK;
}

static unsigned
hex_value(const char *p)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned char c = (unsigned char)tg_lower(p[i]);
        value = value << 4 | (c <= '9' ? c - 48U : c - 87U) % 16;
    }
    return value;
}

/* One escape at p[0] == '\\'; *p moves behind it. Two escapes that are a surrogate pair are one character. */
static char *
unescape(char *out, const char **p, const char *end)
{
    static const char letters[] = "b\bf\fn\nr\rt\t";
    const char *at = **p == '\\' && end - *p > 1 ? *p + 1 : *p;
    const char c = *at;
    const char *letter = c == '\0' ? NULL : strchr(letters, c);
    if (c != 'u' || end - *p < 6) {
        if (letter != NULL && (letter - letters) % 2 == 0) {
            *out++ = letter[1];
        } else {
            *out++ = c;
        }
        *p += end - *p > 1 ? 2 : 1;
        return out;
    }
    unsigned value = hex_value(*p + 2);
    *p += 6;
    if ((value & 0xfc00) == 0xd800 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u' &&
        (hex_value(*p + 2) & 0xfc00) == 0xdc00) {
        value = 0x10000 + ((value & 0x3ff) << 10) + (hex_value(*p + 2) & 0x3ff);
        *p += 6;
    }
    return tg_utf8_put(out, value);
}

size_t
tg_json_unescape(struct tg_slice spelled, char *out)
{
    char *to = out;
    const char *end = spelled.p + spelled.n;
    for (const char *p = spelled.p; p < end;) {
        if (*p == '\\') {
            to = unescape(to, &p, end);
        } else {
            *to++ = *p++;
        }
    }
    return (size_t)(to - out);
}

/* ------------------------------------------------------------------ check */

/* What may come next. */
enum expect { VALUE, VALUE_OR_END, NAME, NAME_OR_END, COMMA_OR_END };

struct object {
    uint64_t number; /* 0: an array */
    unsigned count;
    uint64_t few[FEW]; /* the first names; all of them are in `names` when there are more */
};

struct scan {
    const char *p;
    const char *end;
    struct tg_json_report *report;
    struct names names;
    uint64_t objects;
    unsigned depth;
    enum expect expect;
    struct object open[TG_JSON_DEPTH_MAX + 1];
};

static enum tg_rc
fault(struct scan *s, const char *at, enum tg_rc rc, const char *what)
{
    s->report->at = at;
    s->report->what = what;
    return rc;
}

static bool
is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

static const char *
skip_digits(const char *p, const char *end)
{
    while (is_digit(p, end)) {
        p++;
    }
    return p;
}

bool
tg_json_is_long(const char *digits, size_t n)
{
    static const char most[] = "9007199254740992";
    const size_t length = sizeof most - 1;
    return n > length || (n == length && memcmp(digits, most, length) > 0);
}

/* A double cannot hold 1e400, and a decoder would make infinity of it. Without an exponent no number of 63 bytes is so
 * large. */
static bool
is_finite(const char *p, const char *end, bool has_exponent)
{
    char text[64];
    const size_t n = (size_t)(end - p);
    if (n >= sizeof text || !has_exponent) {
        return n < sizeof text;
    }
    memcpy(text, p, n);
    text[n] = '\0';
    return isfinite(strtod(text, NULL));
}

static enum tg_rc
check_number(struct scan *s)
{
    const char *begin = s->p;
    const char *digits = begin + (*begin == '-' ? 1 : 0);
    const char *p = skip_digits(digits, s->end);
    if (p == digits || (*digits == '0' && p > digits + 1)) {
        return fault(s, begin, TG_EPROTOCOL, "is no number");
    }
    const char *whole = p;
    if (p < s->end && *p == '.') {
        const char *fraction = p + 1;
        p = skip_digits(fraction, s->end);
        if (p == fraction) {
            return fault(s, begin, TG_EPROTOCOL, "is no number");
        }
    }
    const bool has_exponent = p < s->end && (*p == 'e' || *p == 'E');
    if (has_exponent) {
        p++;
        p += p < s->end && (*p == '+' || *p == '-') ? 1 : 0;
        const char *exponent = p;
        p = skip_digits(p, s->end);
        if (p == exponent) {
            return fault(s, begin, TG_EPROTOCOL, "is no number");
        }
    }
    if (p - begin > 300 || (p > whole && !is_finite(begin, p, has_exponent))) {
        return fault(s, begin, TG_ELIMIT, "is too large or too long a number");
    }
    s->p = p;
    return TG_OK;
}

static bool
is_hex(const char *p)
{
    for (int i = 0; i < 4; i++) {
        const char c = tg_lower(p[i]);
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) {
            return false;
        }
    }
    return true;
}

/* Bytes of the escape at p; 0: it is none. A surrogate stands for something with its other half only. */
static size_t
escape_length(const char *p, const char *end)
{
    if (end - p < 2 || strchr("\"\\/bfnrtu", p[1]) == NULL || p[1] == '\0') {
        return 0;
    }
    if (p[1] != 'u') {
        return 2;
    }
    if (end - p < 6 || !is_hex(p + 2)) {
        return 0;
    }
    const unsigned value = hex_value(p + 2);
    if ((value & 0xf800) != 0xd800) {
        return 6;
    }
    const bool pair = (value & 0xfc00) == 0xd800 && end - p >= 12 && p[6] == '\\' && p[7] == 'u' && is_hex(p + 8) &&
                      (hex_value(p + 8) & 0xfc00) == 0xdc00;
    return pair ? 12 : 0;
}

/* Eight at a time: where a byte is one of those, a subtraction sets its top bit. A borrow disturbs only those behind.
 */
size_t
tg_json_plain(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101ULL;
    const uint64_t tops = ones * 0x80;
    const char *begin = p;
    for (; end - p >= 8; p += 8) {
        uint64_t word = 0;
        memcpy(&word, p, sizeof word);
        word = le64toh(word);
        const uint64_t quotes = word ^ (ones * '"');
        const uint64_t slashes = word ^ (ones * '\\');
        const uint64_t found = ((quotes - ones) | (slashes - ones) | (word - ones * 0x20) | word) & tops;
        if (found != 0) {
            return (size_t)(p - begin) + (size_t)__builtin_ctzll(found) / 8;
        }
    }
    return (size_t)(p - begin);
}

/* The string at the quote s->p; *escaped: it has escapes. */
static enum tg_rc
check_string(struct scan *s, struct tg_slice *text, bool *escaped)
{
    const char *begin = s->p + 1;
    const char *p = begin;
    *escaped = false;
    for (;;) {
        p += tg_json_plain(p, s->end);
        if (p == s->end || *p == '"') {
            break;
        }
        const unsigned char c = (unsigned char)*p;
        size_t length = 1;
        if (c == '\\') {
            length = escape_length(p, s->end);
            *escaped = true;
        } else if (c >= 0x80) {
            length = tg_utf8_length((const unsigned char *)p, (size_t)(s->end - p));
        } else if (c < 0x20) {
            length = 0;
        }
        if (length == 0) {
            return fault(s, p, TG_EPROTOCOL,
                         c == '\\'  ? "is no escape"
                         : c < 0x20 ? "is a control byte in a string"
                                    : "is no UTF-8");
        }
        p += length;
    }
    if (p == s->end) {
        return fault(s, p, TG_EPROTOCOL, "ends within a string");
    }
    *text = tg_slice_of(begin, (size_t)(p - begin));
    s->p = p + 1;
    return TG_OK;
}

static enum tg_rc
remember_all(struct names *names, const struct object *object)
{
    for (unsigned i = 0; i < FEW; i++) {
        const enum tg_rc rc = remember(names, object->number, object->few[i]);
        if (rc != TG_OK) {
            return rc;
        }
    }
    return TG_OK;
}

static enum tg_rc
remember_hash(struct scan *s, struct object *object, uint64_t hash)
{
    const unsigned count = object->count++;
    if (count < FEW) {
        for (unsigned i = 0; i < count; i++) {
            if (object->few[i] == hash) {
                return TG_EBUSY;
            }
        }
        object->few[count] = hash;
        return TG_OK;
    }
    const enum tg_rc rc = count == FEW ? remember_all(&s->names, object) : TG_OK;
    return rc != TG_OK ? rc : remember(&s->names, object->number, hash);
}

/* Two spellings of a name are one name: escapes are undone first. */
static enum tg_rc
remember_name(struct scan *s, struct tg_slice name, bool escaped)
{
    struct object *object = &s->open[s->depth];
    char small[256];
    char *plain = !escaped ? NULL : name.n <= sizeof small ? small : tg_mem_alloc(name.n);
    enum tg_rc rc = escaped && plain == NULL ? TG_ENOMEM : TG_OK;
    s->report->name = name;
    if (rc == TG_OK && object->count == TG_JSON_KEYS_MAX) {
        rc = fault(s, name.p - 1, TG_ELIMIT, "is one of more than 10000");
    }
    if (rc == TG_OK) {
        const size_t n = escaped ? tg_json_unescape(name, plain) : name.n;
        rc = remember_hash(s, object, tg_hash(s->names.seed, escaped ? plain : name.p, n));
    }
    if (plain != small) {
        tg_mem_free(plain);
    }
    if (rc == TG_EBUSY) {
        return fault(s, name.p - 1, TG_EBUSY, "stands twice in its object");
    }
    return rc;
}

static const char *
skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }
    return p;
}

static enum tg_rc
check_name(struct scan *s)
{
    struct tg_slice name;
    bool escaped = false;
    if (*s->p != '"') {
        return fault(s, s->p, TG_EPROTOCOL, "is not the name of a member");
    }
    enum tg_rc rc = check_string(s, &name, &escaped);
    rc = rc == TG_OK ? remember_name(s, name, escaped) : rc;
    if (rc != TG_OK) {
        return rc;
    }
    s->p = skip_blanks(s->p, s->end);
    if (s->p == s->end || *s->p != ':') {
        return fault(s, s->p, TG_EPROTOCOL, "is not the colon behind a name");
    }
    s->p++;
    s->expect = VALUE;
    return TG_OK;
}

static enum tg_rc
check_word(struct scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const size_t n = strlen(words[i]);
        if ((size_t)(s->end - s->p) >= n && memcmp(s->p, words[i], n) == 0) {
            s->p += n;
            return TG_OK;
        }
    }
    return fault(s, s->p, TG_EPROTOCOL, "is no value");
}

static enum tg_rc
check_value(struct scan *s)
{
    struct tg_slice text;
    bool escaped = false;
    const char c = *s->p;
    if (c == '{' || c == '[') {
        if (s->depth == TG_JSON_DEPTH_MAX) {
            return fault(s, s->p, TG_ELIMIT, "is too deep: more than 32 levels");
        }
        struct object *object = &s->open[++s->depth];
        object->number = c == '{' ? ++s->objects : 0;
        object->count = 0;
        s->expect = c == '{' ? NAME_OR_END : VALUE_OR_END;
        s->p++;
        return TG_OK;
    }
    s->expect = COMMA_OR_END;
    return c == '"'                             ? check_string(s, &text, &escaped)
           : c == '-' || is_digit(s->p, s->end) ? check_number(s)
                                                : check_word(s);
}

static enum tg_rc
check_step(struct scan *s)
{
    const bool object = s->open[s->depth].number != 0;
    const bool ends = *s->p == (object ? '}' : ']');
    if (ends && s->depth > 0 && s->expect != VALUE && s->expect != NAME) {
        s->depth--;
        s->p++;
        s->expect = COMMA_OR_END;
        return TG_OK;
    }
    if (s->expect == VALUE || s->expect == VALUE_OR_END) {
        return check_value(s);
    }
    if (s->expect == NAME || s->expect == NAME_OR_END) {
        return check_name(s);
    }
    if (s->depth == 0) {
        return fault(s, s->p, TG_EPROTOCOL, "stands behind the end");
    }
    if (*s->p != ',') {
        return fault(s, s->p, TG_EPROTOCOL, object ? "is neither comma nor brace" : "is neither comma nor bracket");
    }
    s->p++;
    s->expect = object ? NAME : VALUE;
    return TG_OK;
}

/* One for the process: who chooses names cannot choose which of them collide. */
static uint64_t
seed(void)
{
    static uint64_t value;
    if (value == 0) {
        const ssize_t random = getrandom(&value, sizeof value, 0);
        (void)random;
        value |= 1; /* without random bytes it still works */
    }
    return value;
}

enum tg_rc
tg_json_check(const char *p, size_t n, struct tg_json_report *report)
{
    struct scan s;
    enum tg_rc rc = TG_OK;
    *report = (struct tg_json_report){NULL, NULL, {NULL, 0}};
    s.p = p;
    s.end = p + n;
    s.report = report;
    s.names = (struct names){seed(), NULL, 0, 0};
    s.objects = 0;
    s.depth = 0;
    s.expect = VALUE;
    s.open[0].number = 0;
    while (rc == TG_OK) {
        s.p = skip_blanks(s.p, s.end);
        if (s.p == s.end) {
            break;
        }
        rc = check_step(&s);
    }
    if (rc == TG_OK && (s.depth > 0 || s.expect != COMMA_OR_END)) {
        rc = fault(&s, s.end, TG_EPROTOCOL, "ends too early");
    }
    tg_mem_free(s.names.slots);
    return rc;
}
