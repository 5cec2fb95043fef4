#include "unit.h"

#include "h2_peer.h"

static struct side client;
static struct side server;
static struct bytes in;
static struct bytes out;

/* What one side has to say is handed to the other, in pieces of `size`, until both are silent. */
static enum tg_rc
talk_in(size_t size, uint64_t now)
{
    char piece[20000];
    enum tg_rc rc = TG_OK;
    for (bool any = true; any && rc == TG_OK;) {
        const size_t there = tg_h2_output(client.h2, piece, size);
        rc = there > 0 ? tg_h2_feed(server.h2, piece, there, now) : TG_OK;
        const size_t back = tg_h2_output(server.h2, piece, size);
        if (rc == TG_OK && back > 0) {
            rc = tg_h2_feed(client.h2, piece, back, now);
        }
        any = there + back > 0;
    }
    return rc;
}

static enum tg_rc
talk(void)
{
    return talk_in(20000, 1000);
}

static void
start(void)
{
    open_side(&server, TG_H2_SERVER, &usual);
    open_side(&client, TG_H2_CLIENT, &usual);
    assert_int_equal(talk(), TG_OK);
}

static void
stop(void)
{
    close_side(&client);
    close_side(&server);
}

static enum tg_rc
ask(const char *method, const char *path, const char *lines, bool end)
{
    struct owner *owner = take_owner(&client);
    struct tg_h2_block block;
    const struct tg_h2_request request = {tg_slice_of(method, strlen(method)), TG_SLICE("https"), TG_SLICE("a.example"),
                                          tg_slice_of(path, strlen(path)),     {NULL, 0},         end};
    tg_h2_block_init(&block, &owner->arena);
    for (const char *stop_at; (stop_at = strchr(lines, '\n')) != NULL; lines = stop_at + 1) {
        const char *colon = strchr(lines, ':');
        const enum tg_rc rc = tg_h2_block_add(&block, tg_slice_of(lines, (size_t)(colon - lines)),
                                              tg_slice_of(colon + 2, (size_t)(stop_at - colon) - 2));
        if (rc != TG_OK) {
            return rc;
        }
    }
    owner->stream.to_head = strcmp(method, "HEAD") == 0;
    return tg_h2_request(client.h2, &owner->stream, &request, &block);
}

static void
a_request_is_answered_by_the_other_role(void **state)
{
    (void)state;
    for (size_t size = TG_H2_OUTPUT_MIN; size < 20000; size += 3500) {
        start();
        server.answers = true;
        server.size = 200000;
        client.size = 150000;
        assert_int_equal(ask("POST", "/up?x", "X-One: 1\ncontent-length: 150000\n", false), TG_OK);
        write_body(&client.owners[0]);
        client.answers = true; /* writes on */
        assert_int_equal(talk_in(size, 1000), TG_OK);
        const struct owner *asked = &server.owners[0];
        const struct owner *answered = &client.owners[0];
        assert_true(tg_slice_is(asked->message.target, "/up?x", 5) && asked->message.count == 3);
        assert_int_equal(asked->message.fields[1].hash, tg_field_hash("x-one", 5));
        assert_memory_equal(asked->message.fields[1].name, "x-one", 5);
        assert_true(asked->data == 150000 && asked->ends == 1);
        assert_int_equal(answered->message.status, 200);
        assert_true(answered->message.version_major == 2 && answered->message.framing == TG_FRAMING_CHUNKED);
        assert_true(answered->data == 200000 && answered->heads == 1 && answered->ends == 1);
        assert_int_equal(tg_h2_open_streams(server.h2), 0);
        stop();
    }
}

