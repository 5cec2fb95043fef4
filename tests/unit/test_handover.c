#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/listener.h"
#include "process/handover.h"

static struct tg_handover_writer writer;

static int
listener(void)
{
    const int fd = tg_listener_bind("127.0.0.1", 0, NULL);
    assert_true(fd >= 0);
    return fd;
}

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static struct tg_handover *
read_back(void)
{
    struct tg_handover *handover = NULL;
    assert_int_equal(tg_handover_end(&writer, NULL), TG_OK);
    assert_int_equal(tg_handover_read(&handover, NULL), TG_OK);
    assert_null(getenv("TIDEGATE_HANDOVER"));
    return handover;
}

static void
what_is_put_is_taken_once(void **state)
{
    int pair[2];
    const int sockets[3] = {listener(), listener(), listener()};
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    const int dict = open("/dev/null", O_RDWR | O_CLOEXEC);
    tg_handover_begin(&writer);
    tg_handover_put(&writer, "report");
    tg_handover_put_fd(&writer, pair[0]);
    tg_handover_put(&writer, "\ncontrol");
    tg_handover_put_fd(&writer, pair[1]);
    tg_handover_put(&writer, " /a path/c.sock\nlisten ::1 8080");
    tg_handover_put_fd(&writer, sockets[0]);
    tg_handover_put_fd(&writer, sockets[1]);
    tg_handover_put(&writer, "\nlisten ::1 8081");
    tg_handover_put_fd(&writer, sockets[2]);
    tg_handover_put(&writer, "\nof a later version 1 2 3\ndict");
    tg_handover_put_fd(&writer, dict);
    tg_handover_put(&writer, " rates\n");
    assert_int_equal(fcntl(sockets[0], F_GETFD), 0);

    struct tg_handover *handover = read_back();
    assert_non_null(handover);
    assert_int_equal(handover->report, pair[0]);
    assert_int_equal(handover->control, pair[1]);
    assert_string_equal(handover->control_path, "/a path/c.sock");
    assert_int_equal(fcntl(sockets[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(tg_handover_take_listen(handover, "::1", 8080, 1), sockets[1]);
    assert_int_equal(tg_handover_take_listen(handover, "::1", 8080, 1), -1);
    assert_int_equal(tg_handover_take_listen(handover, "::1", 8080, 2), -1);
    assert_int_equal(tg_handover_take_listen(handover, "::2", 8080, 0), -1);
    assert_int_equal(tg_handover_take_listen(handover, "::1", 8082, 0), -1);
    assert_int_equal(tg_handover_take_dict(handover, "rate"), -1);
    assert_int_equal(tg_handover_take_dict(handover, "rates"), dict);
    assert_int_equal(tg_handover_take_dict(handover, "rates"), -1);
    tg_handover_close_rest(handover);
    assert_true(is_open(sockets[1]) && is_open(dict) && !is_open(sockets[0]) && !is_open(sockets[2]));
    tg_mem_free(handover);
    close(sockets[1]);
    close(dict);
    close(pair[0]);
    close(pair[1]);
}

static void
numbers_that_mean_nothing_are_refused(void **state)
{
    int pair[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    tg_handover_begin(&writer);
    tg_handover_put(&writer, "report %d\n", pair[0]);
    tg_handover_put(&writer, "listen a 1 %d 0 1 2 -1 999999 99999999999999999999 x %dx \n", pair[1], pair[0] + 1000);
    tg_handover_put(&writer,
                    "listen\nlisten a\nlisten a 2\ndict\ndict 998\ndict 997 name\ncontrol\ncontrol 996 /x\n\n \n");
    struct tg_handover *handover = read_back();
    assert_non_null(handover);
    assert_int_equal(handover->dict_count, 0);
    assert_int_equal(handover->control, -1);
    for (unsigned slot = 0; slot < 10; slot++) {
        assert_int_equal(tg_handover_take_listen(handover, "a", 1, slot), -1);
    }
    assert_true(is_open(STDIN_FILENO) && is_open(STDOUT_FILENO) && is_open(STDERR_FILENO));
    assert_false(is_open(pair[1])); /* it was meant for us, but does not listen */
    tg_handover_close_rest(handover);
    tg_mem_free(handover);
    close(pair[0]);
}

static void
nobody_elses_handover_is_ours(void **state)
{
    struct tg_handover *handover = NULL;
    char text[64];
    (void)state;
    assert_int_equal(tg_handover_read(&handover, NULL), TG_OK);
    assert_null(handover);
    const int fd = listener();
    (void)snprintf(text, sizeof text, "1 %d\nreport %d\n", (int)getpid() + 1, fd);
    const char *const others[] = {text, "", "x", "1", "1 x\n"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        (void)setenv("TIDEGATE_HANDOVER", others[i], 1);
        assert_int_equal(tg_handover_read(&handover, NULL), TG_OK);
        assert_null(handover);
        assert_null(getenv("TIDEGATE_HANDOVER"));
    }
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    struct tg_err err = {{0}};
    (void)snprintf(text, sizeof text, "2 %d\nreport %d\n", (int)getpid(), fd);
    (void)setenv("TIDEGATE_HANDOVER", text, 1);
    assert_int_equal(tg_handover_read(&handover, &err), TG_EINVAL);
    assert_non_null(strstr(err.text, "found version 2, expected 1"));
    close(fd);
}

static void
what_does_not_fit_is_told(void **state)
{
    struct tg_err err = {{0}};
    (void)state;
    tg_handover_begin(&writer);
    for (unsigned i = 0; i < TG_HANDOVER_TEXT / 8; i++) {
        tg_handover_put(&writer, "%08u ", i);
    }
    assert_int_equal(tg_handover_end(&writer, &err), TG_ELIMIT);
    assert_null(getenv("TIDEGATE_HANDOVER"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_taken_once),
        cmocka_unit_test(numbers_that_mean_nothing_are_refused),
        cmocka_unit_test(nobody_elses_handover_is_ours),
        cmocka_unit_test(what_does_not_fit_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
