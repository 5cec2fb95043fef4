/*
 * h2_peer.h - frames of HTTP/2 made by hand, and an owner of streams that notes what it is told.
 *
 * Owns: nothing. Used by: the tests of HTTP/2. A field is a literal without Huffman coding (RFC 7541, section 6.2.2).
 */
#ifndef TG_UNIT_H2_PEER_H
#define TG_UNIT_H2_PEER_H

#include "http/h2.h"

enum {
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION,
    PRIORITY_UPDATE = 16,
    UNKNOWN = 77
};
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { OWNERS = 512, BYTES = 1024 * 1024 };

/* Bytes that grow at their end. */
struct bytes {
    size_t n;
    char p[BYTES];
};

static inline void
put(struct bytes *b, const void *p, size_t n)
{
    assert_true(n <= sizeof b->p - b->n);
    if (n > 0) {
        memcpy(b->p + b->n, p, n);
    }
    b->n += n;
}

static inline void
put_frame(struct bytes *b, unsigned type, unsigned flags, unsigned id, const void *p, size_t n)
{
    const unsigned char header[9] = {(unsigned char)(n >> 16),  (unsigned char)(n >> 8),  (unsigned char)n,
                                     (unsigned char)type,       (unsigned char)flags,     (unsigned char)(id >> 24),
                                     (unsigned char)(id >> 16), (unsigned char)(id >> 8), (unsigned char)id};
    put(b, header, sizeof header);
    put(b, p, n);
}

static inline void
put_number(struct bytes *b, unsigned type, unsigned id, uint32_t number)
{
    const unsigned char p[4] = {(unsigned char)(number >> 24), (unsigned char)(number >> 16),
                                (unsigned char)(number >> 8), (unsigned char)number};
    put_frame(b, type, 0, id, p, sizeof p);
}

static inline void
put_length(struct bytes *b, size_t n)
{
    unsigned char byte = n < 127 ? (unsigned char)n : 127;
    put(b, &byte, 1);
    if (byte < 127) {
        return;
    }
    for (n -= 127; n >= 128; n >>= 7) {
        byte = (unsigned char)(n | 128);
        put(b, &byte, 1);
    }
    byte = (unsigned char)n;
    put(b, &byte, 1);
}

static inline void
put_field_of(struct bytes *b, const char *name, size_t name_len, const char *value, size_t value_len)
{
    put(b, "\0", 1);
    put_length(b, name_len);
    put(b, name, name_len);
    put_length(b, value_len);
    put(b, value, value_len);
}

static inline void
put_field(struct bytes *b, const char *name, const char *value)
{
    put_field_of(b, name, strlen(name), value, strlen(value));
}

/* "name: value" lines, each ended by a newline, as a field section. */
static inline void
put_section(struct bytes *b, const char *lines)
{
    for (const char *end; (end = strchr(lines, '\n')) != NULL; lines = end + 1) {
        const char *colon = strstr(lines, ": ");
        assert_true(colon != NULL && colon < end);
        put_field_of(b, lines, (size_t)(colon - lines), colon + 2, (size_t)(end - colon - 2));
    }
}

static inline void
put_headers(struct bytes *b, unsigned id, bool end, const char *lines)
{
    static struct bytes section;
    section.n = 0;
    put_section(&section, lines);
    put_frame(b, HEADERS, END_HEADERS | (end ? END_STREAM : 0), id, section.p, section.n);
}

#define GET ":method: GET\n:scheme: https\n:authority: a.example\n:path: /x?y=1\n"
#define POST ":method: POST\n:scheme: https\n:authority: a.example\n:path: /up\n"

#define NOT_METHOD ":scheme: https\n:authority: a\n:path: /\n"

