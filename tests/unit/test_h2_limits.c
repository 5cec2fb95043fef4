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
    assert_int_equal(tg_h2_feed(server.h2, in.p, in.n, 1), TG_OK);
    in.n = 0;
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
    return feed_at(5000);
}

static void
stop(void)
{
    close_side(&server);
}

/* The connection has ended for this limit, is told so once, and takes nothing more. */
static void
is_ended_by(enum tg_limit limit)
{
    assert_int_equal(server.limited[limit], 1);
    const struct sent sent = output(&server, &out);
    assert_int_equal(sent.frames[GOAWAY], 1);
    assert_int_equal(sent.goaway, TG_H2_ENHANCE_YOUR_CALM);
    assert_true(tg_h2_is_over(server.h2) && !tg_h2_wants_output(server.h2));
    put_headers(&in, 9999, true, GET);
    const unsigned used = server.used;
    assert_int_equal(feed(), TG_EPROTOCOL);
    assert_int_equal(server.used, used);
    assert_int_equal(server.limited[limit], 1);
}

static void
put_useless(unsigned type)
{
    static const char zeros[8];
    const size_t n = type == PING ? 8 : type == PRIORITY ? 5 : type == UNKNOWN ? 3 : 0;
    if (type == WINDOW_UPDATE) {
        put_number(&in, type, 0, 1);
    } else if (type == CONTINUATION) {
        put_frame(&in, type, 0, 1, NULL, 0);
    } else {
        put_frame(&in, type, type == PING ? ACK : 0, type == DATA || type == PRIORITY ? 1 : 0, zeros, n);
    }
}

static void
frames_that_carry_nothing_are_counted_each_second(void **state)
{
    static const unsigned table[] = {SETTINGS, PING, PRIORITY, WINDOW_UPDATE, UNKNOWN, DATA};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start_with(&usual);
        put_headers(&in, 1, false, POST);
        for (unsigned k = 0; k < 200; k++) {
            put_useless(table[i]);
        }
        assert_int_equal(feed(), TG_OK);
        (void)output(&server, &out);
        for (unsigned k = 0; k < 200; k++) {
            put_useless(table[i]);
        }
        assert_int_equal(feed_at(6000), TG_OK);
        (void)output(&server, &out);
        put_useless(table[i]);
        put_headers(&in, 3, true, GET);
        assert_int_equal(feed_at(6999), TG_EPROTOCOL);
        assert_int_equal(server.used, 1);
        is_ended_by(TG_LIMIT_H2_CONTROLS);
        stop();
    }
}

static void
data_of_padding_alone_carries_nothing(void **state)
{
    (void)state;
    start_with(&usual);
    put_headers(&in, 1, false, POST);
    for (unsigned k = 0; k < 300; k++) {
        put_frame(&in, DATA, PADDED, 1, "\1a\0", 3); /* a byte of data */
    }
    assert_int_equal(feed(), TG_OK);
    for (unsigned k = 0; k < 201; k++) {
        put_frame(&in, DATA, PADDED, 1, "\2\0\0", 3);
    }
    assert_int_equal(feed(), TG_EPROTOCOL);
    assert_int_equal(owner_of(&server.owners[0].stream)->data, 300);
    is_ended_by(TG_LIMIT_H2_CONTROLS);
    stop();
}

/* A client that reads eagerly answers each 4 KiB of our data with two of them. */
static void
data_that_we_send_pays_for_window_updates(void **state)
{
    (void)state;
    start_with(&usual);
    server.answers = true;
    server.size = 4 * 1024 * 1024;
    put_number(&in, WINDOW_UPDATE, 0, 2000000);
    put_headers(&in, 1, true, GET);
    for (unsigned round = 0; round < 40; round++) {
        assert_int_equal(feed(), TG_OK);
        const struct sent sent = output(&server, &out);
        for (size_t k = 0; k < sent.data / 4096; k++) {
            put_number(&in, WINDOW_UPDATE, 0, 4096);
            put_number(&in, WINDOW_UPDATE, 1, 4096);
        }
    }
    assert_in_range(server.owners[0].stream.sent, 1000000, server.size);
    for (unsigned k = 0; k < 2000; k++) {
        put_number(&in, WINDOW_UPDATE, 0, 1);
    }
    assert_int_equal(feed(), TG_EPROTOCOL);
    is_ended_by(TG_LIMIT_H2_CONTROLS);
    stop();
}

