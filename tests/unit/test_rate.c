#include "unit.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "zone/allowance.h"

enum { KEEPS_COUNT = 4, SIZE = 4 * 1024 * 1024 };

static const enum tg_abi_algorithm counting[KEEPS_COUNT] = {TG_LIMIT_GCRA, TG_LIMIT_FIXED, TG_LIMIT_SLIDING,
                                                            TG_LIMIT_LOG};

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

/* `more`: burst or delay. */
static struct tg_abi_limit
limit_of(enum tg_abi_algorithm algorithm, double rate, double per, double more)
{
    return (struct tg_abi_limit){.algorithm = algorithm, .rate = rate, .per = per, .burst = more, .delay = more};
}

static struct tg_allowance_clock
clock_at(double seconds)
{
    return (struct tg_allowance_clock){(uint64_t)llround(seconds * 1000), seconds};
}

struct taker {
    struct tg_dict *dict;
    struct tg_abi_limit limit;
    struct tg_abi_taken taken;
    bool charge;
};

static bool
take(struct taker *taker, double at, double cost)
{
    const struct tg_allowance one = {&taker->limit, "key", 3};
    bool allowed = false;
    assert_int_equal(
        tg_allowance_take(taker->dict, clock_at(at), &one, 1, cost, taker->charge, &taker->taken, &allowed), TG_OK);
    assert_int_equal(allowed, taker->taken.ok);
    return allowed;
}

static double
change(struct taker *taker, double at, enum tg_abi_limit_change what, double amount)
{
    const struct tg_allowance one = {&taker->limit, "key", 3};
    double used = -1;
    assert_int_equal(tg_allowance_change(taker->dict, clock_at(at), &one, what, amount, &used), TG_OK);
    return used;
}

static struct taker
taker_of(enum tg_abi_algorithm algorithm, double rate, double per, double more)
{
    return (struct taker){.dict = open_dict(SIZE), .limit = limit_of(algorithm, rate, per, more)};
}

static bool
is_near(double a, double b)
{
    return fabs(a - b) < 1e-9;
}

/* Requests at random moments, whole milliseconds, always the same. */
struct request {
    double at;
    double cost;
};

static void
make_traffic(uint64_t seed, struct request *list, size_t n, double pause)
{
    uint64_t at = 1000250;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 16807 % 2147483647;
        at += (uint64_t)((double)(seed % 1000) / 500 * pause * 1000);
        list[i] = (struct request){(double)at / 1000, seed % 7 == 0 ? 3 : 1};
    }
}

/* Which of them pass, in their order -> how many. */
static size_t
run(struct taker *taker, const struct request *list, size_t n, struct request *passed)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (take(taker, list[i].at, list[i].cost)) {
            passed[count++] = list[i];
        }
    }
    return count;
}

/* The most that passed in any window that begins with one of them. */
static double
most_in_any_window(const struct request *passed, size_t n, double per)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t k = i; k < n && passed[k].at - passed[i].at < per - 1e-9; k++) {
            sum += passed[k].cost;
        }
        most = sum > most ? sum : most;
    }
    return most;
}

/* ------------------------------------------------------------------ each algorithm */

static void
gcra_lets_a_burst_through_and_the_rate_to_the_unit(void **state)
{
    struct taker taker = taker_of(TG_LIMIT_GCRA, 100, 1, 20);
    unsigned passed = 0;
    (void)state;
    for (int i = 1; i <= 20; i++) {
        assert_true(take(&taker, 5, 1));
        assert_true(is_near(taker.taken.left, 20 - i));
        assert_true(is_near(taker.taken.reset, i / 100.0));
    }
    assert_false(take(&taker, 5, 1));
    assert_true(is_near(taker.taken.left, 0) && is_near(taker.taken.retry, 0.01));
    for (int i = 1; i <= 100000; i++) {
        passed += take(&taker, 5 + i / 1000.0, 1);
    }
    assert_int_equal(passed, 10000);
    tg_dict_close(taker.dict);
}

