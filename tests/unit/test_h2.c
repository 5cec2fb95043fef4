#include <stdio.h>

#include "unit.h"

#include "h2_peer.h"

static struct side server;
static struct bytes in;
static struct bytes out;

static void
start_with(const struct tg_h2_limits *limits)
{
    open_side(&server, TG_H2_SERVER, limits);
    in.n = 0;
    put_preface(&in);
    put_frame(&in, SETTINGS, ACK, 0, NULL, 0);
}

static void
start(void)
{
    start_with(&usual);
}

static enum tg_rc
feed_at(uint64_t now)
{
    const enum tg_rc rc = tg_h2_feed(server.h2, in.p, in.n, now);
    in.n = 0;
    return rc;
}

static enum tg_rc
feed(void)
{
    return feed_at(1000);
}

static void
stop(void)
{
    close_side(&server);
}

static struct owner *
owner(unsigned i)
{
    assert_true(i < server.used);
    return &server.owners[i];
}

static void
a_request_becomes_a_head_and_is_answered(void **state)
{
    (void)state;
    start();
    put_headers(&in, 1, false, POST "content-length: 5\nx-one: 1\ncookie: a=b\nexpect: 100-continue\n");
    put_frame(&in, DATA, 0, 1, "hel", 3);
    put_frame(&in, DATA, END_STREAM, 1, "lo", 2);
    assert_int_equal(feed(), TG_OK);
    const struct tg_message *m = &owner(0)->message;
    assert_true(tg_slice_is(m->method, "POST", 4) && tg_slice_is(m->target, "/up", 3));
    assert_true(tg_slice_is(m->host, "a.example", 9) && tg_slice_is(owner(0)->stream.scheme, "https", 5));
    assert_true(m->version_major == 2 && m->framing == TG_FRAMING_LENGTH && m->content_length == 5);
    assert_true(m->expect_continue && m->keep_alive && m->count == 5);
    assert_int_equal(m->fields[0].id, TG_FIELD_HOST);
    assert_int_equal(m->fields[1].flags, TG_FIELD_HOP | TG_FIELD_FRAMING | TG_FIELD_PROTECTED);
    assert_int_equal(m->fields[2].hash, tg_field_hash("X-One", 5));
    assert_int_equal(m->fields[3].flags, TG_FIELD_PROTECTED);
    assert_int_equal(owner(0)->data, 5);
    assert_int_equal(owner(0)->ends, 1);
    assert_int_equal(tg_h2_respond(&owner(0)->stream, 100, NULL, false), TG_OK);
    server.size = 3;
    assert_int_equal(answer(owner(0), 200), TG_OK);
    assert_int_equal(tg_h2_respond(&owner(0)->stream, 200, NULL, true), TG_EINVAL);
    const struct sent sent = output(&server, &out);
    assert_int_equal(sent.frames[HEADERS], 2);
    assert_int_equal(sent.frames[DATA], 1);
    assert_int_equal(sent.data, 3);
    assert_int_equal(owner(0)->writables, 1);
    assert_int_equal(tg_h2_open_streams(server.h2), 1);
    tg_h2_stream_close(&owner(0)->stream, 0);
    assert_int_equal(tg_h2_open_streams(server.h2), 0);
    assert_int_equal(output(&server, &out).frames[RST_STREAM], 0);
    assert_int_equal(owner(0)->resets, 0);
    stop();
}

static void
malformed_requests_are_stream_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        start();
        put_headers(&in, 1, true, malformed[i]);
        put_headers(&in, 3, true, GET);
        assert_int_equal(feed(), TG_OK);
        const struct sent sent = output(&server, &out);
        if (owner(0)->heads != 0 || owner(0)->resets != 1 || sent.frames[RST_STREAM] != 1 ||
            owner(0)->code != TG_H2_PROTOCOL_ERROR || sent.rst != TG_H2_PROTOCOL_ERROR || sent.frames[GOAWAY] != 0 ||
            owner(1)->heads != 1) {
            fail_msg("not a stream error: %s", malformed[i]);
        }
        stop();
    }
}

