#include "unit.h"

#include <stdio.h>

#include "http/ws_frame.h"

enum { MAX = 300000 };

/* What a reader has told: T"text" a text, B a binary, P ping, O pong, C1000"reason" a close; z: compressed; then !code.
 */
struct told {
    char text[1024];
    size_t n;
    char message[1024];
    size_t message_n;
};

static void
tell(struct told *told, const struct tg_ws_reader *reader, const struct tg_ws_piece *piece)
{
    static const char letters[] = " TB     CPO";
    char code[16] = "";
    if (piece->opcode == TG_WS_CLOSE) {
        (void)snprintf(code, sizeof code, "%u", reader->code);
    }
    if (piece->opcode >= TG_WS_CLOSE) {
        told->n += (size_t)snprintf(told->text + told->n, sizeof told->text - told->n, "%c%s\"%.*s\" ",
                                    letters[piece->opcode], code, (int)piece->data.n, piece->data.p);
        assert_true(piece->end);
        return;
    }
    assert_true(told->message_n + piece->data.n < sizeof told->message);
    memcpy(told->message + told->message_n, piece->data.p, piece->data.n);
    told->message_n += piece->data.n;
    if (piece->end) {
        told->n +=
            (size_t)snprintf(told->text + told->n, sizeof told->text - told->n, "%c%s\"%.*s\" ", letters[piece->opcode],
                             piece->compressed ? "z" : "", (int)told->message_n, told->message);
        told->message_n = 0;
    }
}

/* Reads it, cut behind `first` bytes; each part stands in memory of its own, so that a byte beyond it is seen. */
static void
read_cut(struct tg_ws_reader *reader, const char *p, size_t n, size_t first, struct told *told)
{
    enum tg_rc rc = TG_AGAIN;
    *told = (struct told){0};
    for (unsigned part = 0; part < 2 && rc == TG_AGAIN; part++) {
        const size_t size = part == 0 ? first : n - first;
        char *copy = malloc(size == 0 ? 1 : size);
        size_t at = 0;
        memcpy(copy, p + (part == 0 ? 0 : first), size);
        do {
            struct tg_ws_piece piece;
            size_t used = 0;
            rc = tg_ws_read(reader, copy + at, size - at, &used, &piece);
            at += used;
            if (rc == TG_OK) {
                tell(told, reader, &piece);
            }
        } while (rc == TG_OK);
        assert_true(rc != TG_AGAIN || at == size);
        free(copy);
    }
    if (rc == TG_EPROTOCOL) {
        assert_non_null(reader->why);
        told->n += (size_t)snprintf(told->text + told->n, sizeof told->text - told->n, "!%u", reader->code);
    }
}

struct row {
    const char *bytes;
    size_t n;
    const char *expected;
};

#define ROW(bytes, expected)                                                                                           \
    {                                                                                                                  \
        bytes, sizeof(bytes) - 1, expected                                                                             \
    }

static void
check_rows(const struct row *rows, size_t count, bool masked, bool deflate)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t cut = 0; cut <= rows[i].n; cut++) {
            struct tg_ws_reader reader;
            struct told told;
            tg_ws_reader_init(&reader, masked, deflate, MAX);
            read_cut(&reader, rows[i].bytes, rows[i].n, cut, &told);
            if (strcmp(told.text, rows[i].expected) != 0) {
                fail_msg("row %zu cut at %zu: %s", i, cut, told.text);
            }
        }
    }
}

static void
frames_become_messages_wherever_they_are_cut(void **state)
{
    static const struct row rows[] = {
        ROW("\x81\x05Hello", "T\"Hello\" "),
        ROW("\x81\x00\x82\x00", "T\"\" B\"\" "),
        ROW("\x01\x03Hel\x80\x02lo", "T\"Hello\" "),
        ROW("\x02\x00\x00\x00\x00\x01x\x80\x00", "B\"x\" "),
        ROW("\x01\x03Hel\x89\x02hi\x00\x00\x8a\x00\x80\x02lo\x81\x01x", "P\"hi\" O\"\" T\"Hello\" T\"x\" "),
        ROW("\x01\x02\xe6\xbd\x80\x01\xae", "T\"\xe6\xbd\xae\" "),
        ROW("\x88\x00\x81\x01x", "C1005\"\" "),
        ROW("\x88\x02\x03\xe8", "C1000\"\" "),
        ROW("\x88\x05\x0f\xa0"
            "bye",
            "C4000\"bye\" "),
    };
    (void)state;
    check_rows(rows, sizeof rows / sizeof rows[0], false, false);
}

