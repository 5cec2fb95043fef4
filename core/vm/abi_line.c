/*
 * The border: lines of access logs, put together from what the core knows of an exchange. Contracts are in abi.h.
 * A line by Lua would make two dozen strings, which the collector then has to find again: that cost a third of a
 * request.
 */
#include "base/log.h"
#include "base/mem.h"
#include "base/sink.h"
#include "http/trace_context.h"
#include "vm/coroutine.h"
#include "vm/line_text.h"

enum {
    PIECES = 192,
    LITERALS = 8 * 1024, /* bytes of all texts of a line */
    TRACE_ID = 32,       /* digits */
    SPAN_ID = 16,
    KNOWN = 16,       /* runs that are remembered */
    KNOWN_TEXT = 240, /* bytes of the longest */
    RUN_MIN = 3,      /* pieces for which one is remembered */
    SYSLOG_ERROR = 3,
    SYSLOG_WARNING = 4,
    SYSLOG_INFO = 6
};

/* What a line takes beside its strings always fits. */
_Static_assert((int)TG_LINE_SLACK <= (int)TG_SINK_SLACK, "more is copied than there is room for");
_Static_assert(LITERALS + PIECES * TG_LINE_NUMBER_MAX < TG_SINK_LINE, "a line without strings is too long");

/* A part, and the text that stands before it. */
struct piece {
    uint8_t part; /* enum tg_abi_line_part */
    bool json;
    bool hidden;     /* of a header */
    uint16_t number; /* of a header: bytes of its name */
    uint16_t name;   /* where that begins */
    uint16_t text;   /* where the text before it begins, */
    uint16_t text_n; /* and its bytes */
    uint16_t up_to;  /* bytes of all texts up to it, and of numbers for all parts */
};

/* All that some pieces say: it is the same for most exchanges of a route. */
struct known {
    uint64_t key[4];
    size_t n; /* 0: nothing is known yet */
    char text[KNOWN_TEXT];
};

struct tg_abi_line {
    unsigned count;
    size_t used;
    size_t open;  /* where the text begins behind which there is no part yet */
    unsigned run; /* the longest row of pieces that a key decides: where it begins, */
    unsigned run_count;
    unsigned last_count; /* and pieces of that at the end */
    struct piece pieces[PIECES];
    char literals[LITERALS + TG_LINE_SLACK];
    struct known known[KNOWN];
};

/* The line that is being made. */
struct out {
    struct tg_line_text text;
    const struct tg_abi_line *line;
    const char *traceparent;
    bool looked;
};

static struct tg_slice values[TG_LINE_VALUES];
static unsigned values_set;
static char made[TG_SINK_LINE + TG_SINK_SLACK];

static bool
is_decided(unsigned part)
{
    return part == TG_LINE_STATUS || part == TG_LINE_SOURCE || part == TG_LINE_ABORTED ||
           (part >= TG_LINE_ROUTE && part <= TG_LINE_VERSION);
}

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
    for (size_t i = 0; i < n; i++) {
        line->literals[line->used++] = (char)(p[i] == '\n' ? ' ' : p[i]); /* a line is a line */
    }
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
    piece.up_to =
        (uint16_t)(TG_LINE_NUMBER_MAX + piece.text_n + (line->count > 0 ? line->pieces[line->count - 1].up_to : 0));
    line->open = line->used;
    line->pieces[line->count++] = piece;
    line->last_count = is_decided(piece.part) ? line->last_count + 1 : 0;
    if (line->last_count > line->run_count) {
        line->run_count = line->last_count;
        line->run = line->count - line->last_count;
    }
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

/* ------------------------------------------------------------------ parts */

/* The request's traceparent: NULL when there is none that can be read. */
static const char *
find_traceparent(struct tg_abi_exchange *x)
{
    static struct tg_field named;
    uint8_t flags;
    const struct tg_message *request = &tg_exchange_of(x)->request;
    if (named.name == NULL) {
        named = tg_field_of(TG_SLICE("traceparent"), TG_SLICE(""));
    }
    /* It is the last when the core has made it, and nothing came after that. */
    const struct tg_field *field = request->count == 0 ? NULL : &request->fields[request->count - 1];
    if (field == NULL || field->hash != named.hash || field->value != x->traceparent) {
        field = tg_message_find_same(request, &named, &(unsigned){0});
    }
    if (field != NULL && field->value == x->traceparent) { /* it has been read before */
        return x->traceparent;
    }
    if (field != NULL && tg_abi_field_get(x, TG_SIDE_REQUEST, "traceparent", 11) == TG_OK &&
        tg_traceparent_parse(tg_abi_vm.out.p, tg_abi_vm.out.n, &flags) == TG_OK) {
        return tg_abi_vm.out.p;
    }
    return NULL;
}

