#include "unit.h"

#include <stdio.h>

#include "http/edits.h"

static char block[256 * 1024];
static struct tg_arena arena;
static struct tg_message message;

static int
begin(void **state)
{
    (void)state;
    tg_arena_init(&arena, block, sizeof block, 1024 * 1024);
    tg_message_init(&message, &arena);
    return 0;
}

static int
end(void **state)
{
    (void)state;
    tg_mem_fail_at(0);
    tg_arena_fini(&arena);
    return 0;
}

/* As the parser does; the setters refuse the names that matter here. */
static void
receive(const char *name, const char *value)
{
    const size_t n = strlen(name);
    const uint32_t hash = tg_field_hash(name, n);
    const enum tg_field_id id = tg_field_id_of(name, n, hash);
    const struct tg_field field = {.name = name,
                                   .value = value,
                                   .value_len = (uint32_t)strlen(value),
                                   .name_len = (uint16_t)n,
                                   .id = (uint8_t)id,
                                   .flags = tg_field_flags_of(id),
                                   .hash = hash};
    assert_int_equal(tg_message_push(&message, &field), TG_OK);
}

/* All fields as "name=value name=value". */
static const char *
fields(void)
{
    static char text[1024];
    size_t n = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < message.count; i++) {
        const struct tg_field *field = &message.fields[i];
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%.*s=%.*s", i == 0 ? "" : " ", (int)field->name_len,
                              field->name, (int)field->value_len, field->value);
        assert_true(n < sizeof text);
    }
    return text;
}

static bool
is_hop(const char *name)
{
    unsigned from = 0;
    const struct tg_field *field = tg_message_find(&message, name, strlen(name), &from);
    assert_non_null(field);
    return (field->flags & TG_FIELD_HOP) != 0;
}

static void
names_are_found_in_any_case_and_in_order(void **state)
{
    unsigned from = 0;
    (void)state;
    receive("Accept", "1");
    receive("X-One", "2");
    receive("aCCEPT", "3");
    const struct tg_field *field = tg_message_find(&message, "accept", 6, &from);
    assert_true(field == &message.fields[0] && from == 1);
    field = tg_message_find(&message, "ACCEPT", 6, &from);
    assert_true(field == &message.fields[2] && from == 3);
    assert_null(tg_message_find(&message, "accept", 6, &from));
    from = 0;
    assert_null(tg_message_find(&message, "accep", 5, &from));
    assert_null(tg_message_find(&message, "accepts", 7, &from));
    assert_null(tg_message_find(&message, "", 0, &from));
    assert_null(tg_message_find_id(&message, TG_FIELD_COOKIE));
    receive("COOKIE", "4");
    assert_true(tg_message_find_id(&message, TG_FIELD_COOKIE) == &message.fields[3]);
}

static void
set_takes_the_first_place_and_removes_the_rest(void **state)
{
    (void)state;
    receive("A", "1");
    receive("B", "2");
    receive("a", "3");
    receive("C", "4");
    receive("A", "5");
    assert_int_equal(tg_message_set(&message, TG_SLICE("b"), TG_SLICE("x")), TG_OK);
    assert_string_equal(fields(), "A=1 b=x a=3 C=4 A=5");
    assert_int_equal(tg_message_set(&message, TG_SLICE("a"), TG_SLICE("y")), TG_OK);
    assert_string_equal(fields(), "a=y b=x C=4");
    assert_int_equal(tg_message_set(&message, TG_SLICE("D"), TG_SLICE("")), TG_OK);
    assert_string_equal(fields(), "a=y b=x C=4 D=");
    assert_true((message.fields[0].flags & TG_FIELD_SET) != 0 && (message.fields[2].flags & TG_FIELD_SET) == 0);
}