static void
bytes_that_no_text_shows_are_stream_errors(void **state)
{
    static const struct {
        const char *name;
        size_t name_len;
        const char *value;
        size_t value_len;
    } table[] = {{"x", 1, "a\0b", 3}, {"x", 1, "a\nb", 3}, {"x\0", 2, "a", 1},
                 {"", 0, "a", 1},     {"x\n", 2, "a", 1},  {":path", 5, "/\0", 2}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        static struct bytes section;
        section.n = 0;
        start();
        put_section(&section, table[i].name[0] == ':' ? ":method: GET\n:scheme: https\n:authority: a\n" : GET);
        put_field_of(&section, table[i].name, table[i].name_len, table[i].value, table[i].value_len);
        put_frame(&in, HEADERS, END_HEADERS | END_STREAM, 1, section.p, section.n);
        assert_int_equal(feed(), TG_OK);
        assert_int_equal(owner(0)->heads, 0);
        assert_int_equal(owner(0)->code, TG_H2_PROTOCOL_ERROR);
        stop();
    }
}

static void
what_a_client_may_send_is_taken(void **state)
{
    static const char *const table[] = {
        ":method: OPTIONS\n:scheme: http\n:authority: a\n:path: *\n",
        ":method: GET\n:scheme: http\n:path: /\nhost: a\n",
        ":method: PURGE\n:scheme: http\n:path: /\nhost: a\n",
        GET "host: A.example\n",
        GET "te: trailers\n",
        GET "content-length: 0\n",
        GET "x: \n",
        GET "x: a \xc3\xa4 b\n",
        GET "priority: u=1, i\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start();
        put_headers(&in, 1, true, table[i]);
        assert_int_equal(feed(), TG_OK);
        if (owner(0)->heads != 1 || owner(0)->ends != 1 || owner(0)->message.host.n == 0) {
            fail_msg("refused: %s", table[i]);
        }
        stop();
    }
}

/* With a Host: one field of that name, whoever wrote it. */
static void
host_stands_once_in_the_fields(void **state)
{
    static const char *const table[] = {GET, GET "host: A.example\n",
                                        ":method: GET\n:scheme: http\n:path: /\nhost: a.example\n"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start();
        put_headers(&in, 1, true, table[i]);
        assert_int_equal(feed(), TG_OK);
        assert_int_equal(owner(0)->message.count, 1);
        assert_int_equal(owner(0)->message.fields[0].id, TG_FIELD_HOST);
        assert_true(tg_slice_is(owner(0)->message.host, "a.example", 9));
        stop();
    }
}

static void
crumbs_of_cookie_are_joined_and_counted(void **state)
{
    struct tg_h2_limits limits = usual;
    limits.fields = 4;
    (void)state;
    start_with(&limits);
    put_headers(&in, 1, true, GET "cookie: a=1\nx: 1\ncookie: b=2\ncookie: c=3\n");
    put_headers(&in, 3, true, GET "cookie: a=1\ncookie: b=2\ncookie: c=3\ncookie: d=4\ncookie: e=5\n");
    assert_int_equal(feed(), TG_OK);
    const struct tg_message *m = &owner(0)->message;
    assert_int_equal(m->count, 3);
    assert_int_equal(m->fields[1].id, TG_FIELD_COOKIE);
    assert_int_equal(m->fields[1].value_len, 13);
    assert_memory_equal(m->fields[1].value, "a=1; b=2; c=3", 13);
    assert_true(owner(1)->heads == 0 && owner(1)->fault->status == 431 && owner(1)->fault->limit == TG_LIMIT_FIELDS);
    stop();
}

/* `n` bytes of one letter behind `before`. */
static const char *
long_line(const char *before, size_t n)
{
    static char line[40000];
    size_t at = strlen(before);
    memcpy(line, before, at);
    memset(line + at, 'a', n);
    memcpy(line + at + n, "\n", 2);
    return line;
}

static void
what_is_over_a_limit_is_told_by_a_status(void **state)
{
    static const struct {
        const char *before;
        size_t n;
        unsigned status;
        enum tg_limit limit;
    } table[] = {
        {":method: GET\n:scheme: https\n:authority: a\n:path: /", 8192, 414, TG_LIMIT_REQUEST_LINE},
        {":method: GET\n:scheme: https\n:authority: a\n:path: /\"", 1, 400, TG_LIMIT_NONE},
        {":method: GET\n:scheme: https\n:authority: a\n:path: /#", 1, 400, TG_LIMIT_NONE},
        {GET "x: ", 8192, 431, TG_LIMIT_FIELD},
        {GET "x: ", 33000, 431, TG_LIMIT_HEAD},
        {GET "expect: ", 3, 417, TG_LIMIT_NONE},
        {GET "x_y: ", 1, 400, TG_LIMIT_NONE},
    };
    struct tg_h2_limits limits = usual;
    limits.reading.underscores = TG_UNDERSCORES_REJECT;
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        static struct bytes section;
        section.n = 0;
        start_with(&limits);
        put_section(&section, long_line(table[i].before, table[i].n));
        for (size_t at = 0; at < section.n; at += 16384) {
            const size_t n = section.n - at < 16384 ? section.n - at : 16384;
            put_frame(&in, at == 0 ? HEADERS : CONTINUATION, at + n == section.n ? END_HEADERS : 0, 1, section.p + at,
                      n);
        }
        put_frame(&in, DATA, END_STREAM, 1, "abc", 3);
        assert_int_equal(feed(), TG_OK);
        assert_int_equal(owner(0)->heads, 0);
        assert_non_null(owner(0)->fault);
        assert_int_equal(owner(0)->fault->status, table[i].status);
        assert_int_equal(owner(0)->fault->limit, table[i].limit);
        assert_int_equal(owner(0)->data + owner(0)->ends, 0);
        assert_int_equal(answer(owner(0), table[i].status), TG_OK);
        assert_int_equal(output(&server, &out).frames[HEADERS], 1);
        stop();
    }
}

