#include "base/json.h"

#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include "base/map.h"
#include "base/mem.h"

enum { DEPTH_MAX = 64, SLOTS_MIN = 64 };

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
remember(struct names *names, uint64_t object, const char *name, size_t n)
{
    if (names->count * 2 >= names->mask && grow(names) != TG_OK) {
        return TG_ENOMEM;
    }
    const uint64_t hash = tg_hash(names->seed + object * 0x9e3779b97f4a7c15ULL, name, n) | 1;
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

static char *
put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
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
    return put_utf8(out, value);
}

/* Two spellings of a name are one name: escapes are undone first. They never grow. */
static enum tg_rc
remember_name(struct names *names, uint64_t object, struct tg_slice name)
{
    if (name.n == 0 || memchr(name.p, '\\', name.n) == NULL) {
        return remember(names, object, name.p, name.n);
    }
    char *plain = tg_mem_alloc(name.n);
    if (plain == NULL) {
        return TG_ENOMEM;
    }
    char *out = plain;
    const char *end = name.p + name.n;
    for (const char *p = name.p; p < end;) {
        if (*p == '\\') {
            out = unescape(out, &p, end);
        } else {
            *out++ = *p++;
        }
    }
    const enum tg_rc rc = remember(names, object, plain, (size_t)(out - plain));
    tg_mem_free(plain);
    return rc;
}

/* The string that begins behind a quote at p; its end is the other quote. */
static const char *
string_end(const char *p, const char *end)
{
    while (p < end && *p != '"') {
        p += *p == '\\' ? 2 : 1;
    }
    return p < end ? p : end;
}

static bool
is_name(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) {
        p++;
    }
    return p < end && *p == ':';
}

enum tg_rc
tg_json_check(const char *p, size_t n, struct tg_slice *name)
{
    struct names names = {0};
    uint64_t object[DEPTH_MAX] = {0};
    unsigned members[DEPTH_MAX] = {0};
    uint64_t objects = 0;
    unsigned depth = 0;
    enum tg_rc rc = TG_OK;
    const char *end = p + n;
    const ssize_t random = getrandom(&names.seed, sizeof names.seed, 0);
    (void)random; /* a seed of 0 still works */
    for (; p < end && rc == TG_OK; p++) {
        if (*p == '{' || *p == '[') {
            depth = depth + 1 < DEPTH_MAX ? depth + 1 : depth;
            object[depth] = ++objects;
            members[depth] = 0;
        } else if (*p == '}' || *p == ']') {
            depth = depth > 0 ? depth - 1 : 0;
        } else if (*p == '"') {
            const char *stop = string_end(p + 1, end);
            const struct tg_slice text = tg_slice_of(p + 1, (size_t)(stop - p) - 1);
            if (stop < end && is_name(stop + 1, end)) {
                *name = text;
                rc = ++members[depth] > TG_JSON_KEYS_MAX ? TG_ELIMIT : remember_name(&names, object[depth], text);
            }
            p = stop;
        }
    }
    tg_mem_free(names.slots);
    return rc;
}
