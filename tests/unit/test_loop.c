#include "unit.h"

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

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(deadlines_come_once_and_tasks_may_go)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