/* What has not drained must not be forgotten with the record, however little it is. */
static void
gcra_never_lets_more_through_in_any_time(void **state)
{
    enum { N = 4000 };
    static struct request list[N];
    static struct request passed[N];
    const double times[] = {0.005, 0.1, 0.5, 1, 3};
    (void)state;
    for (unsigned fast = 0; fast < 2; fast++) {
        struct taker taker = fast ? taker_of(TG_LIMIT_GCRA, 1700, 1, 4) : taker_of(TG_LIMIT_GCRA, 60, 1, 15);
        make_traffic(7, list, N, fast ? 0.001 : 0.005);
        const size_t n = run(&taker, list, N, passed);
        assert_true(n > 500);
        for (unsigned i = 0; i < sizeof times / sizeof *times; i++) {
            const double bound = taker.limit.burst + taker.limit.rate * times[i] + 1e-6;
            assert_true(most_in_any_window(passed, n, times[i]) <= bound);
        }
        tg_dict_close(taker.dict);
    }
}

static void
log_is_exact_in_every_window(void **state)
{
    enum { N = 4000 };
    static struct request list[N];
    static struct request naive[N];
    size_t kept = 0;
    struct taker taker = taker_of(TG_LIMIT_LOG, 50, 1, 0);
    (void)state;
    make_traffic(11, list, N, 0.005);
    for (size_t i = 0; i < N; i++) {
        double used = 0;
        for (size_t k = kept; k > 0 && naive[k - 1].at > list[i].at - 1; k--) {
            used += naive[k - 1].cost;
        }
        const bool fits = used + list[i].cost <= 50;
        assert_int_equal(take(&taker, list[i].at, list[i].cost), fits);
        if (fits) {
            naive[kept++] = list[i];
        }
    }
    assert_true(kept > 500 && most_in_any_window(naive, kept, 1) <= 50);
    tg_dict_close(taker.dict);
}

static void
windows_never_let_more_than_the_limit_through(void **state)
{
    enum { N = 6000 };
    static struct request list[N];
    static struct request passed[N];
    const enum tg_abi_algorithm both[] = {TG_LIMIT_FIXED, TG_LIMIT_SLIDING};
    (void)state;
    make_traffic(13, list, N, 0.004);
    for (unsigned i = 0; i < 2; i++) {
        struct taker taker = taker_of(both[i], 40, 1, 0);
        const size_t n = run(&taker, list, N, passed);
        double sum = 0;
        double window = 0;
        for (size_t k = 0; k < n; k++) {
            sum = floor(passed[k].at) > window ? passed[k].cost : sum + passed[k].cost;
            window = floor(passed[k].at);
            assert_true(sum <= 40);
        }
        tg_dict_close(taker.dict);
    }
}

static unsigned
around_the_border(enum tg_abi_algorithm algorithm)
{
    struct taker taker = taker_of(algorithm, 100, 10, 0);
    unsigned passed = 0;
    for (int i = 1; i <= 400; i++) {
        passed += take(&taker, 19 + i / 200.0, 1);
    }
    tg_dict_close(taker.dict);
    return passed;
}

static void
sliding_lets_nothing_through_around_the_border_that_fixed_would(void **state)
{
    (void)state;
    assert_int_equal(around_the_border(TG_LIMIT_FIXED), 200);
    assert_in_range(around_the_border(TG_LIMIT_SLIDING), 110, 111);
}

static void
leaky_makes_those_wait_that_come_too_early(void **state)
{
    struct taker taker = taker_of(TG_LIMIT_LEAKY, 10, 1, 0.35);
    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_true(take(&taker, 7, 1));
        assert_true(is_near(taker.taken.wait, i * 0.1));
    }
    for (unsigned charge = 0; charge < 2; charge++) { /* a refused one stands in no queue */
        taker.charge = charge != 0;
        assert_false(take(&taker, 7, 1));
        assert_true(is_near(taker.taken.retry, 0.05) && is_near(taker.taken.wait, 0));
    }
    tg_dict_close(taker.dict);
}

/* ------------------------------------------------------------------ what all have in common */

