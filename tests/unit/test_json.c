#include "unit.h"

#include "base/json.h"
#include "base/mem.h"

static enum tg_rc
check(const char *text)
{
    struct tg_json_report report;
    return tg_json_check(text, strlen(text), &report);
}

static void
two_members_of_one_name_are_found(void **state)
{
    static const struct {
        const char *text;
        const char *name; /* NULL: it is fine */
    } table[] = {
        {"{}", NULL},
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
        {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":1,\"l\":1,\"m\":1,"
         "\"n\":1,\"o\":1,"
         "\"p\":1,\"q\":1,\"r\":1,\"c\":1}",
         "c"},
        {"{\"\\ud83c\\udf19\":1,\"\xf0\x9f\x8c\x99\":2}", "\xf0\x9f\x8c\x99"},
        {"{\"\xc3\xa4\":1,\"\\u00e4\":2}", "\\u00e4"},
        {"{\"a,\\\"b\\\":1\":1,\"b\":2}", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_json_report report;
        const enum tg_rc rc = tg_json_check(table[i].text, strlen(table[i].text), &report);
        const struct tg_slice name = report.name;
        assert_int_equal(rc, table[i].name == NULL ? TG_OK : TG_EBUSY);
        if (table[i].name != NULL) {
            assert_int_equal(name.n, strlen(table[i].name));
            assert_memory_equal(name.p, table[i].name, name.n);
        }
    }
}

/* What is well-formed by RFC 8259, and what is wrong where with what is not. */
static void
a_text_is_well_formed_or_its_fault_has_a_place(void **state)
{
    static const struct {
        const char *text;
        int at; /* -1: it is well-formed */
        enum tg_rc rc;
    } table[] = {
        {"null", -1, TG_OK},
        {" [ ] ", -1, TG_OK},
        {"{ \"a\" : [ 1 , -0.5e+3 , true , false , null , \"\" ] }", -1, TG_OK},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\ud83c\\udf19\"", -1, TG_OK},
        {"\"\xf0\x9f\x8c\x99\"", -1, TG_OK},
        {"1E400", 0, TG_ELIMIT},
        {"0", -1, TG_OK},
        {"-0", -1, TG_OK},
        {"123456789012345678901234567890", -1, TG_OK},
        {"", 0, TG_EPROTOCOL},
        {" ", 1, TG_EPROTOCOL},
        {"nul", 0, TG_EPROTOCOL},
        {"nulL", 0, TG_EPROTOCOL},
        {"[", 1, TG_EPROTOCOL},
        {"]", 0, TG_EPROTOCOL},
        {"[1 2]", 3, TG_EPROTOCOL},
        {"[1,]", 3, TG_EPROTOCOL},
        {"[,1]", 1, TG_EPROTOCOL},
        {"[1}", 2, TG_EPROTOCOL},
        {"{\"a\":1]", 6, TG_EPROTOCOL},
        {"{\"a\":1,}", 7, TG_EPROTOCOL},
        {"{\"a\"}", 4, TG_EPROTOCOL},
        {"{\"a\":}", 5, TG_EPROTOCOL},
        {"{a:1}", 1, TG_EPROTOCOL},
        {"{1:1}", 1, TG_EPROTOCOL},
        {"1 1", 2, TG_EPROTOCOL},
        {"{} {}", 3, TG_EPROTOCOL},
        {"01", 0, TG_EPROTOCOL},
        {"-", 0, TG_EPROTOCOL},
        {"+1", 0, TG_EPROTOCOL},
        {"1.", 0, TG_EPROTOCOL},
        {".1", 0, TG_EPROTOCOL},
        {"1e", 0, TG_EPROTOCOL},
        {"0x10", 1, TG_EPROTOCOL},
        {"NaN", 0, TG_EPROTOCOL},
        {"'a'", 0, TG_EPROTOCOL},
        {"\"a", 2, TG_EPROTOCOL},
        {"\"\t\"", 1, TG_EPROTOCOL},
        {"\"\\x\"", 1, TG_EPROTOCOL},
        {"\"\\u12g4\"", 1, TG_EPROTOCOL},
        {"\"\\ud800\"", 1, TG_EPROTOCOL},
        {"\"\\udc00\\ud800\"", 1, TG_EPROTOCOL},
        {"\"\xc0\x80\"", 1, TG_EPROTOCOL},
        {"\"\xed\xa0\x80\"", 1, TG_EPROTOCOL},
        {"\"\xe4\"", 1, TG_EPROTOCOL},
        {"// no\n1", 0, TG_EPROTOCOL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_json_report report;
        const enum tg_rc rc = tg_json_check(table[i].text, strlen(table[i].text), &report);
        if (rc != table[i].rc || (rc != TG_OK && report.at - table[i].text != table[i].at)) {
            fail_msg("%s: %d at %ld", table[i].text, rc, rc == TG_OK ? -1 : (long)(report.at - table[i].text));
        }
        assert_true((rc == TG_OK) == (report.what == NULL));
    }
}

static void
a_text_that_is_cut_anywhere_is_none(void **state)
{
    static const char text[] = "{\"a\\u00e4\":[1,{\"\\ud83c\\udf19\":-1.5e3},\"\xc3\xa4\",true,null]}";
    (void)state;
    for (size_t cut = 0; cut < sizeof text - 1; cut++) {
        struct tg_json_report report;
        char *exact = malloc(cut + 1);
        assert_non_null(exact);
        memcpy(exact, text, cut);
        assert_int_equal(tg_json_check(exact, cut, &report), TG_EPROTOCOL);
        assert_true(report.at >= exact && report.at <= exact + cut);
        free(exact);
    }
    assert_int_equal(check(text), TG_OK);
}

static void
depth_is_bounded(void **state)
{
    char deep[2 * TG_JSON_DEPTH_MAX + 3] = {0};
    (void)state;
    for (int depth = TG_JSON_DEPTH_MAX; depth <= TG_JSON_DEPTH_MAX + 1; depth++) {
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        assert_int_equal(check(deep), depth > TG_JSON_DEPTH_MAX ? TG_ELIMIT : TG_OK);
    }
}

static void
an_object_has_so_many_members_at_most(void **state)
{
    enum { ROOM = 20 };
    char *text = malloc((TG_JSON_KEYS_MAX + 1) * (size_t)ROOM);
    struct tg_json_report report;
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
        text[n - 1] = '}';
        assert_int_equal(tg_json_check(text, n, &report), count > TG_JSON_KEYS_MAX ? TG_ELIMIT : TG_OK);
    }
    free(text);
}

