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

static void
broken_chunks_are_refused(void **state)
{
    static const char *const table[] = {"g\r\n",
                                        "1\r\nab\r\n",
                                        "1\nA\r\n",
                                        "\r\n",
                                        "11111111111111111\r\n",
                                        "1\r\na\n0\r\n\r\n",
                                        "0\r\nContent-Length: 1\r\n\r\n",
                                        "0\r\nbad\r\n\r\n",
                                        "1 \x01\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_body body;
        const struct tg_h1_fault *fault = NULL;
        struct tg_slice data;
        size_t used = 0;
        char bytes[64];
        memcpy(bytes, table[i], strlen(table[i]));
        tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
        assert_int_equal(tg_body_decode(&body, bytes, strlen(table[i]), &data, &used, &fault), TG_EPROTOCOL);
        assert_non_null(fault);
        tg_body_fini(&body);
    }
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
        cmocka_unit_test(broken_chunks_are_refused),
        cmocka_unit_test(size_lines_are_written_in_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