static void
masks_are_taken_off(void **state)
{
    static const struct row rows[] = {
        ROW("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "T\"Hello\" "), /* RFC 6455, section 5.7 */
        ROW("\x01\x83\x37\xfa\x21\x3d\x7f\x9f\x4d\x80\x82\x00\x00\x00\x00lo", "T\"Hello\" "),
        ROW("\x89\x81\x20\x00\x00\x00"
            "A\x88\x80zzzz",
            "P\"a\" C1005\"\" "),
        ROW("\x81\x05Hello", "!1002"),
    };
    (void)state;
    check_rows(rows, sizeof rows / sizeof rows[0], true, false);
}

static void
what_breaks_the_rules_is_refused_with_its_code(void **state)
{
    static const struct row rows[] = {
        ROW("\x91\x00", "!1002"), /* RSV3 */
        ROW("\xa1\x00", "!1002"), /* RSV2 */
        ROW("\xc1\x00", "!1002"), /* RSV1, and nothing was agreed on */
        ROW("\x83\x00", "!1002"), /* unknown opcodes */
        ROW("\x8b\x00", "!1002"),
        ROW("\x8f\x00", "!1002"),
        ROW("\x81\x80zzzz", "!1002"),     /* a mask of a server */
        ROW("\x80\x00", "!1002"),         /* a fragment of nothing */
        ROW("\x01\x00\x81\x00", "!1002"), /* a message within another */
        ROW("\x09\x00", "!1002"),         /* a control frame in fragments */
        ROW("\x89\x7e\x00\x7e", "!1002"), /* and one too long */
        ROW("\x81\x7e\x00\x7d", "!1002"), /* lengths that are not the shortest */
        ROW("\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", "!1002"),
        ROW("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", "!1002"), /* a negative one */
        ROW("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "!1009"),
        ROW("\x02\x01x\x80\x7f\x00\x00\x00\x00\x00\x04\x93\xe0", "!1009"), /* 1 + 300,000 bytes */
        ROW("\x88\x01\x03", "!1002"),                                      /* half a code */
        ROW("\x88\x02\x03\xe7", "!1002"),                                  /* 999 */
        ROW("\x88\x02\x03\xed", "!1002"),                                  /* 1005 */
        ROW("\x88\x02\x13\x88", "!1002"),                                  /* 5000 */
        ROW("\x88\x03\x03\xe8\xff", "!1007"),
        ROW("\x88\x03\x03\xe8\xc3", "!1007"),
        ROW("\x81\x01\xff", "!1007"),
        ROW("\x81\x01\xc3", "!1007"), /* it ends within a character */
        ROW("\x01\x01\xc3\x80\x01x", "!1007"),
        ROW("\x81\x02\xc0\xaf", "!1007"),             /* longer than it need be */
        ROW("\x81\x03\xed\xa0\x80", "!1007"),         /* a surrogate */
        ROW("\x81\x04\xf4\x90\x80\x80", "!1007"),     /* above U+10FFFF */
        ROW("\x81\x01x\x81\x01\xff", "T\"x\" !1007"), /* what came before it is whole */
    };
    (void)state;
    check_rows(rows, sizeof rows / sizeof rows[0], false, false);
}

static void
the_first_reserved_bit_marks_compressed_messages_once_that_is_agreed_on(void **state)
{
    static const struct row rows[] = {
        ROW("\xc1\x02\xff\xff", "Tz\"\xff\xff\" "), /* not text before it is inflated */
        ROW("\x41\x01\xff\x80\x01x\x81\x01y", "Tz\"\xffx\" T\"y\" "),
        ROW("\x81\x01\xff", "!1007"),
        ROW("\x01\x00\xc0\x00", "!1002"),
        ROW("\xc9\x00", "!1002"),
        ROW("\xe1\x00", "!1002"),
    };
    (void)state;
    check_rows(rows, sizeof rows / sizeof rows[0], false, true);
}

static void
what_is_written_is_read_as_the_same(void **state)
{
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, MAX};
    static const char mask[4] = {'\x12', '\0', '\xff', '\x7f'};
    char *bytes = malloc(TG_WS_HEAD_MAX + MAX);
    (void)state;
    for (unsigned i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        const size_t n = sizes[i / 2];
        const char *with = i % 2 == 0 ? mask : NULL;
        struct tg_ws_reader reader;
        struct tg_ws_piece piece;
        size_t used = 0;
        const size_t head = tg_ws_write_head(bytes, TG_WS_BINARY, true, n, with);
        assert_int_equal(head, 2U + (n < 126 ? 0U : n < 65536 ? 2U : 8U) + (with != NULL ? 4U : 0U));
        for (size_t k = 0; k < n; k++) {
            bytes[head + k] = (char)(k * 7);
        }
        if (with != NULL) {
            const size_t part = n / 3;
            tg_ws_mask(bytes + head, part, mask, 0);
            tg_ws_mask(bytes + head + part, n - part, mask, part);
        }
        tg_ws_reader_init(&reader, with != NULL, true, MAX);
        assert_int_equal(tg_ws_read(&reader, bytes, head + n, &used, &piece), TG_OK);
        assert_int_equal(used, head + n);
        assert_true(piece.end && piece.compressed && piece.opcode == TG_WS_BINARY && piece.data.n == n);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(piece.data.p[k], (char)(k * 7));
        }
    }
    free(bytes);
}

