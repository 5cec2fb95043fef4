/*
 * The border: lines of access logs, put together from what the core knows of an exchange. Contracts are in abi.h.
 * A line by Lua would make two dozen strings, which the collector then has to find again: that cost a third of a
 * request.
 */
#include <stdio.h>
#include <time.h>

#include "base/hex.h"
#include "base/json_text.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sink.h"
#include "http/trace_context.h"
#include "vm/coroutine.h"

enum {
    PIECES = 192,
    LITERALS = 8 * 1024, /* bytes of all texts of a line */
    STRING_MAX = 4096,   /* bytes of a value */
    NUMBER_MAX = 40,     /* bytes of whatever is no string */
    SLACK = 16,          /* bytes behind what is copied in such portions */
    SYSLOG_ERROR = 3,
    SYSLOG_WARNING = 4,
    SYSLOG_INFO = 6
};

/* What a line takes beside its strings always fits. */
_Static_assert(LITERALS + PIECES * NUMBER_MAX < TG_SINK_LINE, "a line without strings is too long");

struct piece {
    uint8_t part; /* enum tg_abi_line_part; TG_LINE_PARTS: a text */
    uint8_t json;
    uint16_t number; /* of a text: its length */
    uint16_t start;  /* of a text */
};

struct tg_abi_line {
    unsigned count;
    size_t used;
    struct piece pieces[PIECES];
    char literals[LITERALS + SLACK];
};

/* The line that is being made: `reserved` bytes are for texts and numbers that are to come. */
struct out {
    char *p;
    char *end;
    size_t reserved;
    const char *traceparent;
    bool looked;
};

static struct tg_slice values[TG_LINE_VALUES];
static unsigned values_set;
static char made[TG_SINK_LINE + SLACK];

struct tg_abi_line *
tg_abi_line_new(void)
{
    return tg_mem_new(struct tg_abi_line);
}

void
tg_abi_line_free(struct tg_abi_line *line)
{
    tg_mem_free(line);
}

int
tg_abi_line_text(struct tg_abi_line *line, const char *p, size_t n)
{
    if (line->count == PIECES || n > LITERALS - line->used) {
        return TG_ELIMIT;
    }
    memcpy(line->literals + line->used, p, n);
    line->pieces[line->count++] =
        (struct piece){.part = TG_LINE_PARTS, .number = (uint16_t)n, .start = (uint16_t)line->used};
    line->used += n;
    return TG_OK;
}

int
tg_abi_line_part(struct tg_abi_line *line, int part, uint32_t number, int json)
{
    if (part < 0 || part >= TG_LINE_PARTS || number >= TG_LINE_VALUES) {
        return TG_EINVAL;
    }
    if (line->count == PIECES) {
        return TG_ELIMIT;
    }
    line->pieces[line->count++] = (struct piece){.part = (uint8_t)part, .json = json != 0, .number = (uint16_t)number};
    return TG_OK;
}

void
tg_abi_line_value(uint32_t number, const char *p, size_t n)
{
    if (number < TG_LINE_VALUES) {
        values[number] = tg_slice_of(p, n);
        values_set = number >= values_set ? number + 1 : values_set;
    }
}

/* ------------------------------------------------------------------ values */

static void
put(struct out *out, const char *p, size_t n)
{
    memcpy(out->p, p, n);
    out->p += n;
}

/* Most have a few bytes: more of them are copied than there are, into room that is there. */
static void
put_literal(struct out *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i += SLACK) {
        memcpy(out->p + i, p + i, SLACK);
    }
    out->p += n;
}

/* How much a string may take, and leave enough for all that follows. */
static size_t
room_of(const struct out *out)
{
    const size_t left = (size_t)(out->end - out->p);
    return left <= out->reserved ? 0 : left - out->reserved < STRING_MAX ? left - out->reserved : STRING_MAX;
}

