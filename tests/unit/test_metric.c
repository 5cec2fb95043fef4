#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "zone/metric.h"

static struct tg_metrics *
open_metrics(void)
{
    const int fd = tg_metrics_create(NULL);
    assert_true(fd >= 0);
    struct tg_metrics *metrics = tg_metrics_open(fd);
    assert_non_null(metrics);
    close(fd);
    return metrics;
}

static struct tg_slice
text(const char *p)
{
    return tg_slice_of(p, strlen(p));
}

static void
a_name_keeps_its_place(void **state)
{
    (void)state;
    const int fd = tg_metrics_create(NULL);
    struct tg_metrics *one = tg_metrics_open(fd);
    struct tg_metrics *other = tg_metrics_open(fd);
    const uint32_t a = tg_metrics_route(one, text("a"));
    assert_int_equal(a, 2);
    assert_int_equal(tg_metrics_route(other, text("b")), 3);
    assert_int_equal(tg_metrics_route(one, text("a")), a);
    assert_true(tg_slice_is(tg_metrics_route_name(other, a), "a", 1));
    assert_true(tg_slice_is(tg_metrics_route_name(other, 1), "other", 5));
    assert_int_equal(tg_metrics_route_name(other, 4).n, 0);
    assert_int_equal(tg_metrics_route(one, text("")), TG_METRIC_ROUTES);
    assert_false(tg_metrics_knows(one, text("x\1")));
    assert_int_equal(tg_metrics_series(one, text("x\1")), 0);
    assert_true(tg_metrics_knows(other, text("x\1")));
    tg_metrics_close(one);
    tg_metrics_close(other);
    close(fd);
}

static void
what_is_too_much_has_no_place(void **state)
{
    struct tg_metrics *metrics = open_metrics();
    char name[16];
    (void)state;
    for (unsigned i = 2; i < TG_METRIC_ROUTES; i++) {
        (void)snprintf(name, sizeof name, "r%u", i);
        assert_int_equal(tg_metrics_route(metrics, text(name)), i);
    }
    assert_int_equal(tg_metrics_route(metrics, text("one more")), TG_METRIC_ROUTES);
    assert_int_equal(tg_metrics_route(metrics, text("r2")), 2);
    tg_metrics_close(metrics);
}

static void
rows_are_added_up(void **state)
{
    struct tg_metrics *metrics = open_metrics();
    struct tg_abi_route_count sum;
    struct tg_abi_generation_count generation;
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct tg_metric_row *row = tg_metrics_row(metrics, i * 100);
        tg_metrics_use(metrics, row);
        tg_metric_add(&row->routes[5].lines[1 + 2].numbers[1], i + 1);
        tg_metric_add(&row->routes[5].lines[TG_METRIC_ABORTED_LINE].numbers[0], 2);
        tg_metric_add(&row->routes[5].lines[0].numbers[TG_METRIC_OUT], 1000);
        tg_metric_route_time(&row->routes[5], TG_METRIC_DURATION, 400);
        tg_metric_route_time(&row->routes[5], TG_METRIC_DURATION, 99U * 1000 * 1000);
        tg_metric_route_time(&row->routes[5], TG_METRIC_UPSTREAM, 600);
        row->series[9] = 0.5;
        tg_metric_add(&tg_metric_generation(row, 12)->requests, 2);
        assert_int_equal(tg_metric_generation(row, 12 - TG_METRIC_GENERATIONS)->serial,
                         12); /* an old one makes no room */
    }
    assert_true(tg_metrics_uses(metrics, 200) && !tg_metrics_uses(metrics, 7) && !tg_metrics_uses(metrics, 256));
    tg_metrics_row(metrics, 7)->series[9] = 100; /* of a row that nobody has used */
    tg_metrics_route_sum(metrics, 5, &sum);
    assert_int_equal(sum.requests[2 * TG_METRIC_CLASSES + 1], 6);
    assert_int_equal(sum.aborted, 6);
    assert_int_equal(sum.bytes_in, 0);
    assert_int_equal(sum.bytes_out, 3000);
    assert_int_equal(sum.policy.micros, 0);
    assert_int_equal(sum.upstream.counts[1], 3);
    assert_int_equal(sum.upstream.micros, 3 * 600);
    assert_int_equal(sum.duration.counts[0], 3);
    assert_int_equal(sum.duration.counts[TG_METRIC_BUCKETS - 1], 3);
    assert_int_equal(sum.duration.micros, 3 * (400 + 99U * 1000 * 1000));
    assert_true(tg_metrics_series_sum(metrics, 9) == 1.5);
    tg_metrics_generation_sum(metrics, 12, &generation);
    assert_int_equal(generation.requests, 6);
    assert_int_equal(generation.serial, 12);
    tg_metrics_generation_sum(metrics, 13, &generation);
    assert_int_equal(generation.requests, 0);
    tg_metrics_close(metrics);
}

