#include "unit.h"

#include <event2/event.h>
#include <time.h>

#include "base/mem.h"
#include "net/loop.h"

static struct tg_loop *loop;
static unsigned expired;
static unsigned ran;
static struct tg_deadline short_one;
static struct tg_deadline moved;
static struct tg_deadline cleared;
static struct tg_deadline removed;
static struct tg_deadline last;
static struct tg_task task;
static struct tg_task doomed;

static void
on_expired(struct tg_deadline *deadline)
{
    expired += deadline == &short_one ? 1 : deadline == &moved ? 10 : 1000;
}

static void
on_last(struct tg_deadline *deadline)
{
    (void)deadline;
    tg_loop_stop(loop);
}

static void
on_task(struct tg_task *t)
{
    ran++;
    if (t == &task && ran < 3) {
        tg_task_queue(loop, t); /* runs in the next turn, not for ever in this one */
        tg_task_remove(loop, &doomed);
    }
}

static void
deadlines_come_once_and_tasks_may_go(void **state)
{
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    short_one.expired = moved.expired = cleared.expired = removed.expired = on_expired;
    last.expired = on_last;
    tg_deadline_set(loop, &short_one, 10);
    tg_deadline_set(loop, &moved, 60 * 1000);
    tg_deadline_set(loop, &moved, 20); /* nearer than where it hangs */
    tg_deadline_set(loop, &cleared, 10);
    tg_deadline_clear(&cleared);
    tg_deadline_set(loop, &removed, 10);
    tg_deadline_remove(&removed);
    tg_deadline_set(loop, &last, 900);
    task.run = doomed.run = on_task;
    tg_task_queue(loop, &task);
    tg_task_queue(loop, &task);
    tg_task_queue(loop, &doomed);
    tg_loop_run(loop);
    assert_int_equal(expired, 11);
    assert_int_equal(ran, 3);
    tg_loop_free(loop);
}

enum { DEADLINES = 40 };

struct timed {
    struct tg_deadline deadline; /* first: the callback gets its address */
    uint64_t set_for;
    uint64_t came;
};

static struct timed timed[DEADLINES];
static unsigned left;

static void
on_timed(struct tg_deadline *deadline)
{
    struct timed *t = (struct timed *)(void *)deadline;
    assert_int_equal(t->came, 0);
    t->came = tg_loop_now(loop);
    if (--left == 0) {
        tg_loop_stop(loop);
    }
}

static void
a_deadline_never_comes_early(void **state)
{
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    left = DEADLINES;
    for (unsigned i = 0; i < DEADLINES; i++) {
        timed[i] = (struct timed){.deadline = {.expired = on_timed}};
        timed[i].set_for = tg_loop_now(loop) + (uint64_t)i * 23;
        tg_deadline_set(loop, &timed[i].deadline, (uint64_t)i * 23);
    }
    tg_loop_run(loop);
    for (unsigned i = 0; i < DEADLINES; i++) {
        assert_true(timed[i].came >= timed[i].set_for);
        assert_null(timed[i].deadline.link);
    }
    tg_loop_free(loop);
}

static struct tg_deadline neighbours[3];
static unsigned neighbours_came;

/* The first to come takes the others, which hang in the same place, away: owners free each other. */
static void
on_neighbour(struct tg_deadline *deadline)
{
    neighbours_came++;
    for (unsigned i = 0; i < 3; i++) {
        if (&neighbours[i] != deadline) {
            tg_deadline_remove(&neighbours[i]);
        }
    }
    memset(neighbours, 0xee, sizeof neighbours);
}

static void
a_deadline_may_remove_its_neighbours(void **state)
{
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    for (unsigned i = 0; i < 3; i++) {
        neighbours[i] = (struct tg_deadline){.expired = on_neighbour};
        tg_deadline_set(loop, &neighbours[i], 10);
    }
    last = (struct tg_deadline){.expired = on_last};
    tg_deadline_set(loop, &last, 600);
    tg_loop_run(loop);
    assert_int_equal(neighbours_came, 1);
    tg_loop_free(loop);
}

static unsigned again;

static void
on_again(struct tg_deadline *deadline)
{
    if (++again == 3) {
        tg_loop_stop(loop);
    } else {
        tg_deadline_set(loop, deadline, 1);
    }
}

static void
a_deadline_may_set_itself_again(void **state)
{
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    struct tg_deadline deadline = {.expired = on_again};
    tg_deadline_set(loop, &deadline, 1);
    tg_loop_run(loop);
    assert_int_equal(again, 3);
    tg_loop_free(loop);
}

static void
a_deadline_that_is_moved_away_does_not_come_at_the_old_time(void **state)
{
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    left = 1;
    timed[0] = (struct timed){.deadline = {.expired = on_timed}};
    tg_deadline_set(loop, &timed[0].deadline, 1);
    tg_deadline_set(loop, &timed[0].deadline, 700);
    timed[0].set_for = tg_loop_now(loop) + 700;
    tg_loop_run(loop);
    assert_true(timed[0].came >= timed[0].set_for);
    tg_loop_free(loop);
}

static struct tg_task tasks[4];
static char order[16];

static void
on_ordered(struct tg_task *t)
{
    const size_t n = strlen(order);
    order[n] = (char)('0' + (t - tasks));
    if (t == &tasks[0]) {
        tg_task_queue(loop, &tasks[3]);
        tg_task_queue(loop, &tasks[0]);
        t->run = NULL; /* it is taken away before its second turn */
    } else if (t == &tasks[2]) {
        tg_task_remove(loop, &tasks[0]);
    } else if (t == &tasks[3]) {
        tg_loop_stop(loop);
    }
}