static void
add_keeps_what_is_there_and_remove_takes_all(void **state)
{
    (void)state;
    receive("A", "1");
    assert_int_equal(tg_message_add(&message, TG_SLICE("a"), TG_SLICE("2")), TG_OK);
    assert_int_equal(tg_message_add(&message, TG_SLICE("B"), TG_SLICE("3")), TG_OK);
    assert_string_equal(fields(), "A=1 a=2 B=3");
    assert_int_equal(tg_message_remove(&message, "C", 1), TG_OK);
    assert_string_equal(fields(), "A=1 a=2 B=3");
    assert_int_equal(tg_message_remove(&message, "A", 1), TG_OK);
    assert_string_equal(fields(), "B=3");
    assert_int_equal(tg_message_remove(&message, "b", 1), TG_OK);
    assert_int_equal(message.count, 0);
}

static void
what_is_set_is_a_copy(void **state)
{
    char name[] = "Name";
    char value[] = "value";
    (void)state;
    assert_int_equal(tg_message_set(&message, tg_slice_of(name, 4), tg_slice_of(value, 5)), TG_OK);
    memset(name, 'x', 4);
    memset(value, 'x', 5);
    assert_string_equal(fields(), "Name=value");
}

static void
setters_take_what_a_line_can_hold_and_nothing_else(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        const char name[] = {'X', (char)c};
        const char value[] = {'a', (char)c, 'b'};
        const bool in_name = c > 0x20 && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", (int)c) == NULL;
        const bool in_value = c == '\t' || (c >= 0x20 && c != 0x7f);
        assert_int_equal(tg_message_add(&message, tg_slice_of(name, 2), TG_SLICE("v")), in_name ? TG_OK : TG_EINVAL);
        assert_int_equal(message.count, in_name ? 1 : 0);
        message.count = 0;
        assert_int_equal(tg_message_set(&message, TG_SLICE("X"), tg_slice_of(value, 3)), in_value ? TG_OK : TG_EINVAL);
        assert_int_equal(message.count, in_value ? 1 : 0);
        message.count = 0;
    }
    assert_int_equal(tg_message_add(&message, TG_SLICE(""), TG_SLICE("v")), TG_EINVAL);
    assert_int_equal(tg_message_add(&message, TG_SLICE("X"), TG_SLICE(" v")), TG_EINVAL);
    assert_int_equal(tg_message_add(&message, TG_SLICE("X"), TG_SLICE("v\t")), TG_EINVAL);
    assert_int_equal(message.count, 0);
}

static void
framing_fields_are_the_codecs_alone(void **state)
{
    static const char *const names[] = {"host",    "Content-Length", "TRANSFER-ENCODING", "connection",
                                        "te",      "Keep-Alive",     "proxy-connection",  "Trailer",
                                        "upgrade", "expect",         "http2-settings"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct tg_slice name = tg_slice_of(names[i], strlen(names[i]));
        begin(NULL);
        receive(names[i], "1");
        assert_int_equal(tg_message_set(&message, name, TG_SLICE("2")), TG_EINVAL);
        assert_int_equal(tg_message_add(&message, name, TG_SLICE("2")), TG_EINVAL);
        assert_int_equal(tg_message_remove(&message, name.p, name.n), TG_EINVAL);
        assert_int_equal(message.count, 1);
        assert_int_equal(message.fields[0].value[0], '1');
    }
}

static void
what_connection_names_is_marked(void **state)
{
    (void)state;
    receive("A", "1");
    receive("B", "2");
    receive("Connection", " ,close,\tA , ,b-not,");
    receive("a", "3");
    receive("C", "4");
    receive("connection", "c");
    assert_int_equal(tg_message_apply_connection(&message), TG_OK);
    assert_true((message.fields[0].flags & TG_FIELD_HOP) != 0);
    assert_true((message.fields[3].flags & TG_FIELD_HOP) != 0);
    assert_true(is_hop("C"));
    assert_false(is_hop("B"));
    assert_int_equal(message.count, 6);
}

static void
what_connection_may_not_name_is_refused(void **state)
{
    static const char *const names[] = {"Host",
                                        "Content-Length",
                                        "Transfer-Encoding",
                                        "Cookie",
                                        "Authorization",
                                        "X-Forwarded-For",
                                        "X-Forwarded-Proto",
                                        "X-Forwarded-Host",
                                        "X-Forwarded-Port",
                                        "X-Real-IP",
                                        "Forwarded",
                                        "Via"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        begin(NULL);
        receive(names[i], "1");
        receive("Connection", "close");
        assert_int_equal(tg_message_apply_connection(&message), TG_OK);
        receive("Connection", names[i]);
        assert_int_equal(tg_message_apply_connection(&message), TG_EINVAL);
    }
}