static void
a_header_block_has_at_most_eight_continuations(void **state)
{
    (void)state;
    for (unsigned count = 8; count <= 9; count++) {
        static struct bytes section;
        section.n = 0;
        put_section(&section, GET "x: 123456789\n");
        start_with(&usual);
        put_headers(&in, 1, true, GET); /* another block does not count */
        for (size_t k = 0; k <= count; k++) {
            const bool last = k == count;
            put_frame(&in, k == 0 ? HEADERS : CONTINUATION, (last ? END_HEADERS : 0) | (k == 0 ? END_STREAM : 0), 3,
                      section.p + k, last ? section.n - k : 1);
        }
        enum tg_rc rc = TG_OK;
        for (size_t at = 0; at < in.n && rc == TG_OK; at++) { /* nghttp2 would count each byte of a header */
            rc = tg_h2_feed(server.h2, in.p + at, 1, 5000);
        }
        in.n = 0;
        assert_int_equal(rc, count == 8 ? TG_OK : TG_EPROTOCOL);
        assert_int_equal(server.owners[1].heads, count == 8 ? 1 : 0);
        if (count == 9) {
            is_ended_by(TG_LIMIT_H2_CONTINUATIONS);
        }
        stop();
    }
}

static void
empty_continuations_carry_nothing(void **state)
{
    struct tg_h2_limits limits = usual;
    limits.controls = 3;
    (void)state;
    start_with(&limits);
    put_frame(&in, HEADERS, END_STREAM, 1, NULL, 0);
    for (unsigned k = 0; k < 4; k++) {
        put_frame(&in, CONTINUATION, 0, 1, NULL, 0);
    }
    assert_int_equal(feed(), TG_EPROTOCOL);
    is_ended_by(TG_LIMIT_H2_CONTROLS);
    stop();
}

static void
answers_that_nobody_reads_are_bounded(void **state)
{
    struct tg_h2_limits limits = usual;
    limits.controls = 100000;
    (void)state;
    for (unsigned type = SETTINGS; type <= PING; type += PING - SETTINGS) {
        start_with(&limits);
        for (unsigned k = 0; k < 1100; k++) {
            put_frame(&in, type, 0, 0, "12345678", type == PING ? 8 : 0);
        }
        assert_int_equal(feed(), TG_EPROTOCOL);
        is_ended_by(TG_LIMIT_H2_ANSWERS);
        stop();
    }
}

/* Streams that are opened beyond what is allowed before our SETTINGS are known make answers, too. */
static void
refusals_that_nobody_reads_are_bounded(void **state)
{
    struct tg_h2_limits limits = usual;
    limits.resets = 100000;
    limits.streams = 1;
    (void)state;
    open_side(&server, TG_H2_SERVER, &limits);
    server.keeps = true;
    in.n = 0;
    put_preface(&in);
    for (unsigned k = 0; k < 1100; k++) {
        put_headers(&in, 2 * k + 1, false, POST);
    }
    assert_int_equal(feed(), TG_EPROTOCOL);
    assert_in_range(server.limited[TG_LIMIT_H2_STREAMS], 900, 1100);
    is_ended_by(TG_LIMIT_H2_ANSWERS);
    stop();
}

static void
rapid_resets_end_the_connection(void **state)
{
    (void)state;
    start_with(&usual);
    unsigned id = 1;
    for (unsigned k = 0; k < 101; k++, id += 2) {
        put_headers(&in, id, true, GET);
        put_number(&in, RST_STREAM, id, TG_H2_CANCEL);
        assert_int_equal(feed(), k < 100 ? TG_OK : TG_EPROTOCOL);
    }
    assert_int_equal(server.used, 101);
    assert_int_equal(server.owners[50].code, TG_H2_CANCEL);
    is_ended_by(TG_LIMIT_H2_RESETS);
    stop();
}

static void
answers_and_time_pay_for_resets(void **state)
{
    (void)state;
    start_with(&usual);
    server.answers = true;
    unsigned id = 1;
    for (unsigned k = 0; k < 200; k++, id += 4) { /* each second one is answered */
        put_headers(&in, id, false, POST);
        put_number(&in, RST_STREAM, id, TG_H2_CANCEL);
        put_headers(&in, id + 2, true, GET);
        assert_int_equal(feed(), TG_OK);
        (void)output(&server, &out);
    }
    assert_int_equal(server.used, 400);
    server.answers = false;
    for (unsigned k = 0; k < 110; k++, id += 2) { /* 100 in 30 s run off at one in 300 ms */
        put_headers(&in, id, true, GET);
        put_number(&in, RST_STREAM, id, TG_H2_CANCEL);
        assert_int_equal(feed_at(100000 + k * 100U), TG_OK);
    }
    assert_int_equal(server.limited[TG_LIMIT_H2_RESETS], 0);
    stop();
}