static void
names_with_underscores_are_read_as_told(void **state)
{
    struct tg_h2_limits limits = usual;
    (void)state;
    for (unsigned underscores = TG_UNDERSCORES_DROP; underscores <= TG_UNDERSCORES_ALLOW; underscores++) {
        limits.reading.underscores = (uint8_t)underscores;
        start_with(&limits);
        put_headers(&in, 1, true, GET "x_y: 1\nproxy: a\n");
        assert_int_equal(feed(), TG_OK);
        const struct tg_message *m = &owner(0)->message;
        assert_int_equal(m->count, underscores == TG_UNDERSCORES_ALLOW ? 2 : 1);
        assert_true(m->count == 1 || m->fields[1].flags == TG_FIELD_UNDERSCORE);
        stop();
    }
}

static void
the_length_must_be_that_of_the_data(void **state)
{
    static const struct {
        const char *length;
        const char *first, *second;
        bool good;
    } table[] = {{"content-length: 3\n", "ab", "c", true},   {"content-length: 3\n", "ab", "", false},
                 {"content-length: 3\n", "ab", "cd", false}, {"content-length: 0\n", "", "", true},
                 {"content-length: 0\n", "", "a", false},    {"", "ab", "cd", true}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char head[256];
        (void)snprintf(head, sizeof head, POST "%s", table[i].length);
        start();
        put_headers(&in, 1, false, head);
        put_frame(&in, DATA, 0, 1, table[i].first, strlen(table[i].first));
        put_frame(&in, DATA, END_STREAM, 1, table[i].second, strlen(table[i].second));
        assert_int_equal(feed(), TG_OK);
        const struct sent sent = output(&server, &out);
        assert_int_equal(owner(0)->ends, table[i].good ? 1 : 0);
        assert_int_equal(owner(0)->resets, table[i].good ? 0 : 1);
        assert_int_equal(sent.rst, table[i].good ? 0 : TG_H2_PROTOCOL_ERROR);
        assert_int_equal(owner(0)->message.framing, *table[i].length != '\0' ? TG_FRAMING_LENGTH : TG_FRAMING_CHUNKED);
        stop();
    }
}

static void
trailers_are_judged_and_kept(void **state)
{
    static const struct {
        const char *lines;
        bool good;
    } table[] = {{"grpc-status: 0\nx: 1\n", true},
                 {"authorization: x\n", false},
                 {"content-length: 0\n", false},
                 {"host: a\n", false},
                 {":path: /\n", false},
                 {"set-cookie: a=b\n", false},
                 {"te: trailers\n", false},
                 {"X: 1\n", false}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start();
        put_headers(&in, 1, false, POST);
        put_frame(&in, DATA, 0, 1, "abc", 3);
        put_headers(&in, 1, true, table[i].lines);
        assert_int_equal(feed(), TG_OK);
        assert_int_equal(owner(0)->ends, table[i].good ? 1 : 0);
        assert_int_equal(owner(0)->trailers.count, table[i].good ? 2 : 0);
        assert_int_equal(owner(0)->code, table[i].good ? 0 : TG_H2_PROTOCOL_ERROR);
        stop();
    }
}

static void
trailers_that_are_too_large_end_the_stream(void **state)
{
    (void)state;
    start();
    put_headers(&in, 1, false, POST);
    put_headers(&in, 1, true, long_line("x: ", 4096));
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(owner(0)->code, TG_H2_ENHANCE_YOUR_CALM);
    assert_int_equal(server.limited[TG_LIMIT_TRAILERS], 1);
    stop();
}