static void
each_says_how_long_to_wait_not_too_short_nor_too_long(void **state)
{
    enum { N = 3000 };
    static struct request list[N];
    const struct tg_abi_limit limits[] = {limit_of(TG_LIMIT_GCRA, 30, 1, 10), limit_of(TG_LIMIT_FIXED, 30, 1, 0),
                                          limit_of(TG_LIMIT_SLIDING, 30, 1, 0), limit_of(TG_LIMIT_LOG, 30, 1, 0),
                                          limit_of(TG_LIMIT_LEAKY, 30, 1, 0.2)};
    (void)state;
    make_traffic(17, list, N, 0.007);
    for (unsigned l = 0; l < sizeof limits / sizeof *limits; l++) {
        struct taker taker = {.dict = open_dict(SIZE), .limit = limits[l]};
        unsigned refused = 0;
        for (size_t i = 0; i < N; i++) {
            if (take(&taker, list[i].at, list[i].cost)) {
                continue;
            }
            const double retry = taker.taken.retry;
            const double cost = list[i].cost;
            struct tg_rate_next next;
            /* Looks as well as a cost of 0 would, at moments between two milliseconds. */
            struct tg_dict_list kept = {.key = "key", .n = 3};
            uint32_t held = 0;
            assert_int_equal(tg_dict_hold(taker.dict, clock_at(list[i].at).now, &kept, 1, &held), TG_OK);
            for (unsigned late = 0; late < 2; late++) {
                const double at = list[i].at + (late ? retry + 1e-6 : retry * 0.98 - 1e-6);
                tg_rate_take(&taker.limit, (struct tg_rate_list){kept.numbers, kept.count}, cost,
                             (struct tg_rate_clock){at, at}, &taker.taken, &next);
                assert_int_equal(taker.taken.ok, late);
            }
            tg_dict_release(taker.dict, held);
            assert_true(retry > 0 && retry <= 2);
            refused++;
        }
        assert_true(refused > 100);
        tg_dict_close(taker.dict);
    }
}

static void
a_cost_may_be_more_than_one_and_0_only_looks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KEEPS_COUNT; i++) {
        struct taker taker = taker_of(counting[i], 10, 1, 10);
        assert_true(take(&taker, 3, 6));
        assert_true(take(&taker, 3, 0) && is_near(taker.taken.left, 4));
        assert_false(take(&taker, 3, 5));
        assert_true(is_near(taker.taken.left, 4));
        assert_true(take(&taker, 3, 4));
        assert_true(take(&taker, 3, 0) && is_near(taker.taken.left, 0));
        assert_false(take(&taker, 3, 11));
        assert_true(isinf(taker.taken.retry));
        tg_dict_close(taker.dict);
    }
}

static void
what_is_refused_is_charged_when_asked_to_and_becomes_free_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KEEPS_COUNT; i++) {
        struct taker taker = taker_of(counting[i], 10, 1, 10);
        taker.charge = true;
        assert_true(take(&taker, 3, 10));
        for (int k = 0; k < 100; k++) {
            assert_false(take(&taker, 3, 1));
        }
        assert_true(take(&taker, 15, 10));
        tg_dict_close(taker.dict);
    }
}

static void
it_is_charged_more_given_back_set_and_removed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KEEPS_COUNT; i++) {
        struct taker taker = taker_of(counting[i], 10, 1, 10);
        (void)take(&taker, 3, 6);
        (void)change(&taker, 3, TG_LIMIT_ADD, -4);
        assert_true(take(&taker, 3, 0) && is_near(taker.taken.left, 8));
        (void)change(&taker, 3, TG_LIMIT_ADD, 20);
        assert_false(take(&taker, 3, 1));
        (void)change(&taker, 3, TG_LIMIT_ADD, -100);
        assert_true(take(&taker, 3, 10));
        assert_true(is_near(change(&taker, 3, TG_LIMIT_SET, 4), 10));
        assert_true(take(&taker, 3, 0) && is_near(taker.taken.left, 6));
        assert_true(is_near(change(&taker, 3, TG_LIMIT_SET, 4.001), 4));
        assert_true(is_near(change(&taker, 3, TG_LIMIT_REMOVE, 0), 4));
        assert_true(is_near(change(&taker, 3, TG_LIMIT_REMOVE, 0), 0));
        assert_true(take(&taker, 3, 0) && is_near(taker.taken.left, 10));
        tg_dict_close(taker.dict);
    }
}

static void
it_goes_on_with_what_was_counted_when_the_rate_changes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KEEPS_COUNT; i++) {
        struct taker taker = taker_of(counting[i], 10, 10, 10);
        assert_true(take(&taker, 3, 8));
        taker.limit = limit_of(counting[i], 5, 10, 5);
        assert_false(take(&taker, 3, 1));
        taker.limit = limit_of(counting[i], 20, 10, 20);
        assert_false(take(&taker, 3, 13));
        assert_true(take(&taker, 3, 12));
        assert_false(take(&taker, 3, 1)); /* a log of another size was written meanwhile */
        taker.limit = limit_of(counting[i], 10, 10, 10);
        /* Of 20, a log that becomes smaller knows the newest 10. */
        (void)change(&taker, 3, TG_LIMIT_ADD, -11);
        assert_true(take(&taker, 3, 1));
        tg_dict_close(taker.dict);
    }
}