static void
after_a_close_frame_there_is_nothing(void **state)
{
    char bytes[] = "\x88\x00\x81\x01x";
    struct tg_ws_reader reader;
    struct tg_ws_piece piece;
    size_t used = 0;
    (void)state;
    tg_ws_reader_init(&reader, false, false, MAX);
    assert_int_equal(tg_ws_read(&reader, bytes, 5, &used, &piece), TG_OK);
    assert_int_equal(used, 2);
    assert_int_equal(tg_ws_read(&reader, bytes + 2, 3, &used, &piece), TG_ECLOSED);
    assert_int_equal(used, 0);
}

static void
codes_are_those_that_may_be_sent(void **state)
{
    unsigned count = 0;
    (void)state;
    for (unsigned code = 0; code < 65536; code++) {
        count += tg_ws_is_code(code) ? 1 : 0;
    }
    assert_int_equal(count, 4 + 8 + 2000);
    assert_true(tg_ws_is_code(1003) && !tg_ws_is_code(1004) && !tg_ws_is_code(1006) && tg_ws_is_code(1007));
    assert_true(tg_ws_is_code(1014) && !tg_ws_is_code(1015) && !tg_ws_is_code(2999) && tg_ws_is_code(4999));
}

/* Every code point, cut everywhere, also behind eight ASCII bytes, where a faster way ends. */
static void
every_character_is_text_and_no_surrogate_is(void **state)
{
    (void)state;
    for (unsigned c = 0x80; c < 0x110000; c++) {
        char bytes[12] = "abcdefgh";
        size_t n = 8;
        if (c >= 0x10000) {
            bytes[n++] = (char)(0xf0 | c >> 18);
            bytes[n++] = (char)(0x80 | (c >> 12 & 0x3f));
        } else if (c >= 0x800) {
            bytes[n++] = (char)(0xe0 | c >> 12);
        }
        if (c >= 0x800) {
            bytes[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        } else {
            bytes[n++] = (char)(0xc0 | c >> 6);
        }
        bytes[n++] = (char)(0x80 | (c & 0x3f));
        const bool is_text = c < 0xd800 || c > 0xdfff;
        for (size_t cut = 0; cut <= n; cut++) {
            struct tg_ws_utf8 text = {0};
            const bool good = tg_ws_utf8(&text, bytes, cut) && tg_ws_utf8(&text, bytes + cut, n - cut);
            assert_int_equal(good && text.left == 0, is_text);
        }
    }
}

/* Follows it with `first` bytes in the first call; how many bytes stand before the first stop, at most `n`. */
static size_t
track_cut(struct tg_ws_track *track, const char *p, size_t n, size_t first, enum tg_ws_stop stop)
{
    char *copy = malloc(first == 0 ? 1 : first); /* so that a byte beyond it is seen */
    memcpy(copy, p, first);
    size_t used = tg_ws_track(track, copy, first, stop);
    free(copy);
    if (used == first && !(stop != TG_WS_NO_STOP && first > 0 && tg_ws_track_is_between(track))) {
        used += tg_ws_track(track, p + first, n - first, stop);
    }
    return used;
}

static void
frames_are_followed_wherever_they_are_cut(void **state)
{
    (void)state;
    static const char of_server[] = "\x01\x03one\x89\x02hi\x80\x05three\x82\x00\x88\x02\x03\xe9";
    static const char of_client[] = "\xc1\x85MASKhello\x8a\x80MASK\x82\xfe\x00\x7eMASK";
    enum { FRAGMENT = 5, MESSAGE = 16, SERVER = sizeof of_server - 1, CLIENT = sizeof of_client - 1 };
    struct tg_ws_track track;
    for (size_t cut = 0; cut <= SERVER; cut++) {
        tg_ws_track_init(&track, false);
        assert_int_equal(track_cut(&track, of_server, SERVER, cut, TG_WS_NO_STOP), SERVER);
        assert_true(track.closed && !track.broken);
        assert_int_equal(tg_ws_track(&track, "x", 1, TG_WS_STOP_MESSAGE), 0);
    }
    for (size_t cut = 0; cut < FRAGMENT; cut++) {
        tg_ws_track_init(&track, false);
        assert_int_equal(track_cut(&track, of_server, SERVER, cut, TG_WS_STOP_FRAME), FRAGMENT);
        assert_true(track.in_message && tg_ws_track_is_between(&track));
    }
    for (size_t cut = 0; cut < MESSAGE; cut++) {
        tg_ws_track_init(&track, false);
        if (cut == FRAGMENT || cut == FRAGMENT + 4) {
            continue; /* between frames, which track_cut takes for the stop */
        }
        assert_int_equal(track_cut(&track, of_server, SERVER, cut, TG_WS_STOP_MESSAGE), MESSAGE);
        assert_false(track.in_message);
    }
    for (size_t cut = 0; cut <= CLIENT; cut++) {
        tg_ws_track_init(&track, true);
        assert_int_equal(track_cut(&track, of_client, CLIENT, cut, TG_WS_NO_STOP), CLIENT);
        assert_false(track.broken || track.closed || tg_ws_track_is_between(&track));
        assert_int_equal(track.left, 126);
    }
}

static void
what_are_no_frames_is_not_followed(void **state)
{
    (void)state;
    static const struct {
        bool masked;
        struct tg_slice bytes;
    } cases[] = {
        {true, TG_SLICE("GARBAGE")},           {false, TG_SLICE("\x81\x80MASK")},
        {true, TG_SLICE("\x81\x00")},          {false, TG_SLICE("\x83\x00")},
        {false, TG_SLICE("\x8b\x00")},         {false, TG_SLICE("\x09\x00")},
        {false, TG_SLICE("\x89\x7e\x00\x80")}, {false, TG_SLICE("\x80\x00")},
        {false, TG_SLICE("\x01\x00\x81\x00")}, {false, TG_SLICE("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00")},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tg_ws_track track;
        const struct tg_slice bytes = cases[i].bytes;
        tg_ws_track_init(&track, cases[i].masked);
        assert_int_equal(tg_ws_track(&track, bytes.p, bytes.n, TG_WS_NO_STOP), bytes.n);
        assert_true(track.broken);
        assert_false(tg_ws_track_is_between(&track));
        assert_int_equal(tg_ws_track(&track, "\x81\x00", 2, TG_WS_STOP_FRAME), 2);
        assert_true(track.broken);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_become_messages_wherever_they_are_cut),
        cmocka_unit_test(masks_are_taken_off),
        cmocka_unit_test(what_breaks_the_rules_is_refused_with_its_code),
        cmocka_unit_test(the_first_reserved_bit_marks_compressed_messages_once_that_is_agreed_on),
        cmocka_unit_test(what_is_written_is_read_as_the_same),
        cmocka_unit_test(after_a_close_frame_there_is_nothing),
        cmocka_unit_test(codes_are_those_that_may_be_sent),
        cmocka_unit_test(frames_are_followed_wherever_they_are_cut),
        cmocka_unit_test(what_are_no_frames_is_not_followed),
        cmocka_unit_test(every_character_is_text_and_no_surrogate_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