/* Budgets must not be saved up: 400 answers do not allow 400 resets. */
static void
answers_of_before_do_not_pay(void **state)
{
    (void)state;
    start_with(&usual);
    server.answers = true;
    unsigned id = 1;
    for (unsigned k = 0; k < 300; k++, id += 2) {
        put_headers(&in, id, true, GET);
        assert_int_equal(feed(), TG_OK);
        (void)output(&server, &out);
    }
    server.answers = false;
    for (unsigned k = 0; k < 101; k++, id += 2) {
        put_headers(&in, id, true, GET);
        put_number(&in, RST_STREAM, id, TG_H2_CANCEL);
    }
    assert_int_equal(feed(), TG_EPROTOCOL);
    is_ended_by(TG_LIMIT_H2_RESETS);
    stop();
}

/* MadeYouReset: the client does what makes us reset the stream, and never sends RST_STREAM itself. */
static void
resets_that_we_are_made_to_send_count(void **state)
{
    static const char *const ways[] = {"malformed", "window", "length", "data", "trailers"};
    (void)state;
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        start_with(&usual);
        struct sent sent = {0};
        unsigned k = 0;
        for (unsigned id = 1; !tg_h2_is_over(server.h2) && k < 110; k++, id += 2) {
            put_headers(&in, id, false, way == 0 ? POST "X: 1\n" : POST "content-length: 1\n");
            if (way == 1) {
                put_number(&in, WINDOW_UPDATE, id, 0x7fffffff);
            } else if (way == 2) {
                put_frame(&in, DATA, END_STREAM, id, NULL, 0);
            } else if (way == 3) {
                put_frame(&in, DATA, 0, id, "abc", 3);
            } else if (way == 4) {
                put_headers(&in, id, false, "x: 1\n");
            }
            assert_int_equal(feed(), k < 100 || way == 2 || way == 3 ? TG_OK : TG_EPROTOCOL);
            sent = output(&server, &out);
        }
        assert_int_equal(k, 101);
        assert_int_equal(server.owners[100].resets, 1);
        assert_true(sent.frames[GOAWAY] == 1 && sent.goaway == TG_H2_ENHANCE_YOUR_CALM);
        assert_int_equal(server.limited[TG_LIMIT_H2_RESETS], 1);
        assert_int_equal(feed(), TG_EPROTOCOL);
        stop();
    }
}

static void
more_streams_than_allowed_are_refused(void **state)
{
    struct tg_h2_limits limits = usual;
    limits.streams = 4;
    (void)state;
    open_side(&server, TG_H2_SERVER, &limits);
    in.n = 0;
    put_preface(&in); /* our SETTINGS are not acknowledged */
    for (unsigned k = 0; k < 6; k++) {
        put_headers(&in, 2 * k + 1, false, POST);
    }
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(server.used, 4);
    assert_int_equal(server.limited[TG_LIMIT_H2_STREAMS], 2);
    const struct sent sent = output(&server, &out);
    assert_int_equal(sent.frames[RST_STREAM], 2);
    assert_int_equal(sent.rst, TG_H2_REFUSED_STREAM);
    stop();
}

static void
streams_whose_owners_still_work_count(void **state)
{
    struct tg_h2_limits limits = usual;
    limits.streams = 4;
    (void)state;
    start_with(&limits);
    server.keeps = true;
    for (unsigned id = 1; id < 20; id += 2) {
        put_headers(&in, id, true, GET);
        put_number(&in, RST_STREAM, id, TG_H2_CANCEL);
    }
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(server.used, 8);
    assert_int_equal(tg_h2_open_streams(server.h2), 8);
    assert_int_equal(server.limited[TG_LIMIT_H2_STREAMS], 2);
    drop_owner(&server.owners[3], 0);
    assert_int_equal(tg_h2_open_streams(server.h2), 7);
    put_headers(&in, 101, true, GET);
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(server.owners[8].heads, 1);
    stop();
}

static void
a_stream_may_be_refused_by_who_would_own_it(void **state)
{
    (void)state;
    start_with(&usual);
    server.refuse = 1;
    put_headers(&in, 1, true, GET);
    put_headers(&in, 3, true, GET "x: 1\n");
    put_headers(&in, 5, false, POST);
    put_frame(&in, DATA, END_STREAM, 5, "abc", 3);
    assert_int_equal(feed(), TG_OK);
    const struct sent sent = output(&server, &out);
    assert_int_equal(sent.frames[RST_STREAM], 2);
    assert_int_equal(sent.rst, TG_H2_REFUSED_STREAM);
    assert_int_equal(server.owners[0].heads, 1);
    stop();
}

