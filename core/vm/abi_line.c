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
    TRACE_ID = 32,       /* digits */
    SPAN_ID = 16,
    SLACK = 16, /* bytes behind what is copied in such portions */
    SYSLOG_ERROR = 3,
    SYSLOG_WARNING = 4,
    SYSLOG_INFO = 6
};

/* What a line takes beside its strings always fits. */
_Static_assert(LITERALS + PIECES * NUMBER_MAX < TG_SINK_LINE, "a line without strings is too long");

/* A part, and the text that stands before it. */
struct piece {
    uint8_t part; /* enum tg_abi_line_part */
    bool json;
    bool hidden;     /* of a header */
    uint16_t number; /* of a header: bytes of its name */
    uint16_t name;   /* where that begins */
    uint16_t text;   /* where the text before it begins, */
    uint16_t text_n; /* and its bytes */
};

struct tg_abi_line {
    unsigned count;
    size_t used;
    size_t open; /* where the text begins behind which there is no part yet */
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

static int
add_text(struct tg_abi_line *line, const char *p, size_t n)
{
    if (n > LITERALS - line->used) {
        return TG_ELIMIT;
    }
    memcpy(line->literals + line->used, p, n);
    line->used += n;
    return TG_OK;
}

/* The text so far stands before it; `name`: bytes of a name at the end, which is no text. */
static int
add_piece(struct tg_abi_line *line, struct piece piece, size_t name)
{
    if (line->count == PIECES) {
        return TG_ELIMIT;
    }
    piece.text = (uint16_t)line->open;
    piece.text_n = (uint16_t)(line->used - name - line->open);
    piece.name = (uint16_t)(line->used - name);
    line->open = line->used;
    line->pieces[line->count++] = piece;
    return TG_OK;
}

int
tg_abi_line_text(struct tg_abi_line *line, const char *p, size_t n)
{
    return add_text(line, p, n);
}

int
tg_abi_line_part(struct tg_abi_line *line, int part, uint32_t number, int json)
{
    if (part < 0 || part >= TG_LINE_PARTS || number >= TG_LINE_VALUES) {
        return TG_EINVAL;
    }
    return add_piece(line, (struct piece){.part = (uint8_t)part, .json = json != 0, .number = (uint16_t)number}, 0);
}

int
tg_abi_line_header(struct tg_abi_line *line, const char *name, size_t n, int hidden, int json)
{
    if (!tg_is_token(name, n)) {
        return TG_EINVAL;
    }
    if (line->count == PIECES || add_text(line, name, n) != TG_OK) {
        return TG_ELIMIT;
    }
    const struct piece piece = {
        .part = TG_LINE_HEADER, .hidden = hidden != 0, .json = json != 0, .number = (uint16_t)n};
    return add_piece(line, piece, n);
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
static inline void
put_literal(struct out *out, const char *p, size_t n)
{
    memcpy(out->p, p, SLACK);
    for (size_t i = SLACK; i < n; i += SLACK) {
        memcpy(out->p + i, p + i, SLACK);
    }
    out->p += n;
}

/* Bytes that need no room kept for them, or a few of them. */
static inline void
put_null(struct out *out, bool json)
{
    memcpy(out->p, json ? "null" : "-   ", 4);
    out->p += json ? 4 : 1;
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
        put_null(out, json);
    } else if (json) {
        put_json_string(out, s.p, s.n);
    } else {
        put_escaped(out, s.p, s.n);
    }
}

/* One that has no byte that is to be escaped. */
static void
put_plain(struct out *out, struct tg_slice s, bool json)
{
    if (s.p == NULL || s.n + 2 > room_of(out)) {
        put_string(out, s, json);
        return;
    }
    *out->p = '"';
    out->p += json;
    put(out, s.p, s.n);
    *out->p = '"';
    out->p += json;
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
    if (value < 10) {
        *out->p++ = (char)('0' + value);
        return;
    }
    size_t n = 2;
    for (uint64_t limit = 100; n < 20 && value >= limit; limit *= 10) {
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
static void
put_seconds(struct out *out, double seconds, bool json)
{
    static uint64_t known = UINT64_MAX;
    static char text[SLACK];
    static size_t text_n;
    if (!(seconds >= 0 && seconds < 1e12)) {
        put_null(out, json);
        return;
    }
    const uint64_t micro = (uint64_t)(seconds * 1e6 + 0.5);
    const uint64_t whole = micro / 1000000;
    const unsigned rest = (unsigned)(micro % 1000000);
    if (whole == known) {
        put_literal(out, text, text_n);
    } else {
        const char *start = out->p;
        put_whole(out, whole);
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
        static struct tg_field named;
        if (named.name == NULL) {
            named = tg_field_of(TG_SLICE("traceparent"), TG_SLICE(""));
        }
        const struct tg_field *field = tg_message_find_same(&tg_exchange_of(x)->request, &named, &(unsigned){0});
        out->looked = true;
        if (field != NULL && field->value == x->traceparent) { /* it has been read before */
            out->traceparent = x->traceparent;
        } else if (field != NULL && tg_abi_field_get(x, TG_SIDE_REQUEST, "traceparent", 11) == TG_OK &&
                   tg_traceparent_parse(tg_abi_vm.out.p, tg_abi_vm.out.n, &flags) == TG_OK) {
            out->traceparent = tg_abi_vm.out.p;
        }
    }
    return out->traceparent;
}

static void
put_trace(struct out *out, struct tg_abi_exchange *x, const struct piece *piece)
{
    const bool trace = piece->part == TG_LINE_TRACE;
    const char *text = x->recorded != NULL ? x->recorded : traceparent_of(out, x);
    if (text == NULL) {
        put_null(out, piece->json);
    } else {
        const size_t at = trace ? TG_TRACEPARENT_TRACE : TG_TRACEPARENT_PARENT;
        put_plain(out, tg_slice_of(text + at, trace ? TRACE_ID : SPAN_ID), piece->json);
    }
}

/* What the generation calls it: the one whose Lua runs for it, as long as some does. */
static void
put_name(struct out *out, struct tg_abi_exchange *x, const struct piece *piece)
{
    const struct tg_coroutine *running = tg_host->running;
    const struct tg_exchange *exchange = tg_exchange_of(x);
    const struct tg_vm *vm =
        running != NULL && running->exchange == exchange ? running->vm : (const struct tg_vm *)exchange->generation;
    enum tg_abi_name kind = TG_NAME_GENERATION;
    uint32_t number = 0;
    if (piece->part == TG_LINE_ROUTE) {
        kind = TG_NAME_ROUTE;
        number = x->route;
    } else if (piece->part == TG_LINE_UPSTREAM) {
        kind = x->upstream != 0 ? TG_NAME_UPSTREAM : TG_NAME_ROUTE_UPSTREAM;
        number = x->upstream != 0 ? x->upstream : x->route;
    } else if (piece->part == TG_LINE_PEER) {
        kind = TG_NAME_PEER;
        number = x->attempt > 0 ? x->peer : UINT32_MAX;
    }
    const struct tg_name *name = tg_names_get(vm->names, kind, number);
    if (name == NULL) {
        put_null(out, piece->json);
    } else if (name->plain) {
        put_plain(out, name->text, piece->json);
    } else {
        put_string(out, name->text, piece->json);
    }
}

static struct tg_slice
header_of(const struct tg_abi_line *line, struct tg_abi_exchange *x, const struct piece *piece)
{
    if (tg_abi_field_get(x, TG_SIDE_REQUEST, line->literals + piece->name, piece->number) != TG_OK) {
        return tg_slice_of(NULL, 0);
    }
    return piece->hidden ? TG_SLICE("***") : tg_abi_vm.out;
}

static struct tg_slice
source_of(const struct tg_abi_exchange *x)
{
    static const struct tg_slice names[] = {
        [TG_SOURCE_NONE] = TG_SLICE("gateway"),
        [TG_SOURCE_UPSTREAM] = TG_SLICE("upstream"),
        [TG_SOURCE_LUA] = TG_SLICE("plugin"),
        [TG_SOURCE_GATEWAY] = TG_SLICE("gateway"),
    };
    return x->status == 0 || x->source > TG_SOURCE_GATEWAY ? tg_slice_of(NULL, 0) : names[x->source];
}

static void
put_priority(struct out *out, const struct tg_abi_exchange *x, unsigned facility)
{
    const unsigned severity = x->status >= 500 ? SYSLOG_ERROR : x->status >= 400 ? SYSLOG_WARNING : SYSLOG_INFO;
    put_whole(out, facility * 8 + severity);
}

static struct tg_slice
id_of(struct tg_abi_exchange *x)
{
    return x->id.n > 0 || tg_abi_id(x, 0) == TG_OK ? x->id : tg_slice_of(NULL, 0);
}

static struct tg_slice
client_of(struct tg_abi_exchange *x)
{
    (void)tg_abi_client_ip(x);
    return tg_abi_vm.out;
}

static struct tg_slice
version_of(const struct tg_abi_exchange *x)
{
    return x->version_major == 2 ? TG_SLICE("2") : x->version_minor == 1 ? TG_SLICE("1.1") : TG_SLICE("1.0");
}

/* Of those that are texts, and not the core's own. */
static struct tg_slice
text_of(const struct tg_abi_line *line, struct tg_abi_exchange *x, const struct piece *piece)
{
    switch (piece->part) {
    case TG_LINE_VALUE:
        return values[piece->number];
    case TG_LINE_METHOD:
        return x->method;
    case TG_LINE_HOST:
        return x->host;
    case TG_LINE_PATH:
        return x->path;
    case TG_LINE_CONSUMER:
        return x->consumer;
    default:
        return header_of(line, x, piece);
    }
}

static void
put_number(struct out *out, const struct tg_abi_exchange *x, const struct piece *piece)
{
    switch (piece->part) {
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
        put_priority(out, x, piece->number);
        break;
    }
}

static void
put_time(struct out *out, const struct tg_abi_exchange *x, const struct piece *piece)
{
    switch (piece->part) {
    case TG_LINE_TIME:
        put_seconds(out, x->started, piece->json);
        break;
    case TG_LINE_DATE:
        put_date(out, x->started, piece->json);
        break;
    case TG_LINE_DURATION:
        put_seconds(out, x->duration, piece->json);
        break;
    default:
        put_seconds(out, x->upstream_time, piece->json);
        break;
    }
}

static void
put_piece(struct out *out, const struct tg_abi_line *line, struct tg_abi_exchange *x, const struct piece *piece)
{
    switch (piece->part) {
    case TG_LINE_TIME:
    case TG_LINE_DATE:
    case TG_LINE_DURATION:
    case TG_LINE_UPSTREAM_TIME:
        put_time(out, x, piece);
        break;
    case TG_LINE_ID:
        put_plain(out, id_of(x), piece->json);
        break;
    case TG_LINE_CLIENT:
        put_plain(out, client_of(x), piece->json);
        break;
    case TG_LINE_SOURCE:
        put_plain(out, source_of(x), piece->json);
        break;
    case TG_LINE_SCHEME:
        put_plain(out, x->secure != 0 ? TG_SLICE("https") : TG_SLICE("http"), piece->json);
        break;
    case TG_LINE_VERSION:
        put_plain(out, version_of(x), piece->json);
        break;
    case TG_LINE_TRACE:
    case TG_LINE_SPAN:
        put_trace(out, x, piece);
        break;
    case TG_LINE_ROUTE:
    case TG_LINE_UPSTREAM:
    case TG_LINE_PEER:
    case TG_LINE_GENERATION:
        put_name(out, x, piece);
        break;
    case TG_LINE_ABORTED:
        put(out, x->aborted ? "true" : "false", x->aborted ? 4 : 5);
        break;
    case TG_LINE_STATUS:
    case TG_LINE_BYTES_IN:
    case TG_LINE_BYTES_OUT:
    case TG_LINE_ATTEMPTS:
    case TG_LINE_PRIORITY:
        put_number(out, x, piece);
        break;
    default:
        put_string(out, text_of(line, x, piece), piece->json);
        break;
    }
}

int
tg_abi_line_make(const struct tg_abi_line *line, struct tg_abi_exchange *x)
{
    struct out out = {.p = made, .end = made + TG_SINK_LINE - 1};
    out.reserved = line->used + (size_t)line->count * NUMBER_MAX;
    for (const struct piece *piece = line->pieces; piece < line->pieces + line->count; piece++) {
        out.reserved -= NUMBER_MAX + piece->text_n;
        put_literal(&out, line->literals + piece->text, piece->text_n);
        put_piece(&out, line, x, piece);
    }
    put_literal(&out, line->literals + line->open, line->used - line->open);
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