static void
tasks_run_in_order_and_new_ones_in_the_next_turn(void **state)
{
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    for (unsigned i = 0; i < 4; i++) {
        tasks[i] = (struct tg_task){.run = on_ordered};
    }
    tg_task_queue(loop, &tasks[0]);
    tg_task_queue(loop, &tasks[1]);
    tg_task_queue(loop, &tasks[2]);
    tg_task_remove(loop, &tasks[1]);
    tg_task_queue(loop, &tasks[1]); /* behind the third now */
    tg_loop_run(loop);
    assert_string_equal(order, "0213");
    tg_loop_free(loop);
}

static void
the_last_task_may_be_removed_and_others_queued_after_it(void **state)
{
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    memset(order, 0, sizeof order);
    for (unsigned i = 0; i < 4; i++) {
        tasks[i] = (struct tg_task){.run = on_ordered};
    }
    tg_task_queue(loop, &tasks[1]);
    tg_task_queue(loop, &tasks[2]);
    tg_task_remove(loop, &tasks[2]);
    tg_task_remove(loop, &tasks[2]);
    tg_task_queue(loop, &tasks[3]);
    tg_loop_run(loop);
    assert_string_equal(order, "13");
    tg_loop_free(loop);
}

enum { MOMENTS = 20, ROUNDS = 2000, EVENT_EVERY = 100 /* microseconds */ };

static struct tg_task spare[2];
static struct tg_task busy;
static struct event *always;
static unsigned moments;
static unsigned rounds;
static uint64_t spared; /* microseconds */

static void
on_spare(struct tg_task *t)
{
    const uint64_t begin = tg_loop_clock();
    assert_true(t == &spare[0]); /* the other one was taken out */
    assert_true(tg_loop_spare(loop) > begin);
    while (tg_loop_clock() < tg_loop_spare(loop)) {
    }
    spared += tg_loop_clock() - begin;
    if (++moments == MOMENTS && rounds == 0) {
        tg_loop_stop(loop);
    } else {
        tg_task_queue_spare(loop, t);
    }
}

/* As if something came in each turn. */
static void
on_busy(struct tg_task *t)
{
    const uint64_t until = tg_loop_clock() + EVENT_EVERY;
    while (tg_loop_clock() < until) {
    }
    if (++rounds == ROUNDS) {
        tg_loop_stop(loop);
    } else {
        event_active(always, EV_TIMEOUT, 0);
        tg_task_queue(loop, t);
    }
}

static void
on_always(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    (void)tg_loop_now(loop); /* as all do that serve */
}

static void
what_can_wait_has_all_of_an_idle_loop_and_a_part_of_a_busy_one(void **state)
{
    (void)state;
    moments = rounds = 0;
    spared = 0;
    loop = tg_loop_new();
    spare[0] = spare[1] = (struct tg_task){.run = on_spare};
    tg_task_queue_spare(loop, &spare[1]);
    tg_task_queue_spare(loop, &spare[0]);
    tg_task_queue_spare(loop, &spare[0]);
    tg_task_remove(loop, &spare[1]);
    tg_loop_run(loop); /* ends: nothing else happens, and it comes again and again */
    assert_int_equal(moments, MOMENTS);
    always = event_new(tg_loop_base(loop), -1, 0, on_always, NULL);
    busy = (struct tg_task){.run = on_busy};
    spared = 0;
    const uint64_t begin = tg_loop_clock();
    event_active(always, EV_TIMEOUT, 0);
    tg_task_queue(loop, &busy);
    tg_task_queue_spare(loop, &spare[0]);
    tg_loop_run(loop);
    const uint64_t took = tg_loop_clock() - begin;
    assert_true(moments > MOMENTS);
    assert_true(spared < took / 2); /* a quarter, where nothing else runs on the machine */
    event_free(always);
    tg_loop_free(loop);
}

static void
the_date_has_the_form_of_http(void **state)
{
    char expected[64];
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    const char *date = tg_loop_http_date(loop);
    const time_t second = (time_t)tg_loop_wall(loop); /* of the same turn, so of the same second */
    struct tm tm;
    assert_non_null(gmtime_r(&second, &tm));
    assert_int_equal(strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", &tm), 29);
    assert_string_equal(date, expected);
    assert_int_equal(tg_loop_now(loop), tg_loop_micros(loop) / 1000);
    tg_loop_free(loop);
}

static void
a_loop_without_memory_is_none(void **state)
{
    (void)state;
    tg_mem_fail_at(1);
    assert_null(tg_loop_new());
    tg_mem_fail_at(0);
    tg_loop_free(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_come_once_and_tasks_may_go),
        cmocka_unit_test(a_deadline_never_comes_early),
        cmocka_unit_test(a_deadline_may_remove_its_neighbours),
        cmocka_unit_test(a_deadline_may_set_itself_again),
        cmocka_unit_test(a_deadline_that_is_moved_away_does_not_come_at_the_old_time),
        cmocka_unit_test(tasks_run_in_order_and_new_ones_in_the_next_turn),
        cmocka_unit_test(the_last_task_may_be_removed_and_others_queued_after_it),
        cmocka_unit_test(what_can_wait_has_all_of_an_idle_loop_and_a_part_of_a_busy_one),
        cmocka_unit_test(the_date_has_the_form_of_http),
        cmocka_unit_test(a_loop_without_memory_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
