#include "unit.h"

#include <brotli/encode.h>
#include <stdio.h>
#include <zlib.h>
#include <zstd.h>

#include "base/coding.h"
#include "base/mem.h"

enum { ROOM = 64 * 1024, BODY = 3 * 1024 * 1024, KINDS = 4, ENCODER_MAX = 5 * 1024 * 1024 };

static const struct tg_coding_limits no_limits = {0};

struct bytes {
    char *p;
    size_t n;
    size_t size;
};

static void
append(struct bytes *bytes, const char *p, size_t n)
{
    if (bytes->n + n > bytes->size) {
        bytes->size = (bytes->n + n) * 2 + 64;
        bytes->p = realloc(bytes->p, bytes->size);
        assert_non_null(bytes->p);
    }
    if (n > 0) {
        memcpy(bytes->p + bytes->n, p, n);
        bytes->n += n;
    }
}

static void
reset(struct bytes *bytes)
{
    free(bytes->p);
    *bytes = (struct bytes){0};
}

/* One piece, in and out of memory of its own size, so that a byte read or written beyond it is seen. */
static enum tg_rc
run(struct tg_coding *coding, const char *p, size_t n, bool last, size_t room, struct bytes *out)
{
    char *in = malloc(n + 1);
    char *buffer = malloc(room);
    enum tg_rc rc = TG_AGAIN;
    assert_non_null(in);
    assert_non_null(buffer);
    if (n > 0) {
        memcpy(in + 1, p, n);
    }
    struct tg_coding_io io = {in + 1, n, NULL, 0, last};
    while (rc == TG_AGAIN) {
        const size_t before = io.in_n;
        io.out = buffer;
        io.out_n = room;
        rc = tg_coding_run(coding, &io);
        assert_true(io.in_n <= before && io.out_n <= room);
        if (rc < 0) {
            assert_true(io.in_n == before && io.out == buffer && io.out_n == room);
        }
        append(out, buffer, room - io.out_n);
        assert_true(tg_coding_memory(coding) <= TG_CODING_MEMORY_MAX + 4096);
    }
    assert_true(rc < 0 || io.in_n == 0);
    free(in);
    free(buffer);
    return rc;
}

/* A body in two pieces, the second behind `cut`, or in pieces of one byte when `cut` is 0; then its end. */
static enum tg_rc
run_all(struct tg_coding *coding, const struct bytes *body, size_t cut, size_t room, struct bytes *out)
{
    enum tg_rc rc = TG_OK;
    size_t at = 0;
    while (rc == TG_OK && at < body->n) {
        const size_t n = cut == 0 ? 1 : at == 0 ? cut : body->n - at;
        rc = run(coding, body->p + at, n, false, room, out);
        at += n;
    }
    return rc != TG_OK ? rc : run(coding, NULL, 0, true, room, out);
}

static enum tg_rc
decode(enum tg_coding_kind kind, const struct bytes *body, size_t cut, size_t room, struct bytes *out)
{
    struct tg_coding *coding = tg_coding_new(kind, true, 0, &no_limits);
    assert_non_null(coding);
    const enum tg_rc rc = run_all(coding, body, cut, room, out);
    tg_coding_free(coding);
    return rc;
}

static void
encode(enum tg_coding_kind kind, int level, const char *p, size_t n, struct bytes *out)
{
    struct tg_coding *coding = tg_coding_new(kind, false, level, NULL);
    assert_non_null(coding);
    assert_int_equal(run(coding, p, n, true, ROOM, out), TG_OK);
    tg_coding_free(coding);
}

/* Some of it repeats, some does not; the same each time. */
static void
fill(struct bytes *body, size_t n)
{
    unsigned state = 1;
    while (body->n < n) {
        char line[64];
        state = state * 1103515245 + 12345;
        const int length = snprintf(line, sizeof line, "{\"id\":%u,\"name\":\"order\"}\n", state >> 8);
        append(body, line, (size_t)length);
    }
}

static void
assert_same(const struct bytes *found, const struct bytes *expected)
{
    assert_int_equal(found->n, expected->n);
    if (found->n > 0) {
        assert_memory_equal(found->p, expected->p, found->n);
    }
}

/* All places to cut a coded body at are all right, or all wrong. */
static void
assert_decodes(enum tg_coding_kind kind, const struct bytes *coded, enum tg_rc expected, const struct bytes *body)
{
    for (size_t cut = 0; cut <= coded->n; cut++) {
        struct bytes out = {0};
        assert_int_equal(decode(kind, coded, cut, cut % 2 == 0 ? TG_CODING_ROOM_MIN : ROOM, &out), expected);
        if (expected == TG_OK) {
            assert_same(&out, body);
        }
        reset(&out);
    }
}

