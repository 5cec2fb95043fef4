#include "http/field.h"

#include <endian.h>

#define L(c) [(unsigned char)(c)] = (unsigned char)(c)
#define U(c) [(unsigned char)(c)] = (unsigned char)((c) | 0x20)

const unsigned char tg_token_byte[256] = {
    L('!'), L('#'), L('$'), L('%'), L('&'), L('\''), L('*'), L('+'), L('-'), L('.'), L('^'), L('_'), L('`'),
    L('|'), L('~'), L('0'), L('1'), L('2'), L('3'),  L('4'), L('5'), L('6'), L('7'), L('8'), L('9'), L('a'),
    L('b'), L('c'), L('d'), L('e'), L('f'), L('g'),  L('h'), L('i'), L('j'), L('k'), L('l'), L('m'), L('n'),
    L('o'), L('p'), L('q'), L('r'), L('s'), L('t'),  L('u'), L('v'), L('w'), L('x'), L('y'), L('z'), U('A'),
    U('B'), U('C'), U('D'), U('E'), U('F'), U('G'),  U('H'), U('I'), U('J'), U('K'), U('L'), U('M'), U('N'),
    U('O'), U('P'), U('Q'), U('R'), U('S'), U('T'),  U('U'), U('V'), U('W'), U('X'), U('Y'), U('Z'),
};

#undef L
#undef U

struct known {
    const char *name;
    uint8_t flags;
};

static const struct known known[TG_FIELD_COUNT] = {
    [TG_FIELD_OTHER] = {"", 0},
    [TG_FIELD_HOST] = {"host", TG_FIELD_FRAMING | TG_FIELD_PROTECTED},
    [TG_FIELD_CONTENT_LENGTH] = {"content-length", TG_FIELD_HOP | TG_FIELD_FRAMING | TG_FIELD_PROTECTED},
    [TG_FIELD_TRANSFER_ENCODING] = {"transfer-encoding", TG_FIELD_HOP | TG_FIELD_FRAMING | TG_FIELD_PROTECTED},
    [TG_FIELD_CONNECTION] = {"connection", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_KEEP_ALIVE] = {"keep-alive", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_PROXY_CONNECTION] = {"proxy-connection", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_TE] = {"te", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_TRAILER] = {"trailer", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_UPGRADE] = {"upgrade", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_EXPECT] = {"expect", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_HTTP2_SETTINGS] = {"http2-settings", TG_FIELD_HOP | TG_FIELD_FRAMING},
    [TG_FIELD_PROXY] = {"proxy", TG_FIELD_HOP},
    [TG_FIELD_PROXY_AUTHENTICATE] = {"proxy-authenticate", TG_FIELD_HOP},
    [TG_FIELD_PROXY_AUTHORIZATION] = {"proxy-authorization", TG_FIELD_HOP},
    [TG_FIELD_X_FORWARDED_FOR] = {"x-forwarded-for", TG_FIELD_PROTECTED},
    [TG_FIELD_X_FORWARDED_PROTO] = {"x-forwarded-proto", TG_FIELD_PROTECTED},
    [TG_FIELD_X_FORWARDED_HOST] = {"x-forwarded-host", TG_FIELD_PROTECTED},
    [TG_FIELD_X_FORWARDED_PORT] = {"x-forwarded-port", TG_FIELD_PROTECTED},
    [TG_FIELD_X_REAL_IP] = {"x-real-ip", TG_FIELD_PROTECTED},
    [TG_FIELD_FORWARDED] = {"forwarded", TG_FIELD_PROTECTED},
    [TG_FIELD_VIA] = {"via", TG_FIELD_PROTECTED},
    [TG_FIELD_DATE] = {"date", 0},
    [TG_FIELD_SERVER] = {"server", 0},
    [TG_FIELD_AUTHORIZATION] = {"authorization", TG_FIELD_PROTECTED},
    [TG_FIELD_COOKIE] = {"cookie", TG_FIELD_PROTECTED},
    [TG_FIELD_SET_COOKIE] = {"set-cookie", 0},
    [TG_FIELD_CONTENT_TYPE] = {"content-type", 0},
};

enum { SLOTS = 256 };
static uint8_t slots[SLOTS]; /* enum tg_field_id by hash, linear probing; 0 is free */
static uint32_t hashes[TG_FIELD_COUNT];
static uint8_t lengths[TG_FIELD_COUNT];

