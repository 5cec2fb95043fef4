/*
 * fuzz_base64.c - a text through the decoders of base64.h and hex.h.
 *
 * Oracles: a slow reader of RFC 4648 that shares no code agrees on every text, also on what it refuses; what is
 * accepted is written as the same text again, but for the case of hexadecimal digits and the padding that a URL needs
 * not.
 */
#include <ctype.h>
#include <string.h>

#include "base/base64.h"
#include "base/hex.h"
#include "fuzz.h"

/* -1: not in the alphabet. */
static int
digit_of(char c, enum tg_base64_kind kind)
{
    const char *last = kind == TG_BASE64_URL ? "-_" : "+/";
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == last[0]         ? 62
           : c == last[1]         ? 63
                                  : -1;
}

/* Bit by bit. Returns the number of bytes, or -1. */
static long
read_slowly(const char *text, size_t n, enum tg_base64_kind kind, char *out)
{
    size_t padding = 0;
    size_t bits = 0;
    unsigned gathered = 0;
    long bytes = 0;
    while (n > 0 && text[n - 1] == '=') {
        n--;
        padding++;
    }
    const size_t wanted = (4 - n % 4) % 4;
    if (wanted == 3 || (padding != wanted && (padding != 0 || kind == TG_BASE64_PLAIN))) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        const int digit = digit_of(text[i], kind);
        if (digit < 0) {
            return -1;
        }
        for (int k = 5; k >= 0; k--) {
            gathered = (gathered << 1 | ((unsigned)digit >> k & 1)) & 0xff;
            if (++bits % 8 == 0) {
                out[bytes++] = (char)gathered;
                gathered = 0;
            }
        }
    }
    return gathered != 0 ? -1 : bytes;
}

static void
check_base64(const char *text, size_t n, enum tg_base64_kind kind)
{
    char *fast = malloc(TG_BASE64_BYTES(n) + 1);
    char *slow = malloc(n + 1);
    char *again = malloc(TG_BASE64_ROOM(n) + 4);
    size_t fast_n = 0;
    MUST(fast != NULL && slow != NULL && again != NULL);
    const long slow_n = read_slowly(text, n, kind, slow);
    const enum tg_rc rc = tg_base64_decode(fast, &fast_n, text, n, kind);
    MUST((rc == TG_OK) == (slow_n >= 0));
    if (rc == TG_OK) {
        MUST((long)fast_n == slow_n && memcmp(fast, slow, fast_n) == 0);
        const size_t again_n = (size_t)(tg_base64_encode(again, fast, fast_n, kind) - again);
        MUST(again_n <= n && memcmp(again, text, again_n) == 0);
        MUST(again_n == n || (kind == TG_BASE64_URL && n - again_n < 3 && text[again_n] == '='));
    }
    free(fast);
    free(slow);
    free(again);
}

static void
check_hex(const char *text, size_t n)
{
    char *bytes = malloc(n / 2 + 1);
    char *again = malloc(n + 2);
    bool good = n % 2 == 0;
    MUST(bytes != NULL && again != NULL);
    for (size_t i = 0; i < n; i++) {
        good = good && isxdigit((unsigned char)text[i]) != 0;
    }
    MUST((tg_hex_decode(bytes, text, n) == TG_OK) == good);
    if (good) {
        MUST(tg_hex_encode(again, bytes, n / 2) == again + n);
        for (size_t i = 0; i < n; i++) {
            MUST(again[i] == tolower((unsigned char)text[i]));
        }
    }
    free(bytes);
    free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const char *text = (const char *)bytes;
    check_base64(text, n, TG_BASE64_PLAIN);
    check_base64(text, n, TG_BASE64_URL);
    check_hex(text, n);
    return 0;
}
