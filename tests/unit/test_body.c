#include "unit.h"

#include "http/body.h"

static const char stream[] = "5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-T: 1\r\n\r\nNEXT";

/* Decodes in pieces of `step`; returns what is left of the stream. */
static size_t
decode(size_t step, char *out, size_t *n, enum tg_rc *rc)
{
    struct tg_body body;
    const struct tg_h1_fault *fault = NULL;
    size_t at = 0;
    *n = 0;
    tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
    *rc = TG_OK;
    while (!body.done && at < sizeof stream - 1 && *rc == TG_OK) {
        char piece[sizeof stream];
        const size_t size = step < sizeof stream - 1 - at ? step : sizeof stream - 1 - at;
        struct tg_slice data = {0};
        size_t used = 0;
        memcpy(piece, stream + at, size);
        *rc = tg_body_decode(&body, piece, size, &data, &used, &fault);
        if (data.n > 0) {
            memcpy(out + *n, data.p, data.n);
        }
        *n += data.n;
        at += used;
    }
    assert_true(body.done);
    tg_body_fini(&body);
    return sizeof stream - 1 - at;
}

static void
chunks_decode_the_same_however_they_come(void **state)
{
    (void)state;
    for (size_t step = 1; step < sizeof stream; step++) {
        char out[sizeof stream];
        size_t n = 0;
        enum tg_rc rc;
        assert_int_equal(decode(step, out, &n, &rc), 4);
        assert_int_equal(rc, TG_OK);
        assert_int_equal(n, 11);
        assert_memory_equal(out, "hello world", 11);
    }
}

/* What came of a stream that was cut into two or three pieces. */
struct outcome {
    enum tg_rc rc;
    bool done;
    const struct tg_h1_fault *fault;
    size_t used;
    size_t n;
    char data[64];
};

static void
feed(struct tg_body *body, const char *p, size_t n, struct outcome *out)
{
    static char piece[16 * 1024];
    struct tg_slice data = {0};
    size_t used = 0;
    if (out->rc != TG_OK || body->done) {
        return;
    }
    assert_true(n <= sizeof piece);
    memcpy(piece, p, n);
    out->rc = tg_body_decode(body, piece, n, &data, &used, &out->fault);
    out->done = body->done;
    if (out->rc != TG_OK) {
        return;
    }
    assert_true(used == n || body->done);
    assert_true(out->n + data.n <= sizeof out->data);
    if (data.n > 0) {
        memcpy(out->data + out->n, data.p, data.n);
    }
    out->n += data.n;
    out->used += used;
}

static void
decode_cut(const char *p, size_t n, size_t first, size_t second, struct outcome *out)
{
    struct tg_body body;
    *out = (struct outcome){0};
    tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
    feed(&body, p, first, out);
    feed(&body, p + first, second - first, out);
    feed(&body, p + second, n - second, out);
    assert_true(out->rc != TG_OK || body.total == out->n);
    tg_body_fini(&body);
}

static void
chunks_may_be_cut_at_any_two_points(void **state)
{
    (void)state;
    for (size_t first = 0; first < sizeof stream; first++) {
        for (size_t second = first; second < sizeof stream; second++) {
            struct outcome out;
            decode_cut(stream, sizeof stream - 1, first, second, &out);
            assert_int_equal(out.rc, TG_OK);
            assert_true(out.done);
            assert_int_equal(out.used, sizeof stream - 1 - 4);
            assert_int_equal(out.n, 11);
            assert_memory_equal(out.data, "hello world", 11);
        }
    }
}

static void
a_body_that_is_cut_is_not_done(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof stream - 1 - 4; n++) {
        struct tg_body body;
        struct outcome out = {0};
        tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
        feed(&body, stream, n, &out);
        assert_int_equal(out.rc, TG_OK);
        assert_false(body.done);
        assert_int_equal(tg_body_end(&body), TG_EPROTOCOL);
        tg_body_fini(&body);
    }
}

static void
a_body_of_known_length_takes_no_byte_more(void **state)
{
    struct tg_body body;
    const struct tg_h1_fault *fault = NULL;
    struct tg_slice data;
    size_t used = 0;
    char bytes[] = "abcdef";
    (void)state;
    tg_body_init(&body, TG_FRAMING_LENGTH, 4);
    assert_int_equal(tg_body_decode(&body, bytes, 6, &data, &used, &fault), TG_OK);
    assert_true(body.done && used == 4 && data.n == 4);
    tg_body_init(&body, TG_FRAMING_LENGTH, 0);
    assert_true(body.done);
    tg_body_init(&body, TG_FRAMING_CLOSE, 0);
    assert_false(body.done);
    assert_int_equal(tg_body_end(&body), TG_OK);
    tg_body_init(&body, TG_FRAMING_LENGTH, 4);
    assert_int_equal(tg_body_end(&body), TG_EPROTOCOL);
}