static void
how_bytes_are_cut_changes_nothing(void **state)
{
    static struct bytes whole;
    (void)state;
    for (size_t step = 1; step < 40; step++) {
        start();
        put_headers(&in, 1, false, POST "content-length: 6\ncookie: a\ncookie: b\n");
        put_frame(&in, DATA, PADDED, 1, "\3abc\0\0\0", 7);
        put_frame(&in, UNKNOWN, 0, 1, "what", 4);
        put_frame(&in, DATA, END_STREAM, 1, "def", 3);
        whole = in;
        for (size_t at = 0; at < whole.n; at += step) {
            in.n = 0;
            put(&in, whole.p + at, step < whole.n - at ? step : whole.n - at);
            assert_int_equal(feed(), TG_OK);
        }
        assert_int_equal(owner(0)->heads, 1);
        assert_int_equal(owner(0)->ends, 1);
        assert_int_equal(owner(0)->data, 6);
        assert_int_equal(owner(0)->sum, 'a' + 2 * 'b' + 3 * 'c' + 4 * 'd' + 5 * 'e' + 6 * 'f');
        assert_int_equal(owner(0)->message.count, 3);
        stop();
    }
}

static void
credit_is_given_for_what_is_used_only(void **state)
{
    static char zeros[16384];
    (void)state;
    start();
    server.consumes = false;
    put_headers(&in, 1, false, POST);
    for (int i = 0; i < 3; i++) {
        put_frame(&in, DATA, 0, 1, zeros, sizeof zeros);
    }
    assert_int_equal(feed(), TG_OK);
    struct sent sent = output(&server, &out);
    assert_int_equal(sent.stream_credit, 0);
    assert_int_equal(sent.credit, 1024 * 1024 - 65535);
    tg_h2_consumed(&owner(0)->stream, sizeof zeros);
    assert_int_equal(output(&server, &out).stream_credit, 0);
    tg_h2_consumed(&owner(0)->stream, 2 * sizeof zeros);
    tg_h2_consumed(&owner(0)->stream, 2 * sizeof zeros); /* more than there is */
    assert_int_equal(output(&server, &out).stream_credit, 3 * sizeof zeros);
    stop();
}

/* What waits when a stream ends, and what comes for it afterwards, would else be lost to all other streams. */
static void
the_connection_gets_the_window_of_an_ended_stream_back(void **state)
{
    static char zeros[16384];
    (void)state;
    start();
    server.consumes = false;
    size_t given = 0;
    for (unsigned id = 1; id < 100; id += 2) {
        put_headers(&in, id, false, POST);
        put_frame(&in, DATA, PADDED, id, zeros, sizeof zeros);
        put_frame(&in, DATA, 0, id, zeros, sizeof zeros);
        assert_int_equal(feed(), TG_OK);
        tg_h2_stream_close(&owner((id - 1) / 2)->stream, TG_H2_CANCEL);
        put_frame(&in, DATA, 0, id, zeros, sizeof zeros);
        assert_int_equal(feed(), TG_OK);
        given += output(&server, &out).credit;
        put_frame(&in, DATA, 0, id, zeros, sizeof zeros);
        assert_int_equal(feed(), TG_OK);
    }
    given += output(&server, &out).credit;
    assert_in_range(given, 1024 * 1024 - 65535 + 50 * 4 * sizeof zeros - 1024 * 1024, SIZE_MAX);
    stop();
}

static void
two_answers_share_a_connection_in_turn(void **state)
{
    (void)state;
    start();
    server.answers = true;
    server.size = 60000;
    put_number(&in, WINDOW_UPDATE, 0, 1000000);
    put_headers(&in, 1, true, GET);
    put_headers(&in, 3, true, GET);
    assert_int_equal(feed(), TG_OK);
    char piece[TG_H2_OUTPUT_MIN];
    out.n = 0;
    while (out.n < 40000) {
        const size_t n = tg_h2_output(server.h2, piece, sizeof piece);
        assert_true(n > 0);
        put(&out, piece, n);
    }
    assert_in_range(owner(0)->stream.sent, 18000, 21000);
    assert_in_range(owner(1)->stream.sent, 18000, 21000);
    (void)output(&server, &out);
    assert_int_equal(tg_h2_open_streams(server.h2), 0);
    stop();
}