/* ------------------------------------------------------------------ what goes in comes out */

static void
names_are_known_in_any_case(void **state)
{
    static const struct {
        const char *name;
        enum tg_coding_kind kind;
    } table[] = {{"gzip", TG_CODING_GZIP},
                 {"X-GZip", TG_CODING_GZIP},
                 {"deflate", TG_CODING_DEFLATE},
                 {"BR", TG_CODING_BROTLI},
                 {"zstd", TG_CODING_ZSTD}};
    static const char *const unknown[] = {"", "gzi", "gzip ", "identity", "compress", "*", "br,gzip"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        enum tg_coding_kind kind = TG_CODING_ZSTD;
        assert_int_equal(tg_coding_find(table[i].name, strlen(table[i].name), &kind), TG_OK);
        assert_int_equal(kind, table[i].kind);
    }
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        enum tg_coding_kind kind = TG_CODING_ZSTD;
        assert_int_equal(tg_coding_find(unknown[i], strlen(unknown[i]), &kind), TG_ENONE);
    }
}

static void
a_body_comes_back_wherever_it_is_cut(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t n = 0; n <= 300; n += 100) {
            struct bytes body = {0};
            fill(&body, n);
            for (size_t cut = 0; cut <= body.n; cut++) {
                struct bytes coded = {0};
                struct bytes out = {0};
                struct tg_coding *encoder = tg_coding_new((enum tg_coding_kind)kind, false, (int)(cut % 10), NULL);
                assert_non_null(encoder);
                assert_int_equal(run_all(encoder, &body, cut, TG_CODING_ROOM_MIN, &coded), TG_OK);
                assert_int_equal(decode((enum tg_coding_kind)kind, &coded, 1, ROOM, &out), TG_OK);
                assert_same(&out, &body);
                tg_coding_free(encoder);
                reset(&coded);
                reset(&out);
            }
            struct bytes coded = {0};
            encode((enum tg_coding_kind)kind, 0, body.p, body.n, &coded);
            assert_decodes((enum tg_coding_kind)kind, &coded, TG_OK, &body);
            reset(&coded);
            reset(&body);
        }
    }
}

static void
a_large_body_comes_back_through_a_small_room(void **state)
{
    struct bytes body = {0};
    fill(&body, BODY);
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes coded = {0};
        struct bytes out = {0};
        struct tg_coding *encoder = tg_coding_new((enum tg_coding_kind)kind, false, 0, NULL);
        assert_non_null(encoder);
        for (size_t at = 0; at < body.n; at += ROOM) {
            const size_t n = body.n - at < ROOM ? body.n - at : ROOM;
            assert_int_equal(run(encoder, body.p + at, n, at + n == body.n, 1000, &coded), TG_OK);
        }
        tg_coding_free(encoder);
        assert_true(coded.n < body.n / 2);
        assert_int_equal(decode((enum tg_coding_kind)kind, &coded, coded.n / 3, 1000, &out), TG_OK);
        assert_same(&out, &body);
        reset(&coded);
        reset(&out);
    }
    reset(&body);
}

/* An event stream: who reads has each event before the next one is written. */
static void
a_piece_is_not_held_back(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes written = {0};
        struct bytes read = {0};
        struct tg_coding *encoder = tg_coding_new((enum tg_coding_kind)kind, false, 0, NULL);
        struct tg_coding *decoder = tg_coding_new((enum tg_coding_kind)kind, true, 0, NULL);
        assert_non_null(encoder);
        assert_non_null(decoder);
        for (int i = 0; i < 100; i++) {
            struct bytes event = {0};
            struct bytes coded = {0};
            fill(&event, (size_t)i * 7);
            append(&written, event.p, event.n);
            assert_int_equal(run(encoder, event.p, event.n, false, ROOM, &coded), TG_OK);
            assert_int_equal(coded.n == 0, event.n == 0);
            assert_int_equal(run(decoder, coded.p, coded.n, false, ROOM, &read), TG_OK);
            assert_same(&read, &written);
            reset(&event);
            reset(&coded);
        }
        tg_coding_free(encoder);
        tg_coding_free(decoder);
        reset(&written);
        reset(&read);
    }
}

/* ------------------------------------------------------------------ what is accepted */

