#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "zone/cell.h"

enum { THREADS = 4, EACH = 20000 };

static struct tg_cells *
open_cells(void)
{
    const int fd = tg_cells_create(NULL);
    assert_true(fd >= 0);
    struct tg_cells *cells = tg_cells_open(fd);
    assert_non_null(cells);
    close(fd);
    return cells;
}

static void
a_key_finds_its_cell_also_after_another_opens_the_memory(void **state)
{
    (void)state;
    const int fd = tg_cells_create(NULL);
    struct tg_cells *one = tg_cells_open(fd);
    struct tg_cells *other = tg_cells_open(fd);
    struct tg_abi_cell *a = tg_cells_want(one, "u:a", 3, 1);
    struct tg_abi_cell *b = tg_cells_want(one, "u:b", 3, 1);
    assert_true(a != NULL && b != NULL && a != b && a->index != b->index);
    assert_ptr_equal(tg_cells_want(one, "u:a", 3, 2), a);
    struct tg_abi_cell *seen = tg_cells_find(other, "u:b", 3);
    assert_non_null(seen);
    assert_int_equal(seen->index, b->index);
    assert_null(tg_cells_find(other, "u:c", 3));
    assert_null(tg_cells_want(one, "", 0, 1));
    char key[TG_CELL_KEY_MAX + 1];
    memset(key, 'k', sizeof key);
    assert_null(tg_cells_want(one, key, sizeof key, 1));
    assert_non_null(tg_cells_want(one, key, sizeof key - 1, 1));
    tg_cells_close(one);
    tg_cells_close(other);
    close(fd);
}

static void
other_memory_is_refused(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_null(tg_cells_open(ends[0]));
    close(ends[0]);
    close(ends[1]);
}

static void
a_full_table_reuses_only_what_nobody_has_wanted_for_long(void **state)
{
    (void)state;
    struct tg_cells *cells = open_cells();
    char key[32];
    for (unsigned i = 0; i < TG_CELLS_MAX; i++) {
        const int n = snprintf(key, sizeof key, "p:%u", i);
        assert_non_null(tg_cells_want(cells, key, (size_t)n, 1000));
    }
    assert_null(tg_cells_want(cells, "more", 4, 2000));
    struct tg_abi_cell *first = tg_cells_find(cells, "p:0", 3);
    assert_int_equal(tg_cell_enter(cells, first, 0, 0), TG_OK); /* in use: never another's */
    const uint64_t later = 1000 + 11 * 60 * 1000;
    assert_non_null(tg_cells_want(cells, "more", 4, later));
    assert_ptr_equal(tg_cells_find(cells, "p:0", 3), first);
    assert_null(tg_cells_find(cells, "p:1", 3));
    tg_cells_close(cells);
}

static void
room_is_bounded_and_comes_back_when_a_worker_dies(void **state)
{
    (void)state;
    struct tg_cells *cells = open_cells();
    struct tg_abi_cell *cell = tg_cells_want(cells, "u:a", 3, 1);
    assert_int_equal(tg_cell_enter(cells, cell, 0, 2), TG_OK);
    assert_int_equal(tg_cell_enter(cells, cell, 1, 2), TG_OK);
    assert_int_equal(tg_cell_enter(cells, cell, 1, 2), TG_EBUSY);
    assert_int_equal(cell->in_flight, 2);
    tg_cell_set_waiting(cells, cell, 1, 3);
    assert_int_equal(cell->waiting, 3);
    assert_int_equal(tg_cell_next_waiting(cell, 0, 0, 3), 1);
    tg_cells_forget(cells, 1);
    assert_int_equal(cell->in_flight, 1);
    assert_int_equal(cell->waiting, 0);
    assert_int_equal(tg_cell_next_waiting(cell, 0, 0, 3), TG_CELLS_PLACES);
    tg_cell_leave(cells, cell, 0);
    assert_int_equal(cell->in_flight, 0);
    tg_cells_close(cells);
}

static void
a_window_forgets_what_is_older_than_it(void **state)
{
    (void)state;
    struct tg_cells *cells = open_cells();
    struct tg_abi_cell *cell = tg_cells_want(cells, "p:a", 3, 1);
    const uint32_t window = 8000;
    for (unsigned i = 0; i < 10; i++) {
        tg_cell_count(cell, window, i % 2 == 0, i % 5 == 0, 1000000);
    }
    struct tg_cell_sum sum = tg_cell_sum(cell, window, 1004000);
    assert_true(sum.total == 10 && sum.failed == 5 && sum.slow == 2);
    tg_cell_count(cell, window, false, false, 1007000);
    assert_int_equal(tg_cell_sum(cell, window, 1007000).total, 11);
    sum = tg_cell_sum(cell, window, 1010000);
    assert_true(sum.total == 1 && sum.failed == 0);
    for (unsigned i = 0; i < 200000; i++) { /* more than a bucket can count: the ratio stays */
        tg_cell_count(cell, window, i % 4 == 0, false, 1020000);
    }
    sum = tg_cell_sum(cell, window, 1020000);
    const double ratio = (double)sum.failed / sum.total;
    assert_true(sum.total > 1000 && ratio > 0.23 && ratio < 0.27);
    tg_cells_close(cells);
}

