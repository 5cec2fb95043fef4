#include "base/hex.h"

#include <string.h>

const char tg_hex_digits[16] = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'};

#define ROW(high)                                                                                                      \
    high "0" high "1" high "2" high "3" high "4" high "5" high "6" high "7" high "8" high "9" high "a" high "b" high   \
         "c" high "d" high "e" high "f"

/* Both digits of each byte. */
static const char pairs[] = ROW("0") ROW("1") ROW("2") ROW("3") ROW("4") ROW("5") ROW("6") ROW("7") ROW("8") ROW("9")
    ROW("a") ROW("b") ROW("c") ROW("d") ROW("e") ROW("f");

typedef unsigned char vector __attribute__((vector_size(16)));

/* Halves of bytes, each in one of its own. */
static inline vector
digits_of(vector halves)
{
    return halves + '0' + ((vector)(halves > 9) & ('a' - '0' - 10));
}

/* Eight bytes at once: identifiers are made for each request. */
static inline void
encode8(char *out, const unsigned char *p)
{
    vector bytes = {0};
    memcpy(&bytes, p, 8);
    const vector high = bytes >> 4;
    const vector low = bytes & 15;
    const vector digits =
        digits_of(__builtin_shufflevector(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    memcpy(out, &digits, 16);
}

char *
tg_hex_encode(char *out, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    char *const end = out + n * 2;
    for (; n >= 8; n -= 8, p += 8, out += 16) {
        encode8(out, p);
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(out + i * 2, pairs + (size_t)p[i] * 2, 2);
    }
    return end;
}

/* Above 15: no digit. */
static unsigned
value_of(unsigned char c)
{
    const unsigned digit = c - (unsigned)'0';
    const unsigned letter = (c | 0x20U) - (unsigned)'a';
    return digit < 10 ? digit : letter < 6 ? letter + 10 : 16;
}

enum tg_rc
tg_hex_decode(char *out, const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    if (n % 2 != 0) {
        return TG_EINVAL;
    }
    for (size_t i = 0; i < n; i += 2) {
        const unsigned high = value_of(p[i]);
        const unsigned low = value_of(p[i + 1]);
        if (high > 15 || low > 15) {
            return TG_EINVAL;
        }
        *out++ = (char)(high << 4 | low);
    }
    return TG_OK;
}