static void
raw_deflate_is_read_too(void **state)
{
    struct bytes body = {0};
    (void)state;
    fill(&body, 200);
    for (int level = 0; level <= 9; level += 3) {
        char coded[1024];
        z_stream z = {0};
        assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
        z.next_in = (Bytef *)body.p;
        z.avail_in = (uInt)body.n;
        z.next_out = (Bytef *)coded;
        z.avail_out = sizeof coded;
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        const struct bytes all = {coded, sizeof coded - z.avail_out, 0};
        assert_int_equal(deflateEnd(&z), Z_OK);
        assert_decodes(TG_CODING_DEFLATE, &all, TG_OK, &body);
        assert_decodes(TG_CODING_GZIP, &all, TG_EPROTOCOL, NULL);
    }
    reset(&body);
}

static void
members_may_follow_each_other(void **state)
{
    static const enum tg_coding_kind kinds[] = {TG_CODING_GZIP, TG_CODING_ZSTD};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bytes coded = {0};
        encode(kinds[i], 0, "one ", 4, &coded);
        encode(kinds[i], 0, NULL, 0, &coded);
        if (kinds[i] == TG_CODING_ZSTD) {
            append(&coded, "\x5a\x2a\x4d\x18\x03\x00\x00\x00xyz", 11); /* a frame that is to be skipped */
        }
        encode(kinds[i], 0, "two", 3, &coded);
        const struct bytes body = {"one two", 7, 0};
        assert_decodes(kinds[i], &coded, TG_OK, &body);
        reset(&coded);
    }
}

/* ------------------------------------------------------------------ what is refused */

static void
what_stands_behind_the_end_is_refused(void **state)
{
    static const struct bytes garbage[] = {
        {"\0", 1, 0}, {"x", 1, 0}, {"\x1f\x8b\x08", 3, 0}, {"\x28\xb5\x2f", 3, 0}, {"\r\n", 2, 0}};
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
            struct bytes coded = {0};
            encode((enum tg_coding_kind)kind, 0, "some text", 9, &coded);
            append(&coded, garbage[i].p, garbage[i].n);
            assert_decodes((enum tg_coding_kind)kind, &coded, TG_EPROTOCOL, NULL);
            reset(&coded);
        }
    }
}

static void
a_body_that_is_cut_short_is_refused_at_its_end(void **state)
{
    struct bytes body = {0};
    (void)state;
    fill(&body, 100);
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes coded = {0};
        encode((enum tg_coding_kind)kind, 0, body.p, body.n, &coded);
        for (size_t n = 0; n < coded.n; n++) {
            struct bytes out = {0};
            struct tg_coding *decoder = tg_coding_new((enum tg_coding_kind)kind, true, 0, NULL);
            assert_non_null(decoder);
            assert_int_equal(run(decoder, coded.p, n, false, ROOM, &out), TG_OK);
            assert_int_equal(run(decoder, NULL, 0, true, ROOM, &out), TG_EPROTOCOL);
            tg_coding_free(decoder);
            reset(&out);
        }
        reset(&coded);
    }
    reset(&body);
}

static void
malformed_bodies_are_refused(void **state)
{
    static const struct {
        enum tg_coding_kind kind;
        struct bytes body;
    } table[] = {
        {TG_CODING_GZIP, {"plain text", 10, 0}},
        {TG_CODING_GZIP, {"\x78\x9c\x03\x00\x00\x00\x00\x01", 8, 0}},                  /* zlib's wrapping */
        {TG_CODING_GZIP, {"\x1f\x8b\x08\xe0\x00\x00\x00\x00\x00\x03\x03\x00", 12, 0}}, /* reserved flags */
        {TG_CODING_DEFLATE, {"\x78\x00\x03\x00\x00\x00\x00\x01", 8, 0}},               /* its check */
        {TG_CODING_DEFLATE, {"\x78\xbb\x01\x02\x03\x04\x03\x00", 8, 0}},               /* a dictionary */
        {TG_CODING_DEFLATE, {"\xff\xff\xff\xff", 4, 0}},                               /* no such block */
        {TG_CODING_BROTLI, {"\x11\x1b\x03", 3, 0}},                                    /* a large window */
        {TG_CODING_BROTLI, {"\xff\xff\xff\xff\xff\xff\xff\xff", 8, 0}},                /* padding */
        {TG_CODING_ZSTD, {"\x27\xb5\x2f\xfd\x00\x58\x09\x00\x00", 9, 0}},              /* version 0.7 */
        {TG_CODING_ZSTD, {"\x28\xb5\x2f\xfe", 4, 0}},                                  /* its magic */
        {TG_CODING_ZSTD, {"\x28\xb5\x2f\xfd\x01\x58\x07\x01\x00\x00", 10, 0}},         /* a dictionary */
        {TG_CODING_ZSTD, {"\x28\xb5\x2f\xfd\x08\x58\x01\x00\x00", 9, 0}},              /* a reserved bit */
        {TG_CODING_ZSTD, {"\x28\xb5\x2f\xfd\x00\x58\x07\x00\x00", 9, 0}},              /* no such block */
        {TG_CODING_ZSTD, {"\x28\xb5\x2f\xfd\xa0\x01\x00\x80\x00\x01\x00\x00", 12, 0}}, /* 8 MiB and a byte */
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_decodes(table[i].kind, &table[i].body, TG_EPROTOCOL, NULL);
    }
}

