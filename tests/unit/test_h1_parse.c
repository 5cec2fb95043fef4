#include "unit.h"

#include "http/h1_parse.h"
#include "http/h1_write.h"

static const struct tg_h1_limits limits = {8192, 8192, 32768, 100};

static char block[64 * 1024];
static struct tg_arena arena;

static enum tg_rc
parse(const char *bytes, size_t n, struct tg_message *message, const struct tg_h1_fault **fault)
{
    struct tg_h1_scan scan = {0};
    tg_arena_init(&arena, block, sizeof block, 1024 * 1024);
    tg_message_init(message, &arena);
    enum tg_rc rc = tg_h1_scan(&scan, bytes, n, &limits, true, fault);
    return rc == TG_OK ? tg_h1_parse_request(message, bytes + scan.start, scan.pos - scan.start, fault) : rc;
}

static const char good[] =
    "\r\nPOST /a?b=c HTTP/1.1\r\nHost: example\r\nX-One: 1\r\nTransfer-Encoding: Chunked\r\nx-ONE:\t2 \r\n\r\n";

static void
a_request_is_parsed_into_its_parts(void **state)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_message message;
    unsigned next = 0;
    (void)state;
    assert_int_equal(parse(good, sizeof good - 1, &message, &fault), TG_OK);
    assert_true(tg_slice_is(message.method, "POST", 4));
    assert_true(tg_slice_is(message.target, "/a?b=c", 6));
    assert_true(tg_slice_is(message.host, "example", 7));
    assert_int_equal(message.framing, TG_FRAMING_CHUNKED);
    assert_true(message.keep_alive);
    const struct tg_field *one = tg_message_find(&message, "X-ONE", 5, &next);
    const struct tg_field *two = tg_message_find(&message, "x-one", 5, &next);
    assert_true(one != NULL && two != NULL && one->value[0] == '1' && two->value_len == 1 && two->value[0] == '2');
    tg_arena_reset(&arena);
}

static void
the_scan_does_not_depend_on_how_bytes_come(void **state)
{
    (void)state;
    for (size_t step = 1; step < sizeof good; step++) {
        const struct tg_h1_fault *fault = NULL;
        struct tg_h1_scan scan = {0};
        enum tg_rc rc = TG_AGAIN;
        size_t n = 0;
        while (rc == TG_AGAIN && n < sizeof good - 1) {
            n = n + step < sizeof good - 1 ? n + step : sizeof good - 1;
            rc = tg_h1_scan(&scan, good, n, &limits, true, &fault);
        }
        assert_int_equal(rc, TG_OK);
        assert_int_equal(scan.pos, sizeof good - 1);
        assert_int_equal(scan.start, 2);
    }
}

static void
limits_hold_for_lines_that_never_end(void **state)
{
    static char bytes[40000];
    (void)state;
    memset(bytes, 'a', sizeof bytes);
    struct tg_h1_scan scan = {0};
    const struct tg_h1_fault *fault = NULL;
    assert_int_equal(tg_h1_scan(&scan, bytes, 8192, &limits, true, &fault), TG_AGAIN);
    assert_int_equal(tg_h1_scan(&scan, bytes, 8193, &limits, true, &fault), TG_EPROTOCOL);
    assert_int_equal(fault->status, 414);
}

static void
faults_have_the_status_of_the_field(void **state)
{
    static const struct {
        const char *bytes;
        unsigned status;
    } table[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
        {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417},
        {"GET / HTTP/1.1\r\n\r\n", 400},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct tg_h1_fault *fault = NULL;
        struct tg_message message;
        assert_int_equal(parse(table[i].bytes, strlen(table[i].bytes), &message, &fault), TG_EPROTOCOL);
        assert_int_equal(fault->status, table[i].status);
        tg_arena_reset(&arena);
    }
}

static void
what_is_written_parses_to_the_same(void **state)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_message message;
    struct tg_slice head;
    (void)state;
    static const char bytes[] = "GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\nConnection: x-gone\r\nX-Gone: 1\r\n\r\n";
    assert_int_equal(parse(bytes, sizeof bytes - 1, &message, &fault), TG_OK);
    const struct tg_h1_forward forward = {
        .authority = TG_SLICE("a"), .client_ip = TG_SLICE("1.2.3.4"), .proto = TG_SLICE("http")};
    const struct tg_h1_frame frame = {.framing = TG_FRAMING_NONE};
    assert_int_equal(tg_h1_write_request(&message, TG_SLICE("/x"), TG_SLICE(""), false, &forward, &frame, &head),
                     TG_OK);
    struct tg_message again;
    tg_message_init(&again, &arena);
    assert_int_equal(tg_h1_parse_request(&again, head.p, head.n, &fault), TG_OK);
    unsigned next = 0;
    assert_non_null(tg_message_find(&again, "x", 1, &next));
    next = 0;
    assert_null(tg_message_find(&again, "x-gone", 6, &next));
    tg_arena_reset(&arena);
}

static void
setters_refuse_what_would_break_a_line(void **state)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_message message;
    (void)state;
    assert_int_equal(parse(good, sizeof good - 1, &message, &fault), TG_OK);
    assert_int_equal(tg_message_set(&message, TG_SLICE("X"), TG_SLICE("a\r\nEvil: 1")), TG_EINVAL);
    assert_int_equal(tg_message_set(&message, TG_SLICE("X"), TG_SLICE("a\0b")), TG_EINVAL);
    assert_int_equal(tg_message_set(&message, TG_SLICE("X Y"), TG_SLICE("a")), TG_EINVAL);
    assert_int_equal(tg_message_set(&message, TG_SLICE(""), TG_SLICE("a")), TG_EINVAL);
    assert_int_equal(tg_message_set(&message, TG_SLICE("Content-Length"), TG_SLICE("1")), TG_EINVAL);
    assert_int_equal(tg_message_remove(&message, "host", 4), TG_EINVAL);
    assert_int_equal(tg_message_set(&message, TG_SLICE("X-One"), TG_SLICE("3")), TG_OK);
    unsigned next = 0;
    const struct tg_field *field = tg_message_find(&message, "x-one", 5, &next);
    assert_true(field != NULL && field->value[0] == '3');
    assert_null(tg_message_find(&message, "x-one", 5, &next));
    tg_arena_reset(&arena);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_parsed_into_its_parts),
        cmocka_unit_test(the_scan_does_not_depend_on_how_bytes_come),
        cmocka_unit_test(limits_hold_for_lines_that_never_end),
        cmocka_unit_test(faults_have_the_status_of_the_field),
        cmocka_unit_test(what_is_written_parses_to_the_same),
        cmocka_unit_test(setters_refuse_what_would_break_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
