/* Identifiers: their form, that none comes twice, and the order of those that begin with the time. */
#include "unit.h"

#include "vm/ids.h"

static void
each_version_has_its_form(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) { /* more than are fetched from the kernel at once */
        char id[TG_ID_MAX];
        const int version = i % 2 == 0 ? 4 : 7;
        assert_int_equal(tg_ids_write(id, version, 0), 36);
        for (unsigned k = 0; k < 36; k++) {
            const bool dash = k == 8 || k == 13 || k == 18 || k == 23;
            assert_true(dash ? id[k] == '-' : strchr("0123456789abcdef", id[k]) != NULL);
        }
        assert_int_equal(id[14], '0' + version);
        assert_non_null(strchr("89ab", id[19]));
        assert_int_equal(tg_ids_write(id, 0, 0), 32);
        assert_null(memchr(id, '-', 32));
    }
}

static void
those_of_a_time_begin_with_it_and_grow_also_when_it_goes_back(void **state)
{
    char last[TG_ID_MAX] = "00000000-0000-0000-0000-00000000000";
    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        char id[TG_ID_MAX];
        const uint64_t time = 0x123456789abc + (i % 100 == 99 ? i / 100 - 50 : i / 100);
        assert_int_equal(tg_ids_write(id, 7, time), 36);
        assert_true(memcmp(last, id, sizeof id) < 0);
        assert_true(i > 0 || memcmp(id, "12345678-9abc-7", 15) == 0);
        memcpy(last, id, sizeof id);
    }
}

static void
a_traceparent_is_one_and_no_two_are_the_same(void **state)
{
    char last[TG_TRACEPARENT_LEN] = {0};
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        char text[TG_TRACEPARENT_LEN];
        uint8_t flags = 1;
        const double share = tg_ids_traceparent(text);
        assert_int_equal(tg_traceparent_parse(text, sizeof text, &flags), TG_OK);
        assert_true(flags == 0 && share == tg_traceparent_share(text));
        assert_true(memcmp(last, text, sizeof text) != 0);
        memcpy(last, text, sizeof text);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_version_has_its_form),
        cmocka_unit_test(those_of_a_time_begin_with_it_and_grow_also_when_it_goes_back),
        cmocka_unit_test(a_traceparent_is_one_and_no_two_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
