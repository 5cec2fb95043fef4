#include "unit.h"

#include <sanitizer/asan_interface.h>

#include "base/mem.h"

enum { BLOCK = 16 * 1024 }; /* the least that an arena takes from the heap */

static void
what_is_not_handed_out_is_poisoned(void **state)
{
    _Alignas(8) char first[256];
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first, sizeof first, 64 * 1024);
    assert_true(__asan_address_is_poisoned(first));
    char *p = tg_arena_alloc(&arena, 16);
    assert_ptr_equal(p, first);
    assert_false(__asan_address_is_poisoned(p));
    assert_false(__asan_address_is_poisoned(p + 15));
    assert_true(__asan_address_is_poisoned(p + 16));
    char *heap = tg_arena_alloc(&arena, 1000);
    assert_false(__asan_address_is_poisoned(heap + 999));
    assert_true(__asan_address_is_poisoned(heap + 1000));
    tg_arena_reset(&arena);
    assert_true(__asan_address_is_poisoned(first));
    tg_arena_fini(&arena);
    assert_false(__asan_address_is_poisoned(first));
    assert_false(__asan_address_is_poisoned(first + 255));
}

static void
pieces_do_not_overlap(void **state)
{
    enum { PIECES = 300 };
    _Alignas(8) char first[512];
    unsigned char *pieces[PIECES];
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first, sizeof first, 8 * 1024 * 1024);
    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = tg_arena_alloc(&arena, 1 + i * 131 % 20000);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 8, 0);
        memset(pieces[i], (int)i, 1 + i * 131 % 20000);
    }
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t k = 0; k < 1 + i * 131 % 20000; k++) {
            assert_int_equal(pieces[i][k], i & 255);
        }
    }
    tg_arena_fini(&arena);
}

static void
a_large_piece_leaves_the_room_to_the_small(void **state)
{
    _Alignas(8) char first[256];
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first, sizeof first, 1024 * 1024);
    char *one = tg_arena_alloc(&arena, 64);
    assert_non_null(tg_arena_alloc(&arena, 100 * 1024));
    assert_true(arena.total > 100 * 1024);
    assert_ptr_equal(tg_arena_alloc(&arena, 64), one + 64);
    tg_arena_fini(&arena);
}

static void
the_caller_s_memory_is_used_again_after_a_reset(void **state)
{
    _Alignas(8) char first[64];
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first, sizeof first, 0);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(tg_arena_alloc(&arena, 40), first);
        assert_ptr_equal(tg_arena_alloc(&arena, 24), first + 40);
        assert_null(tg_arena_alloc(&arena, 1));
        tg_arena_reset(&arena);
    }
    tg_arena_fini(&arena);
}

static void
the_maximum_is_of_all_blocks_together(void **state)
{
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, NULL, 0, 3 * BLOCK);
    for (int i = 0; i < 3; i++) {
        assert_non_null(tg_arena_alloc(&arena, BLOCK / 2 + 1));
    }
    assert_int_equal(arena.total, 3 * BLOCK);
    assert_null(tg_arena_alloc(&arena, BLOCK / 2 + 1));
    assert_non_null(tg_arena_alloc(&arena, BLOCK / 4)); /* what is left of the last block */
    tg_arena_reset(&arena);
    assert_int_equal(arena.total, 0);
    assert_null(tg_arena_alloc(&arena, 3 * BLOCK));
    assert_non_null(tg_arena_alloc(&arena, 2 * BLOCK));
    tg_arena_fini(&arena);
}

static void
a_copy_is_a_copy_even_of_nothing(void **state)
{
    _Alignas(8) char first[64];
    char text[] = "text";
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first, sizeof first, 0);
    char *copy = tg_arena_copy(&arena, text, 4);
    assert_non_null(copy);
    memset(text, 'x', 4);
    assert_memory_equal(copy, "text", 4);
    char *empty = tg_arena_copy(&arena, NULL, 0);
    assert_non_null(empty);
    assert_ptr_not_equal(empty, copy);
    assert_null(tg_arena_copy(&arena, first, 4096));
    tg_arena_fini(&arena);
}

static void
an_arena_survives_that_memory_is_short(void **state)
{
    _Alignas(8) char first[64];
    struct tg_arena arena;
    (void)state;
    tg_arena_init(&arena, first, sizeof first, 64 * 1024);
    char *p = tg_arena_alloc(&arena, 32);
    tg_mem_fail_at(1);
    assert_null(tg_arena_alloc(&arena, 100));
    assert_int_equal(arena.total, 0);
    assert_ptr_equal(tg_arena_alloc(&arena, 32), p + 32); /* needs nothing of the heap */
    assert_non_null(tg_arena_alloc(&arena, 100));
    tg_arena_fini(&arena);
}

static void
every_way_to_ask_for_memory_can_fail(void **state)
{
    (void)state;
    char *kept = tg_mem_alloc(8);
    assert_non_null(kept);
    memcpy(kept, "kept", 5);
    tg_mem_fail_at(1);
    assert_null(tg_mem_alloc(8));
    tg_mem_fail_at(1);
    assert_null(tg_mem_zero(8));
    tg_mem_fail_at(1);
    assert_null(tg_mem_text("a", 1));
    tg_mem_fail_at(1);
    assert_null(tg_mem_resize(kept, 1000));
    assert_string_equal(kept, "kept");
    tg_mem_fail_at(3);
    tg_mem_fail_at(0);
    for (int i = 0; i < 5; i++) {
        kept = tg_mem_resize(kept, 1000U << i);
        assert_non_null(kept);
    }
    assert_string_equal(kept, "kept");
    tg_mem_free(kept);
    tg_mem_free(NULL);
}

static void
zeroed_memory_and_texts_are_what_they_say(void **state)
{
    (void)state;
    unsigned char *zero = tg_mem_zero(1000);
    assert_non_null(zero);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(zero[i], 0);
    }
    char *text = tg_mem_text("texts", 4);
    char *empty = tg_mem_text(NULL, 0);
    assert_string_equal(text, "text");
    assert_string_equal(empty, "");
    tg_mem_free(zero);
    tg_mem_free(text);
    tg_mem_free(empty);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_handed_out_is_poisoned),
        cmocka_unit_test(pieces_do_not_overlap),
        cmocka_unit_test(a_large_piece_leaves_the_room_to_the_small),
        cmocka_unit_test(the_caller_s_memory_is_used_again_after_a_reset),
        cmocka_unit_test(the_maximum_is_of_all_blocks_together),
        cmocka_unit_test(a_copy_is_a_copy_even_of_nothing),
        cmocka_unit_test(an_arena_survives_that_memory_is_short),
        cmocka_unit_test(every_way_to_ask_for_memory_can_fail),
        cmocka_unit_test(zeroed_memory_and_texts_are_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
