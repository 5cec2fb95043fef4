#include "unit.h"

#include "base/json_items.h"

static enum tg_rc
take(struct tg_json_items *items, const char *piece, size_t *used, struct tg_slice *item)
{
    return tg_json_items_take(items, tg_slice_of(piece, strlen(piece)), used, item);
}

static void
an_item_ends_where_its_comma_is(void **state)
{
    struct tg_json_items items;
    struct tg_slice item;
    size_t used = 0;
    (void)state;
    assert_int_equal(tg_json_items_init(&items, TG_SLICE("a.b")), TG_OK);
    assert_int_equal(take(&items, "{\"a\":{\"x\":[1],\"b\":[\"y,", &used, &item), TG_AGAIN);
    assert_true(tg_slice_is(item, "\"y,", 3));
    assert_int_equal(take(&items, "\", 2]}}", &used, &item), TG_OK);
    assert_true(tg_slice_is(item, "\"", 1));
    assert_int_equal(used, 2);
    assert_int_equal(take(&items, " 2]}}", &used, &item), TG_ENONE);
    assert_true(tg_slice_is(item, "2", 1) && items.in_item);
    assert_int_equal(take(&items, "}}", &used, &item), TG_ENONE);
}

static void
what_does_not_fit_is_refused(void **state)
{
    static const char *const table[] = {"]", "}", "[1}", "{\"a\":[}", "[,1]", "[1,,2]"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_json_items items;
        struct tg_slice item;
        size_t used = 0;
        assert_int_equal(tg_json_items_init(&items, TG_SLICE("")), TG_OK);
        enum tg_rc rc = TG_OK;
        const char *p = table[i];
        while (rc == TG_OK) {
            rc = take(&items, p, &used, &item);
            p += used;
        }
        assert_int_equal(rc, TG_EPROTOCOL);
    }
    char path[TG_JSON_ITEMS_PATH];
    struct tg_json_items items;
    memset(path, 'x', sizeof path);
    assert_int_equal(tg_json_items_init(&items, tg_slice_of(path, sizeof path)), TG_EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_ends_where_its_comma_is),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