/* Each with the end of the stream. */
static const char *const malformed[] = {
    NOT_METHOD,
    ":method: GET\n:authority: a\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: a\n",
    ":method: GET\n:scheme: https\n:path: /\n",
    ":method: G T\n" NOT_METHOD,
    ":method: \n" NOT_METHOD,
    ":method: GET\n:scheme: ftp\n:authority: a\n:path: /\n",
    ":method: GET\n:scheme: HTTPS\n:authority: a\n:path: /\n",
    ":method: GET\n:scheme: \n:authority: a\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: \n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: u@a\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: a b\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: a\n:path: \n",
    ":method: GET\n:scheme: https\n:authority: a\n:path: x\n",
    ":method: GET\n:scheme: https\n:authority: a\n:path: *\n",
    ":method: OPTIONS\n:scheme: https\n:authority: a\n:path: *x\n",
    ":method: GET\n:scheme: https\n:authority: a\n:path: http://a/\n",
    ":method: CONNECT\n:authority: a:1\n",
    ":method: CONNECT\n:scheme: https\n:authority: a\n:path: /\n",
    ":method: CONNECT\n:scheme: https\n:authority: a\n:path: /\n:protocol: websocket\n",
    GET ":method: GET\n",
    GET ":path: /y\n",
    GET ":authority: a.example\n",
    GET ":status: 200\n",
    GET ":unknown: 1\n",
    GET "x: 1\n:x: 1\n",
    ":method: GET\n:scheme: https\n:authority: a\nx: 1\n:path: /\n",
    GET "X: 1\n",
    GET "x y: 1\n",
    GET ": 1\n",
    GET "x\": 1\n",
    GET "x: \r\n",
    GET "x: a\x7f\n",
    GET "x: \x01y\n",
    GET "x:  y\n",
    GET "x: y \n",
    GET "x: y\t\n",
    GET "connection: close\n",
    GET "keep-alive: 1\n",
    GET "proxy-connection: close\n",
    GET "upgrade: h2c\n",
    GET "transfer-encoding: chunked\n",
    GET "te: gzip\n",
    GET "te: trailers, gzip\n",
    GET "host: b.example\n",
    GET "host: a.example\nhost: a.example\n",
    GET "host: \n",
    ":method: GET\n:scheme: https\n:path: /\nhost: a\nhost: a\n",
    ":method: GET\n:scheme: https\n:path: /\nhost: u@a\n",
    GET "content-length: 1\n",
    GET "content-length: \n",
    GET "content-length: +0\n",
    GET "content-length: 0, 0\n",
    GET "content-length: 0\ncontent-length: 0\n",
    GET "content-length: 1000000000000000000\n",
};

