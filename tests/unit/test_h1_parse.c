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

static enum tg_rc
parse_response(const char *bytes, size_t n, bool to_head, struct tg_message *message, const struct tg_h1_fault **fault)
{
    struct tg_h1_scan scan = {0};
    tg_arena_init(&arena, block, sizeof block, 1024 * 1024);
    tg_message_init(message, &arena);
    enum tg_rc rc = tg_h1_scan(&scan, bytes, n, &limits, false, fault);
    return rc == TG_OK ? tg_h1_parse_response(message, bytes, scan.pos, to_head, fault) : rc;
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
the_scan_may_be_cut_at_any_two_points(void **state)
{
    (void)state;
    for (size_t first = 0; first < sizeof good - 1; first++) {
        for (size_t second = first; second < sizeof good - 1; second++) {
            const struct tg_h1_fault *fault = NULL;
            struct tg_h1_scan scan = {0};
            assert_int_equal(tg_h1_scan(&scan, good, first, &limits, true, &fault), TG_AGAIN);
            assert_int_equal(tg_h1_scan(&scan, good, second, &limits, true, &fault), TG_AGAIN);
            assert_int_equal(tg_h1_scan(&scan, good, sizeof good - 1, &limits, true, &fault), TG_OK);
            assert_int_equal(scan.pos, sizeof good - 1);
            assert_int_equal(scan.start, 2);
            assert_int_equal(scan.lines, 5);
        }
    }
}

static void
the_scan_stops_where_the_next_request_begins(void **state)
{
    static const char two[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n";
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    (void)state;
    assert_int_equal(tg_h1_scan(&scan, two, sizeof two - 1, &limits, true, &fault), TG_OK);
    assert_memory_equal(two + scan.pos, "GET /2", 6);
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

/* "GET /" or "HTTP/1.1 200 ", `line` bytes with the CR, then fields of `field` bytes with the CR. */
static size_t
make_head(char *out, bool request, size_t line, size_t field, unsigned fields)
{
    static const char start[] = "GET /";
    static const char version[] = " HTTP/1.1\r\n";
    char *p = out;
    if (request) {
        memset(p, 'a', line);
        memcpy(p, start, sizeof start - 1);
        memcpy(p + line - (sizeof version - 2), version, sizeof version - 1);
    } else {
        memset(p, 'a', line);
        memcpy(p, "HTTP/1.1 200 ", 13);
        memcpy(p + line - 1, "\r\n", 2);
    }
    p += line + 1;
    for (unsigned i = 0; i < fields; i++) {
        memset(p, 'a', field);
        memcpy(p, i == 0 ? "Host:" : "X-It:", 5);
        memcpy(p + field - 1, "\r\n", 2);
        p += field + 1;
    }
    memcpy(p, "\r\n", 2);
    return (size_t)(p + 2 - out);
}

static void
limits_hold_wherever_the_bytes_are_cut(void **state)
{
    static char bytes[100 * 1024];
    static const struct {
        size_t line;
        size_t field;
        unsigned fields;
        unsigned request; /* status, 0: accepted */
        unsigned response;
    } table[] = {
        {8192, 10, 1, 0, 0},      {8193, 10, 1, 414, 502},  {100, 8192, 1, 0, 0},
        {100, 8193, 1, 431, 431}, {100, 10, 100, 0, 0},     {100, 10, 101, 431, 431},
        {765, 7999, 4, 0, 0},     {767, 7999, 4, 431, 431}, {8192, 8192, 3, 431, 431},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        for (unsigned request = 0; request < 2; request++) {
            const unsigned status = request != 0 ? table[i].request : table[i].response;
            const size_t n = make_head(bytes, request != 0, table[i].line, table[i].field, table[i].fields);
            for (size_t step = 1; step <= n; step = step < 8 ? step + 1 : step * 3) {
                const struct tg_h1_fault *fault = NULL;
                struct tg_h1_scan scan = {0};
                enum tg_rc rc = TG_AGAIN;
                for (size_t at = 0; rc == TG_AGAIN && at < n;) {
                    at = at + step < n ? at + step : n;
                    rc = tg_h1_scan(&scan, bytes, at, &limits, request != 0, &fault);
                }
                assert_int_equal(rc, status == 0 ? TG_OK : TG_EPROTOCOL);
                assert_int_equal(fault == NULL ? 0 : fault->status, status);
            }
        }
    }
}

static void
a_request_line_longer_than_the_whole_head_is_414(void **state)
{
    static const struct tg_h1_limits wide = {64 * 1024, 8192, 1024, 100};
    static char bytes[2000];
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    (void)state;
    memset(bytes, 'a', sizeof bytes);
    assert_int_equal(tg_h1_scan(&scan, bytes, sizeof bytes, &wide, true, &fault), TG_EPROTOCOL);
    assert_int_equal(fault->status, 414);
}

struct bad {
    const char *bytes;
    size_t n;
    unsigned status;
    const char *fault;
};

#define BAD(literal, status, fault)                                                                                    \
    {                                                                                                                  \
        (literal), sizeof(literal) - 1, (status), (fault)                                                              \
    }
#define HEAD "GET / HTTP/1.1\r\nHost: a\r\n"

static const struct bad bad_lines[] = {
    BAD("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "a line must end in CRLF"),
    BAD("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "a line must end in CRLF"),
    BAD(HEAD "\n", 400, "a line must end in CRLF"),
    BAD("\n" HEAD "\r\n", 400, "a line must end in CRLF"),
    BAD("\r\n\r\n" HEAD "\r\n", 400, "malformed request line"),
    BAD("GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "malformed request line"),
    BAD("GET /\r\n\r\n", 400, "malformed request line"),
    BAD("GET / \r\n\r\n", 400, "malformed request line"),
    BAD("GET\r\n\r\n", 400, "malformed method"),
    BAD(" GET / HTTP/1.1\r\n\r\n", 400, "malformed method"),
    BAD("G@T / HTTP/1.1\r\n\r\n", 400, "malformed method"),
    BAD("GET\t/ HTTP/1.1\r\n\r\n", 400, "malformed method"),
    BAD("GET  / HTTP/1.1\r\n\r\n", 400, "malformed request line"),
    BAD("GET /  HTTP/1.1\r\n\r\n", 400, "malformed request line"),
    BAD("GET / HTTP/1.1 \r\n\r\n", 400, "malformed request line"),
    BAD("GET / http/1.1\r\n\r\n", 400, "malformed request line"),
    BAD("GET / HTTP/1\r\n\r\n", 400, "malformed request line"),
    BAD("GET / HTTP/1,1\r\n\r\n", 400, "malformed request line"),
    BAD("GET / HTTP/1.10\r\n\r\n", 400, "malformed request line"),
    BAD("GET / HTTP/0.9\r\n\r\n", 505, "HTTP version not supported"),
    BAD("GET / HTTP/1.2\r\n\r\n", 505, "HTTP version not supported"),
    BAD("GET / HTTP/2.0\r\n\r\n", 505, "HTTP version not supported"),
    BAD("GET /\0 HTTP/1.1\r\n\r\n", 400, "illegal byte in the request target"),
    BAD("GET /\t HTTP/1.1\r\n\r\n", 400, "illegal byte in the request target"),
    BAD("GET /\x7f HTTP/1.1\r\n\r\n", 400, "illegal byte in the request target"),
    BAD("GET /\xc3\xa4 HTTP/1.1\r\n\r\n", 400, "illegal byte in the request target"),
};

static const struct bad bad_fields[] = {
    BAD(HEAD "X : a\r\n\r\n", 400, "malformed field name"),
    BAD(HEAD ": a\r\n\r\n", 400, "malformed field name"),
    BAD(HEAD "X(: a\r\n\r\n", 400, "malformed field name"),
    BAD(HEAD "X\0Y: a\r\n\r\n", 400, "malformed field name"),
    BAD(HEAD "X\xc3: a\r\n\r\n", 400, "malformed field name"),
    BAD(HEAD "X\r\n\r\n", 400, "malformed field name"),
    BAD(HEAD "\rX: a\r\n\r\n", 400, "malformed field name"),
    BAD(HEAD "X: a\r\n b\r\n\r\n", 400, "obsolete line folding"),
    BAD(HEAD "X: a\r\n\tb\r\n\r\n", 400, "obsolete line folding"),
    BAD("GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", 400, "obsolete line folding"),
    BAD(HEAD "X: a\0b\r\n\r\n", 400, "illegal byte in a field value"),
    BAD(HEAD "X: a\rb\r\n\r\n", 400, "illegal byte in a field value"),
    BAD(HEAD "X: a\r\r\n\r\n", 400, "illegal byte in a field value"),
    BAD(HEAD "X: a\x01\r\n\r\n", 400, "illegal byte in a field value"),
    BAD(HEAD "X: a\x7f\r\n\r\n", 400, "illegal byte in a field value"),
    BAD("GET / HTTP/1.1\r\n\r\n", 400, "missing Host"),
    BAD("GET http://a/ HTTP/1.1\r\n\r\n", 400, "missing Host"),
    BAD(HEAD "Host: a\r\n\r\n", 400, "more than one Host"),
    BAD(HEAD "hOST:\r\n\r\n", 400, "more than one Host"),
    BAD(HEAD "Expect: 100-continue, x\r\n\r\n", 417, "expectation not supported"),
    BAD(HEAD "Expect: x\r\n\r\n", 417, "expectation not supported"),
    BAD(HEAD "Expect:\r\n\r\n", 417, "expectation not supported"),
};

static const struct bad bad_framing[] = {
    BAD(HEAD "Content-Length:\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: +1\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: -1\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: 0x1\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: 1 1\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: 1, 1\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: 1;\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: 1234567890123456789\r\n\r\n", 400, "malformed Content-Length"),
    BAD(HEAD "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, "more than one Content-Length"),
    BAD(HEAD "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "more than one Content-Length"),
    BAD(HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
        "more than one Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding:\r\n\r\n", 400, "malformed Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: xchunked\r\n\r\n", 400, "malformed Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: chunked, chunked\r\n\r\n", 400, "malformed Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: chunked, gzip\r\n\r\n", 400, "malformed Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: chunked;q=1\r\n\r\n", 400, "malformed Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: \"chunked\"\r\n\r\n", 400, "malformed Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: chunked,\r\n\r\n", 400, "malformed Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: \vchunked\r\n\r\n", 400, "illegal byte in a field value"),
    BAD(HEAD "Transfer-Encoding: gzip\r\n\r\n", 501, "transfer coding not implemented"),
    BAD(HEAD "Transfer-Encoding: identity\r\n\r\n", 501, "transfer coding not implemented"),
    BAD(HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "transfer coding not implemented"),
    BAD("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Transfer-Encoding in HTTP/1.0"),
    BAD(HEAD "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Content-Length with Transfer-Encoding"),
    BAD(HEAD "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400, "Content-Length with Transfer-Encoding"),
    BAD(HEAD "Connection: Host\r\n\r\n", 400, "Connection names a field that it may not remove"),
    BAD(HEAD "Content-Length: 1\r\nConnection: close, content-length\r\n\r\n", 400,
        "Connection names a field that it may not remove"),
    BAD(HEAD "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
        "Connection names a field that it may not remove"),
    BAD(HEAD "Cookie: a\r\nConnection: ,cookie\r\n\r\n", 400, "Connection names a field that it may not remove"),
    BAD(HEAD "Authorization: a\r\nConnection: authorization\r\n\r\n", 400,
        "Connection names a field that it may not remove"),
    BAD(HEAD "X-Forwarded-For: a\r\nConnection: x-forwarded-for\r\n\r\n", 400,
        "Connection names a field that it may not remove"),
};

static const struct bad bad_responses[] = {
    BAD("\r\nHTTP/1.1 200 OK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 20 OK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 2000 OK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 099 OK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 600 OK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1  200 OK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 200\tOK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 200 O\rK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 200 O\0K\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/2.0 200 OK\r\n\r\n", 502, "malformed status line"),
    BAD("http/1.1 200 OK\r\n\r\n", 502, "malformed status line"),
    BAD("ICY 200 OK\r\n\r\n", 502, "malformed status line"),
    BAD("HTTP/1.1 200 OK\n\r\n", 400, "a line must end in CRLF"),
    BAD("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", 400, "obsolete line folding"),
    BAD("HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n", 400, "illegal byte in a field value"),
    BAD("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", 400, "malformed field name"),
    BAD("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, "more than one Content-Length"),
    BAD("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 400, "malformed Content-Length"),
    BAD("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
        "Content-Length with Transfer-Encoding"),
    BAD("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Transfer-Encoding in HTTP/1.0"),
};

/* What of a parse may differ in framing alone. */
struct framed {
    const char *text;
    bool to_head;
    unsigned framing;
    unsigned length;
    bool keep_alive;
};

static const struct framed framed_requests[] = {
    {HEAD "\r\n", false, TG_FRAMING_NONE, 0, true},
    {HEAD "Content-Length: 0\r\n\r\n", false, TG_FRAMING_LENGTH, 0, true},
    {HEAD "Content-Length: 00000000000000000000000000012 \r\n\r\n", false, TG_FRAMING_LENGTH, 12, true},
    {HEAD "transfer-encoding:\tCHUNKED\t\r\n\r\n", false, TG_FRAMING_CHUNKED, 0, true},
    {HEAD "Content_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n", false, TG_FRAMING_NONE, 0, true},
    {HEAD "Connection: Keep-Alive, CLOSE\r\n\r\n", false, TG_FRAMING_NONE, 0, false},
    {HEAD "Connection: close\r\nConnection: keep-alive\r\n\r\n", false, TG_FRAMING_NONE, 0, false},
    {HEAD "Connection: closed\r\n\r\n", false, TG_FRAMING_NONE, 0, true},
    {"GET / HTTP/1.0\r\n\r\n", false, TG_FRAMING_NONE, 0, false},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, TG_FRAMING_NONE, 0, true},
};

static const struct framed framed_responses[] = {
    {"HTTP/1.1 200\r\nContent-Length: 7\r\n\r\n", false, TG_FRAMING_LENGTH, 7, true},
    {"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", false, TG_FRAMING_CHUNKED, 0, true},
    {"HTTP/1.1 200 OK\r\n\r\n", false, TG_FRAMING_CLOSE, 0, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", false, TG_FRAMING_LENGTH, 7, false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", true, TG_FRAMING_NONE, 7, true},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, TG_FRAMING_NONE, 0, true},
    {"HTTP/1.1 100 Continue\r\nContent-Length: 7\r\n\r\n", false, TG_FRAMING_NONE, 7, true},
    {"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", false, TG_FRAMING_NONE, 7, true},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", false, TG_FRAMING_NONE, 7, true},
    {"HTTP/1.1 599 \xc3\xa4\r\nContent-Length: 7\r\nConnection: close\r\n\r\n", false, TG_FRAMING_LENGTH, 7, false},
};

static void
refuse_all(const struct bad *table, size_t rows, bool request)
{
    for (size_t i = 0; i < rows; i++) {
        const struct tg_h1_fault *fault = NULL;
        struct tg_message message;
        const enum tg_rc rc = request ? parse(table[i].bytes, table[i].n, &message, &fault)
                                      : parse_response(table[i].bytes, table[i].n, false, &message, &fault);
        if (rc != TG_EPROTOCOL || fault->status != table[i].status || strcmp(fault->text, table[i].fault) != 0) {
            print_error("row %zu: %s\n", i, table[i].bytes);
        }
        assert_int_equal(rc, TG_EPROTOCOL);
        assert_string_equal(fault->text, table[i].fault);
        assert_int_equal(fault->status, table[i].status);
        tg_arena_reset(&arena);
    }
}

#define ROWS(table) (sizeof(table) / sizeof(table)[0])

static void
requests_with_two_readings_are_refused_with_a_reason(void **state)
{
    (void)state;
    refuse_all(bad_lines, ROWS(bad_lines), true);
    refuse_all(bad_fields, ROWS(bad_fields), true);
    refuse_all(bad_framing, ROWS(bad_framing), true);
}

static void
responses_with_two_readings_are_refused_with_a_reason(void **state)
{
    (void)state;
    refuse_all(bad_responses, ROWS(bad_responses), false);
}

static void
frame_all(const struct framed *table, size_t rows, bool request)
{
    for (size_t i = 0; i < rows; i++) {
        const struct tg_h1_fault *fault = NULL;
        struct tg_message message;
        const size_t n = strlen(table[i].text);
        const enum tg_rc rc = request ? parse(table[i].text, n, &message, &fault)
                                      : parse_response(table[i].text, n, table[i].to_head, &message, &fault);
        assert_int_equal(rc, TG_OK);
        assert_int_equal(message.framing, table[i].framing);
        assert_int_equal(message.content_length, table[i].length);
        assert_int_equal(message.keep_alive, table[i].keep_alive);
        tg_arena_reset(&arena);
    }
}

static void
framing_has_one_reading(void **state)
{
    (void)state;
    frame_all(framed_requests, ROWS(framed_requests), true);
    frame_all(framed_responses, ROWS(framed_responses), false);
}

static void
no_byte_is_taken_that_a_rule_forbids(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        const struct tg_h1_fault *fault = NULL;
        struct tg_message message;
        char target[] = "GET /?_ HTTP/1.1\r\nHost: a\r\n\r\n";
        char name[] = HEAD "X?: a\r\n\r\n";
        char value[] = HEAD "X: a?a\r\n\r\n";
        *strchr(target, '_') = (char)c;
        *strchr(name, '?') = (char)c;
        *strchr(value, '?') = (char)c;
        const bool in_target = c > 0x20 && c < 0x7f && strchr("\"<>\\^{}`#", (int)c) == NULL;
        const bool in_name = c > 0x20 && c < 0x7f && strchr("\"(),/;<=>?@[\\]{}", (int)c) == NULL;
        const bool in_value = c == '\t' || (c >= 0x20 && c != 0x7f);
        assert_int_equal(parse(target, sizeof target - 1, &message, &fault), in_target ? TG_OK : TG_EPROTOCOL);
        tg_arena_reset(&arena);
        /* A colon ends the name, and the second one belongs to the value. */
        assert_int_equal(parse(name, sizeof name - 1, &message, &fault), in_name ? TG_OK : TG_EPROTOCOL);
        tg_arena_reset(&arena);
        assert_int_equal(parse(value, sizeof value - 1, &message, &fault), in_value ? TG_OK : TG_EPROTOCOL);
        tg_arena_reset(&arena);
    }
}

/* Values are looked at in words: a byte counts wherever it stands, and whatever is before and behind it. */
static void
a_byte_of_a_value_is_judged_at_every_place(void **state)
{
    (void)state;
    static const char around[] = {'a', ' ', '\t', '~', '\x80', '\xff'};
    for (unsigned c = 0; c < 256; c++) {
        for (size_t i = 0; i < sizeof around * 20; i++) {
            char value[20];
            memset(value, around[i / 20], sizeof value);
            value[i % 20] = (char)c;
            const bool allowed = c == '\t' || (c >= 0x20 && c != 0x7f);
            assert_int_equal(tg_value_length(value, sizeof value), allowed ? sizeof value : i % 20);
            assert_int_equal(tg_value_length(value, i % 20), i % 20);
        }
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
        cmocka_unit_test(the_scan_may_be_cut_at_any_two_points),
        cmocka_unit_test(the_scan_stops_where_the_next_request_begins),
        cmocka_unit_test(limits_hold_wherever_the_bytes_are_cut),
        cmocka_unit_test(a_request_line_longer_than_the_whole_head_is_414),
        cmocka_unit_test(requests_with_two_readings_are_refused_with_a_reason),
        cmocka_unit_test(responses_with_two_readings_are_refused_with_a_reason),
        cmocka_unit_test(framing_has_one_reading),
        cmocka_unit_test(no_byte_is_taken_that_a_rule_forbids),
        cmocka_unit_test(a_byte_of_a_value_is_judged_at_every_place),
        cmocka_unit_test(what_is_written_parses_to_the_same),
        cmocka_unit_test(setters_refuse_what_would_break_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
