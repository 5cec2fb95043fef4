#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
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

static void
each_type_comes_back_as_it_was_set(void **state)
{
    static const char bytes[] = "a\0b\xff";
    const struct tg_dict_value values[] = {
        {.type = TG_DICT_NUMBER, .number = -0.5},     {.type = TG_DICT_BOOLEAN, .number = 1},
        {.type = TG_DICT_STRING, .p = bytes, .n = 4}, {.type = TG_DICT_STRING, .p = "", .n = 0},
        {.type = TG_DICT_TABLE, .p = bytes, .n = 2},
    };
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct tg_dict_value got;
        assert_int_equal(tg_dict_set(dict, "k\0y", 3, 1, 0, &values[i], false), TG_OK);
        assert_int_equal(tg_dict_get(dict, "k\0y", 3, 1, &got), TG_OK);
        assert_int_equal(got.type, values[i].type);
        assert_true(got.number == values[i].number && got.n == values[i].n);
        assert_true(got.n == 0 || memcmp(got.p, values[i].p, got.n) == 0);
        assert_int_equal(tg_dict_get(dict, "k\0z", 3, 1, &got), TG_ENONE);
    }
    tg_dict_close(dict);
}

static void
a_key_has_1_to_1024_bytes(void **state)
{
    static char key[TG_DICT_KEY_MAX + 1];
    const struct tg_dict_value one = {.type = TG_DICT_NUMBER, .number = 1};
    struct tg_dict_value got;
    uint64_t left;
    double n;
    (void)state;
    struct tg_dict *dict = open_dict(1024 * 1024);
    memset(key, 'k', sizeof key);
    assert_int_equal(tg_dict_set(dict, key, TG_DICT_KEY_MAX, 1, 0, &one, false), TG_OK);
    assert_int_equal(tg_dict_get(dict, key, TG_DICT_KEY_MAX, 1, &got), TG_OK);
    for (size_t size = 0; size <= sizeof key; size += sizeof key) {
        assert_int_equal(tg_dict_set(dict, key, size, 1, 0, &one, false), TG_EINVAL);
        assert_int_equal(tg_dict_get(dict, key, size, 1, &got), TG_EINVAL);
        assert_int_equal(tg_dict_incr(dict, key, size, 1, 0, 1, &n), TG_EINVAL);
        assert_int_equal(tg_dict_ttl(dict, key, size, 1, &left), TG_EINVAL);
        assert_int_equal(tg_dict_delete(dict, key, size, 1), TG_EINVAL);
    }
    tg_dict_close(dict);
}

static void
what_ends_is_as_if_it_had_never_been(void **state)
{
    const struct tg_dict_value one = {.type = TG_DICT_NUMBER, .number = 1};
    struct tg_dict_value got;
    uint64_t left = 7;
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    assert_int_equal(tg_dict_ttl(dict, "a", 1, 10, &left), TG_ENONE);
    assert_int_equal(left, 7);
    assert_int_equal(tg_dict_set(dict, "a", 1, 10, 5, &one, true), TG_OK);
    assert_int_equal(tg_dict_set(dict, "a", 1, 14, 5, &one, true), TG_EBUSY);
    assert_int_equal(tg_dict_set(dict, "a", 1, 15, 0, &one, true), TG_OK);
    assert_int_equal(tg_dict_ttl(dict, "a", 1, 1000000, &left), TG_OK);
    assert_int_equal(left, 0);
    assert_int_equal(tg_dict_delete(dict, "a", 1, 1000000), TG_OK);
    assert_int_equal(tg_dict_delete(dict, "a", 1, 1000000), TG_ENONE);
    assert_int_equal(tg_dict_get(dict, "a", 1, 1000000, &got), TG_ENONE);
    tg_dict_close(dict);
}

static void
incr_counts_below_zero_and_keeps_its_first_end(void **state)
{
    double n = 0;
    uint64_t left = 0;
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    assert_int_equal(tg_dict_incr(dict, "n", 1, 100, 50, -1.5, &n), TG_OK);
    assert_true(n == -1.5);
    assert_int_equal(tg_dict_incr(dict, "n", 1, 120, 1000, 0.25, &n), TG_OK);
    assert_true(n == -1.25);
    assert_int_equal(tg_dict_ttl(dict, "n", 1, 120, &left), TG_OK);
    assert_int_equal(left, 30);
    tg_dict_close(dict);
}

