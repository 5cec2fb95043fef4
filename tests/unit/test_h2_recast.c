#include "unit.h"

#include <stdio.h>

#include "base/mem.h"
#include "http/h2_recast.h"

static char block[16384];
static struct tg_arena arena;
static struct tg_h2_recast recast;
static struct tg_h2_request request;
static struct tg_h2_block fields;
static size_t used;

static const char HEAD[] = "POST /a?b=c HTTP/1.1\r\n"
                           "Host: example.com:8080\r\n"
                           "User-Agent: test\r\n"
                           "TE: trailers, gzip\r\n"
                           "Connection: Upgrade\r\n"
                           "Upgrade: websocket\r\n"
                           "Keep-Alive: timeout=5\r\n"
                           "Proxy-Connection: close\r\n"
                           "Transfer-Encoding: chunked\r\n"
                           "X-Empty: \r\n"
                           "X-Colon: a:b\r\n"
                           "\r\n";

static enum tg_rc
read_text(const char *text, size_t n)
{
    tg_arena_fini(&arena);
    tg_arena_init(&arena, block, sizeof block, 64 * 1024);
    tg_h2_block_init(&fields, &arena);
    request = (struct tg_h2_request){0};
    return tg_h2_recast_request(&recast, tg_slice_of(text, n), &request, &fields, &used);
}

static int
begin(void **state)
{
    (void)state;
    recast = (struct tg_h2_recast){0};
    tg_arena_init(&arena, block, sizeof block, 64 * 1024);
    return 0;
}

static int
end(void **state)
{
    (void)state;
    tg_arena_fini(&arena);
    return 0;
}

static const nghttp2_nv *
field(const char *name)
{
    for (unsigned i = 0; i < fields.count; i++) {
        if (tg_slice_is_text(tg_slice_of((const char *)fields.fields[i].name, fields.fields[i].namelen), name,
                             strlen(name))) {
            return &fields.fields[i];
        }
    }
    return NULL;
}

static void
has_value(const char *name, const char *value)
{
    assert_non_null(field(name));
    assert_int_equal(field(name)->valuelen, strlen(value));
    assert_memory_equal(field(name)->value, value, strlen(value));
}

static void
a_request_keeps_what_http2_has_a_place_for(void **state)
{
    char text[sizeof HEAD + 4];
    (void)state;
    memcpy(text, HEAD, sizeof HEAD - 1);
    memcpy(text + sizeof HEAD - 1, "body", 4);
    assert_int_equal(read_text(text, sizeof HEAD - 1 + 4), TG_OK);
    assert_int_equal(used, sizeof HEAD - 1);
    assert_true(tg_slice_is(request.method, "POST", 4));
    assert_true(tg_slice_is(request.path, "/a?b=c", 6));
    assert_true(tg_slice_is(request.authority, "example.com:8080", 16));
    assert_int_equal(fields.count, 4);
    has_value("user-agent", "test");
    has_value("x-empty", "");
    has_value("x-colon", "a:b");
    has_value("te", "trailers");
}

/* In memory of its own, so that a look behind its end is seen. */
static void
a_cut_head_is_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof HEAD - 1; n++) {
        char *text = tg_mem_alloc(n == 0 ? 1 : n);
        assert_non_null(text);
        memcpy(text, HEAD, n);
        assert_int_equal(read_text(text, n), TG_EINVAL);
        tg_mem_free(text);
    }
}

static void
what_is_no_head_is_refused(void **state)
{
    static const char *const wrong[] = {"GET\r\n\r\n",
                                        "GET HTTP/1.1\r\n\r\n",
                                        "GET  HTTP/1.1\r\n\r\n",
                                        "\r\n\r\n",
                                        "GET / HTTP/1.1\r\nNo colon\r\n\r\n",
                                        "GET / HTTP/1.1\r\n: x\r\n\r\n",
                                        "GET / HTTP/1.1\r\nX:\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (read_text(wrong[i], strlen(wrong[i])) != TG_EINVAL) {
            fail_msg("taken: %s", wrong[i]);
        }
    }
}

