#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/bundle.h"

static bool
count(void *arg, struct tg_slice name, struct tg_slice data)
{
    (void)name;
    (void)data;
    ++*(unsigned *)arg;
    return true;
}

static void
entries_are_found_and_broken_bytes_are_refused(void **state)
{
    char bytes[256];
    struct tg_slice data;
    unsigned entries = 0;
    (void)state;
    const int fd = memfd_create("test", 0);
    assert_true(fd >= 0);
    assert_int_equal(tg_bundle_begin(fd), TG_OK);
    assert_int_equal(tg_bundle_write(fd, TG_SLICE("one"), TG_SLICE("first")), TG_OK);
    assert_int_equal(tg_bundle_write(fd, TG_SLICE("two"), TG_SLICE("")), TG_OK);
    const ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    close(fd);
    const struct tg_slice all = tg_slice_of(bytes, (size_t)n);
    assert_int_equal(tg_bundle_find(all, "one", &data), TG_OK);
    assert_true(tg_slice_is(data, "first", 5));
    assert_int_equal(tg_bundle_find(all, "two", &data), TG_OK);
    assert_int_equal(data.n, 0);
    assert_int_equal(tg_bundle_find(all, "three", &data), TG_ENONE);
    assert_int_equal(tg_bundle_each(all, count, &entries), TG_OK);
    assert_int_equal(entries, 2);
    for (size_t cut = 0; cut < (size_t)n; cut++) {
        entries = 0;
        const enum tg_rc rc = tg_bundle_each(tg_slice_of(bytes, cut), count, &entries);
        assert_true(rc == TG_EINVAL || entries < 2);
    }
}

static const char start[] = "tgbund1\n";

static bool
stop(void *arg, struct tg_slice name, struct tg_slice data)
{
    (void)count(arg, name, data);
    return false;
}

static void
only_the_right_start_is_a_bundle(void **state)
{
    struct tg_slice data = TG_SLICE("untouched");
    unsigned entries = 0;
    (void)state;
    assert_int_equal(tg_bundle_each(tg_slice_of(start, 8), count, &entries), TG_OK);
    assert_int_equal(entries, 0);
    assert_int_equal(tg_bundle_find(tg_slice_of(start, 8), "a", &data), TG_ENONE);
    for (size_t i = 0; i < 8; i++) {
        char bytes[8];
        memcpy(bytes, start, 8);
        bytes[i] ^= 1;
        assert_int_equal(tg_bundle_each(tg_slice_of(bytes, 8), count, &entries), TG_EINVAL);
        assert_int_equal(tg_bundle_each(tg_slice_of(start, i), count, &entries), TG_EINVAL);
        assert_int_equal(tg_bundle_find(tg_slice_of(start, i), "a", &data), TG_EINVAL);
    }
    assert_int_equal(entries, 0);
    assert_true(tg_slice_is(data, "untouched", 9));
}

/* The two sizes together are more than 32 bits, or more than there is. */
static void
sizes_that_lie_are_refused(void **state)
{
    static const uint32_t sizes[][2] = {
        {0, 5}, {5, 0}, {3, 2}, {UINT32_MAX, 1}, {1, UINT32_MAX}, {UINT32_MAX, 4}, {UINT32_MAX, UINT32_MAX}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *bytes = malloc(20); /* of the heap, so that the sanitizer sees a byte more */
        unsigned entries = 0;
        assert_non_null(bytes);
        memcpy(bytes, start, 8);
        memcpy(bytes + 8, sizes[i], 8);
        memcpy(bytes + 16, "abcd", 4);
        assert_int_equal(tg_bundle_each(tg_slice_of(bytes, 20), count, &entries), TG_EINVAL);
        assert_int_equal(entries, 0);
        free(bytes);
    }
}

static void
the_first_of_two_names_is_found_and_the_call_back_may_stop(void **state)
{
    char bytes[256];
    struct tg_slice data;
    unsigned entries = 0;
    (void)state;
    const int fd = memfd_create("test", 0);
    assert_true(fd >= 0);
    assert_int_equal(tg_bundle_begin(fd), TG_OK);
    assert_int_equal(tg_bundle_write(fd, TG_SLICE("on"), TG_SLICE("x")), TG_OK);
    assert_int_equal(tg_bundle_write(fd, TG_SLICE("one"), TG_SLICE("a\0b")), TG_OK);
    assert_int_equal(tg_bundle_write(fd, TG_SLICE("one"), TG_SLICE("second")), TG_OK);
    assert_int_equal(tg_bundle_write(fd, TG_SLICE(""), TG_SLICE("unnamed")), TG_OK);
    const ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    close(fd);
    assert_true(n > 0);
    const struct tg_slice all = tg_slice_of(bytes, (size_t)n);
    assert_int_equal(tg_bundle_find(all, "one", &data), TG_OK);
    assert_true(tg_slice_is(data, "a\0b", 3));
    assert_int_equal(tg_bundle_find(all, "", &data), TG_OK);
    assert_true(tg_slice_is(data, "unnamed", 7));
    assert_int_equal(tg_bundle_each(all, stop, &entries), TG_OK);
    assert_int_equal(entries, 1);
}

static void
what_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    const int fd = open("/dev/full", O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(tg_bundle_begin(fd), TG_ESYSTEM);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(tg_bundle_write(fd, TG_SLICE("a"), TG_SLICE("b")), TG_ESYSTEM);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_found_and_broken_bytes_are_refused),
        cmocka_unit_test(only_the_right_start_is_a_bundle),
        cmocka_unit_test(sizes_that_lie_are_refused),
        cmocka_unit_test(the_first_of_two_names_is_found_and_the_call_back_may_stop),
        cmocka_unit_test(what_cannot_be_written_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