static void
a_value_that_was_got_stays_until_the_next_get(void **state)
{
    struct tg_dict_value got;
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    struct tg_dict_value value = {.type = TG_DICT_STRING, .p = "first", .n = 5};
    assert_int_equal(tg_dict_set(dict, "a", 1, 1, 0, &value, false), TG_OK);
    assert_int_equal(tg_dict_get(dict, "a", 1, 1, &got), TG_OK);
    value.p = "other";
    assert_int_equal(tg_dict_set(dict, "a", 1, 1, 0, &value, false), TG_OK);
    assert_int_equal(tg_dict_delete(dict, "a", 1, 1), TG_OK);
    assert_memory_equal(got.p, "first", 5);
    tg_dict_close(dict);
}

/* Sizes and keys at random: what is got is what was set last, or it was evicted. */
static void
values_of_all_sizes_do_not_mix(void **state)
{
    static char bytes[4096];
    unsigned kept = 0;
    uint32_t random = 1;
    (void)state;
    struct tg_dict *dict = open_dict(1024 * 1024);
    for (unsigned i = 0; i < 50000; i++) {
        random = random * 1664525 + 1013904223;
        const unsigned key = random >> 8 & 1023;
        const size_t n = (random >> 18) % sizeof bytes;
        struct tg_dict_value value = {.type = TG_DICT_STRING, .number = key, .p = bytes, .n = n};
        struct tg_dict_value got;
        memset(bytes, (int)key, n);
        const enum tg_rc rc = tg_dict_set(dict, (const char *)&key, sizeof key, i, i % 7, &value, false);
        assert_true(rc == TG_OK || rc == TG_ELIMIT);
        const unsigned other = key ^ 1;
        if (tg_dict_get(dict, (const char *)&other, sizeof other, i, &got) != TG_OK) {
            continue;
        }
        kept++;
        assert_true(got.number == other);
        for (size_t k = 0; k < got.n; k++) {
            assert_int_equal((unsigned char)got.p[k], other & 255);
        }
    }
    assert_true(kept > 1000);
    tg_dict_close(dict);
}

static void
only_a_dictionary_is_opened(void **state)
{
    struct tg_err err = {0};
    (void)state;
    const int fd = memfd_create("test", 0);
    assert_true(fd >= 0);
    assert_null(tg_dict_open(fd));
    assert_int_equal(ftruncate(fd, TG_DICT_SIZE_MIN), 0);
    assert_null(tg_dict_open(fd));
    close(fd);
    assert_null(tg_dict_open(-1));
    const int whole = tg_dict_create(1, NULL);
    assert_true(whole >= 0);
    struct tg_dict *dict = tg_dict_open(whole);
    assert_non_null(dict);
    assert_int_equal(tg_dict_size(dict), TG_DICT_SIZE_MIN);
    tg_dict_close(dict);
    assert_int_equal(ftruncate(whole, 2 * TG_DICT_SIZE_MIN), 0);
    assert_null(tg_dict_open(whole));
    close(whole);
    assert_int_equal(tg_dict_create((size_t)1 << 33, &err), -1);
    assert_non_null(strstr(err.text, "4 GiB"));
    tg_dict_close(NULL);
}

static void
when_memory_is_short_the_dictionary_lives_on(void **state)
{
    const struct tg_dict_value text = {.type = TG_DICT_STRING, .p = "text", .n = 4};
    struct tg_dict_value got;
    (void)state;
    const int fd = tg_dict_create(TG_DICT_SIZE_MIN, NULL);
    assert_true(fd >= 0);
    tg_mem_fail_at(1);
    assert_null(tg_dict_open(fd));
    struct tg_dict *dict = tg_dict_open(fd);
    assert_non_null(dict);
    close(fd);
    assert_int_equal(tg_dict_set(dict, "a", 1, 1, 0, &text, false), TG_OK);
    tg_mem_fail_at(1);
    assert_int_equal(tg_dict_get(dict, "a", 1, 1, &got), TG_ENOMEM);
    assert_int_equal(tg_dict_get(dict, "a", 1, 1, &got), TG_OK);
    assert_memory_equal(got.p, "text", 4);
    tg_dict_close(dict);
}

