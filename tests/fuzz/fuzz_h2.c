/*
 * fuzz_h2.c - a peer's frames through the codec of HTTP/2, in either role, cut where the fuzzer chooses.
 *
 * Oracles beside the sanitizers: where the bytes are cut changes neither what owners are told nor what is sent; memory
 * and what waits to be sent are bounded; a head that comes out is one that HTTP/1.1 accepts when it is written so; a
 * length is that of the data. Frames are mutated as such, with a length that fits.
 */
#include <sanitizer/allocator_interface.h>

#include "fuzz.h"
#include "http/h1_write.h"
#include "http/h2.h"
#include "http/target.h"

enum { STREAMS = 8, OWNERS = 4096, ANSWER = 3000, INPUT_MAX = 32768, FRAME_HEADER = 9, GOAWAY = 7 };
enum { CLIENT = 1, DRAINS = 2, KEEPS = 4, RAW = 8 }; /* of the first byte */

static const struct tg_h2_limits limits = {.streams = STREAMS,
                                           .field = 4096,
                                           .head = 16384,
                                           .fields = 50,
                                           .window = 65535,
                                           .connection_window = 1024 * 1024,
                                           .resets = 20,
                                           .reset_time = 30000,
                                           .controls = 100,
                                           .extended_connect = true};

struct owner {
    struct tg_h2_stream stream;
    struct tg_message message;
    struct tg_message trailers;
    struct tg_arena arena;
    uint64_t data;
    uint64_t digest; /* of the data; told at its end: how much of a body that is too long comes, is up to the cuts */
    bool ended;
    char first[64];
};

struct run {
    struct tg_h2 *h2;
    struct owner *owners[OWNERS];
    unsigned used;
    unsigned mode;
    uint64_t told; /* digest of what the owners are told */
    uint64_t sent; /* of the bytes that go out */
    size_t sent_n;
};

static struct run *run;

static void
tell(uint64_t *digest, uint64_t value)
{
    *digest = (*digest ^ value) * 0x100000001b3U;
}

static void
tell_bytes(uint64_t *digest, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        tell(digest, (unsigned char)p[i]);
    }
}

static struct owner *
take_owner(void)
{
    if (run->used == OWNERS) {
        return NULL;
    }
    struct owner *owner = calloc(1, sizeof *owner);
    run->owners[run->used++] = owner;
    tg_arena_init(&owner->arena, owner->first, sizeof owner->first, 256 * 1024);
    tg_message_init(&owner->message, &owner->arena);
    tg_message_init(&owner->trailers, &owner->arena);
    owner->stream.owner = owner;
    owner->stream.message = &owner->message;
    owner->stream.trailers = &owner->trailers;
    return owner;
}

/* Its place stays: streams are closed while the run goes on, freed when it ends. */
static void
drop_owner(struct owner *owner)
{
    tg_h2_stream_close(&owner->stream, TG_H2_CANCEL);
    tg_arena_reset(&owner->arena);
}

static struct tg_h2_stream *
on_begin(void *arg)
{
    struct owner *owner = take_owner();
    (void)arg;
    tell(&run->told, 1);
    return owner == NULL ? NULL : &owner->stream;
}

