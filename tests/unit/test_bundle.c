#include "unit.h"

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

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(entries_are_found_and_broken_bytes_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