/* With a check sum the body is the one that was sent, or none; without one, at least nothing breaks. */
static void
no_flipped_bit_goes_unseen(void **state)
{
    struct bytes body = {0};
    (void)state;
    fill(&body, 100);
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes coded = {0};
        size_t refused = 0;
        encode((enum tg_coding_kind)kind, 0, body.p, body.n, &coded);
        for (size_t bit = 0; bit < coded.n * 8; bit++) {
            struct bytes out = {0};
            coded.p[bit / 8] = (char)(coded.p[bit / 8] ^ (1 << bit % 8));
            const enum tg_rc rc = decode((enum tg_coding_kind)kind, &coded, 1, ROOM, &out);
            coded.p[bit / 8] = (char)(coded.p[bit / 8] ^ (1 << bit % 8));
            assert_true(rc == TG_OK || rc == TG_EPROTOCOL);
            if (rc == TG_OK && (kind == TG_CODING_GZIP || kind == TG_CODING_DEFLATE)) {
                assert_same(&out, &body);
            }
            refused += rc != TG_OK;
            reset(&out);
        }
        assert_true(refused > 0);
        reset(&coded);
    }
    reset(&body);
}

/* ------------------------------------------------------------------ limits */

/* Blanks, coded as densely as the format allows. */
static void
make_bomb(enum tg_coding_kind kind, size_t n, struct bytes *bomb)
{
    char *blanks = malloc(n);
    assert_non_null(blanks);
    memset(blanks, ' ', n);
    encode(kind, 9, blanks, n, bomb);
    free(blanks);
}

static enum tg_rc
decode_within(enum tg_coding_kind kind, const struct bytes *coded, size_t cut, const struct tg_coding_limits *limits,
              struct bytes *out)
{
    struct tg_coding *decoder = tg_coding_new(kind, true, 0, limits);
    assert_non_null(decoder);
    const enum tg_rc rc = run_all(decoder, coded, cut, ROOM, out);
    tg_coding_free(decoder);
    return rc;
}

static void
a_bomb_is_stopped(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes bomb = {0};
        make_bomb((enum tg_coding_kind)kind, 4 * BODY, &bomb);
        for (size_t cut = 0; cut <= 2; cut++) {
            struct bytes out = {0};
            assert_int_equal(decode_within((enum tg_coding_kind)kind, &bomb, cut, NULL, &out), TG_ELIMIT);
            assert_true(out.n <= tg_coding_limits_default.ratio_from + ROOM);
            reset(&out);
        }
        reset(&bomb);
    }
}

static void
as_much_as_may_come_out_does(void **state)
{
    static const struct {
        struct tg_coding_limits limits;
        size_t n;
        enum tg_rc rc;
    } table[] = {
        {{.output_max = 200 * 1024}, 200 * 1024, TG_OK},
        {{.output_max = 200 * 1024}, 200 * 1024 + 1, TG_ELIMIT},
        {{.ratio_max = 100, .ratio_from = 200 * 1024}, 200 * 1024, TG_OK},
        {{.ratio_max = 100, .ratio_from = 200 * 1024}, 200 * 1024 + 1, TG_ELIMIT},
        {{.ratio_max = 1000 * 1000}, 200 * 1024, TG_OK},
        {{.output_max = 10 * 1024 * 1024, .ratio_max = 100, .ratio_from = 1024 * 1024}, 1024 * 1024, TG_OK},
        {{.output_max = 10 * 1024 * 1024, .ratio_max = 100, .ratio_from = 1024 * 1024}, 1024 * 1024 + 1, TG_ELIMIT},
    };
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
            struct bytes coded = {0};
            make_bomb((enum tg_coding_kind)kind, table[i].n, &coded);
            for (size_t cut = 0; cut <= 2; cut++) {
                struct bytes out = {0};
                assert_int_equal(decode_within((enum tg_coding_kind)kind, &coded, cut, &table[i].limits, &out),
                                 table[i].rc);
                assert_true(table[i].rc != TG_OK || out.n == table[i].n);
                reset(&out);
            }
            reset(&coded);
        }
    }
}