static void
check_request(struct owner *owner)
{
    static const struct tg_h1_limits wide = {16384, 16384, 65536, 100};
    const struct tg_message *message = &owner->message;
    const struct tg_h1_fault *fault = NULL;
    struct tg_target target;
    struct tg_message again;
    struct tg_slice head;
    struct tg_h1_scan scan = {0};
    unsigned cookies = 0;
    unsigned hosts = 0;
    for (unsigned i = 0; i < message->count; i++) {
        cookies += message->fields[i].id == TG_FIELD_COOKIE;
        hosts += message->fields[i].id == TG_FIELD_HOST;
        MUST(tg_is_value(message->fields[i].value, message->fields[i].value_len));
    }
    MUST(cookies <= 1 && hosts == 1);
    if (tg_target_parse(&target, message, &owner->arena, &fault) != TG_OK) {
        return;
    }
    const struct tg_h1_forward forward = {
        .authority = target.authority, .client_ip = TG_SLICE("::1"), .proto = TG_SLICE("https")};
    const struct tg_h1_frame frame = {.framing = message->framing, .length = message->content_length};
    if (tg_h1_write_request(message, target.raw_path, target.query, target.query_present, &forward, &frame, &head) !=
        TG_OK) {
        return;
    }
    MUST(tg_h1_scan(&scan, head.p, head.n, &wide, true, &fault) == TG_OK && scan.pos == head.n);
    tg_message_init(&again, &owner->arena);
    enum tg_rc rc = tg_h1_parse_request(&again, head.p, head.n, &fault);
    MUST(rc == TG_OK || rc == TG_ENOMEM);
    if (rc == TG_OK) {
        MUST(again.framing == message->framing && again.content_length == message->content_length);
        MUST(tg_slice_is(again.method, message->method.p, message->method.n));
    }
}

static void
check_response(struct owner *owner)
{
    const struct tg_message *message = &owner->message;
    const struct tg_h1_fault *fault = NULL;
    struct tg_message again;
    struct tg_slice head;
    const struct tg_h1_frame frame = {
        .framing = message->framing, .length = message->content_length, .length_of_none = true};
    MUST(message->status >= 100 && message->status != 101);
    if (tg_h1_write_response(message, &frame, TG_SLICE("Thu, 01 Jan 1970 00:00:00 GMT"), &head) != TG_OK) {
        return;
    }
    tg_message_init(&again, &owner->arena);
    enum tg_rc rc = tg_h1_parse_response(&again, head.p, head.n, owner->stream.to_head, &fault);
    MUST(rc == TG_OK || rc == TG_ENOMEM);
    MUST(rc != TG_OK || (again.status == message->status && again.framing == message->framing));
}

static void
on_head(struct tg_h2_stream *stream)
{
    struct owner *owner = stream->owner;
    const struct tg_message *message = &owner->message;
    tell(&run->told, 2);
    tell_bytes(&run->told, message->target.p, message->target.n);
    for (unsigned i = 0; i < message->count; i++) {
        tell_bytes(&run->told, message->fields[i].name, message->fields[i].name_len);
        tell_bytes(&run->told, message->fields[i].value, message->fields[i].value_len);
    }
    if ((run->mode & CLIENT) != 0) {
        check_response(owner);
    } else if (stream->protocol.n == 0) {
        check_request(owner);
    }
}

static void
answer(struct tg_h2_stream *stream, unsigned status)
{
    static const char body[ANSWER];
    const struct iovec v = {(void *)(uintptr_t)body, sizeof body};
    size_t taken;
    if (tg_h2_respond(stream, status, NULL, false) == TG_OK && tg_h2_write(stream, &v, 1, &taken) == TG_OK) {
        MUST(taken == sizeof body && tg_h2_finish(stream, NULL) == TG_OK);
    }
}

static void
on_refused(struct tg_h2_stream *stream, const struct tg_h1_fault *fault)
{
    MUST((run->mode & CLIENT) == 0 && fault->status >= 400);
    tell(&run->told, fault->status);
    answer(stream, fault->status);
}

static void
on_data(struct tg_h2_stream *stream, const char *p, size_t n)
{
    struct owner *owner = stream->owner;
    owner->data += n;
    MUST(!owner->ended && stream->got_head);
    MUST(owner->message.framing != TG_FRAMING_LENGTH || owner->data <= owner->message.content_length);
    tell_bytes(&owner->digest, p, n);
    if (n % 3 != 0) { /* the rest stays with the stream */
        tg_h2_consumed(stream, n);
    }
}