static void
put_json_string(struct out *out, const char *p, size_t n)
{
    static struct tg_json_text text = {.max = (size_t)2 * STRING_MAX};
    const size_t room = room_of(out);
    if (n + 2 <= room && tg_json_plain_length(p, n) == n) {
        *out->p++ = '"';
        put(out, p, n);
        *out->p++ = '"';
        return;
    }
    tg_json_text_clear(&text, (size_t)2 * STRING_MAX);
    if (room < 16 || tg_json_put_string_cut(&text, p, n, room - 16) != TG_OK || text.n > room) {
        put(out, "\"\"", 2);
        return;
    }
    put(out, text.p, text.n);
}

static void
put_escaped(struct out *out, const char *p, size_t n)
{
    size_t room = room_of(out);
    for (size_t i = 0; i < n && room >= 4;) {
        const size_t plain = tg_json_plain_length(p + i, n - i < room - 3 ? n - i : room - 3);
        put(out, p + i, plain);
        i += plain;
        room -= plain;
        if (i < n && room >= 4) {
            put(out, "\\x", 2);
            out->p = tg_hex_encode(out->p, (const unsigned char *)p + i++, 1);
            room -= 4;
        }
    }
}

static void
put_string(struct out *out, struct tg_slice s, bool json)
{
    if (s.p == NULL) {
        put(out, json ? "null" : "-", json ? 4 : 1);
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

static void
put_whole(struct out *out, uint64_t value)
{
    char digits[20];
    size_t n = sizeof digits;
    if (value < 10) {
        *out->p++ = (char)('0' + value);
        return;
    }
    for (; value >= 10; value /= 100) {
        n -= 2;
        put_pair(digits + n, (unsigned)(value % 100));
    }
    if (value > 0) {
        digits[--n] = (char)('0' + value);
    }
    put(out, digits + n, sizeof digits - n);
}

/* Microseconds. */
static void
put_seconds(struct out *out, double seconds, bool json)
{
    if (!(seconds >= 0 && seconds < 1e12)) {
        put_string(out, tg_slice_of(NULL, 0), json);
        return;
    }
    const uint64_t micro = (uint64_t)(seconds * 1e6 + 0.5);
    const unsigned rest = (unsigned)(micro % 1000000);
    put_whole(out, micro / 1000000);
    *out->p = '.';
    put_pair(out->p + 1, rest / 10000);
    put_pair(out->p + 3, rest / 100 % 100);
    put_pair(out->p + 5, rest % 100);
    out->p += 7;
}

/* RFC 3339; the calendar is asked once a second. */
static void
put_date(struct out *out, double seconds, bool json)
{
    static time_t known = -1;
    static char text[32];
    if (!(seconds >= 0 && seconds < 253402300800.0)) {
        put_string(out, tg_slice_of(NULL, 0), json);
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
    put(out, quote, strlen(quote));
    put(out, text, 19);
    put(out, digits, sizeof digits);
    put(out, quote, strlen(quote));
}

/* ------------------------------------------------------------------ parts */

/* The request's traceparent, which is looked for once a line: NULL when there is none that can be read. */
static const char *
traceparent_of(struct out *out, struct tg_abi_exchange *x)
{
    uint8_t flags;
    if (!out->looked) {
        out->looked = true;
        if (tg_abi_field_get(x, TG_SIDE_REQUEST, "traceparent", 11) == TG_OK &&
            tg_traceparent_parse(tg_abi_vm.out.p, tg_abi_vm.out.n, &flags) == TG_OK) {
            out->traceparent = tg_abi_vm.out.p;
        }
    }
    return out->traceparent;
}

static void
put_trace(struct out *out, struct tg_abi_exchange *x, const struct piece *piece)
{
    struct tg_slice found = values[piece->number];
    const char *text = found.p == NULL ? traceparent_of(out, x) : NULL;
    if (text != NULL) {
        const bool trace = piece->part == TG_LINE_TRACE;
        found = tg_slice_of(text + (trace ? TG_TRACEPARENT_TRACE : TG_TRACEPARENT_PARENT), trace ? 32 : 16);
    }
    put_string(out, found, piece->json);
}

static void
put_source(struct out *out, const struct tg_abi_exchange *x, bool json)
{
    static const char *const names[] = {"gateway", "upstream", "plugin", "gateway"};
    const char *name = x->status == 0 || x->source > TG_SOURCE_GATEWAY ? NULL : names[x->source];
    put_string(out, tg_slice_of(name, name == NULL ? 0 : strlen(name)), json);
}

static void
put_priority(struct out *out, const struct tg_abi_exchange *x, unsigned facility)
{
    const unsigned severity = x->status >= 500 ? SYSLOG_ERROR : x->status >= 400 ? SYSLOG_WARNING : SYSLOG_INFO;
    put_whole(out, facility * 8 + severity);
}

static struct tg_slice
text_of(struct tg_abi_exchange *x, unsigned part)
{
    switch (part) {
    case TG_LINE_ID:
        return tg_abi_id(x, 0) == TG_OK ? x->id : tg_slice_of(NULL, 0);
    case TG_LINE_CLIENT:
        (void)tg_abi_client_ip(x);
        return tg_abi_vm.out;
    case TG_LINE_METHOD:
        return x->method;
    case TG_LINE_HOST:
        return x->host;
    default:
        return x->path;
    }
}

static void
put_number(struct out *out, const struct tg_abi_exchange *x, const struct piece *piece)
{
    switch (piece->part) {
    case TG_LINE_TIME:
        put_seconds(out, x->started, piece->json);
        break;
    case TG_LINE_DURATION:
        put_seconds(out, x->duration, piece->json);
        break;
    case TG_LINE_UPSTREAM_TIME:
        put_seconds(out, x->upstream_time, piece->json);
        break;
    case TG_LINE_STATUS:
        put_whole(out, x->status == 0 ? 499 : x->status);
        break;
    case TG_LINE_BYTES_IN:
        put_whole(out, x->bytes_in);
        break;
    case TG_LINE_BYTES_OUT:
        put_whole(out, x->bytes_out);
        break;
    case TG_LINE_ATTEMPTS:
        put_whole(out, x->attempt);
        break;
    default:
        put(out, x->aborted ? "true" : "false", x->aborted ? 4 : 5);
        break;
    }
}

static void
put_piece(struct out *out, struct tg_abi_exchange *x, const struct piece *piece)
{
    switch (piece->part) {
    case TG_LINE_VALUE:
        put_string(out, values[piece->number], piece->json);
        break;
    case TG_LINE_DATE:
        put_date(out, x->started, piece->json);
        break;
    case TG_LINE_ID:
    case TG_LINE_CLIENT:
    case TG_LINE_METHOD:
    case TG_LINE_HOST:
    case TG_LINE_PATH:
        put_string(out, text_of(x, piece->part), piece->json);
        break;
    case TG_LINE_SOURCE:
        put_source(out, x, piece->json);
        break;
    case TG_LINE_TRACE:
    case TG_LINE_SPAN:
        put_trace(out, x, piece);
        break;
    case TG_LINE_PRIORITY:
        put_priority(out, x, piece->number);
        break;
    default:
        put_number(out, x, piece);
        break;
    }
}

int
tg_abi_line_make(const struct tg_abi_line *line, struct tg_abi_exchange *x)
{
    struct out out = {.p = made, .end = made + TG_SINK_LINE - 1};
    out.reserved = line->used + (size_t)line->count * NUMBER_MAX;
    for (unsigned i = 0; i < line->count; i++) {
        const struct piece *piece = &line->pieces[i];
        out.reserved -= NUMBER_MAX;
        if (piece->part == TG_LINE_PARTS) {
            out.reserved -= piece->number;
            put_literal(&out, line->literals + piece->start, piece->number);
        } else {
            put_piece(&out, x, piece);
        }
    }
    while (values_set > 0) {
        values[--values_set] = tg_slice_of(NULL, 0);
    }
    tg_abi_vm.out = tg_slice_of(made, (size_t)(out.p - made));
    return TG_OK;
}

int
tg_abi_line_write(const struct tg_abi_line *line, struct tg_abi_exchange *x, uint32_t sink)
{
    (void)tg_abi_line_make(line, x);
    return tg_abi_sink_write(sink, tg_abi_vm.out.p, tg_abi_vm.out.n);
}