static bool
is_indexed(const char *name)
{
    return (field(name)->flags & NGHTTP2_NV_FLAG_NO_INDEX) == 0;
}

static void
ask(const char *client, const char *host)
{
    char text[256];
    const int n = snprintf(text, sizeof text,
                           "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %s\r\n"
                           "X-Forwarded-Host: %s\r\nX-Forwarded-Port: 80\r\nVia: 1.1 tidegate\r\n\r\n",
                           client, host);
    assert_int_equal(read_text(text, (size_t)n), TG_OK);
}

/* Else the clients' addresses would drive what never changes out of the table. */
static void
only_what_stays_has_a_place_in_the_table(void **state)
{
    (void)state;
    ask("192.0.2.1", "a.example");
    assert_false(is_indexed("via"));
    for (int i = 0; i < 3; i++) {
        ask(i % 2 == 0 ? "192.0.2.2" : "192.0.2.3", "a.example");
        assert_true(is_indexed("via"));
        assert_true(is_indexed("te"));
        assert_true(is_indexed("x-forwarded-host"));
        assert_true(is_indexed("x-forwarded-port"));
        assert_false(is_indexed("x-forwarded-for"));
    }
    ask("192.0.2.2", "b.example");
    assert_true(is_indexed("x-forwarded-for"));
    assert_false(is_indexed("x-forwarded-host"));
}

