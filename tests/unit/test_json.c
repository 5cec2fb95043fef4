#include "unit.h"

#include "base/json.h"
#include "base/mem.h"

static enum tg_rc
check(const char *text)
{
    struct tg_slice name;
    return tg_json_check(text, strlen(text), &name);
}

static void
two_members_of_one_name_are_found(void **state)
{
    static const struct {
        const char *text;
        const char *name; /* NULL: it is fine */
    } table[] = {
        {"{}", NULL},
        {"", NULL},
        {"{\"a\":1,\"b\":2}", NULL},
        {"{\"a\":1,\"a\":2}", "a"},
        {"{\"a\" \n:1 , \"a\"\t:2}", "a"},
        {"{\"a\":{\"a\":{\"a\":1}}}", NULL},
        {"[{\"a\":1},{\"a\":1}]", NULL},
        {"{\"b\":[{\"a\":1},{\"a\":1,\"c\":2,\"a\":3}]}", "a"},
        {"{\"a\":{\"x\":1},\"c\":[],\"a\":0}", "a"},
        {"{\"a\":\"a\",\"b\":\"a\"}", NULL},
        {"{\"\":1,\"\":2}", ""},
        {"{\"a\":1,\"\\u0061\":2}", "\\u0061"},
        {"{\"\\u0041\":1,\"a\":2}", NULL},
        {"{\"\\n\":1,\"\\u000a\":2}", "\\u000a"},
        {"{\"\\/\":1,\"/\":2}", "/"},
        {"{\"\\\"\":1,\"\\u0022\":2}", "\\u0022"},
        {"{\"\\\\\":1,\"\\\"\":2}", NULL},
        {"{\"\\ud83c\\udf19\":1,\"\xf0\x9f\x8c\x99\":2}", "\xf0\x9f\x8c\x99"},
        {"{\"\xc3\xa4\":1,\"\\u00e4\":2}", "\\u00e4"},
        {"{\"a,\\\"b\\\":1\":1,\"b\":2}", NULL},
        {"\"a\":1,\"b\":2", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_slice name = {NULL, 0};
        const enum tg_rc rc = tg_json_check(table[i].text, strlen(table[i].text), &name);
        assert_int_equal(rc, table[i].name == NULL ? TG_OK : TG_EBUSY);
        if (table[i].name != NULL) {
            assert_int_equal(name.n, strlen(table[i].name));
            assert_memory_equal(name.p, table[i].name, name.n);
        }
    }
}

/* It is asked about well-formed texts only, and must survive all others. */
static void
broken_texts_do_no_harm(void **state)
{
    static const char *const table[] = {"{\"a",  "{\"a\\",         "\"\\u\":", "{\"\\ud83c\\u\":1,\"\\ud83c\\u12\":2}",
                                        "}}}]]", "{\"\\uzzzz\":1}"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const size_t n = strlen(table[i]);
        for (size_t cut = 0; cut <= n; cut++) {
            struct tg_slice name;
            char *exact = malloc(cut + 1);
            assert_non_null(exact);
            memcpy(exact, table[i], cut);
            (void)!tg_json_check(exact, cut, &name);
            free(exact);
        }
    }
    char deep[1000];
    memset(deep, '[', sizeof deep);
    struct tg_slice name;
    assert_int_equal(tg_json_check(deep, sizeof deep, &name), TG_OK);
}

static void
an_object_has_so_many_members_at_most(void **state)
{
    enum { ROOM = 20 };
    char *text = malloc((TG_JSON_KEYS_MAX + 1) * (size_t)ROOM);
    struct tg_slice name;
    (void)state;
    assert_non_null(text);
    for (int count = TG_JSON_KEYS_MAX; count <= TG_JSON_KEYS_MAX + 1; count++) {
        size_t n = 0;
        text[n++] = '{';
        for (int i = 0; i < count; i++) {
            char digits[ROOM] = "\"000000\":0,";
            for (int k = 6, left = i; k > 0; k--, left /= 10) {
                digits[k] = (char)('0' + left % 10);
            }
            memcpy(text + n, digits, 11);
            n += 11;
        }
        assert_int_equal(tg_json_check(text, n, &name), count > TG_JSON_KEYS_MAX ? TG_ELIMIT : TG_OK);
    }
    free(text);
}

static void
short_memory_is_said(void **state)
{
    (void)state;
    for (unsigned long i = 1; i < 3; i++) {
        tg_mem_fail_at(i);
        assert_int_equal(check("{\"a\":1,\"\\u0062\":2}"), TG_ENOMEM);
        tg_mem_fail_at(0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_members_of_one_name_are_found),
        cmocka_unit_test(broken_texts_do_no_harm),
        cmocka_unit_test(an_object_has_so_many_members_at_most),
        cmocka_unit_test(short_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