/* Before main: the tables are constant from then on, and need no lock. */
__attribute__((constructor)) static void
fill_slots(void)
{
    for (unsigned id = 1; id < TG_FIELD_COUNT; id++) {
        lengths[id] = (uint8_t)strlen(known[id].name);
        hashes[id] = tg_field_hash(known[id].name, lengths[id]);
        unsigned slot = hashes[id] % SLOTS;
        while (slots[slot] != 0) {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = (uint8_t)id;
    }
}

uint32_t
tg_field_hash(const char *name, size_t n)
{
    const uint64_t odd = 0x9e3779b97f4a7c15U; /* of the golden ratio, as Fibonacci hashing takes it */
    uint64_t hash = n;
    for (size_t i = 0; i + 8 < n; i += 8) {
        uint64_t word;
        memcpy(&word, name + i, 8);
        hash = (hash ^ tg_lower8(word)) * odd;
        hash ^= hash >> 32;
    }
    hash = (hash ^ tg_lower8(tg_last8(name, n))) * odd;
    return (uint32_t)(hash >> 32);
}

enum tg_field_id
tg_field_id_of(const char *name, size_t n, uint32_t hash)
{
    for (unsigned slot = hash % SLOTS; slots[slot] != 0; slot = (slot + 1) % SLOTS) {
        const unsigned id = slots[slot];
        if (hashes[id] == hash && lengths[id] == n && tg_slice_same_text(name, known[id].name, n)) {
            return (enum tg_field_id)id;
        }
    }
    return TG_FIELD_OTHER;
}

uint8_t
tg_field_flags_of(enum tg_field_id id)
{
    return known[id].flags;
}

struct tg_field
tg_field_of(struct tg_slice name, struct tg_slice value)
{
    const uint32_t hash = tg_field_hash(name.p, name.n);
    const enum tg_field_id id = tg_field_id_of(name.p, name.n, hash);
    return (struct tg_field){.name = name.p,
                             .value = value.p,
                             .value_len = (uint32_t)value.n,
                             .name_len = (uint16_t)name.n,
                             .id = (uint8_t)id,
                             .flags = known[id].flags,
                             .hash = hash};
}

void
tg_field_keep(struct tg_field *field, char *copy)
{
    memcpy(copy, field->name, field->name_len);
    if (field->value_len > 0) {
        memcpy(copy + field->name_len, field->value, field->value_len);
    }
    field->name = copy;
    field->value = copy + field->name_len;
    field->flags = TG_FIELD_SET;
}

struct tg_slice
tg_next_member(const char **p, const char *end)
{
    const char *first = *p;
    const char *comma = memchr(first, ',', (size_t)(end - first));
    const char *last = comma == NULL ? end : comma;
    *p = comma == NULL ? end : comma + 1;
    while (first < last && (*first == ' ' || *first == '\t')) {
        first++;
    }
    while (last > first && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }
    return tg_slice_of(first, (size_t)(last - first));
}

bool
tg_is_token(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (tg_token_byte[(unsigned char)p[i]] == 0) {
            return false;
        }
    }
    return n > 0;
}

/* Eight bytes at a time: a subtraction sets the top bit where a byte is below 0x20, or 0x7f. A borrow disturbs only
 * those behind, which are looked at again. */
size_t
tg_value_length(const char *p, size_t n)
{
    const uint64_t ones = 0x0101010101010101ULL;
    const uint64_t tops = ones * 0x80;
    size_t i = 0;
    for (;;) {
        for (; n - i >= 8; i += 8) {
            uint64_t word = 0;
            memcpy(&word, p + i, sizeof word);
            word = le64toh(word);
            const uint64_t deletes = word ^ (ones * 0x7f);
            const uint64_t found = (((word - ones * 0x20) & ~word) | ((deletes - ones) & ~deletes)) & tops;
            if (found != 0) {
                i += (size_t)__builtin_ctzll(found) / 8;
                break;
            }
        }
        while (i < n && (unsigned char)p[i] >= 0x20 && p[i] != 0x7f) {
            i++;
        }
        if (i == n || p[i] != '\t') {
            return i;
        }
        i++;
    }
}

bool
tg_is_value(const char *p, size_t n)
{
    if (tg_value_length(p, n) < n) {
        return false;
    }
    return n == 0 || (p[0] != ' ' && p[0] != '\t' && p[n - 1] != ' ' && p[n - 1] != '\t');
}

static const char *const methods[] = {"", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"};

unsigned
tg_method_id(struct tg_slice method)
{
    for (unsigned id = 1; id < sizeof methods / sizeof methods[0]; id++) {
        if (methods[id][0] == method.p[0] && tg_slice_is(method, methods[id], strlen(methods[id]))) {
            return id;
        }
    }
    return 0;
}

const char *
tg_method_name(unsigned id)
{
    return id > 0 && id < sizeof methods / sizeof methods[0] ? methods[id] : NULL;
}
