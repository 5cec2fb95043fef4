#include "unit.h"

#include "http/h2_memory.h"

static struct tg_h2_memory memory;
static nghttp2_mem mem;

static int
begin(void **state)
{
    (void)state;
    memory = (struct tg_h2_memory){0};
    mem = tg_h2_memory_of(&memory);
    return 0;
}

static int
end(void **state)
{
    (void)state;
    tg_mem_fail_at(0);
    tg_h2_memory_fini(&memory);
    return 0;
}

static void *
filled(size_t n)
{
    char *p = mem.malloc(n, mem.mem_user_data);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
    memset(p, 'x', n);
    return p;
}

static void
give(void *p)
{
    mem.free(p, mem.mem_user_data);
}

static void
what_was_given_back_is_taken_again(void **state)
{
    (void)state;
    void *p = filled(100);
    give(p);
    assert_true(memory.spare_size >= 100);
    assert_ptr_equal(filled(120), p); /* of the same size, rounded */
    assert_int_equal(memory.spare_size, 0);
    assert_ptr_not_equal(filled(120), p);
    give(p);
    const char *zero = mem.calloc(5, 20, mem.mem_user_data);
    assert_ptr_equal(zero, p);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(zero[i], 0);
    }
}

static void
a_piece_grows_and_keeps_its_bytes(void **state)
{
    static const size_t sizes[] = {1, 64, 65, 1000, 1536, 1537, 5000, 20};
    (void)state;
    char *p = mem.realloc(NULL, 1, mem.mem_user_data);
    p[0] = 'a';
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        p = mem.realloc(p, sizes[i], mem.mem_user_data);
        assert_non_null(p);
        assert_int_equal(p[0], 'a');
        memset(p + 1, 'x', sizes[i] - 1);
        void *other = filled(sizes[i]);
        give(other);
    }
    give(p);
}

static void
no_more_is_kept_than_may_be_and_nothing_after_a_rest(void **state)
{
    void *pieces[400];
    (void)state;
    for (unsigned i = 0; i < 400; i++) {
        pieces[i] = filled(i * 4);
    }
    for (unsigned i = 0; i < 400; i++) {
        give(pieces[i]);
        assert_true(memory.spare_size <= TG_H2_MEMORY_SPARE_MAX);
    }
    assert_true(memory.spare_size > TG_H2_MEMORY_SPARE_MAX / 2);
    assert_null(memory.pieces);
    tg_h2_memory_trim(&memory);
    assert_int_equal(memory.spare_size, 0);
    for (unsigned i = 0; i < TG_H2_MEMORY_SIZES; i++) {
        assert_null(memory.spare[i]);
    }
}

/* The library may give twice then what it had: what it says is not believed any more. */
static void
after_a_failure_nothing_is_taken_back(void **state)
{
    (void)state;
    void *p = filled(10);
    tg_mem_fail_at(1);
    assert_null(mem.malloc(10, mem.mem_user_data));
    tg_mem_fail_at(0);
    assert_true(memory.failed);
    give(p);
    give(p);
    assert_int_equal(memory.spare_size, 0);
    assert_non_null(memory.pieces);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_given_back_is_taken_again, begin, end),
        cmocka_unit_test_setup_teardown(a_piece_grows_and_keeps_its_bytes, begin, end),
        cmocka_unit_test_setup_teardown(no_more_is_kept_than_may_be_and_nothing_after_a_rest, begin, end),
        cmocka_unit_test_setup_teardown(after_a_failure_nothing_is_taken_back, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