/* Which is looked for once a line. */
static const char *
traceparent_of(struct out *out, struct tg_abi_exchange *x)
{
    if (!out->looked) {
        out->looked = true;
        out->traceparent = find_traceparent(x);
    }
    return out->traceparent;
}

static void
put_trace(struct out *out, struct tg_abi_exchange *x, const struct piece *piece)
{
    const bool trace = piece->part == TG_LINE_TRACE;
    const char *text = x->recorded != NULL ? x->recorded : traceparent_of(out, x);
    if (text == NULL) {
        tg_line_put_null(&out->text, piece->json);
    } else {
        const size_t at = trace ? TG_TRACEPARENT_TRACE : TG_TRACEPARENT_PARENT;
        tg_line_put_plain(&out->text, tg_slice_of(text + at, trace ? TRACE_ID : SPAN_ID), piece->json);
    }
}

/* Whose names are meant: the one whose Lua runs for it, as long as some does. */
static const struct tg_vm *
vm_of(struct tg_abi_exchange *x)
{
    const struct tg_coroutine *running = tg_host->running;
    const struct tg_exchange *exchange = tg_exchange_of(x);
    return running != NULL && running->exchange == exchange ? running->vm : (const struct tg_vm *)exchange->generation;
}

static void
put_name(struct out *out, struct tg_abi_exchange *x, const struct piece *piece)
{
    const struct tg_vm *vm = vm_of(x);
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
        tg_line_put_null(&out->text, piece->json);
    } else if (name->plain) {
        tg_line_put_plain(&out->text, name->text, piece->json);
    } else {
        tg_line_put_string(&out->text, name->text, piece->json);
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
    tg_line_put_whole(&out->text, facility * 8 + severity);
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
        tg_line_put_whole(&out->text, x->status == 0 ? 499 : x->status);
        break;
    case TG_LINE_BYTES_IN:
        tg_line_put_whole(&out->text, x->bytes_in);
        break;
    case TG_LINE_BYTES_OUT:
        tg_line_put_whole(&out->text, x->bytes_out);
        break;
    case TG_LINE_ATTEMPTS:
        tg_line_put_whole(&out->text, x->attempt);
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
        tg_line_put_seconds(&out->text, x->started, piece->json);
        break;
    case TG_LINE_DATE:
        tg_line_put_date(&out->text, x->started, piece->json);
        break;
    case TG_LINE_DURATION:
        tg_line_put_seconds(&out->text, x->duration, piece->json);
        break;
    default:
        tg_line_put_seconds(&out->text, x->upstream_time, piece->json);
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
    case TG_LINE_METHOD:
        if (x->method_id != 0) {
            tg_line_put_plain(&out->text, x->method, piece->json);
        } else {
            tg_line_put_string(&out->text, x->method, piece->json);
        }
        break;
    case TG_LINE_ID:
        tg_line_put_plain(&out->text, id_of(x), piece->json);
        break;
    case TG_LINE_CLIENT:
        tg_line_put_plain(&out->text, client_of(x), piece->json);
        break;
    case TG_LINE_SOURCE:
        tg_line_put_plain(&out->text, source_of(x), piece->json);
        break;
    case TG_LINE_SCHEME:
        tg_line_put_plain(&out->text, x->secure != 0 ? TG_SLICE("https") : TG_SLICE("http"), piece->json);
        break;
    case TG_LINE_VERSION:
        tg_line_put_plain(&out->text, version_of(x), piece->json);
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
        tg_line_put(&out->text, x->aborted ? "true" : "false", x->aborted ? 4 : 5);
        break;
    case TG_LINE_STATUS:
    case TG_LINE_BYTES_IN:
    case TG_LINE_BYTES_OUT:
    case TG_LINE_ATTEMPTS:
    case TG_LINE_PRIORITY:
        put_number(out, x, piece);
        break;
    default:
        tg_line_put_string(&out->text, text_of(line, x, piece), piece->json);
        break;
    }
}