static void
short_memory_is_said(void **state)
{
    char text[1000] = "{";
    size_t n = 1;
    (void)state;
    for (char c = 'a'; c <= 'z'; c++) {
        const char member[] = {'"', c, '"', ':', '0', c == 'z' ? '}' : ','};
        memcpy(text + n, member, sizeof member);
        n += sizeof member;
    }
    assert_int_equal(check(text), TG_OK);
    tg_mem_fail_at(1);
    assert_int_equal(check(text), TG_ENOMEM);
    tg_mem_fail_at(0);
}

/* Strings are read eight bytes at a time: each byte, at each place of them, before and behind each other one. */
static void
each_byte_is_found_at_each_place(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 20; n++) {
        for (size_t at = 0; at < n; at++) {
            for (unsigned c = 0; c < 256; c++) {
                char text[32];
                struct tg_json_report report;
                memset(text, '\x7f', sizeof text);
                text[0] = text[n + 1] = '"';
                text[at + 1] = (char)c;
                const bool good = (c >= 0x20 && c < 0x80 && c != '"' && c != '\\');
                assert_int_equal(tg_json_check(text, n + 2, &report) == TG_OK, good);
                if (!good && c != '"' && (c != '\\' || at + 1 < n)) { /* that one hides the end */
                    assert_ptr_equal(report.at, text + at + 1);
                }
            }
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_members_of_one_name_are_found),
        cmocka_unit_test(a_text_is_well_formed_or_its_fault_has_a_place),
        cmocka_unit_test(a_text_that_is_cut_anywhere_is_none),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(an_object_has_so_many_members_at_most),
        cmocka_unit_test(each_byte_is_found_at_each_place),
        cmocka_unit_test(short_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
