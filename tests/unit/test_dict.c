#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "zone/dict.h"

static struct tg_dict *
open_dict(size_t size)
{
    const int fd = tg_dict_create(size, NULL);
    assert_true(fd >= 0);
    struct tg_dict *dict = tg_dict_open(fd);
    assert_non_null(dict);
    close(fd);
    return dict;
}

static void
values_are_kept_until_they_expire(void **state)
{
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    struct tg_dict_value value = {.type = TG_DICT_STRING, .p = "text", .n = 4};
    uint64_t left = 0;
    assert_int_equal(tg_dict_get(dict, "a", 1, 1000, &value), TG_ENONE);
    value = (struct tg_dict_value){.type = TG_DICT_STRING, .p = "text", .n = 4};
    assert_int_equal(tg_dict_set(dict, "a", 1, 1000, 500, &value, false), TG_OK);
    assert_int_equal(tg_dict_set(dict, "a", 1, 1000, 500, &value, true), TG_EBUSY);
    assert_int_equal(tg_dict_ttl(dict, "a", 1, 1100, &left), TG_OK);
    assert_int_equal(left, 400);
    assert_int_equal(tg_dict_get(dict, "a", 1, 1499, &value), TG_OK);
    assert_true(value.type == TG_DICT_STRING && value.n == 4 && memcmp(value.p, "text", 4) == 0);
    assert_int_equal(tg_dict_get(dict, "a", 1, 1500, &value), TG_ENONE);
    assert_int_equal(tg_dict_delete(dict, "a", 1, 1500), TG_ENONE);
    tg_dict_close(dict);
}

static void
counters_count_and_end(void **state)
{
    double n = 0;
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    for (int i = 1; i <= 10; i++) {
        assert_int_equal(tg_dict_incr(dict, "n", 1, 0, 100, 2, &n), TG_OK);
        assert_true(n == 2.0 * i);
    }
    assert_int_equal(tg_dict_incr(dict, "n", 1, 100, 100, 1, &n), TG_OK);
    assert_true(n == 1);
    const struct tg_dict_value text = {.type = TG_DICT_STRING, .p = "x", .n = 1};
    assert_int_equal(tg_dict_set(dict, "n", 1, 100, 0, &text, false), TG_OK);
    assert_int_equal(tg_dict_incr(dict, "n", 1, 100, 0, 1, &n), TG_EINVAL);
    assert_int_equal(tg_dict_incr(dict, "", 0, 100, 0, 1, &n), TG_EINVAL);
    tg_dict_close(dict);
}

static void
the_least_recently_used_go_when_it_is_full(void **state)
{
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    const struct tg_dict_value one = {.type = TG_DICT_NUMBER, .number = 1};
    struct tg_dict_value found;
    assert_int_equal(tg_dict_set(dict, "hot", 3, 1, 0, &one, false), TG_OK);
    for (int i = 0; i < 20000; i++) {
        char key[32];
        const int n = snprintf(key, sizeof key, "key-%d", i);
        assert_int_equal(tg_dict_set(dict, key, (size_t)n, 1, 0, &one, false), TG_OK);
        assert_int_equal(tg_dict_get(dict, "hot", 3, 1, &found), TG_OK);
    }
    assert_int_equal(tg_dict_get(dict, "key-0", 5, 1, &found), TG_ENONE);
    assert_int_equal(tg_dict_get(dict, "key-19999", 9, 1, &found), TG_OK);
    static char big[2 * 1024 * 1024];
    const struct tg_dict_value much = {.type = TG_DICT_STRING, .p = big, .n = sizeof big};
    assert_int_equal(tg_dict_set(dict, "big", 3, 1, 0, &much, false), TG_ELIMIT);
    tg_dict_close(dict);
}

/* Processes are killed while they write, at any instruction; the others must be able to go on. */
static void
a_writer_that_is_killed_blocks_nobody(void **state)
{
    double n = 0;
    (void)state;
    tg_log_set_level(TG_LOG_ERROR);
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    for (int round = 0; round < 200; round++) {
        const pid_t pid = fork();
        if (pid == 0) {
            for (uint64_t i = 0;; i++) {
                char key[32];
                const int size = snprintf(key, sizeof key, "k%llu", (unsigned long long)(i % 50));
                (void)!tg_dict_incr(dict, key, (size_t)size, i, 3, 1, &n);
            }
        }
        (void)usleep(1000 + (unsigned)round * 7);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        for (int i = 0; i < 50; i++) {
            char key[32];
            const int size = snprintf(key, sizeof key, "k%d", i);
            assert_int_equal(tg_dict_incr(dict, key, (size_t)size, 1, 0, 1, &n), TG_OK);
        }
    }
    tg_dict_close(dict);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_kept_until_they_expire),
        cmocka_unit_test(counters_count_and_end),
        cmocka_unit_test(the_least_recently_used_go_when_it_is_full),
        cmocka_unit_test(a_writer_that_is_killed_blocks_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