static void
a_field_that_a_plugin_sets_after_connection_is_forwarded(void **state)
{
    (void)state;
    receive("X-User", "client");
    receive("Connection", "x-user");
    assert_int_equal(tg_message_apply_connection(&message), TG_OK);
    assert_true(is_hop("X-User"));
    assert_int_equal(tg_message_set(&message, TG_SLICE("X-User"), TG_SLICE("plugin")), TG_OK);
    assert_false(is_hop("X-User"));
}

static void
many_fields_keep_their_order(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TG_MESSAGE_FIELDS_MAX; i++) {
        char value[16];
        const int n = snprintf(value, sizeof value, "%u", i);
        assert_int_equal(tg_message_add(&message, TG_SLICE("X"), tg_slice_of(value, (size_t)n)), TG_OK);
    }
    unsigned from = 0;
    for (unsigned i = 0; i < TG_MESSAGE_FIELDS_MAX; i++) {
        const struct tg_field *field = tg_message_find(&message, "x", 1, &from);
        char value[16];
        assert_non_null(field);
        const int n = snprintf(value, sizeof value, "%u", i);
        assert_true(tg_slice_is(tg_slice_of(field->value, field->value_len), value, (size_t)n));
    }
    assert_int_equal(tg_message_remove(&message, "X", 1), TG_OK);
    assert_int_equal(message.count, 0);
}

static void
the_number_of_fields_has_an_end(void **state)
{
    enum tg_rc rc = TG_OK;
    unsigned added = 0;
    (void)state;
    while (rc == TG_OK && added < 10000) {
        rc = tg_message_add(&message, TG_SLICE("X"), TG_SLICE("v"));
        added += rc == TG_OK;
    }
    assert_int_equal(rc, TG_ELIMIT);
    assert_int_equal(message.count, added);
    assert_int_equal(tg_message_set(&message, TG_SLICE("Y"), TG_SLICE("v")), TG_ELIMIT);
    assert_int_equal(message.count, added);
}

/* Each allocation fails in turn; the message is as before each time. */
static void
when_memory_is_short_nothing_is_changed(void **state)
{
    static char big[20 * 1024];
    (void)state;
    memset(big, 'v', sizeof big);
    tg_arena_fini(&arena);
    tg_arena_init(&arena, block, 0, 1024 * 1024);
    unsigned failed = 0;
    for (unsigned long nth = 1; nth < 4; nth++) {
        tg_mem_fail_at(nth);
        const unsigned before = message.count;
        const enum tg_rc rc = tg_message_add(&message, TG_SLICE("X"), tg_slice_of(big, sizeof big));
        tg_mem_fail_at(0);
        assert_true(rc == TG_OK || rc == TG_ENOMEM);
        assert_int_equal(message.count, before + (rc == TG_OK));
        failed += rc == TG_ENOMEM;
    }
    assert_int_equal(failed, 2); /* of the copy, and of the first array */
}

static enum tg_rc
prepare(struct tg_edits *edits, enum tg_abi_edit kind, const char *name, const char *value)
{
    return tg_edits_add(edits, kind, tg_slice_of(name, strlen(name)), tg_slice_of(value, strlen(value)));
}

static enum tg_rc
apply(const struct tg_edits *edits)
{
    return tg_edits_apply(edits, TG_SLICE("the-id"), &message);
}

static void
the_id_is_that_of_the_exchange(void **state)
{
    (void)state;
    struct tg_edits *edits = tg_edits_new(16, 1024);
    assert_non_null(edits);
    assert_false(tg_edits_take_id(edits));
    assert_int_equal(prepare(edits, TG_EDIT_SET_ID, "Connection", ""), TG_EINVAL);
    assert_false(tg_edits_take_id(edits));
    assert_int_equal(prepare(edits, TG_EDIT_SET_ID, "X-Id", ""), TG_OK);
    assert_true(tg_edits_take_id(edits));
    receive("x-id", "1");
    receive("X-ID", "2");
    assert_int_equal(apply(edits), TG_OK);
    assert_string_equal(fields(), "X-Id=the-id");
    tg_edits_free(edits);
}