static void
on_end(struct tg_h2_stream *stream)
{
    struct owner *owner = stream->owner;
    MUST(!owner->ended);
    MUST(owner->message.framing != TG_FRAMING_LENGTH || owner->data == owner->message.content_length);
    MUST(owner->message.framing != TG_FRAMING_NONE || owner->data == 0);
    owner->ended = true;
    tell(&run->told, 3 + owner->trailers.count);
    tell(&run->told, owner->digest);
    if ((run->mode & CLIENT) == 0) {
        answer(stream, 200);
    }
}

static void
on_writable(struct tg_h2_stream *stream)
{
    if (stream->sent_end && (run->mode & CLIENT) == 0) {
        drop_owner(stream->owner);
    }
}

static void
on_reset(struct tg_h2_stream *stream, uint32_t code)
{
    MUST(stream->h2 == NULL && stream->queue.bytes == NULL);
    tell(&run->told, 1000 + code);
    if ((run->mode & KEEPS) == 0) {
        drop_owner(stream->owner);
    }
}

static void
on_limited(void *arg, enum tg_limit limit)
{
    (void)arg;
    tell(&run->told, 2000 + limit);
}

static const struct tg_h2_hooks hooks = {on_begin, on_head,     on_refused, on_data,
                                         on_end,   on_writable, on_reset,   on_limited};

static void
drain(void)
{
    static char piece[20000];
    size_t n;
    while ((n = tg_h2_output(run->h2, piece, sizeof piece)) > 0) {
        tell_bytes(&run->sent, piece, n);
        run->sent_n += n;
    }
    MUST(!tg_h2_wants_output(run->h2));
}

static void
ask(const char *method, bool end)
{
    const struct tg_h2_request request = {
        tg_slice_of(method, strlen(method)), TG_SLICE("https"), TG_SLICE("a"), TG_SLICE("/"), {NULL, 0}, end};
    struct owner *owner = take_owner();
    owner->stream.to_head = strcmp(method, "HEAD") == 0;
    MUST(tg_h2_request(run->h2, &owner->stream, &request, NULL) == TG_OK);
}

/* What a session may hold, whatever was sent to it: itself, its tables, its streams, and what waits. */
static void
check_bounds(size_t before)
{
    const size_t now = __sanitizer_get_current_allocated_bytes();
    MUST(tg_h2_open_streams(run->h2) <= STREAMS * TG_H2_RESERVED);
    MUST(now < before + 256 * 1024 + (size_t)run->used * (sizeof(struct owner) + 1024) + (size_t)STREAMS * 512 * 1024);
}

static void
live(struct run *one, unsigned mode, const char *p, size_t n, size_t step)
{
    run = one;
    *run = (struct run){.mode = mode};
    const size_t before = __sanitizer_get_current_allocated_bytes();
    run->h2 = tg_h2_new((mode & CLIENT) != 0 ? TG_H2_CLIENT : TG_H2_SERVER, &limits, &hooks, NULL);
    MUST(run->h2 != NULL);
    enum tg_rc rc = TG_OK;
    if ((mode & CLIENT) != 0) {
        ask("GET", true);
        ask("HEAD", true);
        ask("POST", false);
        drain();
    } else if ((mode & RAW) == 0) {
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
        rc = tg_h2_feed(run->h2, preface, sizeof preface - 1, 1);
    }
    for (size_t at = 0; at < n && rc == TG_OK;) {
        const size_t size = step < n - at ? step : n - at;
        rc = tg_h2_feed(run->h2, p + at, size, 1000);
        at += size;
        if ((mode & DRAINS) != 0) {
            drain();
        }
        if (at == n || rc != TG_OK || at % 4096 < step) {
            check_bounds(before);
        }
    }
    const size_t waited = run->sent_n;
    drain();
    MUST((mode & DRAINS) != 0 ||
         run->sent_n - waited <= STREAMS * 2 * (ANSWER + 100) + (TG_H2_ANSWERS_MAX + 200) * 60U);
    tg_h2_sweep(run->h2, 100000, 1);
    tg_h2_free(run->h2);
    for (unsigned i = 0; i < run->used; i++) {
        MUST(run->owners[i]->stream.home == NULL && run->owners[i]->stream.queue.bytes == NULL);
        tg_arena_fini(&run->owners[i]->arena);
        free(run->owners[i]);
    }
    MUST(__sanitizer_get_current_allocated_bytes() == before);
}

