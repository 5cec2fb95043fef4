/* The names of a generation: numbers in any order, set anew, and what needs an escape. */
#include "unit.h"

#include "vm/names.h"

static void
what_was_set_is_found(void **state)
{
    (void)state;
    struct tg_names *names = tg_names_new();
    assert_non_null(names);
    assert_null(tg_names_get(names, TG_NAME_ROUTE, 0));
    assert_int_equal(tg_names_set(names, TG_NAME_ROUTE, 3000, TG_SLICE("late")), TG_OK);
    assert_int_equal(tg_names_set(names, TG_NAME_ROUTE, 1, TG_SLICE("early")), TG_OK);
    assert_int_equal(tg_names_set(names, TG_NAME_ROUTE, 1, TG_SLICE("a \"name\"")), TG_OK);
    assert_null(tg_names_get(names, TG_NAME_ROUTE, 2));
    assert_null(tg_names_get(names, TG_NAME_ROUTE, UINT32_MAX));
    assert_null(tg_names_get(names, TG_NAME_PEER, 1));
    const struct tg_name *late = tg_names_get(names, TG_NAME_ROUTE, 3000);
    const struct tg_name *early = tg_names_get(names, TG_NAME_ROUTE, 1);
    assert_true(tg_slice_is(late->text, "late", 4) && late->plain);
    assert_true(tg_slice_is(early->text, "a \"name\"", 8) && !early->plain);
    assert_int_equal(tg_names_set(names, TG_NAME_PEER, 0, TG_SLICE("")), TG_OK);
    assert_int_equal(tg_names_get(names, TG_NAME_PEER, 0)->text.n, 0);
    const uint32_t version = tg_names_version(names);
    assert_int_equal(tg_names_set(names, TG_NAME_PEER, 0, TG_SLICE("x")), TG_OK);
    assert_true(tg_names_version(names) != version && tg_names_version(NULL) == 0);
    tg_names_free(names);
}

static void
what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct tg_names *names = tg_names_new();
    assert_non_null(names);
    assert_int_equal(tg_names_set(names, TG_NAMES, 0, TG_SLICE("x")), TG_EINVAL);
    assert_int_equal(tg_names_set(names, -1, 0, TG_SLICE("x")), TG_EINVAL);
    assert_int_equal(tg_names_set(names, TG_NAME_PEER, TG_NAMES_MAX, TG_SLICE("x")), TG_EINVAL);
    tg_names_free(names);
    tg_names_free(NULL);
    assert_null(tg_names_get(NULL, TG_NAME_PEER, 0));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_set_is_found),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