struct broken {
    const char *bytes;
    size_t n;
    const char *fault;
};

#define BROKEN(literal, fault)                                                                                         \
    {                                                                                                                  \
        (literal), sizeof(literal) - 1, (fault)                                                                        \
    }

static const struct broken broken[] = {
    BROKEN("g\r\n", "malformed chunk"),
    BROKEN("\r\n", "malformed chunk"),
    BROKEN("\n", "malformed chunk"),
    BROKEN(";x\r\n", "malformed chunk"),
    BROKEN(" 1\r\n", "malformed chunk"),
    BROKEN("+1\r\n", "malformed chunk"),
    BROKEN("-1\r\n", "malformed chunk"),
    BROKEN("0x1\r\n", "malformed chunk"),
    BROKEN("1_0\r\n", "malformed chunk"),
    BROKEN("1\nA\r\n", "malformed chunk"),
    BROKEN("1\rA\r\n", "malformed chunk"),
    BROKEN("1;\rA\r\n", "malformed chunk"),
    BROKEN("1;\nA\r\n", "malformed chunk"),
    BROKEN("1;\0\r\n", "malformed chunk"),
    BROKEN("1 \x01\r\n", "malformed chunk"),
    BROKEN("11111111111111111\r\n", "malformed chunk"),
    BROKEN("00000000000000001\r\n", "malformed chunk"),
    BROKEN("1\r\nab\r\n", "malformed chunk"),
    BROKEN("1\r\na\n0\r\n\r\n", "malformed chunk"),
    BROKEN("1\r\na\r0\r\n\r\n", "malformed chunk"),
    BROKEN("1\r\na0\r\n\r\n", "malformed chunk"),
    BROKEN("0\r\nbad\r\n\r\n", "malformed field name"),
    BROKEN("0\r\nX : 1\r\n\r\n", "malformed field name"),
    BROKEN("0\r\nX: 1\r\n y\r\n\r\n", "obsolete line folding"),
    BROKEN("0\r\nX: 1\0\r\n\r\n", "illegal byte in a field value"),
    BROKEN("0\r\nX: 1\n\r\n", "a line must end in CRLF"),
    BROKEN("0\r\nX: 1\r\n\n", "a line must end in CRLF"),
    BROKEN("0\r\n\n", "a line must end in CRLF"),
    BROKEN("0\r\nContent-Length: 1\r\n\r\n", "field not allowed in trailers"),
    BROKEN("0\r\ntransfer-encoding: chunked\r\n\r\n", "field not allowed in trailers"),
    BROKEN("0\r\nX: 1\r\nHost: a\r\n\r\n", "field not allowed in trailers"),
    BROKEN("0\r\nConnection: x\r\n\r\n", "field not allowed in trailers"),
    BROKEN("0\r\nTrailer: x\r\n\r\n", "field not allowed in trailers"),
    BROKEN("0\r\nAuthorization: x\r\n\r\n", "field not allowed in trailers"),
    BROKEN("0\r\nCookie: x\r\n\r\n", "field not allowed in trailers"),
    BROKEN("0\r\nSet-Cookie: x\r\n\r\n", "field not allowed in trailers"),
};

static void
broken_chunks_are_refused_for_one_reason_wherever_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        for (size_t first = 0; first <= broken[i].n; first++) {
            for (size_t second = first; second <= broken[i].n; second++) {
                struct outcome out;
                decode_cut(broken[i].bytes, broken[i].n, first, second, &out);
                if (out.rc != TG_EPROTOCOL) {
                    print_error("row %zu: %s\n", i, broken[i].bytes);
                }
                assert_int_equal(out.rc, TG_EPROTOCOL);
                assert_string_equal(out.fault->text, broken[i].fault);
                assert_int_equal(out.fault->status, 400);
            }
        }
    }
}

/* `chunks` chunks of one byte, each with `extension` bytes behind the size, then the last chunk and its end. */
static size_t
make_extended(char *out, unsigned chunks, size_t extension)
{
    char *p = out;
    for (unsigned i = 0; i < chunks; i++) {
        *p++ = '1';
        memset(p, 'x', extension);
        *p = ';';
        p += extension;
        memcpy(p, "\r\na\r\n", 5);
        p += 5;
    }
    memcpy(p, "0\r\n\r\n", 5);
    return (size_t)(p + 5 - out);
}