static inline void
put_preface(struct bytes *b)
{
    put(b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(b, SETTINGS, 0, 0, NULL, 0);
}

/* A stream's owner. */
struct owner {
    struct tg_h2_stream stream;
    struct tg_message message;
    struct tg_message trailers;
    struct tg_arena arena;
    struct side *side;
    unsigned heads, ends, writables, resets, interim;
    size_t data;
    uint32_t sum; /* of the bytes of data, each with its place */
    uint32_t code;
    const struct tg_h1_fault *fault;
    char block[6144];
};

/* One end of a connection. */
struct side {
    struct tg_h2 *h2;
    unsigned used;    /* owners */
    unsigned refuse;  /* owners that there are no more of */
    unsigned starved; /* calls that failed for want of memory */
    unsigned limited[TG_LIMIT_COUNT];
    bool keeps;    /* owners work on when their stream is reset */
    bool consumes; /* data at once */
    bool answers;  /* requests, when they have ended */
    size_t size;   /* of the body of an answer, and of what is written to it so far */
    struct owner owners[OWNERS];
};

static inline struct owner *
owner_of(struct tg_h2_stream *stream)
{
    return stream->owner;
}

static inline struct owner *
take_owner(struct side *side)
{
    assert_true(side->used < OWNERS);
    struct owner *owner = &side->owners[side->used++];
    memset(owner, 0, sizeof *owner);
    owner->side = side;
    owner->stream.owner = owner;
    tg_arena_init(&owner->arena, owner->block, sizeof owner->block, 256 * 1024);
    tg_message_init(&owner->message, &owner->arena);
    tg_message_init(&owner->trailers, &owner->arena);
    owner->stream.message = &owner->message;
    owner->stream.trailers = &owner->trailers;
    return owner;
}

static inline struct tg_h2_stream *
note_begin(void *arg)
{
    struct side *side = arg;
    return side->refuse > 0 && side->used >= side->refuse ? NULL : &take_owner(side)->stream;
}

static inline void
note_head(struct tg_h2_stream *stream)
{
    struct owner *owner = owner_of(stream);
    owner->heads++;
    owner->interim += owner->message.status >= 100 && owner->message.status < 200;
}

static inline void
note_refused(struct tg_h2_stream *stream, const struct tg_h1_fault *fault)
{
    owner_of(stream)->fault = fault;
}

static inline void
note_data(struct tg_h2_stream *stream, const char *p, size_t n)
{
    struct owner *owner = owner_of(stream);
    for (size_t i = 0; i < n; i++) {
        owner->sum += (unsigned char)p[i] * (uint32_t)(owner->data + i + 1);
    }
    owner->data += n;
    if (owner->side->consumes) {
        tg_h2_consumed(stream, n);
    }
}

/* Writes what still fits of `size` bytes, then ends the body. */
static inline void
write_body(struct owner *owner)
{
    static char piece[4096];
    struct tg_h2_stream *stream = &owner->stream;
    enum tg_rc rc = TG_OK;
    size_t done = (size_t)stream->sent + stream->queue.used;
    while (rc == TG_OK && !stream->finished && done < owner->side->size) {
        const size_t left = owner->side->size - done;
        const struct iovec v = {piece, left < sizeof piece ? left : sizeof piece};
        size_t taken;
        rc = tg_h2_write(stream, &v, 1, &taken);
        done += taken;
    }
    if (rc == TG_OK && !stream->finished) {
        rc = tg_h2_finish(stream, NULL);
    }
    assert_true(rc == TG_OK || rc == TG_AGAIN || rc == TG_ENOMEM || rc == TG_ERESET);
    owner->side->starved += rc == TG_ENOMEM;
}

static inline enum tg_rc
answer(struct owner *owner, unsigned status)
{
    struct tg_h2_block block;
    tg_h2_block_init(&block, &owner->arena);
    enum tg_rc rc = tg_h2_block_add(&block, TG_SLICE("Content-Type"), TG_SLICE("text/plain"));
    if (rc == TG_OK) {
        rc = tg_h2_respond(&owner->stream, status, &block, owner->side->size == 0);
    }
    if (rc == TG_OK && owner->side->size > 0) {
        write_body(owner);
    }
    owner->side->starved += rc == TG_ENOMEM;
    return rc;
}

static inline void
note_end(struct tg_h2_stream *stream)
{
    struct owner *owner = owner_of(stream);
    owner->ends++;
    if (owner->side->answers) {
        (void)answer(owner, 200);
    }
}

static inline void
drop_owner(struct owner *owner, uint32_t code)
{
    tg_h2_stream_close(&owner->stream, code);
}

static inline void
note_writable(struct tg_h2_stream *stream)
{
    struct owner *owner = owner_of(stream);
    owner->writables++;
    if (stream->sent_end && stream->got_end && owner->side->answers) {
        drop_owner(owner, TG_H2_NO_ERROR);
    } else if (owner->side->answers) {
        write_body(owner);
    }
}

static inline void
note_reset(struct tg_h2_stream *stream, uint32_t code)
{
    struct owner *owner = owner_of(stream);
    assert_null(stream->h2);
    owner->resets++;
    owner->code = code;
    if (!owner->side->keeps) {
        drop_owner(owner, 0);
    }
}

static inline void
note_limited(void *arg, enum tg_limit limit)
{
    ((struct side *)arg)->limited[limit]++;
}

static const struct tg_h2_hooks note = {note_begin, note_head,     note_refused, note_data,
                                        note_end,   note_writable, note_reset,   note_limited};

static const struct tg_h2_limits usual = {.streams = 100,
                                          .field = 8192,
                                          .head = 32768,
                                          .fields = 100,
                                          .window = 65535,
                                          .connection_window = 1024 * 1024,
                                          .resets = 100,
                                          .reset_time = 30000,
                                          .controls = 200};

static inline void
open_side(struct side *side, enum tg_h2_role role, const struct tg_h2_limits *limits)
{
    tg_mem_unpoison(side, sizeof *side); /* a case that failed has left arenas behind */
    memset(side, 0, sizeof *side);
    side->consumes = true;
    side->h2 = tg_h2_new(role, limits, &note, side);
    assert_non_null(side->h2);
}

/* Frees the connection and what its owners hold. */
static inline void
close_side(struct side *side)
{
    tg_h2_free(side->h2);
    for (unsigned i = 0; i < side->used; i++) {
        assert_null(side->owners[i].stream.h2);
        assert_null(side->owners[i].stream.home);
        tg_h2_stream_close(&side->owners[i].stream, 0);
        tg_arena_fini(&side->owners[i].arena);
    }
}

/* What a side has sent. */
struct sent {
    unsigned frames[256];
    unsigned last_id;     /* of HEADERS or DATA */
    uint32_t rst, goaway; /* codes of the last */
    uint32_t credit;      /* of WINDOW_UPDATE, of the connection */
    uint32_t stream_credit;
    size_t data;
};

static inline uint32_t
number_at(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

static inline struct sent
read_frames(const struct bytes *b)
{
    struct sent sent = {0};
    for (size_t at = b->n >= 24 && memcmp(b->p, "PRI", 3) == 0 ? 24 : 0; at < b->n;) {
        assert_true(b->n - at >= 9);
        const unsigned char *h = (const unsigned char *)b->p + at;
        const size_t n = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        const char *p = b->p + at + 9;
        const uint32_t id = number_at(p - 4);
        assert_true(b->n - at - 9 >= n);
        sent.frames[h[3]]++;
        sent.rst = h[3] == RST_STREAM ? number_at(p) : sent.rst;
        sent.goaway = h[3] == GOAWAY ? number_at(p + 4) : sent.goaway;
        sent.data += h[3] == DATA ? n : 0;
        sent.last_id = h[3] == DATA || h[3] == HEADERS ? id : sent.last_id;
        if (h[3] == WINDOW_UPDATE) {
            *(id == 0 ? &sent.credit : &sent.stream_credit) += number_at(p);
        }
        at += 9 + n;
    }
    return sent;
}

/* All that the side has to send. */
static inline struct sent
output(struct side *side, struct bytes *out)
{
    char piece[20000];
    size_t n;
    out->n = 0;
    while ((n = tg_h2_output(side->h2, piece, sizeof piece)) > 0) {
        put(out, piece, n);
    }
    return read_frames(out);
}

#endif