static void
the_last_exchanges_are_recalled(void **state)
{
    struct tg_metrics *metrics = open_metrics();
    struct tg_metric_row *row = tg_metrics_row(metrics, 0);
    struct tg_abi_trail trail = {.status = 500};
    struct tg_abi_trail out;
    (void)state;
    assert_int_equal(tg_metric_recall(row->failed, 0, &out), TG_ENONE);
    for (unsigned i = 0; i < TG_METRIC_TRAILS + 10; i++) {
        trail.status = (uint16_t)i;
        tg_metric_remember(row->failed, &row->failed_next, &trail);
    }
    assert_int_equal(row->failed_next, TG_METRIC_TRAILS + 10);
    assert_int_equal(tg_metric_recall(row->failed, 9, &out), TG_ENONE);
    assert_int_equal(tg_metric_recall(row->failed, 10, &out), TG_OK);
    assert_int_equal(out.status, 10);
    assert_int_equal(out.number, 10);
    assert_int_equal(tg_metric_recall(row->failed, TG_METRIC_TRAILS + 9, &out), TG_OK);
    assert_int_equal(tg_metric_recall(row->failed, TG_METRIC_TRAILS + 10, &out), TG_ENONE);
    tg_metrics_close(metrics);
}

static void *
name_many(void *arg)
{
    for (unsigned i = 0; i < 500; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "s%u", i);
        assert_in_range(tg_metrics_series(arg, text(name)), 0, 499);
    }
    return NULL;
}

static void
names_are_given_once_whoever_asks(void **state)
{
    struct tg_metrics *metrics = open_metrics();
    pthread_t threads[4];
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, name_many, metrics), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(tg_metrics_series_key(metrics, 500).n, 0);
    tg_metrics_close(metrics);
}

static void
memory_of_another_form_is_refused(void **state)
{
    (void)state;
    const int fd = tg_metrics_create(NULL);
    const uint32_t other = 1;
    assert_int_equal(pwrite(fd, &other, sizeof other, 0), sizeof other);
    assert_null(tg_metrics_open(fd));
    assert_int_equal(ftruncate(fd, 100), 0);
    assert_null(tg_metrics_open(fd));
    close(fd);
}

static enum tg_rc
recall(const struct tg_metrics *metrics, unsigned bucket, struct tg_abi_exemplar *out)
{
    return tg_metrics_exemplar(metrics, 3, TG_EXEMPLAR_DURATION, bucket, out);
}

static void
the_last_one_stands_for_its_bucket(void **state)
{
    struct tg_metrics *metrics = open_metrics();
    struct tg_abi_exemplar one = {.at = 100, .seconds = 0.002};
    struct tg_abi_exemplar found;
    (void)state;
    for (unsigned i = 0; i < TG_METRIC_BUCKETS; i++) {
        assert_int_equal(recall(metrics, i, &found), TG_ENONE);
    }
    memset(one.trace, 'a', sizeof one.trace);
    tg_metrics_set_exemplar(metrics, 3, TG_EXEMPLAR_DURATION, &one);
    memset(one.trace, 'b', sizeof one.trace);
    one.at = 101;
    tg_metrics_set_exemplar(metrics, 3, TG_EXEMPLAR_DURATION, &one);
    one.seconds = 3600;
    tg_metrics_set_exemplar(metrics, 3, TG_EXEMPLAR_DURATION, &one);
    assert_int_equal(recall(metrics, 2, &found), TG_OK);
    assert_true(found.at == 101 && found.seconds == 0.002 && found.trace[0] == 'b' && found.trace[31] == 'b');
    assert_int_equal(recall(metrics, TG_METRIC_BUCKETS - 1, &found), TG_OK);
    assert_int_equal(recall(metrics, 1, &found), TG_ENONE);
    assert_int_equal(tg_metrics_exemplar(metrics, 3, TG_EXEMPLAR_UPSTREAM, 2, &found), TG_ENONE);
    assert_int_equal(tg_metrics_exemplar(metrics, 4, TG_EXEMPLAR_DURATION, 2, &found), TG_ENONE);
    tg_metrics_close(metrics);
}

enum { WRITES = 100000 };

/* All digits of what one thread writes are the same. */
static void *
write_many(void *arg)
{
    struct tg_metrics *metrics = arg;
    static int next = 0;
    struct tg_abi_exemplar one = {.at = 1, .seconds = 0.002};
    memset(one.trace, '0' + __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED), sizeof one.trace);
    for (int i = 0; i < WRITES; i++) {
        tg_metrics_set_exemplar(metrics, 3, TG_EXEMPLAR_DURATION, &one);
    }
    return NULL;
}

static void
one_that_several_write_is_never_mixed(void **state)
{
    struct tg_metrics *metrics = open_metrics();
    pthread_t writers[2];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&writers[i], NULL, write_many, metrics), 0);
    }
    for (int i = 0; i < WRITES; i++) {
        struct tg_abi_exemplar found;
        if (recall(metrics, 2, &found) == TG_OK) {
            for (unsigned k = 1; k < sizeof found.trace; k++) {
                assert_int_equal(found.trace[k], found.trace[0]);
            }
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        (void)pthread_join(writers[i], NULL);
    }
    struct tg_abi_exemplar last;
    assert_int_equal(recall(metrics, 2, &last), TG_OK);
    tg_metrics_close(metrics);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_keeps_its_place),
        cmocka_unit_test(what_is_too_much_has_no_place),
        cmocka_unit_test(rows_are_added_up),
        cmocka_unit_test(the_last_exchanges_are_recalled),
        cmocka_unit_test(names_are_given_once_whoever_asks),
        cmocka_unit_test(memory_of_another_form_is_refused),
        cmocka_unit_test(the_last_one_stands_for_its_bucket),
        cmocka_unit_test(one_that_several_write_is_never_mixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