static void
many_requests_share_a_connection(void **state)
{
    (void)state;
    start();
    server.answers = true;
    server.size = 3000;
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(ask("GET", "/", "", true), TG_OK);
    }
    assert_int_equal(ask("GET", "/", "", true), TG_ELIMIT);
    char piece[20000];
    const size_t n = tg_h2_output(client.h2, piece, sizeof piece);
    assert_true(n > 0 && !tg_h2_wants_output(client.h2)); /* all in one buffer */
    assert_int_equal(tg_h2_feed(server.h2, piece, n, 1), TG_OK);
    assert_int_equal(talk(), TG_OK);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(client.owners[i].ends == 1 && client.owners[i].data == 3000);
        drop_owner(&client.owners[i], 0);
    }
    assert_int_equal(ask("GET", "/", "", true), TG_OK);
    stop();
}

/* RFC 9110, sections 6.4.1, 8.6 and 15. */
static void
the_framing_of_a_response_is_that_of_its_request_and_status(void **state)
{
    static const struct {
        const char *method;
        unsigned status;
        const char *length;
        bool end;
        enum tg_framing framing;
    } table[] = {{"GET", 200, NULL, true, TG_FRAMING_LENGTH}, {"GET", 200, NULL, false, TG_FRAMING_CHUNKED},
                 {"GET", 200, "2", false, TG_FRAMING_LENGTH}, {"HEAD", 200, "2", true, TG_FRAMING_NONE},
                 {"HEAD", 200, NULL, true, TG_FRAMING_NONE},  {"GET", 204, NULL, true, TG_FRAMING_NONE},
                 {"GET", 304, "2", true, TG_FRAMING_NONE}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_h2_block block;
        start();
        assert_int_equal(ask(table[i].method, "/", "", true), TG_OK);
        assert_int_equal(talk(), TG_OK);
        struct owner *owner = &server.owners[0];
        tg_h2_block_init(&block, &owner->arena);
        if (table[i].length != NULL) {
            assert_int_equal(tg_h2_block_add(&block, TG_SLICE("Content-Length"), TG_SLICE("2")), TG_OK);
        }
        assert_int_equal(tg_h2_respond(&owner->stream, table[i].status, &block, table[i].end), TG_OK);
        if (!table[i].end) {
            const struct iovec v = {(char[]){"ab"}, 2};
            size_t taken;
            assert_int_equal(tg_h2_write(&owner->stream, &v, 1, &taken), TG_OK);
            assert_int_equal(tg_h2_finish(&owner->stream, NULL), TG_OK);
        }
        assert_int_equal(talk(), TG_OK);
        const struct owner *got = &client.owners[0];
        assert_int_equal(got->message.framing, table[i].framing);
        assert_int_equal(got->message.has_length, table[i].length != NULL);
        assert_true(got->ends == 1 && got->data == (table[i].end ? 0 : 2));
        stop();
    }
}

