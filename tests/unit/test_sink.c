#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
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

static void
lines_come_out_in_order(void **state)
{
    enum { LINES = 50000 };
    char name[] = "/tmp/tidegate-order-XXXXXX";
    char line[64];
    unsigned kept = 0;
    unsigned last = 0;
    (void)state;
    close(mkstemp(name));
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    assert_string_equal(tg_sink_path(sink), name);
    for (unsigned i = 1; i <= LINES; i++) {
        const int n = snprintf(line, sizeof line, "%u 0123456789abcdef", i);
        (void)tg_sink_write(sink, line, (size_t)n);
    }
    const uint64_t dropped = tg_sink_dropped(sink);
    tg_sink_close(sink);
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        char *rest;
        const unsigned number = (unsigned)strtoul(line, &rest, 10);
        assert_string_equal(rest, " 0123456789abcdef\n");
        assert_true(number > last);
        last = number;
        kept++;
    }
    (void)fclose(file);
    (void)unlink(name);
    assert_int_equal(kept + dropped, LINES);
}

static void
after_a_rotation_lines_go_to_the_new_file(void **state)
{
    char name[] = "/tmp/tidegate-rotate-XXXXXX";
    char old[64];
    size_t longest = 0;
    (void)state;
    close(mkstemp(name));
    (void)snprintf(old, sizeof old, "%s.1", name);
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    assert_int_equal(tg_sink_write(sink, "old", 3), TG_OK);
    tg_sink_flush(sink);
    for (int i = 0; i < 1000 && lines_of(name, &longest) == 0; i++) {
        (void)usleep(1000);
    }
    assert_int_equal(rename(name, old), 0);
    tg_sink_reopen(sink);
    assert_int_equal(tg_sink_write(sink, "newer", 5), TG_OK);
    tg_sink_close(sink);
    assert_int_equal(lines_of(old, &longest), 1);
    assert_int_equal(longest, 4);
    assert_int_equal(lines_of(name, &longest), 1);
    assert_int_equal(longest, 6);
    (void)unlink(name);
    (void)unlink(old);
}

static void
a_rotation_that_fails_keeps_the_old_file(void **state)
{
    char folder[] = "/tmp/tidegate-folder-XXXXXX";
    char name[64];
    char moved[] = "/tmp/tidegate-moved-XXXXXX";
    size_t longest = 0;
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(name, sizeof name, "%s/log", folder);
    close(mkstemp(moved));
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    assert_int_equal(rename(name, moved), 0);
    assert_int_equal(rmdir(folder), 0);
    tg_sink_reopen(sink);
    assert_int_equal(tg_sink_write(sink, "still", 5), TG_OK);
    tg_sink_close(sink);
    assert_int_equal(lines_of(moved, &longest), 1);
    (void)unlink(moved);
}

static void
without_a_flush_a_few_lines_wait_and_with_one_they_are_written(void **state)
{
    char name[] = "/tmp/tidegate-flush-XXXXXX";
    size_t longest = 0;
    size_t lines = 0;
    (void)state;
    close(mkstemp(name));
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    (void)usleep(20000); /* until the writer waits */
    assert_int_equal(tg_sink_write(sink, "line", 4), TG_OK);
    (void)usleep(20000);
    assert_int_equal(lines_of(name, &longest), 0);
    tg_sink_flush(sink);
    for (int i = 0; i < 1000 && lines == 0; i++) {
        (void)usleep(1000);
        lines = lines_of(name, &longest);
    }
    assert_int_equal(lines, 1);
    tg_sink_close(sink);
    (void)unlink(name);
}

static void
an_empty_line_is_a_line_and_the_longest_is_whole(void **state)
{
    static char line[TG_SINK_LINE];
    char name[] = "/tmp/tidegate-length-XXXXXX";
    size_t longest = 0;
    (void)state;
    memset(line, 'x', sizeof line);
    close(mkstemp(name));
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    assert_int_equal(tg_sink_write(sink, "", 0), TG_OK);
    assert_int_equal(tg_sink_write(sink, line, TG_SINK_LINE - 1), TG_OK);
    tg_sink_close(sink);
    assert_int_equal(lines_of(name, &longest), 2);
    assert_int_equal(longest, TG_SINK_LINE);
    (void)unlink(name);
}

/* Each allocation of opening fails in turn; the sanitizer sees what is not given back. */
static void
a_sink_that_cannot_have_memory_is_not_opened(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (unsigned long nth = 1; nth < 10; nth++) {
        struct tg_err err = {0};
        tg_mem_fail_at(nth);
        struct tg_sink *sink = tg_sink_open(path, &err);
        tg_mem_fail_at(0);
        failed += sink == NULL;
        assert_true(sink != NULL || strstr(err.text, path) != NULL);
        tg_sink_close(sink);
    }
    assert_int_equal(failed, 5); /* the sink, its path, two buffers and the outlet */
    tg_sink_close(NULL);
}

static void
a_line_may_be_made_where_it_will_stand(void **state)
{
    char name[] = "/tmp/tidegate-begin-XXXXXX";
    size_t longest = 0;
    (void)state;
    close(mkstemp(name));
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    for (unsigned i = 0; i < 300; i++) { /* more than are handed over at once */
        char *line = tg_sink_begin(sink);
        assert_non_null(line);
        memset(line, 'x', TG_SINK_LINE + TG_SINK_SLACK);
        tg_sink_end(sink, i % 2 == 0 ? 3 : 1000);
    }
    tg_sink_reopen(sink);
    (void)usleep(1000);
    assert_int_equal(tg_sink_write(sink, "a\nb", 3), TG_OK);
    tg_sink_close(sink);
    assert_int_equal(lines_of(name, &longest), 301);
    assert_int_equal(longest, 1001);
    (void)unlink(name);
}

/* What is handed over while the file is opened anew is written, too. */
static void
no_line_is_lost_while_files_are_opened_anew(void **state)
{
    enum { LINES = 30000 };
    char name[] = "/tmp/tidegate-anew-XXXXXX";
    size_t longest = 0;
    (void)state;
    close(mkstemp(name));
    struct tg_sink *sink = tg_sink_open(name, NULL);
    assert_non_null(sink);
    for (unsigned i = 0; i < LINES; i++) {
        assert_int_equal(tg_sink_write(sink, "x", 1), TG_OK);
        if (i % 10 == 0) {
            tg_sink_reopen(sink);
        }
        if (i % 7 == 0) {
            tg_sink_flush(sink);
        }
    }
    assert_int_equal(tg_sink_dropped(sink), 0);
    tg_sink_close(sink);
    assert_int_equal(lines_of(name, &longest), LINES);
    (void)unlink(name);
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
        cmocka_unit_test(lines_come_out_in_order),
        cmocka_unit_test(after_a_rotation_lines_go_to_the_new_file),
        cmocka_unit_test(a_rotation_that_fails_keeps_the_old_file),
        cmocka_unit_test(without_a_flush_a_few_lines_wait_and_with_one_they_are_written),
        cmocka_unit_test(an_empty_line_is_a_line_and_the_longest_is_whole),
        cmocka_unit_test(a_line_may_be_made_where_it_will_stand),
        cmocka_unit_test(no_line_is_lost_while_files_are_opened_anew),
        cmocka_unit_test(a_sink_that_cannot_have_memory_is_not_opened),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
