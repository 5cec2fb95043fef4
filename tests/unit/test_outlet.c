#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/outlet.h"

/* A socket on this machine; its port. */
static int
open_socket(int type, unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    const int fd = socket(AF_INET, type, 0);
    const struct timeval timeout = {5, 0};
    const int on = 1;
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout), 0);
    address.sin_port = htons((uint16_t)*port);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    *port = ntohs(address.sin_port);
    if (type == SOCK_STREAM) {
        assert_int_equal(listen(fd, 8), 0);
    }
    return fd;
}

static struct tg_outlet *
open_outlet(const char *format, unsigned port)
{
    char target[64];
    (void)snprintf(target, sizeof target, format, port);
    struct tg_outlet *outlet = tg_outlet_open(target, NULL);
    assert_non_null(outlet);
    return outlet;
}

static void
must_write(struct tg_outlet *outlet, const char *text)
{
    uint64_t lost = 0;
    assert_int_equal(tg_outlet_write(outlet, text, strlen(text), &lost), strlen(text));
    assert_int_equal(lost, 0);
}

static void
must_read(int fd, const char *text)
{
    char got[256];
    size_t n = 0;
    while (n < strlen(text)) {
        const ssize_t more = recv(fd, got + n, sizeof got - 1 - n, 0);
        assert_true(more > 0);
        n += (size_t)more;
    }
    got[n] = '\0';
    assert_string_equal(got, text);
}

static void
a_datagram_is_a_line_without_its_newline(void **state)
{
    unsigned port = 0;
    (void)state;
    const int fd = open_socket(SOCK_DGRAM, &port);
    struct tg_outlet *outlet = open_outlet("udp://127.0.0.1:%u", port);
    must_write(outlet, "one\ntwo\n");
    must_read(fd, "one");
    must_read(fd, "two");
    tg_outlet_close(outlet);
    close(fd);
}

static void
a_receiver_of_datagrams_that_comes_back_gets_them_again(void **state)
{
    unsigned port = 0;
    uint64_t lost = 0;
    (void)state;
    int fd = open_socket(SOCK_DGRAM, &port);
    struct tg_outlet *outlet = open_outlet("udp://localhost:%u", port);
    must_write(outlet, "one\n");
    close(fd);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tg_outlet_write(outlet, "x\n", 2, &lost), 2);
    }
    fd = open_socket(SOCK_DGRAM, &port);
    lost = 0;
    assert_int_equal(tg_outlet_write(outlet, "back\n", 5, &lost), 5);
    must_read(fd, "back");
    tg_outlet_close(outlet);
    close(fd);
}

static void
a_stream_has_lines_or_lengths(void **state)
{
    unsigned port = 0;
    (void)state;
    const int fd = open_socket(SOCK_STREAM, &port);
    struct tg_outlet *outlet = open_outlet("tcp://127.0.0.1:%u", port);
    must_write(outlet, "one\ntwo\n");
    int peer = accept(fd, NULL, NULL);
    must_read(peer, "one\ntwo\n");
    close(peer);
    tg_outlet_close(outlet);
    outlet = open_outlet("tcp+octets://127.0.0.1:%u", port);
    must_write(outlet, "one\nlonger\n");
    peer = accept(fd, NULL, NULL);
    must_read(peer, "3 one6 longer");
    close(peer);
    tg_outlet_close(outlet);
    close(fd);
}

static void
a_stream_that_is_away_leaves_what_it_has_not_taken(void **state)
{
    unsigned port = 0;
    uint64_t lost = 0;
    (void)state;
    int fd = open_socket(SOCK_STREAM, &port);
    struct tg_outlet *outlet = open_outlet("tcp://127.0.0.1:%u", port);
    must_write(outlet, "one\n");
    int peer = accept(fd, NULL, NULL);
    must_read(peer, "one\n");
    close(peer);
    close(fd);
    assert_int_equal(tg_outlet_write(outlet, "two\n", 4, &lost), 0);
    assert_int_equal(lost, 0);
    fd = open_socket(SOCK_STREAM, &port);
    must_write(outlet, "two\n");
    peer = accept(fd, NULL, NULL);
    must_read(peer, "two\n");
    close(peer);
    tg_outlet_close(outlet);
    close(fd);
}

static void
a_socket_of_this_machine_has_a_path(void **state)
{
    char folder[] = "/tmp/tidegate-outlet-XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char target[128];
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/log", folder);
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    (void)snprintf(target, sizeof target, "unixgram:%s", address.sun_path);
    struct tg_outlet *outlet = tg_outlet_open(target, NULL);
    must_write(outlet, "one\n");
    must_read(fd, "one");
    tg_outlet_close(outlet);
    close(fd);
    (void)unlink(address.sun_path);
    (void)rmdir(folder);
}

static long
size_of(const char *folder, const char *name)
{
    char path[128];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &st) == 0 ? (long)st.st_size : -1;
}

static void
a_full_file_is_moved_and_so_many_are_kept(void **state)
{
    char folder[] = "/tmp/tidegate-outlet-XXXXXX";
    char path[64];
    char command[128];
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/log", folder);
    struct tg_outlet *outlet = tg_outlet_open(path, NULL);
    struct tg_outlet *other = tg_outlet_open(path, NULL); /* as another worker has it */
    tg_outlet_rotate(outlet, 10, 2);
    tg_outlet_rotate(other, 10, 2);
    must_write(outlet, "1234567\n");
    must_write(outlet, "first\n");
    assert_int_equal(size_of(folder, "log.1"), 8);
    assert_int_equal(size_of(folder, "log"), 6);
    must_write(other, "2nd\n"); /* its file is full, and moved already */
    assert_int_equal(size_of(folder, "log.1"), 8);
    assert_int_equal(size_of(folder, "log"), 10);
    must_write(outlet, "third\n");
    must_write(outlet, "4444444444444444\n");
    assert_int_equal(size_of(folder, "log"), 17);
    assert_int_equal(size_of(folder, "log.1"), 6);
    assert_int_equal(size_of(folder, "log.2"), 10);
    assert_int_equal(size_of(folder, "log.3"), -1);
    tg_outlet_close(outlet);
    tg_outlet_close(other);
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(command, sizeof command, i == 0 ? "%s" : "%s.%u", path, i);
        (void)unlink(command);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void
what_is_no_target_is_refused(void **state)
{
    static const char *const bad[] = {"tcp://", "tcp://host", "tcp://:1", "udp://host:", "udp://host:x", "udp://[]:1"};
    char longer[256] = "unix:/";
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct tg_err err = {0};
        assert_null(tg_outlet_open(bad[i], &err));
        assert_non_null(strstr(err.text, bad[i]));
    }
    memset(longer + 6, 'x', sizeof longer - 7);
    assert_null(tg_outlet_open(longer, NULL));
    tg_outlet_close(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_datagram_is_a_line_without_its_newline),
        cmocka_unit_test(a_receiver_of_datagrams_that_comes_back_gets_them_again),
        cmocka_unit_test(a_stream_has_lines_or_lengths),
        cmocka_unit_test(a_stream_that_is_away_leaves_what_it_has_not_taken),
        cmocka_unit_test(a_socket_of_this_machine_has_a_path),
        cmocka_unit_test(a_full_file_is_moved_and_so_many_are_kept),
        cmocka_unit_test(what_is_no_target_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
