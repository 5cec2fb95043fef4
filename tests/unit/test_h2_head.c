#include "unit.h"

#include "h2_peer.h"
#include "http/h1_write.h"

/* What nghttp2 would find as well must be found without it, too. */

static char block[16384];
static struct tg_arena arena;
static struct tg_message message;
static struct tg_h2_head head;

static void
start(enum tg_h2_section section)
{
    tg_arena_init(&arena, block, sizeof block, 256 * 1024);
    tg_message_init(&message, &arena);
    head = (struct tg_h2_head){
        .message = &message, .limits = {8192, 8192, 32768, 100}, .stop = 131072, .section = (uint8_t)section};
}

static enum tg_rc
add(const char *name, size_t name_len, const char *value, size_t value_len)
{
    return tg_h2_head_field(&head, tg_slice_of(name, name_len), tg_slice_of(value, value_len), false, false);
}

static enum tg_rc
read_lines(const char *lines, bool end)
{
    enum tg_rc rc = TG_OK;
    for (const char *stop; rc == TG_OK && (stop = strchr(lines, '\n')) != NULL; lines = stop + 1) {
        const char *colon = strstr(lines, ": ");
        rc = add(lines, (size_t)(colon - lines), colon + 2, (size_t)(stop - colon - 2));
    }
    return rc == TG_OK ? tg_h2_head_end(&head, end) : rc;
}

static void
malformed_requests_are_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        start(TG_H2_REQUEST);
        if (read_lines(malformed[i], true) != TG_EPROTOCOL) {
            fail_msg("taken: %s", malformed[i]);
        }
        tg_arena_fini(&arena);
    }
}

static void
bytes_that_may_not_stand_there_are_found(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        const char byte = (char)c;
        start(TG_H2_REQUEST);
        assert_int_equal(read_lines(GET, true), TG_OK);
        const bool token = tg_token_byte[c] == c && c != 0;
        assert_int_equal(add(&byte, 1, "a", 1), byte == ':' || !token ? TG_EPROTOCOL : TG_OK);
        const char value[3] = {'a', byte, 'b'};
        const bool text = (c >= 0x20 && c != 0x7f) || c == '\t';
        assert_int_equal(add("x", 1, value, 3), text ? TG_OK : TG_EPROTOCOL);
        tg_arena_fini(&arena);
    }
}

static void
malformed_responses_are_found(void **state)
{
    static const char *const table[] = {
        "x: 1\n",
        ":status: \n",
        ":status: 1\n",
        ":status: 0200\n",
        ":status: 2x0\n",
        ":status: 101\n",
        ":status: 100\n",
        ":status: 200\n:method: GET\n",
        ":status: 200\n:status: 200\n",
        ":status: 200\nkeep-alive: 1\n",
        ":status: 200\nupgrade: x\n",
        ":status: 200\ncontent-length: 1\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start(TG_H2_RESPONSE);
        if (read_lines(table[i], true) != TG_EPROTOCOL) {
            fail_msg("taken: %s", table[i]);
        }
        tg_arena_fini(&arena);
    }
    start(TG_H2_RESPONSE);
    assert_int_equal(read_lines(":status: 200\ndate: x\nhost: a\nx_y: 1\n", true), TG_OK);
    assert_true(message.has_date && message.count == 3 && message.framing == TG_FRAMING_LENGTH);
    tg_arena_fini(&arena);
}

static void
what_is_over_a_limit_is_counted_on_and_then_given_up(void **state)
{
    static char value[9000];
    (void)state;
    memset(value, 'a', sizeof value);
    start(TG_H2_REQUEST);
    assert_int_equal(read_lines(GET, true), TG_OK);
    enum tg_rc rc = TG_OK;
    unsigned count = 0;
    while (rc == TG_OK) {
        rc = add("x", 1, value, 5000);
        count += rc == TG_OK;
    }
    assert_int_equal(rc, TG_ELIMIT);
    assert_int_equal(count, 26); /* with 33 bytes each, of 131072 */
    assert_int_equal(message.count, 1 + 6);
    assert_int_equal(head.fault->limit, TG_LIMIT_HEAD);
    tg_arena_fini(&arena);
}

