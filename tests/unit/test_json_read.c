#include "unit.h"

#include <stdlib.h>

#include "base/json.h"
#include "base/json_read.h"
#include "base/mem.h"

static struct tg_slice
text_of(const char *text)
{
    return tg_slice_of(text, strlen(text));
}

static void
members_and_items_are_found(void **state)
{
    static const struct {
        const char *text;
        const char *name;
        const char *value; /* NULL: there is none */
    } table[] = {
        {"{\"a\":1}", "a", "1"},
        {" { \"a\" : \"x,}\\\"\" , \"b\" : [ 1 , {} ] } ", "b", "[ 1 , {} ]"},
        {"{\"a\":\"x,}\\\"\",\"b\":2}", "a", "\"x,}\\\"\""},
        {"{\"a\":{\"b\":1},\"b\":2}", "b", "2"},
        {"{\"\\u0061\":null}", "a", "null"},
        {"{\"a\":1}", "b", NULL},
        {"{\"\":1}", "", "1"},
        {"{}", "a", NULL},
        {"[]", "0", NULL},
        {"[10, 11 ,12]", "1", "11"},
        {"[10,[11],12]", "1", "[11]"},
        {"[10,11,12]", "3", NULL},
        {"[10]", "a", NULL},
        {"[10]", "", NULL},
        {"[10]", "-1", NULL},
        {"[10]", "99999999999999999999", NULL},
        {"1", "0", NULL},
        {"\"{\\\"a\\\":1}\"", "a", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_slice found = {NULL, 0};
        const enum tg_rc rc = tg_json_find(text_of(table[i].text), table[i].name, strlen(table[i].name), &found);
        assert_int_equal(rc, table[i].value == NULL ? TG_ENONE : TG_OK);
        if (table[i].value != NULL) {
            assert_int_equal(found.n, strlen(table[i].value));
            assert_memory_equal(found.p, table[i].value, found.n);
        }
    }
}

static void
tokens_come_in_order_with_what_they_mean(void **state)
{
    struct tg_json_reader reader = {0};
    static const struct {
        enum tg_json_token token;
        const char *text;
        double number;
    } table[] = {
        {TG_JSON_OBJECT, NULL, 0},
        {TG_JSON_NAME, "a\"b", 0},
        {TG_JSON_ARRAY, NULL, 0},
        {TG_JSON_NUMBER, NULL, -1},
        {TG_JSON_NUMBER, NULL, 2.5},
        {TG_JSON_NUMBER, NULL, 9007199254740992.0},
        {TG_JSON_INTEGER, "9007199254740993", 0},
        {TG_JSON_NUMBER, NULL, 1e22},
        {TG_JSON_STRING, "\xc3\xa4\n", 0},
        {TG_JSON_TRUE, NULL, 0},
        {TG_JSON_FALSE, NULL, 0},
        {TG_JSON_NULL, NULL, 0},
        {TG_JSON_OBJECT, NULL, 0},
        {TG_JSON_OBJECT_END, NULL, 0},
        {TG_JSON_ARRAY_END, NULL, 0},
        {TG_JSON_OBJECT_END, NULL, 0},
        {TG_JSON_END, NULL, 0},
        {TG_JSON_END, NULL, 0},
    };
    (void)state;
    tg_json_reader_init(
        &reader, text_of("{ \"a\\\"b\" : [ -1, 2.5, 9007199254740992, 9007199254740993, 1e22, \"\\u00e4\\n\", true, "
                         "false, null, {} ] }"));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(tg_json_read(&reader), TG_OK);
        assert_int_equal(reader.token, table[i].token);
        if (table[i].text != NULL) {
            assert_int_equal(reader.text.n, strlen(table[i].text));
            assert_memory_equal(reader.text.p, table[i].text, reader.text.n);
        }
        if (reader.token == TG_JSON_NUMBER) {
            assert_true(reader.number == table[i].number);
        }
    }
    tg_json_reader_fini(&reader);
}

/* They are for texts that were checked, and must survive all others. */
static void
broken_texts_do_no_harm(void **state)
{
    static const char *const table[] = {"{\"a",  "{\"a\\",          "\"\\u\":", "{\"\\ud83c\\u\":1,\"\\ud83c\\u12\":2}",
                                        "}}}]]", "{\"\\uzzzz\":1}", "[1,,2:3",  "{\"a\":tru",
                                        "-",     "[-e.]",           ":::",      "{a:1,\"b\"}"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const size_t n = strlen(table[i]);
        for (size_t cut = 0; cut <= n; cut++) {
            struct tg_json_reader reader = {0};
            struct tg_slice found;
            char *exact = malloc(cut + 1);
            assert_non_null(exact);
            memcpy(exact, table[i], cut);
            (void)!tg_json_find(tg_slice_of(exact, cut), "a", 1, &found);
            tg_json_reader_init(&reader, tg_slice_of(exact, cut));
            for (size_t k = 0; k <= cut && tg_json_read(&reader) == TG_OK; k++) {
                assert_true(reader.p <= reader.end);
            }
            tg_json_reader_fini(&reader);
            free(exact);
        }
    }
}

static void
short_memory_is_said(void **state)
{
    struct tg_json_reader reader = {0};
    (void)state;
    tg_json_reader_init(&reader, text_of("\"\\n\""));
    tg_mem_fail_at(1);
    assert_int_equal(tg_json_read(&reader), TG_ENOMEM);
    tg_mem_fail_at(0);
    tg_json_reader_fini(&reader);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_and_items_are_found),
        cmocka_unit_test(tokens_come_in_order_with_what_they_mean),
        cmocka_unit_test(broken_texts_do_no_harm),
        cmocka_unit_test(short_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