static void
prepared_edits_are_done_in_their_order(void **state)
{
    (void)state;
    struct tg_edits *edits = tg_edits_new(16, 1024);
    assert_non_null(edits);
    assert_int_equal(prepare(edits, TG_EDIT_REMOVE, "secret", ""), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_RENAME, "old", "New"), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "B", "x"), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_ADD, "b", "y"), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "Server", "tidegate"), TG_OK);
    receive("Secret", "1");
    receive("b", "2");
    receive("new", "3");
    receive("OLD", "4");
    receive("B", "5");
    receive("secret", "6");
    receive("Old", "7");
    assert_int_equal(apply(edits), TG_OK);
    assert_string_equal(fields(), "B=x New=4 New=7 b=y Server=tidegate");
    assert_true((message.fields[1].flags & TG_FIELD_SET) != 0 && message.fields[4].id == TG_FIELD_SERVER);
    assert_int_equal(apply(edits), TG_OK);
    assert_string_equal(fields(), "B=x New=4 New=7 Server=tidegate b=y");
    tg_edits_free(edits);
    tg_edits_free(NULL);
}

static void
a_name_may_change_its_case_alone(void **state)
{
    (void)state;
    struct tg_edits *edits = tg_edits_new(16, 1024);
    assert_non_null(edits);
    assert_int_equal(prepare(edits, TG_EDIT_RENAME, "x-one", "X-One"), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_RENAME, "x-none", "X-One"), TG_OK);
    receive("x-one", "1");
    assert_int_equal(apply(edits), TG_OK);
    assert_string_equal(fields(), "X-One=1");
    tg_edits_free(edits);
}

static void
edits_have_the_room_that_was_asked_for(void **state)
{
    (void)state;
    tg_mem_fail_at(1);
    assert_null(tg_edits_new(1, 1));
    tg_mem_fail_at(0);
    assert_null(tg_edits_new(UINT16_MAX + 1, 1));
    struct tg_edits *edits = tg_edits_new(3, 8);
    assert_non_null(edits);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "A", "12345678"), TG_ELIMIT);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "A", "123"), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_RENAME, "B", "CDEF"), TG_ELIMIT);
    assert_int_equal(prepare(edits, TG_EDIT_RENAME, "B", "CD"), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_REMOVE, "E", ""), TG_ELIMIT);
    receive("B", "1");
    assert_int_equal(apply(edits), TG_OK);
    assert_string_equal(fields(), "CD=1 A=123");
    tg_edits_free(edits);
}

static void
edits_that_may_not_be_are_refused_when_they_are_made(void **state)
{
    (void)state;
    struct tg_edits *edits = tg_edits_new(16, 1024);
    assert_non_null(edits);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "", "x"), TG_EINVAL);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "a b", "x"), TG_EINVAL);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "A", "x\r\nB: y"), TG_EINVAL);
    assert_int_equal(prepare(edits, TG_EDIT_ADD, "Content-Length", "1"), TG_EINVAL);
    assert_int_equal(prepare(edits, TG_EDIT_SET, "Proxy-Authenticate", "x"), TG_EINVAL);
    assert_int_equal(prepare(edits, TG_EDIT_REMOVE, "Transfer-Encoding", ""), TG_EINVAL);
    assert_int_equal(prepare(edits, TG_EDIT_REMOVE, "Proxy-Authenticate", ""), TG_OK);
    assert_int_equal(prepare(edits, TG_EDIT_RENAME, "Host", "X-Host"), TG_EINVAL);
    assert_int_equal(prepare(edits, TG_EDIT_RENAME, "X-Host", "Host"), TG_EINVAL);
    assert_int_equal(prepare(edits, (enum tg_abi_edit)9, "A", "x"), TG_EINVAL);
    receive("A", "1");
    assert_int_equal(apply(edits), TG_OK);
    assert_string_equal(fields(), "A=1");
    tg_edits_free(edits);
}