static void
processes_count_together(void **state)
{
    enum { PROCESSES = 4, TIMES = 5000 };
    pid_t pids[PROCESSES];
    struct tg_dict_value got;
    (void)state;
    const int fd = tg_dict_create(TG_DICT_SIZE_MIN, NULL);
    assert_true(fd >= 0);
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct tg_dict *own = tg_dict_open(fd);
            double n = 0;
            for (int k = 0; own != NULL && k < TIMES; k++) {
                if (tg_dict_incr(own, "n", 1, 1, 0, 1, &n) != TG_OK) {
                    _exit(1);
                }
            }
            _exit(own == NULL);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    struct tg_dict *dict = tg_dict_open(fd);
    assert_non_null(dict);
    close(fd);
    assert_int_equal(tg_dict_get(dict, "n", 1, 1, &got), TG_OK);
    assert_true(got.number == PROCESSES * TIMES);
    tg_dict_close(dict);
}

static struct tg_dict_change
change_of(const char *key, const double *old, size_t old_count, const double *new, size_t new_count)
{
    return (struct tg_dict_change){key, strlen(key), old, old_count, new, new_count, 0};
}

static void
lists_of_numbers_are_swapped_all_or_none(void **state)
{
    const double one[] = {1, 2.5};
    const double two[] = {7, 8, 9};
    double got[3] = {0};
    size_t count = 9;
    (void)state;
    struct tg_dict *dict = open_dict(TG_DICT_SIZE_MIN);
    assert_int_equal(tg_dict_read(dict, "a", 1, 1, got, 3, &count), TG_OK);
    assert_int_equal(count, 0);
    struct tg_dict_change changes[] = {change_of("a", NULL, 0, one, 2), change_of("bcd", NULL, 0, two, 3)};
    assert_int_equal(tg_dict_swap(dict, 1, changes, 2), TG_OK);
    assert_int_equal(tg_dict_swap(dict, 1, changes, 2), TG_EBUSY);
    assert_int_equal(tg_dict_read(dict, "bcd", 3, 1, got, 2, &count), TG_OK);
    assert_int_equal(count, 3);
    assert_true(got[0] == 7 && got[1] == 8 && got[2] == 0);
    /* The first would fit, the second does not. */
    changes[0] = change_of("a", one, 2, two, 2);
    changes[1] = change_of("bcd", one, 2, two, 3);
    assert_int_equal(tg_dict_swap(dict, 1, changes, 2), TG_EBUSY);
    assert_int_equal(tg_dict_read(dict, "a", 1, 1, got, 3, &count), TG_OK);
    assert_true(count == 2 && got[0] == 1 && got[1] == 2.5);
    /* In place, longer, gone, and over. */
    changes[0].ttl = 10;
    changes[1] = change_of("bcd", two, 3, NULL, 0);
    assert_int_equal(tg_dict_swap(dict, 1, changes, 2), TG_OK);
    assert_int_equal(tg_dict_read(dict, "bcd", 3, 1, got, 3, &count), TG_OK);
    assert_int_equal(count, 0);
    changes[0] = change_of("a", two, 2, two, 3);
    assert_int_equal(tg_dict_swap(dict, 10, changes, 1), TG_OK);
    assert_int_equal(tg_dict_swap(dict, 12, changes, 1), TG_EBUSY);
    changes[0] = change_of("a", two, 3, one, 1);
    changes[0].ttl = 5;
    assert_int_equal(tg_dict_swap(dict, 12, changes, 1), TG_OK);
    assert_int_equal(tg_dict_read(dict, "a", 1, 17, got, 3, &count), TG_OK);
    assert_int_equal(count, 0);
    assert_int_equal(tg_dict_swap(dict, 1, changes, 0), TG_EINVAL);
    tg_dict_close(dict);
}

/* Moves a unit from one of many accounts to others: the sum is the same whenever all of them are read at once. */
static bool
move_units(struct tg_dict *dict, unsigned seed, int times)
{
    enum { ACCOUNTS = 12 };
    for (int i = 0; i < times;) {
        double old[3] = {0};
        double new[3];
        char keys[3][16];
        struct tg_dict_change changes[3];
        seed = seed * 1664525 + 1013904223;
        for (unsigned k = 0; k < 3; k++) {
            size_t count = 0;
            (void)snprintf(keys[k], sizeof keys[k], "n%u", ((seed >> 16) + k) % ACCOUNTS);
            if (tg_dict_read(dict, keys[k], strlen(keys[k]), 1, &old[k], 1, &count) != TG_OK) {
                return false;
            }
            new[k] = old[k] + (k == 0 ? -2 : 1);
            changes[k] = change_of(keys[k], &old[k], count, &new[k], 1);
        }
        const enum tg_rc rc = tg_dict_swap(dict, 1, changes, 3);
        if (rc != TG_OK && rc != TG_EBUSY) {
            return false;
        }
        i += rc == TG_OK;
    }
    return true;
}