static size_t
frame_length(const uint8_t *p, size_t n)
{
    const size_t length = n < FRAME_HEADER ? n : FRAME_HEADER + ((size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2]);
    return length < n ? length : n;
}

/* After GOAWAY, with nothing open, nghttp2 looks at the rest of the bytes it was given, but not at the next ones. */
static bool
has_goaway(const uint8_t *p, size_t n)
{
    bool has = false;
    for (size_t at = 0; at < n; at += frame_length(p + at, n - at)) {
        has |= n - at > 3 && p[at + 3] == GOAWAY;
    }
    return has;
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct run one;
    static struct run other;
    if (n < 2 || n > INPUT_MAX) {
        return 0;
    }
    const unsigned mode = bytes[0] & 15U;
    live(&one, mode, (const char *)bytes + 2, n - 2, bytes[1] + 1U);
    if ((mode & DRAINS) == 0 && !has_goaway(bytes + 2, n - 2)) {
        live(&other, mode, (const char *)bytes + 2, n - 2, n);
        MUST(one.told == other.told && one.sent_n == other.sent_n && one.sent == other.sent);
    }
    return 0;
}

/* --- frames are mutated as frames --- */

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t max, unsigned seed);

/* One of the frames from bytes[2] on; *length with its header. */
static size_t
pick_frame(const uint8_t *bytes, size_t n, unsigned seed, size_t *length)
{
    unsigned count = 0;
    for (size_t at = 2; at < n; at += frame_length(bytes + at, n - at)) {
        count++;
    }
    size_t at = 2;
    for (unsigned skip = count == 0 ? 0 : seed % count; skip > 0; skip--) {
        at += frame_length(bytes + at, n - at);
    }
    *length = frame_length(bytes + at, n - at);
    return at;
}

/* The payload changes, and its length with it. */
static size_t
mutate_payload(uint8_t *bytes, size_t n, size_t max, size_t at, size_t length)
{
    static uint8_t payload[INPUT_MAX];
    const size_t old = length - FRAME_HEADER;
    size_t room = max - n + old;
    room = room < 16000 ? room : 16000;
    if (old > room || room == 0) {
        return n;
    }
    memcpy(payload, bytes + at + FRAME_HEADER, old);
    const size_t size = LLVMFuzzerMutate(payload, old, room);
    memmove(bytes + at + FRAME_HEADER + size, bytes + at + length, n - at - length);
    memcpy(bytes + at + FRAME_HEADER, payload, size);
    bytes[at] = 0;
    bytes[at + 1] = (uint8_t)(size >> 8);
    bytes[at + 2] = (uint8_t)size;
    return n - old + size;
}

size_t
LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t max, unsigned seed)
{
    size_t length = 0;
    max = max < INPUT_MAX ? max : INPUT_MAX;
    if (n < 2 + FRAME_HEADER || n > max || seed % 8 == 0) {
        return LLVMFuzzerMutate(bytes, n, max);
    }
    const size_t at = pick_frame(bytes, n, seed / 8, &length);
    if (length < FRAME_HEADER) {
        return LLVMFuzzerMutate(bytes, n, max);
    }
    if (seed % 8 <= 3) {
        return mutate_payload(bytes, n, max, at, length);
    }
    if (seed % 8 == 4 && n + length <= max) { /* twice */
        memmove(bytes + at + length, bytes + at, n - at);
        return n + length;
    }
    if (seed % 8 == 5 && n > length + 2) { /* not at all */
        memmove(bytes + at, bytes + at + length, n - at - length);
        return n - length;
    }
    (void)LLVMFuzzerMutate(bytes + at + 3, FRAME_HEADER - 3, FRAME_HEADER - 3); /* type, flags, stream */
    return n;
}