static void
interim_responses_and_trailers_are_told(void **state)
{
    struct tg_h2_block block;
    (void)state;
    start();
    assert_int_equal(ask("POST", "/", "TE: trailers\n", true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    struct owner *owner = &server.owners[0];
    assert_int_equal(tg_h2_respond(&owner->stream, 101, NULL, false), TG_EINVAL);
    assert_int_equal(tg_h2_respond(&owner->stream, 103, NULL, false), TG_OK);
    assert_int_equal(talk(), TG_OK);
    assert_true(client.owners[0].heads == 1 && client.owners[0].message.status == 103);
    assert_int_equal(answer(owner, 200), TG_OK);
    stop();
    start();
    assert_int_equal(ask("POST", "/", "", true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    owner = &server.owners[0];
    assert_int_equal(tg_h2_respond(&owner->stream, 200, NULL, false), TG_OK);
    tg_h2_block_init(&block, &owner->arena);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("Grpc-Status"), TG_SLICE("0")), TG_OK);
    assert_int_equal(tg_h2_finish(&owner->stream, &block), TG_OK);
    assert_int_equal(talk(), TG_OK);
    assert_int_equal(client.owners[0].trailers.count, 1);
    assert_int_equal(client.owners[0].ends, 1);
    stop();
}

/* What a server sends, made by hand. */
static void
start_client(const char *method)
{
    open_side(&client, TG_H2_CLIENT, &usual);
    in.n = 0;
    put_frame(&in, SETTINGS, 0, 0, NULL, 0);
    put_frame(&in, SETTINGS, ACK, 0, NULL, 0);
    assert_int_equal(ask(method, "/", "", true), TG_OK);
    (void)output(&client, &out);
}

static enum tg_rc
feed(void)
{
    const enum tg_rc rc = tg_h2_feed(client.h2, in.p, in.n, 1000);
    in.n = 0;
    return rc;
}

static void
malformed_responses_are_stream_errors(void **state)
{
    static const char *const table[] = {
        "x: 1\n",
        ":status: 20\n",
        ":status: 2000\n",
        ":status: 600\n",
        ":status: 099\n",
        ":status: 101\n",
        ":status: 100\n",
        ":status: abc\n",
        ":status: 200\n:status: 200\n",
        ":status: 200\n:path: /\n",
        "x: 1\n:status: 200\n",
        ":status: 200\nX: 1\n",
        ":status: 200\nconnection: close\n",
        ":status: 200\ntransfer-encoding: chunked\n",
        ":status: 200\nx: a\rb\n",
        ":status: 200\nx: a \n",
        ":status: 200\ncontent-length: 1\n",
        ":status: 200\ncontent-length: 1x\n",
        ":status: 200\ncontent-length: 0\ncontent-length: 0\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start_client("GET");
        put_headers(&in, 1, true, table[i]);
        assert_int_equal(feed(), TG_OK);
        const struct sent sent = output(&client, &out);
        if (client.owners[0].heads != 0 || client.owners[0].code != TG_H2_PROTOCOL_ERROR ||
            sent.rst != TG_H2_PROTOCOL_ERROR) {
            fail_msg("not a stream error: %s", table[i]);
        }
        close_side(&client);
    }
}

static void
a_response_over_a_limit_ends_its_stream(void **state)
{
    static char line[9000] = ":status: 200\nx: ";
    (void)state;
    memset(line + 16, 'a', 8500);
    line[16 + 8500] = '\n';
    start_client("GET");
    put_headers(&in, 1, false, line);
    put_frame(&in, DATA, END_STREAM, 1, "abc", 3);
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(client.owners[0].code, TG_H2_ENHANCE_YOUR_CALM);
    assert_int_equal(client.limited[TG_LIMIT_RESPONSE_HEAD], 1);
    assert_true(client.owners[0].heads + client.owners[0].data + client.owners[0].ends == 0);
    close_side(&client);
}

static void
a_body_without_end_or_where_none_may_be_is_an_error(void **state)
{
    static const struct {
        const char *method, *head;
        bool ends;
    } table[] = {{"HEAD", ":status: 200\n", false},
                 {"GET", ":status: 204\n", false},
                 {"GET", ":status: 304\n", false},
                 {"GET", ":status: 200\ncontent-length: 2\n", false},
                 {"GET", ":status: 200\ncontent-length: 3\n", true}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start_client(table[i].method);
        put_headers(&in, 1, false, table[i].head);
        put_frame(&in, DATA, END_STREAM, 1, "abc", 3);
        assert_int_equal(feed(), TG_OK);
        (void)output(&client, &out);
        assert_int_equal(client.owners[0].ends, table[i].ends ? 1 : 0);
        assert_int_equal(client.owners[0].code, table[i].ends ? 0 : TG_H2_PROTOCOL_ERROR);
        close_side(&client);
    }
}

static void
what_a_server_has_not_served_may_be_asked_again(void **state)
{
    (void)state;
    start_client("GET");
    assert_int_equal(ask("GET", "/2", "", true), TG_OK);
    (void)output(&client, &out);
    put_frame(&in, GOAWAY, 0, 0, "\0\0\0\1\0\0\0\0", 8);
    assert_int_equal(feed(), TG_OK);
    (void)output(&client, &out);
    assert_int_equal(client.owners[1].code, TG_H2_REFUSED_STREAM);
    assert_int_equal(client.owners[0].resets, 0);
    assert_false(tg_h2_is_over(client.h2));
    assert_int_equal(ask("GET", "/3", "", true), TG_ECLOSED);
    put_headers(&in, 1, true, ":status: 200\n");
    assert_int_equal(feed(), TG_OK);
    assert_int_equal(client.owners[0].ends, 1);
    assert_false(tg_h2_is_over(client.h2));
    drop_owner(&client.owners[0], 0);
    assert_true(tg_h2_is_over(client.h2));
    close_side(&client);
}

/* Before the request has gone out, and after it: nothing of its owner is used any more. */
static void
a_request_may_be_given_up_at_any_time(void **state)
{
    (void)state;
    for (unsigned sent = 0; sent < 2; sent++) {
        start();
        server.answers = true;
        assert_int_equal(ask("POST", "/", "", false), TG_OK);
        assert_int_equal(ask("GET", "/2", "", true), TG_OK);
        if (sent > 0) {
            assert_int_equal(talk(), TG_OK);
        }
        drop_owner(&client.owners[0], TG_H2_CANCEL);
        memset(&client.owners[0].stream, 0x5a, sizeof client.owners[0].stream);
        assert_int_equal(talk(), TG_OK);
        memset(&client.owners[0].stream, 0, sizeof client.owners[0].stream);
        assert_int_equal(client.owners[1].ends, 1);
        assert_int_equal(server.owners[0].resets, sent);
        assert_int_equal(server.owners[sent].ends, 1);
        assert_int_equal(tg_h2_open_streams(client.h2), 1);
        stop();
    }
}

static void
an_answer_before_the_request_has_ended_is_whole(void **state)
{
    (void)state;
    start();
    assert_int_equal(ask("POST", "/", "", false), TG_OK);
    assert_int_equal(talk(), TG_OK);
    server.size = 10;
    assert_int_equal(answer(&server.owners[0], 200), TG_OK);
    assert_int_equal(talk(), TG_OK);
    assert_int_equal(server.owners[0].writables, 1);
    drop_owner(&server.owners[0], TG_H2_INTERNAL_ERROR);
    assert_int_equal(talk(), TG_OK);
    assert_true(client.owners[0].ends == 1 && client.owners[0].data == 10);
    assert_true(client.owners[0].resets == 1 && client.owners[0].code == TG_H2_NO_ERROR);
    assert_int_equal(client.limited[TG_LIMIT_H2_RESETS], 0);
    stop();
}

static void
a_connection_ends_in_two_steps(void **state)
{
    (void)state;
    start();
    assert_int_equal(ask("GET", "/", "", true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    tg_h2_goaway(server.h2, false, TG_H2_NO_ERROR);
    assert_int_equal(talk(), TG_OK);
    assert_int_equal(ask("GET", "/late", "", true), TG_ECLOSED);
    tg_h2_goaway(server.h2, true, TG_H2_NO_ERROR);
    assert_int_equal(talk(), TG_OK);
    assert_false(tg_h2_is_over(server.h2));
    server.answers = true;
    assert_int_equal(answer(&server.owners[0], 200), TG_OK);
    assert_int_equal(talk(), TG_OK);
    assert_int_equal(client.owners[0].ends, 1);
    assert_true(tg_h2_is_over(server.h2));
    drop_owner(&client.owners[0], 0);
    assert_true(tg_h2_is_over(client.h2));
    stop();
}

static void
a_tunnel_is_opened_where_both_sides_allow_it(void **state)
{
    struct tg_h2_limits limits = usual;
    (void)state;
    for (unsigned allowed = 0; allowed < 2; allowed++) {
        limits.extended_connect = allowed > 0;
        open_side(&server, TG_H2_SERVER, &limits);
        open_side(&client, TG_H2_CLIENT, &usual);
        assert_int_equal(talk(), TG_OK);
        struct owner *owner = take_owner(&client);
        const struct tg_h2_request request = {TG_SLICE("CONNECT"), TG_SLICE("https"),     TG_SLICE("a"),
                                              TG_SLICE("/chat"),   TG_SLICE("websocket"), false};
        const enum tg_rc rc = tg_h2_request(client.h2, &owner->stream, &request, NULL);
        assert_int_equal(rc, allowed > 0 ? TG_OK : TG_EINVAL);
        if (allowed > 0) {
            const struct iovec v = {(char[]){"hello"}, 5};
            size_t taken;
            assert_int_equal(talk(), TG_OK);
            assert_true(tg_slice_is(server.owners[0].stream.protocol, "websocket", 9));
            assert_true(tg_slice_is(server.owners[0].message.target, "/chat", 5));
            assert_int_equal(tg_h2_respond(&server.owners[0].stream, 200, NULL, false), TG_OK);
            assert_int_equal(tg_h2_write(&owner->stream, &v, 1, &taken), TG_OK);
            assert_int_equal(tg_h2_write(&server.owners[0].stream, &v, 1, &taken), TG_OK);
            assert_int_equal(talk(), TG_OK);
            assert_true(owner->data == 5 && server.owners[0].data == 5);
        }
        stop();
    }
}

static void
a_block_takes_what_may_go_on(void **state)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n"
                               "Content-Length: 2\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\n\r\n";
    static char block_of[4096];
    const struct tg_h1_fault *fault = NULL;
    struct tg_arena arena;
    struct tg_message message;
    struct tg_h2_block block;
    (void)state;
    tg_arena_init(&arena, block_of, sizeof block_of, 0);
    tg_message_init(&message, &arena);
    assert_int_equal(tg_h1_parse_response(&message, head, sizeof head - 1, false, &fault), TG_OK);
    tg_h2_block_init(&block, &arena);
    assert_int_equal(tg_h2_block_message(&block, &message), TG_OK);
    assert_int_equal(block.count, 2);
    assert_memory_equal(block.fields[1].name, "Set-Cookie", 10);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("Connection"), TG_SLICE("close")), TG_EINVAL);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("transfer-encoding"), TG_SLICE("chunked")), TG_EINVAL);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE(":path"), TG_SLICE("/")), TG_EINVAL);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("x y"), TG_SLICE("/")), TG_EINVAL);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("x"), TG_SLICE("a\nb")), TG_EINVAL);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("te"), TG_SLICE("gzip")), TG_EINVAL);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("te"), TG_SLICE("trailers")), TG_OK);
    enum tg_rc rc = TG_OK;
    while (rc == TG_OK) {
        rc = tg_h2_block_add(&block, TG_SLICE("x"), TG_SLICE("1"));
    }
    assert_true(rc == TG_ENOMEM && block.count >= 16);
    tg_arena_fini(&arena);
}

