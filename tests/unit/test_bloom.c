#include "unit.h"

#include <stdio.h>

#include "base/bloom.h"
#include "base/mem.h"

static const struct tg_slice token = {"token", 5};

static struct tg_slice
number(char *room, size_t size, const char *before, unsigned i)
{
    return tg_slice_of(room, (size_t)snprintf(room, size, "%s%u", before, i));
}

static void
knows_all_that_was_added(void **state)
{
    enum { COUNT = 50000 };
    char room[32];
    (void)state;
    struct tg_bloom *bloom = tg_bloom_new(COUNT);
    assert_non_null(bloom);
    for (unsigned i = 0; i < COUNT; i++) {
        tg_bloom_add(bloom, token, number(room, sizeof room, "t-", i));
    }
    for (unsigned i = 0; i < COUNT; i++) {
        assert_true(tg_bloom_has(bloom, token, number(room, sizeof room, "t-", i)));
    }
    tg_bloom_free(bloom);
}

static void
takes_few_strangers_for_its_own(void **state)
{
    enum { COUNT = 100000, ASKED = 1000000 };
    char room[32];
    unsigned wrong = 0;
    (void)state;
    struct tg_bloom *bloom = tg_bloom_new(COUNT);
    assert_non_null(bloom);
    assert_int_equal(tg_bloom_size(bloom), COUNT * 2);
    for (unsigned i = 0; i < COUNT; i++) {
        tg_bloom_add(bloom, token, number(room, sizeof room, "t-", i));
    }
    for (unsigned i = 0; i < ASKED; i++) {
        wrong += tg_bloom_has(bloom, token, number(room, sizeof room, "s-", i)) ? 1 : 0;
    }
    /* 574 of a million are expected; with a standard deviation of 24 these bounds are passed by a broken hash alone. */
    assert_in_range(wrong, 400, 760);
    tg_bloom_free(bloom);
}

static void
a_name_is_of_its_kind(void **state)
{
    (void)state;
    struct tg_bloom *bloom = tg_bloom_new(0);
    assert_non_null(bloom);
    assert_int_equal(tg_bloom_size(bloom), TG_BLOOM_MIN * 2);
    assert_false(tg_bloom_has(bloom, token, TG_SLICE("")));
    tg_bloom_add(bloom, token, TG_SLICE("7"));
    tg_bloom_add(bloom, token, TG_SLICE(""));
    assert_true(tg_bloom_has(bloom, token, TG_SLICE("7")));
    assert_true(tg_bloom_has(bloom, token, TG_SLICE("")));
    assert_false(tg_bloom_has(bloom, TG_SLICE("credential"), TG_SLICE("7")));
    assert_false(tg_bloom_has(bloom, TG_SLICE("token7"), TG_SLICE("")));
    tg_bloom_free(bloom);
}

static void
memory_may_be_short(void **state)
{
    (void)state;
    tg_mem_fail_at(1);
    assert_null(tg_bloom_new(1));
    tg_mem_fail_at(0);
    tg_bloom_free(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_all_that_was_added),
        cmocka_unit_test(takes_few_strangers_for_its_own),
        cmocka_unit_test(a_name_is_of_its_kind),
        cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