/* ------------------------------------------------------------------ lines */

/* Bytes of all texts and numbers. */
static size_t
size_of(const struct tg_abi_line *line)
{
    return line->used + (size_t)line->count * TG_LINE_NUMBER_MAX;
}

static void
put_pieces(struct out *out, struct tg_abi_exchange *x, unsigned from, unsigned count)
{
    const struct tg_abi_line *line = out->line;
    const size_t whole = size_of(line);
    for (const struct piece *piece = line->pieces + from; piece < line->pieces + from + count; piece++) {
        out->text.behind = whole - piece->up_to;
        tg_line_put_literal(&out->text, line->literals + piece->text, piece->text_n);
        put_piece(out, line, x, piece);
    }
}

/* All that decides what the pieces of a run say, for which nobody is known. */
static void
make_key(uint64_t key[static 4], struct tg_abi_exchange *x)
{
    const struct tg_vm *vm = vm_of(x);
    key[0] = vm->serial;
    key[1] = (uint64_t)x->route << 32 | x->upstream;
    key[2] = (uint64_t)tg_names_version(vm->names) << 32 | (x->attempt > 0 ? x->peer : UINT32_MAX);
    key[3] = (uint64_t)x->status << 40 | (uint64_t)x->source << 32 | (uint64_t)x->version_major << 24 |
             (uint64_t)x->version_minor << 16 | (uint64_t)(x->aborted != 0) << 8 | (x->secure != 0);
}

/* The pieces of the line's run: as they were said before, if they were. */
static void
put_run(struct out *out, struct tg_abi_line *line, struct tg_abi_exchange *x)
{
    const uint64_t odd = 0x9e3779b97f4a7c15U;
    uint64_t key[4];
    if (line->run_count < RUN_MIN || x->consumer.p != NULL) {
        put_pieces(out, x, line->run, line->run_count);
        return;
    }
    make_key(key, x);
    struct known *known = &line->known[((key[1] * odd) ^ ((key[2] + key[3]) * odd)) >> 60];
    const uint64_t differs =
        (known->key[0] ^ key[0]) | (known->key[1] ^ key[1]) | (known->key[2] ^ key[2]) | (known->key[3] ^ key[3]);
    if (differs == 0 && known->n > 0 && out->text.p + known->n <= out->text.easy) {
        tg_line_put(&out->text, known->text, known->n);
        return;
    }
    const char *start = out->text.p;
    const bool whole = out->text.p + (size_t)2 * TG_LINE_STRING_MAX <= out->text.easy;
    put_pieces(out, x, line->run, line->run_count);
    const size_t n = (size_t)(out->text.p - start);
    known->n = whole && n <= KNOWN_TEXT ? n : 0;
    if (known->n > 0) {
        memcpy(known->text, start, n);
        memcpy(known->key, key, sizeof key);
    }
}

static void
forget_values(void)
{
    while (values_set > 0) {
        values[--values_set] = tg_slice_of(NULL, 0);
    }
}

/* Into TG_SINK_LINE + TG_SINK_SLACK bytes. Returns how many it has. */
static size_t
make(char *p, struct tg_abi_line *line, struct tg_abi_exchange *x)
{
    char *end = p + TG_SINK_LINE - 1;
    struct out out = {.text = {.p = p, .end = end, .easy = end - size_of(line)}, .line = line};
    put_pieces(&out, x, 0, line->run);
    put_run(&out, line, x);
    const unsigned behind = line->run + line->run_count;
    put_pieces(&out, x, behind, line->count - behind);
    tg_line_put_literal(&out.text, line->literals + line->open, line->used - line->open);
    forget_values();
    return (size_t)(out.text.p - p);
}

int
tg_abi_line_make(struct tg_abi_line *line, struct tg_abi_exchange *x)
{
    tg_abi_vm.out = tg_slice_of(made, make(made, line, x));
    return TG_OK;
}

int
tg_abi_line_write(struct tg_abi_line *line, struct tg_abi_exchange *x, uint32_t sink)
{
    if (sink >= tg_host->sink_count) {
        return TG_EINVAL;
    }
    char *p = tg_sink_begin(tg_host->sinks[sink]);
    if (p == NULL) {
        forget_values();
        return TG_ELIMIT;
    }
    tg_sink_end(tg_host->sinks[sink], make(p, line, x));
    return TG_OK;
}
