#include "unit.h"

#include <math.h>
#include <stdlib.h>

#include "base/json_text.h"
#include "base/mem.h"
#include "base/utf8.h"

static void
numbers_are_short_and_read_as_the_same(void **state)
{
    static const struct {
        double number;
        const char *text;
    } table[] = {
        {0, "0"},
        {-0.0, "0"},
        {1, "1"},
        {-17, "-17"},
        {1e15, "1000000000000000"},
        {0.1, "0.1"},
        {2.5, "2.5"},
        {1e21, "1e+21"},
        {1.0 / 3, "0.3333333333333333"},
        {9007199254740991.0, "9007199254740991"},
        {1e-7, "1e-07"},
        {5e-324, "4.94065645841247e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
    };
    struct tg_json_text text = {.max = 1000};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        tg_json_text_clear(&text, 1000000);
        assert_int_equal(tg_json_put_number(&text, table[i].number), TG_OK);
        assert_int_equal(tg_json_put(&text, "", 1), TG_OK);
        assert_string_equal(text.p, table[i].text);
        assert_true(strtod(text.p, NULL) == table[i].number);
    }
    assert_int_equal(tg_json_put_number(&text, NAN), TG_EINVAL);
    assert_int_equal(tg_json_put_number(&text, -INFINITY), TG_EINVAL);
    tg_json_text_clear(&text, 0);
    assert_null(text.p);
}

static void
strings_are_quoted_and_become_utf8(void **state)
{
    static const struct {
        const char *bytes;
        const char *text;
    } table[] = {
        {"", "\"\""},
        {"a\"b\\c/d", "\"a\\\"b\\\\c/d\""},
        {"\n\r\t\x01\x7f", "\"\\n\\u000d\\u0009\\u0001\\u007f\""},
        {"\xc3\xa4\xf0\x9f\x8c\x99", "\"\xc3\xa4\xf0\x9f\x8c\x99\""},
        {"a\xff"
         "b\xc3",
         "\"a\\ufffdb\\ufffd\""},
        {"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\""},
    };
    struct tg_json_text text = {.max = 1000};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        tg_json_text_clear(&text, 1000000);
        assert_int_equal(tg_json_put_string(&text, table[i].bytes, strlen(table[i].bytes)), TG_OK);
        assert_int_equal(tg_json_put(&text, "", 1), TG_OK);
        assert_string_equal(text.p, table[i].text);
    }
    tg_json_text_clear(&text, 0);
}

static void
it_grows_to_its_maximum(void **state)
{
    struct tg_json_text text = {.max = 3000};
    (void)state;
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(tg_json_put(&text, "x", 1), TG_OK);
    }
    assert_int_equal(tg_json_put(&text, "x", 1), TG_ELIMIT);
    assert_int_equal(tg_json_put(&text, "x", (size_t)-1), TG_ELIMIT);
    assert_int_equal(text.n, 3000);
    tg_json_text_clear(&text, 0);
    tg_mem_fail_at(1);
    assert_int_equal(tg_json_put(&text, "x", 1), TG_ENOMEM);
    tg_mem_fail_at(0);
    assert_int_equal(tg_json_put(&text, "x", 1), TG_OK);
    tg_json_text_clear(&text, 0);
}

static void
code_points_are_written_and_measured(void **state)
{
    static const unsigned table[] = {0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char bytes[4];
        const size_t n = (size_t)(tg_utf8_put(bytes, table[i]) - bytes);
        assert_int_equal(tg_utf8_length((const unsigned char *)bytes, n), n);
        assert_int_equal(n > 1 ? tg_utf8_length((const unsigned char *)bytes, n - 1) : 0, 0);
    }
}

/* Short ones are looked at in words, some of their bytes twice. */
static void
each_byte_that_needs_an_escape_is_found_wherever_it_stands(void **state)
{
    (void)state;
    for (size_t n = 1; n < 40; n++) {
        for (size_t at = 0; at < n; at++) {
            for (int c = 0; c < 256; c++) {
                char exact[40];
                char *p = exact + sizeof exact - n; /* what is read behind it is seen */
                memset(p, 'a', n);
                p[at] = (char)c;
                const bool plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
                assert_int_equal(tg_json_plain_length(p, n), plain ? n : at);
            }
        }
    }
    assert_int_equal(tg_json_plain_length("", 0), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_short_and_read_as_the_same),
        cmocka_unit_test(strings_are_quoted_and_become_utf8),
        cmocka_unit_test(it_grows_to_its_maximum),
        cmocka_unit_test(code_points_are_written_and_measured),
        cmocka_unit_test(each_byte_that_needs_an_escape_is_found_wherever_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
