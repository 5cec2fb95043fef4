#include "unit.h"

#include "base/mem.h"

static void
an_arena_gives_aligned_memory_and_takes_all_back(void **state)
{
    char first[256];
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first + 1, sizeof first - 1, 64 * 1024);
    for (size_t n = 1; n < 2000; n += 37) {
        char *p = tg_arena_alloc(&arena, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 8, 0);
        memset(p, 0xee, n);
    }
    tg_arena_fini(&arena);
    assert_int_equal(arena.total, 0);
}

static void
an_arena_stops_at_its_maximum(void **state)
{
    char first[64];
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first, sizeof first, 32 * 1024);
    assert_null(tg_arena_alloc(&arena, 40 * 1024));
    assert_null(tg_arena_alloc(&arena, SIZE_MAX - 3));
    unsigned given = 0;
    while (tg_arena_alloc(&arena, 1000) != NULL) {
        given++;
        assert_true(given < 100);
    }
    assert_true(given >= 30);
    tg_arena_reset(&arena);
    assert_non_null(tg_arena_alloc(&arena, 1000));
    tg_arena_fini(&arena);
}

static void
the_nth_allocation_fails_when_asked_to(void **state)
{
    (void)state;
    tg_mem_fail_at(2);
    void *one = tg_mem_alloc(10);
    void *two = tg_mem_zero(10);
    void *three = tg_mem_alloc(10);
    assert_non_null(one);
    assert_null(two);
    assert_non_null(three);
    tg_mem_free(one);
    tg_mem_free(three);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_arena_gives_aligned_memory_and_takes_all_back),
        cmocka_unit_test(an_arena_stops_at_its_maximum),
        cmocka_unit_test(the_nth_allocation_fails_when_asked_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