/* One literal of 4 KiB, then its index again and again: a byte each. */
static void
a_header_bomb_is_not_decompressed_to_its_end(void **state)
{
    static struct bytes section;
    static char value[4000];
    (void)state;
    memset(value, 'a', sizeof value);
    start_with(&usual);
    section.n = 0;
    put_section(&section, GET);
    put(&section, "\x40", 1);
    put_length(&section, 6);
    put(&section, "cookie", 6);
    put_length(&section, sizeof value);
    put(&section, value, sizeof value);
    for (unsigned k = 0; k < 5; k++) {
        put(&section, "\xbe", 1);
    }
    put_frame(&in, HEADERS, END_HEADERS | END_STREAM, 1, section.p, section.n);
    section.n = 0;
    put_section(&section, GET);
    for (unsigned k = 0; k < 10; k++) {
        put(&section, "\xbe", 1);
    }
    put_frame(&in, HEADERS, END_HEADERS | END_STREAM, 3, section.p, section.n);
    put_headers(&in, 5, true, GET);
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(server.owners[0].message.fields[1].value_len, 6 * sizeof value + 5 * 2);
    assert_int_equal(server.owners[1].fault->limit, TG_LIMIT_HEAD);
    assert_int_equal(server.owners[2].heads, 1);
    for (unsigned k = 0; k < 10000; k++) {
        put(&section, "\xbe", 1);
    }
    put_frame(&in, HEADERS, END_HEADERS | END_STREAM, 7, section.p, section.n);
    assert_int_equal(feed(), TG_EPROTOCOL);
    is_ended_by(TG_LIMIT_H2_HEAD);
    stop();
}

static void
a_stream_that_waits_for_a_window_is_reset_in_the_end(void **state)
{
    (void)state;
    for (unsigned dribbles = 0; dribbles < 2; dribbles++) {
        start_with(&usual);
        server.answers = true;
        server.size = 70000;
        put_number(&in, WINDOW_UPDATE, 0, 100000);
        put_headers(&in, 1, true, GET);
        assert_int_equal(feed(), TG_OK);
        (void)output(&server, &out);
        for (uint64_t now = 6000; now <= 36000; now += 1000) {
            if (dribbles > 0) {
                put_number(&in, WINDOW_UPDATE, 1, 1);
                assert_int_equal(feed_at(now), TG_OK);
                assert_int_equal(output(&server, &out).data, 1);
            }
            tg_h2_sweep(server.h2, now, 30000);
            assert_int_equal(server.owners[0].resets, 0);
        }
        tg_h2_sweep(server.h2, 36001, 30000);
        assert_int_equal(server.owners[0].resets, 1);
        assert_int_equal(server.limited[TG_LIMIT_H2_STALL], 1);
        assert_int_equal(output(&server, &out).rst, TG_H2_CANCEL);
        stop();
    }
}

static void
a_stream_that_gets_its_window_is_not_stalled(void **state)
{
    (void)state;
    start_with(&usual);
    server.answers = true;
    server.size = 1000000;
    put_number(&in, WINDOW_UPDATE, 0, 10000000);
    put_headers(&in, 1, true, GET);
    assert_int_equal(feed(), TG_OK);
    for (uint64_t now = 6000; now <= 600000; now += 20000) {
        (void)output(&server, &out);
        tg_h2_sweep(server.h2, now, 30000);
        put_number(&in, WINDOW_UPDATE, 1, 10000);
        assert_int_equal(feed_at(now), TG_OK);
    }
    assert_int_equal(server.limited[TG_LIMIT_H2_STALL], 0);
    stop();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_that_carry_nothing_are_counted_each_second),
        cmocka_unit_test(data_of_padding_alone_carries_nothing),
        cmocka_unit_test(data_that_we_send_pays_for_window_updates),
        cmocka_unit_test(a_header_block_has_at_most_eight_continuations),
        cmocka_unit_test(empty_continuations_carry_nothing),
        cmocka_unit_test(answers_that_nobody_reads_are_bounded),
        cmocka_unit_test(refusals_that_nobody_reads_are_bounded),
        cmocka_unit_test(rapid_resets_end_the_connection),
        cmocka_unit_test(answers_and_time_pay_for_resets),
        cmocka_unit_test(answers_of_before_do_not_pay),
        cmocka_unit_test(resets_that_we_are_made_to_send_count),
        cmocka_unit_test(more_streams_than_allowed_are_refused),
        cmocka_unit_test(streams_whose_owners_still_work_count),
        cmocka_unit_test(a_stream_may_be_refused_by_who_would_own_it),
        cmocka_unit_test(a_header_bomb_is_not_decompressed_to_its_end),
        cmocka_unit_test(a_stream_that_waits_for_a_window_is_reset_in_the_end),
        cmocka_unit_test(a_stream_that_gets_its_window_is_not_stalled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