static void
clocks_may_be_a_little_ahead_or_set_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct taker taker = taker_of(i == 0 ? TG_LIMIT_FIXED : TG_LIMIT_SLIDING, 10, 10, 0);
        (void)take(&taker, 1000.001, 10); /* that worker is in the next window already */
        assert_false(take(&taker, 999.999, 1));
        assert_true(take(&taker, 500, 1));
        tg_dict_close(taker.dict);
    }
    struct taker taker = taker_of(TG_LIMIT_GCRA, 10, 10, 10);
    (void)take(&taker, 1000.5, 10);
    assert_false(take(&taker, 1000.4, 1));
    tg_dict_close(taker.dict);
}

/* ------------------------------------------------------------------ together */

static void
several_limits_count_all_or_none(void **state)
{
    const struct tg_abi_limit small = limit_of(TG_LIMIT_GCRA, 3, 1, 3);
    const struct tg_abi_limit large = limit_of(TG_LIMIT_LOG, 5, 60, 0);
    const struct tg_allowance both[] = {{&small, "small", 5}, {&large, "large", 5}};
    struct tg_abi_taken taken[2];
    struct tg_dict *dict = open_dict(SIZE);
    bool allowed = false;
    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tg_allowance_take(dict, clock_at(7), both, 2, 1, false, taken, &allowed), TG_OK);
        assert_int_equal(allowed, i < 3);
    }
    assert_true(taken[0].ok == 0 && taken[1].ok == 1);
    for (int i = 0; i < 3; i++) { /* the small one is free again; of the large one 2 are left */
        assert_int_equal(tg_allowance_take(dict, clock_at(9), both, 2, 1, false, taken, &allowed), TG_OK);
        assert_int_equal(allowed, i < 2);
    }
    assert_true(taken[0].ok == 1 && taken[1].ok == 0 && is_near(taken[1].retry, 58));
    assert_int_equal(tg_allowance_take(dict, clock_at(9), both, 0, 1, false, taken, &allowed), TG_EINVAL);
    assert_int_equal(tg_allowance_take(dict, clock_at(9), both, TG_LIMITS + 1, 1, false, taken, &allowed), TG_EINVAL);
    const struct tg_allowance nowhere = {&small, "", 0};
    assert_int_equal(tg_allowance_take(dict, clock_at(9), &nowhere, 1, 1, false, taken, &allowed), TG_EINVAL);
    tg_dict_close(dict);
}

/* A cost may come from a header: none keeps a worker in a loop, or makes it count what is no number. */
static void
no_cost_is_too_much(void **state)
{
    const double costs[] = {1e6, 1e17, 1e300};
    (void)state;
    for (unsigned i = 0; i < KEEPS_COUNT; i++) {
        for (unsigned k = 0; k < sizeof costs / sizeof *costs; k++) {
            struct taker taker = taker_of(counting[i], 10, 1, 10);
            taker.charge = true;
            for (unsigned n = 0; n < 3; n++) {
                assert_false(take(&taker, 3, costs[k]));
            }
            (void)change(&taker, 3, TG_LIMIT_ADD, costs[k]);
            assert_false(take(&taker, 3, 1));
            (void)change(&taker, 3, TG_LIMIT_ADD, -1e308);
            assert_true(take(&taker, 3, 1));
            tg_dict_close(taker.dict);
        }
    }
}

/* A log that no class of a small dictionary has room for is refused, and not let through uncounted. */
static void
what_there_is_no_room_for_is_an_error(void **state)
{
    struct taker taker = {.dict = open_dict(TG_DICT_SIZE_MIN), .limit = limit_of(TG_LIMIT_LOG, 10000, 1, 0)};
    const struct tg_allowance one = {&taker.limit, "key", 3};
    bool allowed = false;
    (void)state;
    assert_int_equal(tg_allowance_take(taker.dict, clock_at(1), &one, 1, 1, false, &taker.taken, &allowed), TG_ELIMIT);
    tg_dict_close(taker.dict);
}