static void
a_large_head_goes_out_in_continuations(void **state)
{
    static char value[45000];
    struct tg_h2_limits limits = usual;
    struct tg_h2_block block;
    (void)state;
    limits.field = limits.head = 100000;
    open_side(&server, TG_H2_SERVER, &usual);
    open_side(&client, TG_H2_CLIENT, &limits);
    memset(value, '~', sizeof value); /* longer in Huffman's code than without it */
    assert_int_equal(ask("GET", "/", "", true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    tg_h2_block_init(&block, &server.owners[0].arena);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tg_h2_block_add(&block, TG_SLICE("x"), tg_slice_of(value, sizeof value)), TG_OK);
    }
    assert_int_equal(tg_h2_respond(&server.owners[0].stream, 200, &block, true), TG_OK);
    assert_int_equal(talk_in(TG_H2_OUTPUT_MIN, 1000), TG_OK);
    assert_int_equal(client.owners[0].ends, 1);
    assert_int_equal(client.owners[0].message.fields[1].value_len, sizeof value);
    stop();
}

/* More than any peer should be sent: the stream ends, and its owner is told. */
static void
a_head_that_is_far_too_large_is_not_sent(void **state)
{
    static char value[300000];
    struct tg_h2_block block;
    (void)state;
    start();
    memset(value, 'a', sizeof value);
    assert_int_equal(ask("GET", "/", "", true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    tg_h2_block_init(&block, &server.owners[0].arena);
    assert_int_equal(tg_h2_block_add(&block, TG_SLICE("x"), tg_slice_of(value, sizeof value)), TG_OK);
    assert_int_equal(tg_h2_respond(&server.owners[0].stream, 200, &block, true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    assert_true(server.owners[0].resets == 1 && client.owners[0].resets == 1);
    assert_int_equal(client.owners[0].code, TG_H2_INTERNAL_ERROR);
    stop();
}

static void
what_is_not_http_2_is_told_so(void **state)
{
    (void)state;
    open_side(&server, TG_H2_SERVER, &usual);
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(tg_h2_feed(server.h2, text, sizeof text - 1, 1), TG_EPROTOCOL);
    const struct sent sent = output(&server, &out);
    assert_true(sent.frames[GOAWAY] == 1 && sent.goaway == TG_H2_PROTOCOL_ERROR && tg_h2_is_over(server.h2));
    close_side(&server);
}

/* An error that nghttp2 finds shows once its GOAWAY is out. */
static void
a_broken_connection_is_over_when_that_is_said(void **state)
{
    (void)state;
    start();
    assert_int_equal(ask("GET", "/", "", true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    in.n = 0;
    put_frame(&in, DATA, 0, 9, "x", 1);
    assert_int_equal(tg_h2_feed(server.h2, in.p, in.n, 1), TG_OK);
    assert_false(tg_h2_is_over(server.h2));
    assert_int_equal(output(&server, &out).goaway, TG_H2_PROTOCOL_ERROR);
    assert_true(tg_h2_is_over(server.h2) && !tg_h2_wants_output(server.h2));
    assert_int_equal(tg_h2_feed(server.h2, in.p, in.n, 1), TG_EPROTOCOL);
    assert_int_equal(server.owners[0].resets, 0);
    tg_h2_goaway(client.h2, true, TG_H2_INTERNAL_ERROR);
    assert_int_equal(output(&client, &out).goaway, TG_H2_INTERNAL_ERROR);
    assert_true(tg_h2_is_over(client.h2));
    assert_int_equal(ask("GET", "/", "", true), TG_ECLOSED);
    stop();
    assert_int_equal(server.owners[0].resets, 1);
}

static void
a_stream_that_has_ended_takes_nothing(void **state)
{
    const struct iovec v = {(char[]){"x"}, 1};
    size_t taken;
    (void)state;
    start();
    assert_int_equal(ask("GET", "/", "", true), TG_OK);
    assert_int_equal(talk(), TG_OK);
    struct tg_h2_stream *stream = &server.owners[0].stream;
    assert_int_equal(tg_h2_write(stream, &v, 1, &taken), TG_EINVAL);
    assert_int_equal(tg_h2_finish(stream, NULL), TG_EINVAL);
    assert_int_equal(tg_h2_respond(&client.owners[0].stream, 200, NULL, true), TG_EINVAL);
    assert_int_equal(tg_h2_respond(stream, 99, NULL, true), TG_EINVAL);
    assert_int_equal(tg_h2_respond(stream, 100, NULL, true), TG_EINVAL);
    server.keeps = true;
    drop_owner(&client.owners[0], TG_H2_CANCEL);
    assert_int_equal(talk(), TG_OK);
    assert_true(server.owners[0].code == TG_H2_CANCEL && tg_h2_open_streams(server.h2) == 1);
    assert_int_equal(tg_h2_respond(stream, 200, NULL, true), TG_ERESET);
    assert_int_equal(tg_h2_write(stream, &v, 1, &taken), TG_ERESET);
    assert_int_equal(tg_h2_finish(stream, NULL), TG_ERESET);
    tg_h2_consumed(stream, 1);
    tg_h2_stream_close(stream, 0);
    tg_h2_stream_close(stream, 0);
    assert_int_equal(tg_h2_open_streams(server.h2), 0);
    stop();
}

/* Everything that a session does, with the n-th allocation failing, for every n. */
static bool
live_with_failure(unsigned long n)
{
    bool whole = false;
    tg_mem_unpoison(&server, sizeof server);
    tg_mem_unpoison(&client, sizeof client);
    memset(&server, 0, sizeof server);
    memset(&client, 0, sizeof client);
    server.consumes = client.consumes = server.answers = client.answers = true;
    server.size = client.size = 90000;
    tg_mem_fail_at(n);
    server.h2 = tg_h2_new(TG_H2_SERVER, &usual, &note, &server);
    client.h2 = tg_h2_new(TG_H2_CLIENT, &usual, &note, &client);
    if (server.h2 != NULL && client.h2 != NULL) {
        const enum tg_rc asked = ask("POST", "/up?x", "X-One: 1\nCookie: a\nCookie: b\n", false);
        if (asked == TG_OK) {
            write_body(&client.owners[0]);
        }
        const enum tg_rc again = ask("GET", "/", "X-One: 1\n", true);
        enum tg_rc rc = talk_in(3000, 1);
        tg_h2_goaway(server.h2, true, TG_H2_NO_ERROR);
        rc = rc == TG_OK ? talk_in(3000, 2) : rc;
        whole = rc == TG_OK && client.owners[0].ends == 1 && client.owners[1].ends == 1;
        /* Whoever is left without an answer has been told so. */
        const bool told = asked == TG_ENOMEM || again == TG_ENOMEM || rc == TG_ENOMEM ||
                          client.starved + server.starved > 0 || tg_h2_is_over(server.h2) || tg_h2_is_over(client.h2) ||
                          client.owners[0].resets + client.owners[1].resets > 0;
        assert_true(whole || told);
    }
    tg_mem_fail_at(0);
    close_side(&client);
    close_side(&server);
    return whole;
}

static void
memory_that_is_short_breaks_nothing_else(void **state)
{
    unsigned long n = 1;
    (void)state;
    assert_true(live_with_failure(0));
    while (!live_with_failure(n) || n < 40) {
        n++;
        assert_true(n < 2000);
    }
    assert_in_range(n, 60, 2000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_answered_by_the_other_role),
        cmocka_unit_test(many_requests_share_a_connection),
        cmocka_unit_test(the_framing_of_a_response_is_that_of_its_request_and_status),
        cmocka_unit_test(interim_responses_and_trailers_are_told),
        cmocka_unit_test(malformed_responses_are_stream_errors),
        cmocka_unit_test(a_response_over_a_limit_ends_its_stream),
        cmocka_unit_test(a_body_without_end_or_where_none_may_be_is_an_error),
        cmocka_unit_test(what_a_server_has_not_served_may_be_asked_again),
        cmocka_unit_test(a_request_may_be_given_up_at_any_time),
        cmocka_unit_test(an_answer_before_the_request_has_ended_is_whole),
        cmocka_unit_test(a_connection_ends_in_two_steps),
        cmocka_unit_test(a_tunnel_is_opened_where_both_sides_allow_it),
        cmocka_unit_test(a_block_takes_what_may_go_on),
        cmocka_unit_test(a_large_head_goes_out_in_continuations),
        cmocka_unit_test(a_head_that_is_far_too_large_is_not_sent),
        cmocka_unit_test(what_is_not_http_2_is_told_so),
        cmocka_unit_test(a_broken_connection_is_over_when_that_is_said),
        cmocka_unit_test(a_stream_that_has_ended_takes_nothing),
        cmocka_unit_test(memory_that_is_short_breaks_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
