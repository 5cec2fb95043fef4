#include "base/base64.h"

#include <stdint.h>

static const char alphabets[2][65] = {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
                                      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"};

char *
tg_base64_encode(char *out, const void *bytes, size_t n, enum tg_base64_kind kind)
{
    const char *alphabet = alphabets[kind];
    const unsigned char *p = bytes;
    for (; n >= 3; n -= 3, p += 3) {
        const unsigned bits = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
        *out++ = alphabet[bits >> 18];
        *out++ = alphabet[bits >> 12 & 63];
        *out++ = alphabet[bits >> 6 & 63];
        *out++ = alphabet[bits & 63];
    }
    if (n == 0) {
        return out;
    }
    const unsigned bits = (unsigned)p[0] << 16 | (n == 2 ? (unsigned)p[1] << 8 : 0);
    *out++ = alphabet[bits >> 18];
    *out++ = alphabet[bits >> 12 & 63];
    if (n == 2) {
        *out++ = alphabet[bits >> 6 & 63];
    }
    for (size_t i = n; i < 3 && kind == TG_BASE64_PLAIN; i++) {
        *out++ = '=';
    }
    return out;
}

/* Made once; 64: not in the alphabet. */
static const uint8_t *
values_of(enum tg_base64_kind kind)
{
    static uint8_t values[2][256];
    if (values[kind][0] == 0) {
        for (unsigned i = 0; i < 256; i++) {
            values[kind][i] = 64;
        }
        for (unsigned i = 0; i < 64; i++) {
            values[kind][(unsigned char)alphabets[kind][i]] = (uint8_t)i;
        }
    }
    return values[kind];
}

/* Of two or three characters that stand for one or two bytes. */
static enum tg_rc
decode_rest(char **out, const unsigned char *p, size_t n, const uint8_t *values)
{
    const unsigned third = n == 3 ? values[p[2]] : 0;
    if (n == 1 || ((values[p[0]] | values[p[1]] | third) & 64) != 0) {
        return TG_EINVAL;
    }
    const unsigned bits = (unsigned)values[p[0]] << 18 | (unsigned)values[p[1]] << 12 | third << 6;
    if ((bits & (n == 3 ? 0xffU : 0xffffU)) != 0) {
        return TG_EINVAL;
    }
    *(*out)++ = (char)(bits >> 16);
    if (n == 3) {
        *(*out)++ = (char)(bits >> 8);
    }
    return TG_OK;
}

enum tg_rc
tg_base64_decode(char *out, size_t *out_n, const char *text, size_t n, enum tg_base64_kind kind)
{
    const uint8_t *values = values_of(kind);
    const unsigned char *p = (const unsigned char *)text;
    const char *begin = out;
    if (n % 4 == 0 && n > 0 && p[n - 1] == '=') {
        n -= p[n - 2] == '=' ? 2 : 1;
    } else if (n % 4 != 0 && kind == TG_BASE64_PLAIN) {
        return TG_EINVAL;
    }
    unsigned bad = 0;
    for (; n >= 4; n -= 4, p += 4) {
        const unsigned a = values[p[0]];
        const unsigned b = values[p[1]];
        const unsigned c = values[p[2]];
        const unsigned d = values[p[3]];
        const unsigned bits = a << 18 | b << 12 | c << 6 | d;
        bad |= a | b | c | d;
        *out++ = (char)(bits >> 16);
        *out++ = (char)(bits >> 8);
        *out++ = (char)bits;
    }
    if ((bad & 64) != 0 || (n > 0 && decode_rest(&out, p, n, values) != TG_OK)) {
        return TG_EINVAL;
    }
    *out_n = (size_t)(out - begin);
    return TG_OK;
}