/* Names and values are compared eight bytes at a time. */
/* What is not there is known by a bit for each name: of all that came in by any way. */
static void
what_came_in_by_any_way_is_found(void **state)
{
    (void)state;
    const struct tg_field from = tg_field_of(TG_SLICE("X-From"), TG_SLICE("v"));
    const struct tg_field to = tg_field_of(TG_SLICE("X-To"), TG_SLICE(""));
    assert_null(tg_message_find_same(&message, &from, &(unsigned){0}));
    assert_int_equal(tg_message_push(&message, &from), TG_OK);
    tg_message_rename(&message, &from, &to);
    assert_null(tg_message_find_same(&message, &from, &(unsigned){0}));
    assert_non_null(tg_message_find_same(&message, &to, &(unsigned){0}));
    assert_int_equal(tg_message_put(&message, &from), TG_OK);
    assert_non_null(tg_message_find(&message, "x-from", 6, &(unsigned){0}));
    tg_message_drop(&message, &to);
    assert_null(tg_message_find(&message, "x-to", 4, &(unsigned){0}));
    assert_int_equal(tg_message_set(&message, TG_SLICE("X-To"), TG_SLICE("again")), TG_OK);
    assert_non_null(tg_message_find(&message, "x-to", 4, &(unsigned){0}));
}

static void
names_are_the_same_but_for_the_case_of_letters(void **state)
{
    (void)state;
    char a[20];
    char b[20];
    for (size_t n = 1; n <= sizeof a; n++) {
        for (size_t at = 0; at < n; at++) {
            for (unsigned c = 0; c < 256; c++) {
                memset(a, 'k', n);
                memset(b, 'K', n);
                a[at] = (char)c;
                b[at] = (char)(c ^ 0x20);
                const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
                assert_int_equal(tg_slice_same_text(a, b, n), letter);
                if (letter) {
                    assert_int_equal(tg_field_hash(a, n), tg_field_hash(b, n));
                }
            }
        }
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

/* Eight bytes are compared at a time: at each length and place all pairs of bytes must be told apart. */
static void
only_letters_are_the_same_in_both_cases(void **state)
{
    char a[20];
    char b[20];
    (void)state;
    memset(a, 'x', sizeof a);
    for (size_t n = 0; n < sizeof a; n++) {
        memcpy(b, a, sizeof b);
        assert_true(tg_slice_same_text(a, b, n));
        for (size_t at = 0; at < n; at++) {
            for (unsigned c = 0; c < 256; c++) {
                b[at] = (char)c;
                if (tg_slice_same_text(a, b, n) != (c == 'x' || c == 'X')) {
                    fail_msg("byte %u at %zu of %zu", c, at, n);
                }
            }
            b[at] = a[at];
        }
    }
    for (unsigned c = 0; c < 65536; c++) {
        memset(a, (int)(c & 255), 8);
        memset(b, (int)(c >> 8), 8);
        const bool same = tg_lower(a[0]) == tg_lower(b[0]);
        assert_int_equal(tg_slice_same_text(a, b, 8), same);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_letters_are_the_same_in_both_cases),
        CASE(names_are_found_in_any_case_and_in_order),
        CASE(set_takes_the_first_place_and_removes_the_rest),
        CASE(add_keeps_what_is_there_and_remove_takes_all),
        CASE(what_is_set_is_a_copy),
        CASE(setters_take_what_a_line_can_hold_and_nothing_else),
        CASE(framing_fields_are_the_codecs_alone),
        CASE(what_connection_names_is_marked),
        CASE(what_connection_may_not_name_is_refused),
        CASE(a_field_that_a_plugin_sets_after_connection_is_forwarded),
        CASE(many_fields_keep_their_order),
        CASE(the_number_of_fields_has_an_end),
        CASE(when_memory_is_short_nothing_is_changed),
        CASE(the_id_is_that_of_the_exchange),
        CASE(prepared_edits_are_done_in_their_order),
        CASE(a_name_may_change_its_case_alone),
        CASE(edits_have_the_room_that_was_asked_for),
        CASE(edits_that_may_not_be_are_refused_when_they_are_made),
        CASE(what_came_in_by_any_way_is_found),
        CASE(names_are_the_same_but_for_the_case_of_letters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
