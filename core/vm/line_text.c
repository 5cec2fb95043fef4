#include "vm/line_text.h"

#include <time.h>

#include "base/hex.h"
#include "base/json_text.h"

static void
put_json_string(struct tg_line_text *out, const char *p, size_t n)
{
    static struct tg_json_text text = {.max = (size_t)2 * TG_LINE_STRING_MAX};
    if (tg_line_fits(out, n) && tg_json_plain_length(p, n) == n) {
        *out->p++ = '"';
        tg_line_put(out, p, n);
        *out->p++ = '"';
        return;
    }
    const size_t room = tg_line_room(out);
    tg_json_text_clear(&text, (size_t)2 * TG_LINE_STRING_MAX);
    if (room < 16 || tg_json_put_string_cut(&text, p, n, room - 16) != TG_OK || text.n > room) {
        tg_line_put(out, "\"\"", 2);
        return;
    }
    tg_line_put(out, text.p, text.n);
}

static void
put_escaped(struct tg_line_text *out, const char *p, size_t n)
{
    size_t room = tg_line_room(out);
    for (size_t i = 0; i < n && room >= 4;) {
        const size_t plain = tg_json_plain_length(p + i, n - i < room - 3 ? n - i : room - 3);
        tg_line_put(out, p + i, plain);
        i += plain;
        room -= plain;
        if (i < n && room >= 4) {
            tg_line_put(out, "\\x", 2);
            out->p = tg_hex_encode(out->p, (const unsigned char *)p + i++, 1);
            room -= 4;
        }
    }
}

void
tg_line_put_string(struct tg_line_text *out, struct tg_slice s, bool json)
{
    if (s.p == NULL) {
        tg_line_put_null(out, json);
    } else if (json) {
        put_json_string(out, s.p, s.n);
    } else {
        put_escaped(out, s.p, s.n);
    }
}

/* The last two digits of a number below 100. */
static void
put_pair(char *p, unsigned value)
{
    static const char pairs[] =
        "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
        "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    memcpy(p, pairs + (size_t)value * 2, 2);
}

void
tg_line_put_whole(struct tg_line_text *out, uint64_t value)
{
    if (value < 10) {
        *out->p++ = (char)('0' + value);
        return;
    }
    if (value < 1000) {
        *out->p = (char)('0' + value / 100);
        out->p += value >= 100;
        put_pair(out->p, (unsigned)(value % 100));
        out->p += 2;
        return;
    }
    size_t n = 4;
    for (uint64_t limit = 10000; n < 20 && value >= limit; limit *= 10) {
        n++;
    }
    char *p = out->p + n;
    for (; value >= 10; value /= 100) {
        p -= 2;
        put_pair(p, (unsigned)(value % 100));
    }
    if (p > out->p) {
        *out->p = (char)('0' + value);
    }
    out->p += n;
}

/* Microseconds. The seconds of the clock are the same in many lines. */
void
tg_line_put_seconds(struct tg_line_text *out, double seconds, bool json)
{
    static int64_t known = -1;
    static char text[TG_LINE_SLACK];
    static size_t text_n;
    if (!(seconds >= 0 && seconds < 1e12)) {
        tg_line_put_null(out, json);
        return;
    }
    const int64_t micro = (int64_t)(seconds * 1e6 + 0.5);
    const int64_t whole = micro / 1000000;
    const unsigned rest = (unsigned)(micro - whole * 1000000);
    if (whole == 0) {
        *out->p++ = '0';
    } else if (whole == known) {
        tg_line_put_literal(out, text, text_n);
    } else {
        const char *start = out->p;
        tg_line_put_whole(out, (uint64_t)whole);
        if (whole > 1000000) {
            known = whole;
            text_n = (size_t)(out->p - start);
            memcpy(text, start, text_n);
        }
    }
    *out->p = '.';
    put_pair(out->p + 1, rest / 10000);
    put_pair(out->p + 3, rest / 100 % 100);
    put_pair(out->p + 5, rest % 100);
    out->p += 7;
}

/* RFC 3339; the calendar is asked once a second. */
void
tg_line_put_date(struct tg_line_text *out, double seconds, bool json)
{
    static time_t known = -1;
    static char text[32];
    if (!(seconds >= 0 && seconds < 253402300800.0)) {
        tg_line_put_string(out, tg_slice_of(NULL, 0), json);
        return;
    }
    const time_t whole = (time_t)seconds;
    if (whole != known) {
        struct tm tm;
        (void)gmtime_r(&whole, &tm);
        (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        known = whole;
    }
    unsigned rest = (unsigned)((seconds - (double)whole) * 1e3);
    char digits[5] = {'.', '0', '0', '0', 'Z'};
    for (size_t i = 3; i > 0; i--, rest /= 10) {
        digits[i] = (char)('0' + rest % 10);
    }
    const char *quote = json ? "\"" : "";
    tg_line_put(out, quote, strlen(quote));
    tg_line_put(out, text, 19);
    tg_line_put(out, digits, sizeof digits);
    tg_line_put(out, quote, strlen(quote));
}