static size_t
make_head(char *text, size_t room, unsigned *seed)
{
    static const char *const names[] = {"A",
                                        "a",
                                        "Accept",
                                        "Host",
                                        "TE",
                                        "X-Forwarded-For",
                                        "X-Forwarded-Host",
                                        "x-forwarded-host",
                                        "X-A-Name-That-Is-Longer-Than-What-Is-Remembered-Of-One"};
    static const char *const values[] = {"", "1", "2", "a: b", "0123456789abcdef"};
    size_t n = (size_t)snprintf(text, room, "GET /%u HTTP/1.1\r\nHost: a\r\n", *seed % 3);
    *seed = *seed * 1103515245U + 12345U;
    for (unsigned i = *seed >> 16 & 7; i < 10; i++) {
        *seed = *seed * 1103515245U + 12345U;
        const int pad = (*seed >> 28) == 0 ? 200 : 0;
        n += (size_t)snprintf(
            text + n, room - n, "%s: %s%.*s\r\n", names[(*seed >> 8) % 9], values[(*seed >> 16) % 5], pad,
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    }
    return n + (size_t)snprintf(text + n, room - n, "\r\n");
}

/* What is remembered of earlier requests may change how a field is sent, never what it says. */
static void
what_is_remembered_gets_into_no_other_request(void **state)
{
    static struct tg_h2_recast old;
    char text[8192];
    unsigned seed = 7;
    (void)state;
    old = (struct tg_h2_recast){0};
    for (unsigned round = 0; round < 20000; round++) {
        nghttp2_nv fresh[16];
        const size_t n = make_head(text, sizeof text, &seed);
        recast = (struct tg_h2_recast){0};
        assert_int_equal(read_text(text, n), TG_OK);
        const struct tg_h2_request expected = request;
        const unsigned count = fields.count;
        assert_true(count <= 16);
        for (unsigned i = 0; i < count; i++) {
            const nghttp2_nv *one = &fields.fields[i];
            fresh[i] = *one;
            fresh[i].name = memcpy(malloc(one->namelen), one->name, one->namelen);
        }
        recast = old;
        /* The names stand in what is remembered: it must stay where it is. */
        assert_int_equal(read_text(text, n), TG_OK);
        old = recast;
        assert_int_equal(used, n);
        assert_true(tg_slice_is(request.path, expected.path.p, expected.path.n));
        assert_true(tg_slice_is(request.authority, expected.authority.p, expected.authority.n));
        assert_int_equal(fields.count, count);
        for (unsigned i = 0; i < count; i++) {
            const nghttp2_nv *one = &fields.fields[i];
            const struct tg_slice name = tg_slice_of((const char *)one->name, one->namelen);
            assert_true(tg_slice_is_text(name, (const char *)fresh[i].name, fresh[i].namelen));
            assert_ptr_equal(one->value, fresh[i].value);
            assert_int_equal(one->valuelen, fresh[i].valuelen);
            for (size_t at = 0; (one->flags & NGHTTP2_NV_FLAG_NO_COPY_NAME) != 0 && at < name.n; at++) {
                assert_int_equal(name.p[at], tg_lower(name.p[at]));
            }
            free(fresh[i].name);
        }
    }
}

static void
push(struct tg_message *message, const char *name, const char *value)
{
    const uint32_t hash = tg_field_hash(name, strlen(name));
    const enum tg_field_id id = tg_field_id_of(name, strlen(name), hash);
    const struct tg_field one = {.name = name,
                                 .value = value,
                                 .name_len = (uint16_t)strlen(name),
                                 .value_len = (uint32_t)strlen(value),
                                 .id = (uint8_t)id,
                                 .flags = tg_field_flags_of(id),
                                 .hash = hash};
    assert_int_equal(tg_message_push(message, &one), TG_OK);
}

static void
a_response_moves_to_the_memory_of_its_reader(void **state)
{
    struct tg_message from;
    struct tg_message to;
    char room[64];
    (void)state;
    tg_message_init(&from, &arena);
    tg_message_init(&to, &arena);
    from.status = 201;
    from.has_length = true;
    from.content_length = 7;
    push(&from, "content-length", "7");
    push(&from, "x-empty", "");
    const size_t size = strlen("content-length7x-empty");
    assert_int_equal(tg_h2_recast_response(&from, room, size - 1, &to, false, &used), TG_ELIMIT);
    assert_int_equal(tg_h2_recast_response(&from, room, size, &to, false, &used), TG_OK);
    assert_int_equal(used, size);
    assert_memory_equal(room, "content-length7x-empty", size);
    assert_int_equal(to.count, 2);
    assert_ptr_equal(to.fields[0].name, room);
    assert_int_equal(to.fields[0].id, TG_FIELD_CONTENT_LENGTH);
    assert_int_equal(to.fields[1].value_len, 0);
    assert_int_equal(to.status, 201);
    assert_int_equal(to.framing, TG_FRAMING_LENGTH);
    assert_int_equal(to.content_length, 7);
}

/* As RFC 9112, section 6.3 has it for the same head. */
static void
a_response_is_framed_as_in_http1(void **state)
{
    static const struct {
        uint16_t status;
        bool to_head;
        bool has_length;
        uint8_t framing;
    } cases[] = {{200, false, true, TG_FRAMING_LENGTH}, {200, false, false, TG_FRAMING_CLOSE},
                 {200, true, true, TG_FRAMING_NONE},    {204, false, false, TG_FRAMING_NONE},
                 {304, false, true, TG_FRAMING_NONE},   {500, false, false, TG_FRAMING_CLOSE}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tg_message from;
        struct tg_message to;
        char room[1];
        tg_message_init(&from, &arena);
        tg_message_init(&to, &arena);
        from.status = cases[i].status;
        from.has_length = cases[i].has_length;
        assert_int_equal(tg_h2_recast_response(&from, room, sizeof room, &to, cases[i].to_head, &used), TG_OK);
        assert_int_equal(to.framing, cases[i].framing);
        assert_int_equal(to.keep_alive, cases[i].framing != TG_FRAMING_CLOSE);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_keeps_what_http2_has_a_place_for, begin, end),
        cmocka_unit_test_setup_teardown(a_cut_head_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(what_is_no_head_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(only_what_stays_has_a_place_in_the_table, begin, end),
        cmocka_unit_test_setup_teardown(what_is_remembered_gets_into_no_other_request, begin, end),
        cmocka_unit_test_setup_teardown(a_response_moves_to_the_memory_of_its_reader, begin, end),
        cmocka_unit_test_setup_teardown(a_response_is_framed_as_in_http1, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