static void
fields_of_static_bytes_are_not_copied(void **state)
{
    static const char name[] = "accept-encoding";
    static const char value[] = "gzip, deflate";
    (void)state;
    start(TG_H2_REQUEST);
    assert_int_equal(read_lines(GET, true), TG_OK);
    for (unsigned lasts = 0; lasts < 4; lasts++) {
        assert_int_equal(tg_h2_head_field(&head, tg_slice_of(name, sizeof name - 1),
                                          tg_slice_of(value, sizeof value - 1), (lasts & 1) != 0, (lasts & 2) != 0),
                         TG_OK);
        const struct tg_field *field = &message.fields[message.count - 1];
        assert_int_equal(field->name == name, (lasts & 1) != 0);
        assert_int_equal(field->value == value, (lasts & 2) != 0);
        assert_memory_equal(field->name, name, sizeof name - 1);
        assert_memory_equal(field->value, value, sizeof value - 1);
    }
    tg_arena_fini(&arena);
}

static void
memory_that_is_short_is_told(void **state)
{
    unsigned failed = 0;
    (void)state;
    for (size_t room = 0; room < 4096; room += 8) {
        tg_arena_init(&arena, block, room + 8, 0);
        tg_message_init(&message, &arena);
        head = (struct tg_h2_head){.message = &message, .limits = {8192, 8192, 32768, 100}, .stop = 131072};
        const enum tg_rc rc = read_lines(GET "cookie: a\nx: y\ncookie: b\nuser-agent: me\n", true);
        assert_true(rc == TG_OK || rc == TG_ENOMEM);
        failed += rc == TG_ENOMEM;
        tg_arena_fini(&arena);
    }
    assert_in_range(failed, 10, 500);
}

/* Upstream gets the same fields over both protocols. */
static void
a_request_goes_on_as_it_would_over_http_1(void **state)
{
    static const char lines[] =
        GET "accept: */*\nx-forwarded-for: 6.6.6.6\nforwarded: for=6.6.6.6\nvia: 1.1 x\nte: trailers\n"
            "x-real-ip: 6.6.6.6\ncookie: a=b\ncontent-length: 0\nx-forwarded-proto: gopher\n";
    (void)state;
    for (unsigned trust = TG_TRUST_NONE; trust <= TG_TRUST_FORWARDED; trust++) {
        const struct tg_h1_forward forward = {.authority = TG_SLICE("a.example"),
                                              .peer_ip = TG_SLICE("10.0.0.1"),
                                              .client_ip = TG_SLICE("192.0.2.1"),
                                              .proto = TG_SLICE("https"),
                                              .forwarded_host = TG_SLICE("a.example"),
                                              .port = 443,
                                              .trust = (enum tg_trust)trust};
        const struct tg_h1_frame frame = {0};
        const struct tg_h1_fault *fault = NULL;
        struct tg_h2_block fields;
        struct tg_message again;
        struct tg_slice text;
        start(TG_H2_REQUEST);
        assert_int_equal(read_lines(lines, true), TG_OK);
        assert_int_equal(tg_h1_write_request(&message, TG_SLICE("/"), TG_SLICE(""), false, &forward, &frame, &text),
                         TG_OK);
        tg_message_init(&again, &arena);
        assert_int_equal(tg_h1_parse_request(&again, text.p, text.n, &fault), TG_OK);
        tg_h2_block_init(&fields, &arena);
        assert_int_equal(tg_h2_block_request(&fields, &message, &forward), TG_OK);
        assert_int_equal(fields.count, again.count - 1); /* Host */
        for (unsigned i = 0; i < fields.count; i++) {
            const struct tg_field *field = &again.fields[i + 1];
            assert_int_equal(fields.fields[i].namelen, field->name_len);
            assert_memory_equal(fields.fields[i].name, field->name, field->name_len);
            assert_int_equal(fields.fields[i].valuelen, field->value_len);
            assert_memory_equal(fields.fields[i].value, field->value, field->value_len);
        }
        unsigned next = 0;
        const struct tg_field *via = tg_message_find(&again, "via", 3, &next);
        const struct tg_field *ours = tg_message_find(&again, "via", 3, &next);
        assert_memory_equal((ours == NULL ? via : ours)->value, "2.0 tidegate", 12);
        tg_arena_fini(&arena);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_requests_are_found),
        cmocka_unit_test(bytes_that_may_not_stand_there_are_found),
        cmocka_unit_test(malformed_responses_are_found),
        cmocka_unit_test(what_is_over_a_limit_is_counted_on_and_then_given_up),
        cmocka_unit_test(fields_of_static_bytes_are_not_copied),
        cmocka_unit_test(memory_that_is_short_is_told),
        cmocka_unit_test(a_request_goes_on_as_it_would_over_http_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