/* Text passes, however much of it, up to the maximum. */
static void
a_body_of_many_bytes_is_no_bomb(void **state)
{
    struct bytes body = {0};
    (void)state;
    fill(&body, BODY);
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes coded = {0};
        struct bytes out = {0};
        encode((enum tg_coding_kind)kind, 6, body.p, body.n, &coded);
        assert_int_equal(decode_within((enum tg_coding_kind)kind, &coded, coded.n / 2, NULL, &out), TG_OK);
        assert_same(&out, &body);
        reset(&coded);
        reset(&out);
    }
    reset(&body);
}

static void
windows_are_bounded(void **state)
{
    const size_t n = 20UL * 1024 * 1024;
    char *body = calloc(1, n);
    char *coded = malloc(ZSTD_compressBound(n));
    (void)state;
    assert_non_null(body);
    assert_non_null(coded);
    for (int window = TG_CODING_ZSTD_WINDOW; window <= TG_CODING_ZSTD_WINDOW + 1; window++) {
        ZSTD_CCtx *encoder = ZSTD_createCCtx();
        ZSTD_inBuffer in = {body, n, 0};
        ZSTD_outBuffer out = {coded, ZSTD_compressBound(n), 0};
        struct bytes decoded = {0};
        assert_non_null(encoder);
        assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(encoder, ZSTD_c_windowLog, window)));
        assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(encoder, ZSTD_c_contentSizeFlag, 0)));
        assert_false(ZSTD_isError(ZSTD_compressStream2(encoder, &out, &in, ZSTD_e_flush)));
        assert_int_equal(ZSTD_compressStream2(encoder, &out, &in, ZSTD_e_end), 0);
        (void)ZSTD_freeCCtx(encoder);
        const struct bytes all = {coded, out.pos, 0};
        assert_int_equal(decode(TG_CODING_ZSTD, &all, out.pos, ROOM, &decoded),
                         window > TG_CODING_ZSTD_WINDOW ? TG_EPROTOCOL : TG_OK);
        assert_int_equal(decoded.n, window > TG_CODING_ZSTD_WINDOW ? 0 : n);
        reset(&decoded);
    }
    for (uint32_t window = BROTLI_MAX_WINDOW_BITS; window <= BROTLI_MAX_WINDOW_BITS + 1; window++) {
        BrotliEncoderState *encoder = BrotliEncoderCreateInstance(NULL, NULL, NULL);
        const uint8_t *in = (const uint8_t *)body;
        uint8_t *out = (uint8_t *)coded;
        size_t in_n = n;
        size_t out_n = n;
        struct bytes decoded = {0};
        assert_non_null(encoder);
        assert_true(BrotliEncoderSetParameter(encoder, BROTLI_PARAM_QUALITY, 3));
        assert_true(BrotliEncoderSetParameter(encoder, BROTLI_PARAM_LARGE_WINDOW, window > BROTLI_MAX_WINDOW_BITS));
        assert_true(BrotliEncoderSetParameter(encoder, BROTLI_PARAM_LGWIN, window));
        assert_true(BrotliEncoderCompressStream(encoder, BROTLI_OPERATION_FINISH, &in_n, &in, &out_n, &out, NULL));
        assert_true(BrotliEncoderIsFinished(encoder));
        BrotliEncoderDestroyInstance(encoder);
        const struct bytes all = {coded, n - out_n, 0};
        assert_int_equal(decode(TG_CODING_BROTLI, &all, 1, ROOM, &decoded),
                         window > BROTLI_MAX_WINDOW_BITS ? TG_EPROTOCOL : TG_OK);
        assert_int_equal(decoded.n, window > BROTLI_MAX_WINDOW_BITS ? 0 : n);
        reset(&decoded);
    }
    free(body);
    free(coded);
}

