#include "unit.h"

#include <time.h>

#include "base/mem.h"
#include "net/threads.h"

static struct tg_loop *loop;
static struct tg_threads *threads;

struct work {
    struct tg_job job;
    unsigned number;
    unsigned milliseconds;
    unsigned worked; /* written by the thread */
};

static unsigned begun;
static unsigned done;
static unsigned freed;
static unsigned order[64];
static struct work *victim; /* dropped by the first that is done */

static void
pause_for(unsigned milliseconds)
{
    const struct timespec wait = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    (void)nanosleep(&wait, NULL);
}

static void
on_work(struct tg_job *job)
{
    struct work *work = (struct work *)job;
    pause_for(work->milliseconds);
    work->worked++;
}

static void
on_free(struct tg_job *job)
{
    freed++;
    tg_mem_free(job);
}

static void
on_done(struct tg_job *job)
{
    struct work *work = (struct work *)job;
    assert_int_equal(job->state, TG_JOB_IDLE);
    assert_int_equal(work->worked, 1);
    order[done++] = work->number;
    if (victim != NULL) {
        tg_threads_drop(threads, &victim->job);
        victim = NULL;
        begun--;
    }
    if (done == begun) {
        tg_loop_stop(loop);
    }
    tg_mem_free(work);
}

static struct work *
new_work(unsigned milliseconds)
{
    struct work *work = tg_mem_new(struct work);
    assert_non_null(work);
    work->job = (struct tg_job){.work = on_work, .done = on_done, .free = on_free};
    work->number = begun;
    work->milliseconds = milliseconds;
    return work;
}

static struct work *
start(unsigned milliseconds)
{
    struct work *work = new_work(milliseconds);
    assert_int_equal(tg_threads_start(threads, &work->job), TG_OK);
    begun++;
    return work;
}

static void
open_all(unsigned count, unsigned waiting)
{
    const struct tg_threads_limits limits = {count, waiting};
    begun = done = freed = 0;
    loop = tg_loop_new();
    assert_non_null(loop);
    threads = tg_threads_new(loop, &limits);
    assert_non_null(threads);
}

static void
close_all(void)
{
    tg_threads_free(threads);
    tg_loop_free(loop);
}

static void
jobs_are_done_in_the_loop_in_their_order(void **state)
{
    (void)state;
    open_all(1, 32);
    for (unsigned i = 0; i < 20; i++) {
        (void)start(i % 3);
    }
    assert_int_equal(done, 0); /* never inside of start */
    tg_loop_run(loop);
    assert_int_equal(done, 20);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(order[i], i);
    }
    assert_int_equal(freed, 0);
    close_all();
}

static void
what_waits_is_bounded(void **state)
{
    (void)state;
    open_all(2, 4);
    (void)start(100);
    (void)start(100);
    pause_for(50); /* both threads have begun */
    for (unsigned i = 0; i < 4; i++) {
        (void)start(0);
    }
    struct work *extra = new_work(0);
    assert_int_equal(tg_threads_start(threads, &extra->job), TG_EBUSY);
    tg_mem_free(extra);
    tg_loop_run(loop);
    assert_int_equal(done, 6);
    (void)start(0); /* there is room again */
    close_all();
    assert_true(done + freed == 7);
}

static void
a_dropped_job_is_never_done_and_freed_once(void **state)
{
    (void)state;
    open_all(1, 8);
    struct work *runs = start(100);
    struct work *first = start(0);
    (void)start(0);
    struct work *last = start(0);
    pause_for(50);
    tg_threads_drop(threads, &first->job); /* waits: freed at once */
    tg_threads_drop(threads, &last->job);
    assert_int_equal(freed, 2);
    tg_threads_drop(threads, &runs->job); /* runs: freed when the thread is done */
    assert_int_equal(freed, 2);
    begun = 1;
    tg_loop_run(loop);
    assert_int_equal(freed, 3);
    assert_int_equal(done, 1);
    assert_int_equal(order[0], 2);
    struct work *idle = new_work(0);
    tg_threads_drop(threads, &idle->job);
    assert_int_equal(freed, 4);
    close_all();
}

static void
what_is_done_may_drop_another_that_is_done(void **state)
{
    (void)state;
    open_all(2, 8);
    (void)start(0);
    victim = start(20);
    pause_for(80); /* both have been worked on, and the loop has seen neither */
    tg_loop_run(loop);
    assert_int_equal(done, 1);
    pause_for(10);
    close_all();
    assert_int_equal(freed, 1);
}

static void
the_end_frees_all_that_is_left(void **state)
{
    (void)state;
    open_all(2, 16);
    for (unsigned i = 0; i < 10; i++) {
        (void)start(60);
    }
    pause_for(20);
    close_all();
    assert_int_equal(done, 0);
    assert_int_equal(freed, 10);
    open_all(2, 16);
    close_all();
}

static void
memory_that_is_short_starts_no_thread(void **state)
{
    const struct tg_threads_limits limits = {2, 4};
    (void)state;
    loop = tg_loop_new();
    assert_non_null(loop);
    tg_mem_fail_at(1);
    assert_null(tg_threads_new(loop, &limits));
    tg_mem_fail_at(0);
    tg_threads_free(NULL);
    tg_loop_free(loop);
}

/* For the race detector: jobs come, go and are dropped while both threads work. */
static void
many_come_and_go(void **state)
{
    struct work *kept[8] = {NULL};
    (void)state;
    open_all(2, 64);
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < 8; i++) {
            kept[i] = start(0);
        }
        for (unsigned i = round % 2; i < 8; i += 2) {
            tg_threads_drop(threads, &kept[i]->job);
            begun--;
        }
        if (begun > done) {
            tg_loop_run(loop);
        }
        tg_threads_free(threads);
        tg_loop_free(loop);
        const unsigned sum = done + freed;
        assert_int_equal(sum, 8);
        open_all(2, 64);
    }
    close_all();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_done_in_the_loop_in_their_order),
        cmocka_unit_test(what_waits_is_bounded),
        cmocka_unit_test(a_dropped_job_is_never_done_and_freed_once),
        cmocka_unit_test(what_is_done_may_drop_another_that_is_done),
        cmocka_unit_test(the_end_frees_all_that_is_left),
        cmocka_unit_test(memory_that_is_short_starts_no_thread),
        cmocka_unit_test(many_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