/* The last chunk and `fields` trailer fields of `size` bytes in all with the empty line. */
static size_t
make_trailers(char *out, unsigned fields, size_t size)
{
    char *p = out;
    memcpy(p, "0\r\n", 3);
    p += 3;
    for (unsigned i = 0; i < fields; i++) {
        const size_t line = i + 1 < fields ? 6 : size - 2 - (size_t)(fields - 1) * 6;
        memset(p, 'v', line);
        memcpy(p, "X:", 2);
        memcpy(p + line - 2, "\r\n", 2);
        p += line;
    }
    memcpy(p, "\r\n", 2);
    return (size_t)(p + 2 - out);
}

static void
limit(const char *bytes, size_t n, const char *fault)
{
    for (size_t cut = 0; cut <= n; cut += n < 1000 ? 1 : 7) {
        struct outcome out;
        decode_cut(bytes, n, cut, cut + 1 < n ? cut + 1 : n, &out);
        if (fault == NULL) {
            assert_int_equal(out.rc, TG_OK);
            assert_true(out.done);
            assert_int_equal(out.used, n);
        } else {
            assert_int_equal(out.rc, TG_EPROTOCOL);
            assert_string_equal(out.fault->text, fault);
        }
    }
}

static void
extensions_and_trailers_have_limits(void **state)
{
    static char bytes[16 * 1024];
    (void)state;
    limit(bytes, make_extended(bytes, 1, TG_CHUNK_EXTENSION_MAX), NULL);
    limit(bytes, make_extended(bytes, 1, TG_CHUNK_EXTENSION_MAX + 1), "chunk extensions too long");
    limit(bytes, make_extended(bytes, 16, TG_CHUNK_EXTENSIONS_MAX / 16), NULL);
    limit(bytes, make_extended(bytes, 17, TG_CHUNK_EXTENSIONS_MAX / 16), "chunk extensions too long");
    limit(bytes, make_trailers(bytes, TG_TRAILER_FIELDS_MAX, 400), NULL);
    limit(bytes, make_trailers(bytes, TG_TRAILER_FIELDS_MAX + 1, 400), "trailer section too large");
    limit(bytes, make_trailers(bytes, 1, TG_TRAILERS_MAX), NULL);
    limit(bytes, make_trailers(bytes, 1, TG_TRAILERS_MAX + 1), "trailer section too large");
    limit(bytes, make_trailers(bytes, 1, 2 * TG_TRAILERS_MAX), "trailer section too large");
}

static void
trailers_need_memory_only_when_they_come(void **state)
{
    struct tg_body body;
    struct outcome out = {0};
    (void)state;
    tg_mem_fail_at(1);
    tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
    feed(&body, "1\r\na\r\n0\r\n\r\n", 11, &out);
    assert_int_equal(out.rc, TG_OK);
    assert_true(body.done);
    tg_body_fini(&body);
    out = (struct outcome){0};
    tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
    feed(&body, "0\r\nX: 1\r\n\r\n", 11, &out);
    tg_mem_fail_at(0);
    assert_int_equal(out.rc, TG_ENOMEM);
    assert_false(body.done);
    tg_body_fini(&body);
}

static void
a_chunk_may_be_as_large_as_sixteen_digits_say(void **state)
{
    struct tg_body body;
    struct outcome out = {0};
    (void)state;
    tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
    feed(&body, "FFFFffffFFFFffff\r\nabc", 21, &out);
    assert_int_equal(out.rc, TG_OK);
    assert_int_equal(out.n, 3);
    assert_true(body.left == UINT64_MAX - 3);
    tg_body_fini(&body);
}

static void
size_lines_are_written_in_hex(void **state)
{
    char line[18];
    (void)state;
    assert_int_equal(tg_body_chunk_line(line, 0x1a2b), 6);
    assert_memory_equal(line, "1a2b\r\n", 6);
    assert_int_equal(tg_body_chunk_line(line, 1), 3);
    assert_int_equal(tg_body_chunk_line(line, SIZE_MAX), 18);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_decode_the_same_however_they_come),
        cmocka_unit_test(a_body_of_known_length_takes_no_byte_more),
        cmocka_unit_test(chunks_may_be_cut_at_any_two_points),
        cmocka_unit_test(a_body_that_is_cut_is_not_done),
        cmocka_unit_test(broken_chunks_are_refused_for_one_reason_wherever_they_are_cut),
        cmocka_unit_test(extensions_and_trailers_have_limits),
        cmocka_unit_test(trailers_need_memory_only_when_they_come),
        cmocka_unit_test(a_chunk_may_be_as_large_as_sixteen_digits_say),
        cmocka_unit_test(size_lines_are_written_in_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
