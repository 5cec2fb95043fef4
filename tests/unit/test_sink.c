#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/sink.h"

static char path[] = "/tmp/tidegate-sink-XXXXXX";

static size_t
lines_of(const char *name, size_t *longest)
{
    char line[TG_SINK_LINE * 2];
    size_t count = 0;
    FILE *file = fopen(name, "r");
    *longest = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        count++;
        *longest = strlen(line) > *longest ? strlen(line) : *longest;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return count;
}

static void
lines_come_out_whole_and_long_ones_are_cut(void **state)
{
    static char much[TG_SINK_LINE * 2];
    size_t longest = 0;
    (void)state;
    struct tg_sink *sink = tg_sink_open(path, NULL);
    assert_non_null(sink);
    memset(much, 'x', sizeof much);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(tg_sink_write(sink, "short", 5), TG_OK);
    }
    assert_int_equal(tg_sink_write(sink, much, sizeof much), TG_OK);
    tg_sink_close(sink);
    assert_int_equal(lines_of(path, &longest), 21);
    assert_int_equal(longest, TG_SINK_LINE);
}

static void
what_does_not_fit_is_dropped_and_counted(void **state)
{
    static char line[1000];
    (void)state;
    char fifo[] = "/tmp/tidegate-fifo-XXXXXX";
    assert_non_null(mktemp(fifo));
    /* Nobody reads: the writer blocks, the queue fills, and writing still returns at once. */
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    char name[64];
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", ends[1]);
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    memset(line, 'x', sizeof line);
    unsigned refused = 0;
    for (int i = 0; i < 4000; i++) {
        refused += tg_sink_write(sink, line, sizeof line) == TG_ELIMIT;
    }
    assert_true(refused > 0);
    assert_int_equal(tg_sink_dropped(sink), refused);
    char rest[65536];
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    tg_sink_flush(sink);
    for (int i = 0; i < 200; i++) {
        while (read(ends[0], rest, sizeof rest) > 0) {
        }
        (void)usleep(1000);
    }
    tg_sink_close(sink);
    close(ends[0]);
    close(ends[1]);
}

static void
a_full_disk_drops_lines_and_does_not_block(void **state)
{
    (void)state;
    struct tg_sink *sink = tg_sink_open("/dev/full", NULL);
    assert_non_null(sink);
    assert_int_equal(tg_sink_write(sink, "lost", 4), TG_OK);
    tg_sink_flush(sink);
    for (int i = 0; i < 1000 && tg_sink_dropped(sink) == 0; i++) {
        (void)usleep(1000);
    }
    assert_int_equal(tg_sink_dropped(sink), 1);
    tg_sink_close(sink);
}

static void
a_path_that_cannot_be_opened_is_an_error_with_its_name(void **state)
{
    struct tg_err err = {0};
    (void)state;
    assert_null(tg_sink_open("/none/such/log", &err));
    assert_non_null(strstr(err.text, "/none/such/log"));
}

int
main(void)
{
    close(mkstemp(path));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_out_whole_and_long_ones_are_cut),
        cmocka_unit_test(what_does_not_fit_is_dropped_and_counted),
        cmocka_unit_test(a_full_disk_drops_lines_and_does_not_block),
        cmocka_unit_test(a_path_that_cannot_be_opened_is_an_error_with_its_name),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
