#include "unit.h"

#include "http/authorization.h"

static const struct tg_slice bearer = {"bearer", 6};

static bool
reads(const char *value, const char *expected)
{
    struct tg_slice found = {"untouched", 9};
    const bool is = tg_authorization_is(tg_slice_of(value, strlen(value)), bearer, &found);
    if (expected == NULL) {
        return !is && tg_slice_is(found, "untouched", 9);
    }
    return is && tg_slice_is(found, expected, strlen(expected));
}

static void
what_stands_behind_the_scheme_is_read(void **state)
{
    (void)state;
    assert_true(reads("Bearer abc", "abc"));
    assert_true(reads("bEARER  \t abc \t", "abc"));
    assert_true(reads("Bearer a b", "a b"));
    assert_true(reads("Bearer a, Bearer b", "a, Bearer b"));
}

static void
one_without_credentials_is_of_the_scheme_all_the_same(void **state)
{
    (void)state;
    static const char *const table[] = {"Bearer",   "Bearer ",          "bearer\t", "Basic YQ==, Bearer abc",
                                        "x,bearer", "a, b ,\t BEARER x"};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_true(reads(table[i], ""));
    }
    assert_true(reads("Bearer,abc", ",abc"));
}

static void
another_scheme_is_none(void **state)
{
    (void)state;
    static const char *const table[] = {
        "", ",", "Basic abc", "Bearers abc", "xBearer abc", "Basic bearer", "Basic bearer x", "beare", "a,bearerx"};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_true(reads(table[i], NULL));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stands_behind_the_scheme_is_read),
        cmocka_unit_test(one_without_credentials_is_of_the_scheme_all_the_same),
        cmocka_unit_test(another_scheme_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
