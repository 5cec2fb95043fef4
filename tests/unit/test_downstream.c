/* Connections whose layer would lose bytes if they were closed now: closed when it would not, and in time in any case.
 */
#include "unit.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/loop.h"
#include "proxy/downstream.h"

enum { SEND_TIMEOUT = 1000, LATE = 2500, EVERY = 20 /* milliseconds */ };

static bool holds;

static bool
fake_holds(const struct tg_transport *transport)
{
    (void)transport;
    return holds;
}

static void
fake_shutdown(struct tg_transport *transport)
{
    (void)transport;
}

static void
fake_close(struct tg_transport *transport, bool reset)
{
    (void)transport;
    (void)reset;
}

static const struct tg_layer fake = {.read = tg_transport_read_socket,
                                     .write = tg_transport_write_socket,
                                     .shutdown = fake_shutdown,
                                     .holds = fake_holds,
                                     .close = fake_close};
static const struct tg_layer *layer = &fake;

struct client {
    struct tg_loop *loop;
    struct tg_proxy *proxy;
    int fd;
    bool talks;
    uint64_t lets_go; /* milliseconds: when the layer holds nothing any more; 0: never */
    uint64_t until;
};

static void
on_beat(evutil_socket_t fd, short what, void *arg)
{
    struct client *client = arg;
    const uint64_t now = tg_loop_now(client->loop);
    (void)fd;
    (void)what;
    if (client->talks && client->proxy->connections != NULL) {
        assert_true(send(client->fd, "x", 1, MSG_NOSIGNAL) == 1 || errno == EPIPE || errno == ECONNRESET);
    }
    holds = holds && (client->lets_go == 0 || now < client->lets_go);
    if (client->proxy->connections == NULL || now >= client->until) {
        tg_loop_stop(client->loop);
    }
}

/* Milliseconds until a connection that was to be closed is; LATE when it was not. */
static uint64_t
closed_after(bool talks, unsigned lets_go)
{
    static struct tg_proxy proxy;
    static struct tg_proxy_counters counters;
    static const struct timeval beat = {0, EVERY * 1000L};
    int ends[2];
    struct tg_loop *loop = tg_loop_new();
    assert_non_null(loop);
    proxy = (struct tg_proxy){.loop = loop,
                              .counters = &counters,
                              .connections_max = 1,
                              .configs = {{.send_timeout = SEND_TIMEOUT, .header_timeout = 60000}}};
    tg_buffer_pool_init(&proxy.buffers, 4);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    tg_downstream_adopt(&proxy, 0, ends[0]);
    struct tg_downstream *down = proxy.connections;
    assert_non_null(down);
    down->transport.layer = &layer;
    holds = true;
    const uint64_t begin = tg_loop_now(loop);
    tg_downstream_close(down, false);
    assert_ptr_equal(proxy.connections, down);
    struct client client = {.loop = loop,
                            .proxy = &proxy,
                            .fd = ends[1],
                            .talks = talks,
                            .lets_go = lets_go > 0 ? begin + lets_go : 0,
                            .until = begin + LATE};
    struct event *event = event_new(tg_loop_base(loop), -1, EV_PERSIST, on_beat, &client);
    assert_non_null(event);
    assert_int_equal(event_add(event, &beat), 0);
    tg_loop_run(loop);
    const uint64_t took = tg_loop_now(loop) - begin;
    event_free(event);
    if (proxy.connections != NULL) {
        tg_downstream_close(proxy.connections, true);
    }
    assert_int_equal(counters.active, 0);
    close(ends[1]);
    tg_buffer_pool_fini(&proxy.buffers);
    tg_loop_free(loop);
    return took;
}

static void
it_is_closed_when_nothing_is_held(void **state)
{
    (void)state;
    assert_in_range(closed_after(false, 200), 200, SEND_TIMEOUT - 100);
}

static void
it_is_closed_in_time_when_something_is_held_for_ever(void **state)
{
    (void)state;
    assert_in_range(closed_after(false, 0), SEND_TIMEOUT, LATE - 500);
}

/* What comes is read, and is no reason to wait longer. */
static void
a_client_that_goes_on_talking_cannot_keep_it(void **state)
{
    (void)state;
    assert_in_range(closed_after(true, 0), SEND_TIMEOUT, LATE - 500);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_closed_when_nothing_is_held),
        cmocka_unit_test(it_is_closed_in_time_when_something_is_held_for_ever),
        cmocka_unit_test(a_client_that_goes_on_talking_cannot_keep_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
