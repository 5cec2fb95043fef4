#include "unit.h"

#include "base/mem.h"
#include "base/regex.h"

static struct tg_slice
text_of(const char *text)
{
    return tg_slice_of(text, strlen(text));
}

static struct tg_regex *
compiled(const char *pattern, const char *flags)
{
    struct tg_regex *regex = NULL;
    struct tg_err err;
    assert_int_equal(tg_regex_new(text_of(pattern), text_of(flags), &regex, &err), TG_OK);
    return regex;
}

static void
a_match_has_offsets_and_names(void **state)
{
    struct tg_regex *regex = compiled("(?<a>x)(y)?(z)?", "");
    (void)state;
    assert_int_equal(tg_regex_groups(regex), 3);
    assert_true(tg_slice_is(tg_regex_name(regex, 1), "a", 1));
    assert_int_equal(tg_regex_name(regex, 2).n, 0);
    assert_int_equal(tg_regex_match(regex, text_of("..xz"), 0, 0), TG_OK);
    const size_t *at = tg_regex_offsets();
    assert_int_equal(at[0], 2);
    assert_int_equal(at[1], 4);
    assert_true(at[4] == SIZE_MAX && at[5] == SIZE_MAX);
    assert_int_equal(at[6], 3);
    assert_int_equal(tg_regex_match(regex, text_of("..x"), 0, 0), TG_OK);
    assert_true(tg_regex_offsets()[6] == SIZE_MAX); /* of the match before: not left over */
    assert_int_equal(tg_regex_match(regex, text_of("..x"), 3, 0), TG_ENONE);
    assert_int_equal(tg_regex_match(regex, text_of("..x"), 4, 0), TG_EINVAL);
    assert_int_equal(tg_regex_match(regex, tg_slice_of(NULL, 0), 0, 0), TG_ENONE);
    tg_regex_free(regex);
    tg_regex_free(NULL);
}

static void
a_subject_that_goes_on_may_match_later(void **state)
{
    struct tg_regex *regex = compiled("(?<=a)bc+d", "");
    (void)state;
    assert_int_equal(tg_regex_lookbehind(regex), 1);
    assert_int_equal(tg_regex_match(regex, text_of("xabcc"), 0, TG_REGEX_PARTIAL), TG_AGAIN);
    assert_int_equal(tg_regex_offsets()[0], 2);
    assert_int_equal(tg_regex_match(regex, text_of("xabcc"), 0, 0), TG_ENONE);
    assert_int_equal(tg_regex_match(regex, text_of("xabx"), 0, TG_REGEX_PARTIAL), TG_ENONE);
    tg_regex_free(regex);
}

static void
limits_hold(void **state)
{
    static char text[60000];
    struct tg_regex *regex = compiled("^(a+)+$", "");
    (void)state;
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '!';
    assert_int_equal(tg_regex_match(regex, tg_slice_of(text, sizeof text), 0, 0), TG_ELIMIT);
    tg_regex_free(regex);
    regex = compiled("(?:(?=a)a)*b", "");
    assert_int_not_equal(tg_regex_match(regex, tg_slice_of(text, sizeof text), 0, 0), TG_OK);
    tg_regex_free(regex);
}

static void
bytes_that_are_no_utf8_match_nothing(void **state)
{
    struct tg_regex *regex = compiled("a.c", "u");
    (void)state;
    assert_int_equal(tg_regex_match(regex,
                                    text_of("a\xff"
                                            "c"),
                                    0, 0),
                     TG_ENONE);
    assert_int_equal(tg_regex_match(regex,
                                    text_of("\xc3"
                                            "a\xc3\xa4"
                                            "c"),
                                    0, 0),
                     TG_OK);
    assert_int_equal(tg_regex_match(regex,
                                    text_of("a\xc3\xa4"
                                            "c"),
                                    2, 0),
                     TG_ENONE);
    tg_regex_free(regex);
}

static void
what_is_wrong_with_a_pattern_is_said(void **state)
{
    static const struct {
        const char *pattern;
        const char *flags;
        const char *message;
    } table[] = {
        {"a(", "", "at byte 3: missing closing parenthesis"},
        {"[z-a]", "", "at byte 4: range out of order in character class"},
        {"a", "q", "unknown flag; known are i, m, s, x, u and a"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_regex *regex = NULL;
        struct tg_err err;
        assert_int_equal(tg_regex_new(text_of(table[i].pattern), text_of(table[i].flags), &regex, &err), TG_EINVAL);
        assert_string_equal(err.text, table[i].message);
        assert_null(regex);
    }
    struct tg_regex *regex = NULL;
    struct tg_err err;
    tg_mem_fail_at(1);
    assert_int_equal(tg_regex_new(text_of("a"), text_of(""), &regex, &err), TG_ENOMEM);
    tg_mem_fail_at(0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_match_has_offsets_and_names),
        cmocka_unit_test(a_subject_that_goes_on_may_match_later),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(bytes_that_are_no_utf8_match_nothing),
        cmocka_unit_test(what_is_wrong_with_a_pattern_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