/* A worker has many of them, and for long: an event stream stays. */
static void
encoders_are_small(void **state)
{
    struct bytes body = {0};
    (void)state;
    fill(&body, BODY);
    for (int i = 0; i < 10 * KINDS; i++) {
        struct bytes coded = {0};
        struct tg_coding *encoder = tg_coding_new((enum tg_coding_kind)(i % KINDS), false, i / KINDS, NULL);
        assert_non_null(encoder);
        assert_int_equal(run(encoder, body.p, ROOM, false, ROOM, &coded), TG_OK);
        assert_int_equal(run(encoder, body.p + ROOM, body.n - ROOM, false, ROOM, &coded), TG_OK);
        assert_true(tg_coding_memory(encoder) < ENCODER_MAX);
        tg_coding_free(encoder);
        reset(&coded);
    }
    reset(&body);
}

/* ------------------------------------------------------------------ contracts */

static void
an_error_and_an_end_last(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes coded = {0};
        struct bytes out = {0};
        encode((enum tg_coding_kind)kind, 0, "text", 4, &coded);
        struct tg_coding *decoder = tg_coding_new((enum tg_coding_kind)kind, true, 0, NULL);
        assert_non_null(decoder);
        assert_int_equal(run(decoder, coded.p, coded.n, true, ROOM, &out), TG_OK);
        assert_int_equal(run(decoder, NULL, 0, true, ROOM, &out), TG_EINVAL);
        assert_int_equal(run(decoder, coded.p, coded.n, false, ROOM, &out), TG_EINVAL);
        tg_coding_free(decoder);
        decoder = tg_coding_new((enum tg_coding_kind)kind, true, 0, NULL);
        assert_non_null(decoder);
        assert_int_equal(run(decoder, coded.p, coded.n, false, TG_CODING_ROOM_MIN - 1, &out), TG_EINVAL);
        assert_int_equal(run(decoder, coded.p, 1, true, ROOM, &out), TG_EPROTOCOL);
        assert_int_equal(run(decoder, coded.p + 1, coded.n - 1, true, ROOM, &out), TG_EPROTOCOL);
        tg_coding_free(decoder);
        assert_int_equal(out.n, 4);
        reset(&coded);
        reset(&out);
    }
    tg_coding_free(NULL);
}

/* Each allocation fails in turn, in the making and in the work; nothing breaks, leaks, or goes wrong unsaid. */
static void
short_memory_is_said(void **state)
{
    struct bytes body = {0};
    (void)state;
    fill(&body, 200 * 1024);
    for (int i = 0; i < 2 * KINDS; i++) {
        const enum tg_coding_kind kind = (enum tg_coding_kind)(i / 2);
        struct bytes coded = {0};
        encode(kind, 0, body.p, body.n, &coded);
        enum tg_rc rc = TG_ENOMEM;
        unsigned long failed = 0;
        while (rc == TG_ENOMEM) {
            struct bytes out = {0};
            tg_mem_fail_at(++failed);
            struct tg_coding *coding = tg_coding_new(kind, i % 2 == 0, 0, NULL);
            if (coding != NULL) {
                rc = i % 2 == 0 ? run(coding, coded.p, coded.n, true, ROOM, &out)
                                : run(coding, body.p, body.n, true, ROOM, &out);
                assert_true(rc == TG_OK || rc == TG_ENOMEM);
                tg_coding_free(coding);
            }
            tg_mem_fail_at(0);
            reset(&out);
        }
        assert_true(failed > 2);
        reset(&coded);
    }
    reset(&body);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_known_in_any_case),
        cmocka_unit_test(a_body_comes_back_wherever_it_is_cut),
        cmocka_unit_test(a_large_body_comes_back_through_a_small_room),
        cmocka_unit_test(a_piece_is_not_held_back),
        cmocka_unit_test(raw_deflate_is_read_too),
        cmocka_unit_test(members_may_follow_each_other),
        cmocka_unit_test(what_stands_behind_the_end_is_refused),
        cmocka_unit_test(a_body_that_is_cut_short_is_refused_at_its_end),
        cmocka_unit_test(malformed_bodies_are_refused),
        cmocka_unit_test(no_flipped_bit_goes_unseen),
        cmocka_unit_test(a_bomb_is_stopped),
        cmocka_unit_test(as_much_as_may_come_out_does),
        cmocka_unit_test(a_body_of_many_bytes_is_no_bomb),
        cmocka_unit_test(windows_are_bounded),
        cmocka_unit_test(encoders_are_small),
        cmocka_unit_test(an_error_and_an_end_last),
        cmocka_unit_test(short_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