/* Takes 1 of both limits as often as it is let through -> whether it was right in all that it saw. */
static void
take_all(int fd, int pipe)
{
    const struct tg_abi_limit small = limit_of(TG_LIMIT_FIXED, 3000, 60, 0);
    const struct tg_abi_limit large = limit_of(TG_LIMIT_GCRA, 3, 60, 4000);
    const struct tg_allowance both[] = {{&small, "one", 3}, {&large, "another", 7}};
    struct tg_dict *dict = tg_dict_open(fd);
    struct tg_abi_taken taken[2];
    unsigned passed = 0;
    bool allowed = dict != NULL;
    for (unsigned i = 0; i < 2000 && allowed; i++) {
        allowed = tg_allowance_take(dict, clock_at(5), both, 2, 1, false, taken, &allowed) == TG_OK && allowed;
        passed += allowed;
    }
    _exit(write(pipe, &passed, sizeof passed) != sizeof passed);
}

static void
processes_let_through_no_more_and_no_less_than_the_limit(void **state)
{
    enum { PROCESSES = 4 };
    int ends[2];
    unsigned sum = 0;
    (void)state;
    const int fd = tg_dict_create(SIZE, NULL);
    assert_true(fd >= 0 && pipe(ends) == 0);
    for (int i = 0; i < PROCESSES; i++) {
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            take_all(fd, ends[1]);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        unsigned passed = 0;
        int status = -1;
        assert_int_equal(read(ends[0], &passed, sizeof passed), sizeof passed);
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
        sum += passed;
    }
    assert_int_equal(sum, 3000);
    close(ends[0]);
    close(ends[1]);
    struct taker rest = {.dict = tg_dict_open(fd), .limit = limit_of(TG_LIMIT_GCRA, 3, 60, 4000)};
    const struct tg_allowance one = {&rest.limit, "another", 7};
    bool allowed = false;
    assert_int_equal(tg_allowance_take(rest.dict, clock_at(5), &one, 1, 0, false, &rest.taken, &allowed), TG_OK);
    assert_true(is_near(rest.taken.left, 1000));
    close(fd);
    tg_dict_close(rest.dict);
}

/* Dies at any moment, also between two numbers: what is left is whole, or gone. */
static void
a_process_that_is_killed_while_it_counts_is_survived(void **state)
{
    unsigned gone = 0;
    (void)state;
    tg_log_set_level(TG_LOG_ERROR);
    struct taker taker = taker_of(TG_LIMIT_SLIDING, 1e9, 3600, 0);
    for (int round = 0; round < 3000 && gone < 10; round++) {
        (void)change(&taker, 5, TG_LIMIT_SET, 1e6);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            for (;;) {
                (void)take(&taker, 5, 1);
            }
        }
        (void)usleep(300 + (unsigned)round % 50 * 7);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        const double used = change(&taker, 5, TG_LIMIT_SET, 1e6);
        assert_true(used >= 1e6 || is_near(used, 0));
        gone += used < 1;
    }
    assert_int_equal(gone, 10);
    tg_dict_close(taker.dict);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcra_lets_a_burst_through_and_the_rate_to_the_unit),
        cmocka_unit_test(gcra_never_lets_more_through_in_any_time),
        cmocka_unit_test(log_is_exact_in_every_window),
        cmocka_unit_test(windows_never_let_more_than_the_limit_through),
        cmocka_unit_test(sliding_lets_nothing_through_around_the_border_that_fixed_would),
        cmocka_unit_test(leaky_makes_those_wait_that_come_too_early),
        cmocka_unit_test(each_says_how_long_to_wait_not_too_short_nor_too_long),
        cmocka_unit_test(a_cost_may_be_more_than_one_and_0_only_looks),
        cmocka_unit_test(what_is_refused_is_charged_when_asked_to_and_becomes_free_again),
        cmocka_unit_test(it_is_charged_more_given_back_set_and_removed),
        cmocka_unit_test(it_goes_on_with_what_was_counted_when_the_rate_changes),
        cmocka_unit_test(clocks_may_be_a_little_ahead_or_set_back),
        cmocka_unit_test(several_limits_count_all_or_none),
        cmocka_unit_test(no_cost_is_too_much),
        cmocka_unit_test(what_there_is_no_room_for_is_an_error),
        cmocka_unit_test(processes_let_through_no_more_and_no_less_than_the_limit),
        cmocka_unit_test(a_process_that_is_killed_while_it_counts_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