static void
what_is_urgent_goes_first(void **state)
{
    (void)state;
    start();
    server.answers = true;
    server.size = 30000;
    put_number(&in, WINDOW_UPDATE, 0, 1000000);
    put_headers(&in, 1, true, GET);
    put_headers(&in, 3, true, GET "priority: u=1\n");
    put_headers(&in, 5, true, GET "priority: u=7\n");
    put_frame(&in, PRIORITY_UPDATE, 0, 0, "\0\0\0\5u=0", 7);
    assert_int_equal(feed(), TG_OK);
    char piece[25000];
    assert_in_range(tg_h2_output(server.h2, piece, sizeof piece), 20000, sizeof piece);
    assert_int_equal(owner(0)->stream.sent + owner(1)->stream.sent, 0);
    assert_in_range(tg_h2_output(server.h2, piece, sizeof piece), 20000, sizeof piece);
    assert_true(owner(1)->stream.sent > 10000 && owner(0)->stream.sent == 0);
    stop();
}

static void
a_body_waits_for_its_window_and_is_bounded(void **state)
{
    (void)state;
    start();
    server.answers = true;
    server.size = 300000;
    put_headers(&in, 1, true, GET);
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(owner(0)->stream.queue.used, TG_H2_QUEUE_MAX);
    struct sent sent = output(&server, &out);
    assert_int_equal(sent.data, 65535);
    assert_in_range(owner(0)->stream.queue.used, TG_H2_QUEUE_MAX / 2, TG_H2_QUEUE_MAX);
    size_t data = sent.data;
    while (data < server.size) {
        put_number(&in, WINDOW_UPDATE, 0, 50000);
        put_number(&in, WINDOW_UPDATE, 1, 50000);
        assert_int_equal(feed(), TG_OK);
        assert_true(owner(0)->stream.queue.used <= TG_H2_QUEUE_MAX);
        sent = output(&server, &out);
        assert_true(sent.data > 0);
        data += sent.data;
    }
    assert_int_equal(data, server.size);
    assert_int_equal(tg_h2_open_streams(server.h2), 0);
    stop();
}

static void
trailers_follow_a_body_and_also_none(void **state)
{
    (void)state;
    for (unsigned size = 0; size < 2; size++) {
        struct tg_h2_block block;
        const struct iovec v = {(char[]){"body"}, 4};
        size_t taken;
        start();
        put_headers(&in, 1, true, GET);
        assert_int_equal(feed(), TG_OK);
        assert_int_equal(tg_h2_respond(&owner(0)->stream, 200, NULL, false), TG_OK);
        (void)output(&server, &out);
        tg_h2_block_init(&block, &owner(0)->arena);
        assert_int_equal(tg_h2_block_add(&block, TG_SLICE("Grpc-Status"), TG_SLICE("0")), TG_OK);
        if (size > 0) {
            assert_int_equal(tg_h2_write(&owner(0)->stream, &v, 1, &taken), TG_OK);
        }
        assert_int_equal(tg_h2_finish(&owner(0)->stream, &block), TG_OK);
        assert_int_equal(tg_h2_finish(&owner(0)->stream, NULL), TG_EINVAL);
        const struct sent sent = output(&server, &out);
        assert_int_equal(sent.frames[HEADERS], 1);
        assert_int_equal(sent.frames[DATA], size);
        assert_true(owner(0)->stream.sent_end);
        stop();
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_becomes_a_head_and_is_answered),
        cmocka_unit_test(malformed_requests_are_stream_errors),
        cmocka_unit_test(bytes_that_no_text_shows_are_stream_errors),
        cmocka_unit_test(what_a_client_may_send_is_taken),
        cmocka_unit_test(host_stands_once_in_the_fields),
        cmocka_unit_test(crumbs_of_cookie_are_joined_and_counted),
        cmocka_unit_test(what_is_over_a_limit_is_told_by_a_status),
        cmocka_unit_test(names_with_underscores_are_read_as_told),
        cmocka_unit_test(the_length_must_be_that_of_the_data),
        cmocka_unit_test(trailers_are_judged_and_kept),
        cmocka_unit_test(trailers_that_are_too_large_end_the_stream),
        cmocka_unit_test(how_bytes_are_cut_changes_nothing),
        cmocka_unit_test(credit_is_given_for_what_is_used_only),
        cmocka_unit_test(the_connection_gets_the_window_of_an_ended_stream_back),
        cmocka_unit_test(two_answers_share_a_connection_in_turn),
        cmocka_unit_test(what_is_urgent_goes_first),
        cmocka_unit_test(a_body_waits_for_its_window_and_is_bounded),
        cmocka_unit_test(trailers_follow_a_body_and_also_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
