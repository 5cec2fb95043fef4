#include "unit.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "net/redis.h"

static struct tg_loop *loop;
static struct tg_deadline patience;
static unsigned port;
static pid_t server;
static char folder[] = "/tmp/tidegate-redis-XXXXXX";
static unsigned done;
static unsigned wanted;
static int owner; /* only its address is used */

static void
on_done(struct tg_redis_command *command)
{
    assert_ptr_equal(command->owner, &owner);
    if (++done == wanted) {
        tg_loop_stop(loop);
    }
}

static void
on_patience(struct tg_deadline *deadline)
{
    (void)deadline;
    tg_loop_stop(loop);
}

/* Until so many commands are over, or the milliseconds are. */
static void
run(unsigned commands, uint64_t milliseconds)
{
    wanted = commands;
    if (done < wanted) {
        tg_deadline_set(loop, &patience, milliseconds);
        tg_loop_run(loop);
        tg_deadline_clear(&patience);
    }
}

static struct tg_redis *
open_client(unsigned connections)
{
    const struct tg_abi_redis_settings settings = {
        .name = tg_slice_of("unit", 4), .connections = connections, .timeout = 2000, .connect_timeout = 2000};
    struct tg_redis *redis = tg_redis_new(loop, NULL, NULL, &settings, on_done);
    if (redis != NULL) {
        const int node = tg_redis_node(redis, tg_slice_of("127.0.0.1", 9), port);
        if (node < 0 || tg_redis_assign(redis, 0, 0, (unsigned)node) != TG_OK) {
            tg_redis_free(redis);
            return NULL;
        }
    }
    return redis;
}

static struct tg_redis_command *
say(struct tg_redis *redis, unsigned timeout, unsigned flags, const char *a, const char *b, const char *c)
{
    const char *const words[] = {a, b, c};
    const size_t lengths[] = {strlen(a), b == NULL ? 0 : strlen(b), c == NULL ? 0 : strlen(c)};
    const struct tg_redis_request request = {.node = -1,
                                             .timeout = timeout,
                                             .count = b == NULL   ? 1
                                                      : c == NULL ? 2
                                                                  : 3,
                                             .words = words,
                                             .lengths = lengths,
                                             .flags = flags,
                                             .owner = &owner};
    enum tg_rc rc = TG_OK;
    unsigned node = 0;
    struct tg_redis_command *command = tg_redis_send(redis, &request, &rc, &node);
    assert_true((command == NULL) == (rc != TG_OK));
    return command;
}

static bool
is_text(const struct tg_redis_command *command, const char *text)
{
    const struct tg_abi_redis_value *value = command->abi.values;
    return command->abi.state == 0 && command->abi.count == 1 && value->size == strlen(text) &&
           memcmp(command->abi.bytes + (size_t)value->number, text, value->size) == 0;
}

static void
answers_come_in_the_order_of_the_questions(void **state)
{
    enum { MANY = 500 };
    static struct tg_redis_command *commands[MANY];
    struct tg_redis *redis = open_client(2);
    (void)state;
    assert_non_null(redis);
    for (int round = 0; round < 3; round++) {
        done = 0;
        for (unsigned i = 0; i < MANY; i++) {
            char text[16];
            (void)snprintf(text, sizeof text, "%u", i);
            commands[i] = say(redis, 2000, 0, "ECHO", text, NULL);
            assert_non_null(commands[i]);
        }
        run(MANY, 5000);
        for (unsigned i = 0; i < MANY; i++) {
            char text[16];
            (void)snprintf(text, sizeof text, "%u", i);
            assert_true(is_text(commands[i], text));
            tg_redis_let_go(commands[i]);
        }
    }
    tg_redis_free(redis);
}

static void
an_answer_that_nobody_waits_for_is_thrown_away(void **state)
{
    struct tg_redis *redis = open_client(1);
    (void)state;
    assert_non_null(redis);
    done = 0;
    struct tg_redis_command *first = say(redis, 2000, 0, "ECHO", "first", NULL);
    struct tg_redis_command *second = say(redis, 2000, 0, "ECHO", "second", NULL);
    tg_redis_let_go(first);
    run(1, 5000);
    assert_true(is_text(second, "second"));
    tg_redis_let_go(second);
    tg_redis_let_go(say(redis, 2000, 0, "ECHO", "third", NULL));
    tg_redis_free(redis);
}