static void
a_breaker_lets_exactly_so_many_probes_through(void **state)
{
    (void)state;
    struct tg_cells *cells = open_cells();
    struct tg_abi_cell *cell = tg_cells_want(cells, "u:a", 3, 1);
    uint32_t period = 9;
    assert_int_equal(tg_cell_breaker_enter(cell, 3, 1000, 5000, &period), TG_OK);
    assert_int_equal(period, 0);
    const uint32_t closed = cell->breaker;
    assert_int_equal(tg_cell_breaker_set(cell, closed, TG_BREAKER_OPEN, 10000), TG_OK);
    assert_int_equal(tg_cell_breaker_set(cell, closed, TG_BREAKER_OPEN, 10000), TG_EBUSY);
    assert_int_equal(tg_cell_breaker_enter(cell, 3, 1000, 9000, &period), TG_EOPEN);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(tg_cell_breaker_enter(cell, 3, 1000, 11000, &period), TG_OK);
        assert_int_not_equal(period, 0);
    }
    uint32_t ignored;
    assert_int_equal(tg_cell_breaker_enter(cell, 3, 1000, 11000, &ignored), TG_EOPEN);
    tg_cell_breaker_give_back(cell, period);
    assert_int_equal(tg_cell_breaker_enter(cell, 3, 1000, 11000, &ignored), TG_OK);
    tg_cell_breaker_probed(cell, period + 1, true); /* of another period: nobody cares */
    assert_int_equal(cell->breaker & 3, TG_BREAKER_HALF_OPEN);
    tg_cell_breaker_probed(cell, period, false);
    assert_int_equal(cell->breaker >> 24, 1);
    tg_cell_breaker_probed(cell, period, true);
    assert_int_equal(cell->breaker & 3, TG_BREAKER_FAILED);
    /* Nobody judges: after the time of patience others may probe. */
    assert_int_equal(tg_cell_breaker_enter(cell, 3, 1000, 13000, &ignored), TG_OK);
    assert_int_not_equal(ignored, period);
    tg_cells_close(cells);
}

static void
retries_have_a_share_of_requests(void **state)
{
    (void)state;
    struct tg_cells *cells = open_cells();
    struct tg_abi_cell *cell = tg_cells_want(cells, "u:a", 3, 1);
    unsigned allowed = 0;
    for (unsigned i = 0; i < 1000; i++) {
        tg_cell_budget_request(cell, 50000);
    }
    for (unsigned i = 0; i < 1000; i++) {
        allowed += tg_cell_budget_retry(cell, 0.1, 3, 51000) == TG_OK;
    }
    assert_int_equal(allowed, 100);
    assert_int_equal(tg_cell_budget_retry(cell, 0.1, 3, 90000), TG_OK); /* none in this time: the least is left */
    tg_cells_close(cells);
}

static void
an_old_latency_falls_and_a_failure_is_never_quick(void **state)
{
    (void)state;
    struct tg_cells *cells = open_cells();
    struct tg_abi_cell *cell = tg_cells_want(cells, "p:a", 3, 1);
    tg_cell_time(cell, 0.010, false, 1000);
    assert_true(cell->latency > 0.0099F && cell->latency < 0.0101F);
    tg_cell_time(cell, 0.500, false, 1001);
    assert_true(cell->latency > 0.49F);
    for (unsigned i = 0; i < 60; i++) {
        tg_cell_time(cell, 0.010, false, 2000 + i * 1000);
    }
    assert_true(cell->latency < 0.05F);
    tg_cell_time(cell, 0.0001, true, 70000);
    assert_true(cell->latency >= 0.0999F);
    tg_cells_close(cells);
}

struct crowd {
    struct tg_cells *cells;
    struct tg_abi_cell *cell;
    unsigned place;
    unsigned most;
    unsigned probes;
};

static void *
push(void *arg)
{
    struct crowd *crowd = arg;
    for (unsigned i = 0; i < EACH; i++) {
        uint32_t period = 0;
        if (tg_cell_enter(crowd->cells, crowd->cell, crowd->place, 3) == TG_OK) {
            const unsigned now = __atomic_load_n(&crowd->cell->in_flight, __ATOMIC_RELAXED);
            crowd->most = now > crowd->most ? now : crowd->most;
            tg_cell_leave(crowd->cells, crowd->cell, crowd->place);
        }
        crowd->probes += tg_cell_breaker_enter(crowd->cell, 5, 1000000, 2000, &period) == TG_OK;
    }
    return NULL;
}

static void
all_of_it_holds_for_many_at_once(void **state)
{
    (void)state;
    struct tg_cells *cells = open_cells();
    struct crowd crowds[THREADS];
    pthread_t threads[THREADS];
    unsigned probes = 0;
    struct tg_abi_cell *cell = tg_cells_want(cells, "u:a", 3, 1);
    assert_int_equal(tg_cell_breaker_set(cell, cell->breaker, TG_BREAKER_OPEN, 1000), TG_OK);
    for (unsigned i = 0; i < THREADS; i++) {
        crowds[i] = (struct crowd){cells, cell, i, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, push, &crowds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        probes += crowds[i].probes;
    }
    assert_int_equal(probes, 5);
    assert_int_equal(cell->in_flight, 0);
    tg_cells_close(cells);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_finds_its_cell_also_after_another_opens_the_memory),
        cmocka_unit_test(other_memory_is_refused),
        cmocka_unit_test(a_full_table_reuses_only_what_nobody_has_wanted_for_long),
        cmocka_unit_test(room_is_bounded_and_comes_back_when_a_worker_dies),
        cmocka_unit_test(a_window_forgets_what_is_older_than_it),
        cmocka_unit_test(a_breaker_lets_exactly_so_many_probes_through),
        cmocka_unit_test(retries_have_a_share_of_requests),
        cmocka_unit_test(an_old_latency_falls_and_a_failure_is_never_quick),
        cmocka_unit_test(all_of_it_holds_for_many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