static void
processes_swap_together(void **state)
{
    enum { PROCESSES = 4, TIMES = 3000 };
    pid_t pids[PROCESSES];
    double sum = 0;
    (void)state;
    const int fd = tg_dict_create(TG_DICT_SIZE_MIN, NULL);
    assert_true(fd >= 0);
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct tg_dict *own = tg_dict_open(fd);
            _exit(own == NULL || !move_units(own, (unsigned)i, TIMES));
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    struct tg_dict *dict = tg_dict_open(fd);
    assert_non_null(dict);
    close(fd);
    for (int i = 0; i < 12; i++) {
        char key[16];
        double n = 0;
        size_t count = 0;
        (void)snprintf(key, sizeof key, "n%d", i);
        assert_int_equal(tg_dict_read(dict, key, strlen(key), 1, &n, 1, &count), TG_OK);
        assert_int_equal(count, 1);
        sum += n;
    }
    assert_true(sum == 0);
    tg_dict_close(dict);
}

enum { WITNESSES = 64 };

/* Sets the witnesses that are gone, and returns how many those were. */
static unsigned
renew_witnesses(struct tg_dict *dict)
{
    unsigned gone = 0;
    for (int i = 0; i < WITNESSES; i++) {
        char key[32];
        const struct tg_dict_value value = {.type = TG_DICT_NUMBER, .number = i};
        struct tg_dict_value got;
        const int n = snprintf(key, sizeof key, "witness-%d", i);
        const enum tg_rc rc = tg_dict_set(dict, key, (size_t)n, 1, 0, &value, true);
        assert_true(rc == TG_OK || rc == TG_EBUSY);
        gone += rc == TG_OK;
        assert_int_equal(tg_dict_get(dict, key, (size_t)n, 1, &got), TG_OK);
        assert_true(got.type == TG_DICT_NUMBER && got.number == i);
    }
    return gone;
}

/* A shard is emptied only after its owner died inside: witnesses that vanish prove that the kill came there. */
static void
a_writer_that_is_killed_inside_a_shard_is_survived(void **state)
{
    unsigned hits = 0;
    (void)state;
    tg_log_set_level(TG_LOG_ERROR);
    struct tg_dict *dict = open_dict(1024 * 1024);
    assert_int_equal(renew_witnesses(dict), WITNESSES);
    assert_int_equal(renew_witnesses(dict), 0);
    for (int round = 0; round < 3000 && hits < 20; round++) {
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            double n = 0;
            for (uint64_t i = 0;; i++) {
                const uint64_t key = i % 20;
                (void)!tg_dict_incr(dict, (const char *)&key, sizeof key, i, 3, 1, &n);
            }
        }
        (void)usleep(500 + (unsigned)round % 50 * 11);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        hits += renew_witnesses(dict) > 0;
    }
    assert_int_equal(hits, 20);
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
        cmocka_unit_test(each_type_comes_back_as_it_was_set),
        cmocka_unit_test(a_key_has_1_to_1024_bytes),
        cmocka_unit_test(what_ends_is_as_if_it_had_never_been),
        cmocka_unit_test(incr_counts_below_zero_and_keeps_its_first_end),
        cmocka_unit_test(a_value_that_was_got_stays_until_the_next_get),
        cmocka_unit_test(values_of_all_sizes_do_not_mix),
        cmocka_unit_test(only_a_dictionary_is_opened),
        cmocka_unit_test(when_memory_is_short_the_dictionary_lives_on),
        cmocka_unit_test(processes_count_together),
        cmocka_unit_test(lists_of_numbers_are_swapped_all_or_none),
        cmocka_unit_test(processes_swap_together),
        cmocka_unit_test(a_writer_that_is_killed_inside_a_shard_is_survived),
        cmocka_unit_test(a_writer_that_is_killed_blocks_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