static void
what_takes_too_long_ends_and_what_blocks_holds_up_nobody(void **state)
{
    struct tg_redis *redis = open_client(1);
    (void)state;
    assert_non_null(redis);
    done = 0;
    struct tg_redis_command *blocked = say(redis, 300, TG_REDIS_ALONE, "BLPOP", "none", "10");
    struct tg_redis_command *other = say(redis, 2000, 0, "ECHO", "other", NULL);
    run(1, 5000);
    assert_true(is_text(other, "other"));
    assert_int_equal(blocked->abi.state, TG_CALL_RUNS);
    run(2, 5000);
    assert_int_equal(blocked->abi.state, TG_ETIMEOUT);
    tg_redis_let_go(blocked);
    tg_redis_let_go(other);
    tg_redis_free(redis);
}

/* Some commands, and large ones: what comes of each is an answer or an error, and nothing is lost or hangs. */
static void
talk(struct tg_redis *redis)
{
    enum { MANY = 8 };
    static char large[20000];
    struct tg_redis_command *commands[MANY];
    unsigned sent = 0;
    memset(large, 'x', sizeof large - 1);
    done = 0;
    for (unsigned i = 0; i < MANY; i++) {
        commands[sent] = say(redis, 2000, i == 5 ? TG_REDIS_ALONE : 0, "ECHO", i % 3 == 0 ? large : "small", NULL);
        sent += commands[sent] != NULL;
    }
    run(sent, 3000);
    assert_int_equal(done, sent);
    for (unsigned i = 0; i < sent; i++) {
        assert_true(commands[i]->abi.state <= 0);
        tg_redis_let_go(commands[i]);
    }
}

static void
each_allocation_may_fail(void **state)
{
    (void)state;
    tg_log_set_level(TG_LOG_ERROR);
    for (unsigned long i = 1; i < 60; i++) {
        tg_mem_fail_at(i);
        struct tg_redis *redis = open_client(2);
        if (redis != NULL) {
            talk(redis);
        }
        tg_mem_fail_at(0);
        if (redis != NULL) {
            usleep(25000); /* the pause after a failure */
            talk(redis);
            done = 0;
            struct tg_redis_command *last = say(redis, 2000, 0, "ECHO", "fine", NULL);
            if (last != NULL) {
                run(1, 3000);
                assert_true(is_text(last, "fine"));
                tg_redis_let_go(last);
            }
            tg_redis_free(redis);
        }
    }
    tg_log_set_level(TG_LOG_INFO);
}

/* ---------------------------------------------------------------- the server */

static int
can_connect(void)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const int rc = connect(fd, (const struct sockaddr *)&address, sizeof address);
    close(fd);
    return rc == 0;
}

static int
start_server(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char text[16];
    (void)state;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0 || mkdtemp(folder) == NULL) {
        return -1;
    }
    close(fd);
    port = ntohs(address.sin_port);
    (void)snprintf(text, sizeof text, "%u", port);
    server = fork();
    if (server == 0) {
        (void)!freopen("/dev/null", "w", stdout);
        (void)execlp("redis-server", "redis-server", "--port", text, "--bind", "127.0.0.1", "--save", "", "--dir",
                     folder, NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && !can_connect(); i++) {
        usleep(10000);
    }
    loop = tg_loop_new();
    patience.expired = on_patience;
    return loop == NULL || !can_connect() ? -1 : 0;
}

static int
stop_server(void **state)
{
    (void)state;
    tg_deadline_remove(&patience);
    tg_loop_free(loop);
    (void)kill(server, SIGKILL);
    (void)waitpid(server, NULL, 0);
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_in_the_order_of_the_questions),
        cmocka_unit_test(an_answer_that_nobody_waits_for_is_thrown_away),
        cmocka_unit_test(what_takes_too_long_ends_and_what_blocks_holds_up_nobody),
        cmocka_unit_test(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
