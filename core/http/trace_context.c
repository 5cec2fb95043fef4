#include "http/trace_context.h"

#include <stdbool.h>
#include <string.h>

#include "base/hex.h"

/* Lower case only: 0 to 15, or -1. */
static int
digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether there are `n` digits, and one of them at least is not 0. Without a branch for each: ids are random. */
static bool
is_id(const char *p, size_t n)
{
    unsigned wrong = 0;
    unsigned any = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned c = (unsigned char)p[i];
        const unsigned is_number = c - '0' < 10U;
        const unsigned is_letter = c - 'a' < 6U;
        wrong |= (is_number | is_letter) ^ 1U;
        any |= c ^ '0';
    }
    return wrong == 0 && any != 0;
}

static int
byte_at(const char *p)
{
    const int high = digit(p[0]);
    const int low = digit(p[1]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

enum tg_rc
tg_traceparent_parse(const char *p, size_t n, uint8_t *flags)
{
    if (n < TG_TRACEPARENT_LEN) {
        return TG_EPROTOCOL;
    }
    const int version = byte_at(p);
    const int value = byte_at(p + TG_TRACEPARENT_FLAGS);
    const bool whole = version == 0 ? n == TG_TRACEPARENT_LEN : n == TG_TRACEPARENT_LEN || p[TG_TRACEPARENT_LEN] == '-';
    if (version < 0 || version == 0xff || value < 0 || !whole || p[2] != '-' || p[35] != '-' || p[52] != '-' ||
        !is_id(p + TG_TRACEPARENT_TRACE, 32) || !is_id(p + TG_TRACEPARENT_PARENT, 16)) {
        return TG_EPROTOCOL;
    }
    *flags = (uint8_t)value;
    return TG_OK;
}

void
tg_traceparent_write(char out[static TG_TRACEPARENT_LEN], unsigned char random[static 24])
{
    random[15] |= 1; /* neither id may be 0 */
    random[23] |= 1;
    memcpy(out, "00-", 3);
    char *p = tg_hex_encode(out + 3, random, 16);
    *p++ = '-';
    p = tg_hex_encode(p, random + 16, 8);
    memcpy(p, "-00", 3);
}

double
tg_traceparent_share_of(const unsigned char random[static 16])
{
    uint64_t bits = 0;
    for (size_t i = 9; i < 16; i++) {
        bits = bits << 8 | random[i];
    }
    return (double)bits / (double)(UINT64_C(1) << 56);
}

double
tg_traceparent_share(const char *p)
{
    uint64_t bits = 0;
    for (size_t i = TG_TRACEPARENT_TRACE + 18; i < TG_TRACEPARENT_TRACE + 32; i++) {
        bits = bits << 4 | (uint64_t)digit(p[i]);
    }
    return (double)bits / (double)(UINT64_C(1) << 56);
}
