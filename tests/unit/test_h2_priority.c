#include "unit.h"

#include "http/h2_priority.h"

static const struct {
    const char *value;
    int urgency; /* -1: it is no dictionary */
    bool incremental;
} cases[] = {
    {"", 5, false},
    {"u=0", 0, false},
    {"i", 5, true},
    {"i=?1", 5, true},
    {"i=?0", 5, false},
    {" u=7 ,\ti;a=1 ", 7, true},
    {"u=1, u=2", 2, false},
    {"u=8", 5, false},
    {"u=-1", 5, false},
    {"u=1.0", 5, false},
    {"u", 5, false},
    {"u=?1", 5, false},
    {"i=1", 5, false},
    {"x=1, u=2", 2, false},
    {"x=\"a\\\"b\\\\,u=0\", u=2", 2, false},
    {"x=(1 \"a)\" t:/;p=2);q, u=2", 2, false},
    {"x=(), u=2", 2, false},
    {"x=:YWJj:, u=2", 2, false},
    {"*a.b-c_d=*t, u=2", 2, false},
    {"u=000000000000002", 2, false},
    {"u=0000000000000002", -1, false},
    {"u=2.", -1, false},
    {"u=2.0001", -1, false},
    {"u=", -1, false},
    {"u=2,", -1, false},
    {",u=2", -1, false},
    {"u=2;", -1, false},
    {"u=2 i", -1, false},
    {"U=2", -1, false},
    {"u =2", -1, false},
    {"u= 2", -1, false},
    {"i=?", -1, false},
    {"i=?2", -1, false},
    {"x=\"a", -1, false},
    {"x=\"\\a\"", -1, false},
    {"x=\"\x7f\"", -1, false},
    {"x=(1", -1, false},
    {"x=(1,2)", -1, false},
    {"x=(1;)", -1, false},
    {"x=(\"a\"2)", -1, false},
    {"x=:a", -1, false},
    {"x=:-:", -1, false},
    {"x=\xc3\xa4", -1, false},
    {"-", -1, false},
};

/* In memory of its own, so that a look behind its end is seen. */
static bool
merge(struct tg_h2_priority *priority, const char *value, size_t n)
{
    char *copy = malloc(n == 0 ? 1 : n);
    assert_non_null(copy);
    memcpy(copy, value, n);
    const bool is_merged = tg_h2_priority_merge(priority, tg_slice_of(copy, n));
    free(copy);
    return is_merged;
}

static void
values_are_read_as_rfc_9651_has_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tg_h2_priority priority = {.urgency = 5};
        const bool is_merged = merge(&priority, cases[i].value, strlen(cases[i].value));
        const int urgency = cases[i].urgency < 0 ? 5 : cases[i].urgency;
        if (is_merged != (cases[i].urgency >= 0) || priority.urgency != urgency ||
            priority.incremental != cases[i].incremental) {
            fail_msg("%s: %d, u=%u, i=%d", cases[i].value, is_merged, priority.urgency, priority.incremental);
        }
    }
}

static void
what_is_not_named_stays(void **state)
{
    struct tg_h2_priority priority = {.urgency = 1, .incremental = true};
    (void)state;
    assert_true(tg_h2_priority_merge(&priority, (struct tg_slice){0}));
    assert_true(merge(&priority, "u=2", 3));
    assert_int_equal(priority.urgency, 2);
    assert_true(priority.incremental);
    assert_true(merge(&priority, "i=?0", 4));
    assert_int_equal(priority.urgency, 2);
    assert_false(priority.incremental);
}

static void
a_nul_is_no_byte_of_it(void **state)
{
    struct tg_h2_priority priority = {.urgency = 1};
    (void)state;
    assert_false(merge(&priority, "u=2\0", 4));
    assert_false(merge(&priority, "\0", 1));
    assert_false(merge(&priority, "x=a\0", 4));
    assert_int_equal(priority.urgency, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read_as_rfc_9651_has_them),
        cmocka_unit_test(what_is_not_named_stays),
        cmocka_unit_test(a_nul_is_no_byte_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
