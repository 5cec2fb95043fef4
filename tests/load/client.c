/*
 * client.c - the users of a gateway that is changed while they use it: `client PORT CONNECTIONS RATE SECONDS PATHS`.
 *
 * Sends GET /N/1k, N below PATHS, RATE times a second, over kept connections to 127.0.0.1, whether answers come or not:
 * a gateway that stands still is seen by all who would have asked meanwhile. A request whose connection ends before a
 * byte of its answer is sent once more, as browsers do; everything else but a whole 200 has failed. Writes to standard
 * output, for each request: microseconds of the monotonic clock at which it was due, microseconds until its answer was
 * whole, and what came of it, 16 bytes; to standard error what has failed first, and a summary. One thread, nothing
 * allocated. Ends early, and in order, with SIGTERM.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 1024,
    INPUT_MAX = 65536,
    EVENTS_MAX = 128,
    WAITING_MAX = 1 << 16,
    ATTEMPTS = 3,
    PATIENCE = 10000000 /* microseconds until a request without an answer has failed */,
    TOLD = 20
};

enum outcome { ANSWERED, ANSWERED_AGAIN, FAILED, OUTCOMES };

struct record {
    uint64_t due;
    uint32_t took;
    uint32_t outcome;
};

struct connection {
    int fd; /* -1: none */
    bool busy;
    unsigned attempts;
    unsigned path;
    uint64_t due;
    size_t input_len;
    char input[INPUT_MAX];
};

static struct connection connections[CONNECTIONS_MAX];
static uint64_t waiting[WAITING_MAX]; /* due times of requests for which no connection is free: a ring */
static unsigned waiting_from, waiting_count, connection_count, told;
static unsigned long long outcomes[OUTCOMES];
static int poller, port;
static unsigned paths;
static volatile sig_atomic_t stopped;

static void
on_stop(int number)
{
    (void)number;
    stopped = 1;
}

static uint64_t
now(void)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000 + (uint64_t)at.tv_nsec / 1000;
}

static void
hang_up(struct connection *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = -1;
    c->input_len = 0;
}

static void
finish(struct connection *c, enum outcome outcome, const char *why)
{
    const struct record record = {c->due, (uint32_t)(now() - c->due), outcome};
    outcomes[outcome]++;
    if (outcome == FAILED && told++ < TOLD) {
        (void)fprintf(stderr, "failed at %llu after %u us: /%u/1k: %s\n", (unsigned long long)c->due, record.took,
                      c->path, why);
    }
    if (fwrite(&record, sizeof record, 1, stdout) != 1) {
        exit(2);
    }
    c->busy = false;
}

static bool
dial(struct connection *c)
{
    static const int on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->input_len = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        (connect(c->fd, (const struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
        hang_up(c);
        return false;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    return epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) == 0;
}

/* Over loopback a connection stands, or is refused, before connect returns; and a request is always taken as a whole.
 */
static void
send_request(struct connection *c)
{
    char text[128];
    const int n = snprintf(text, sizeof text, "GET /%u/1k HTTP/1.1\r\nHost: load.test\r\n\r\n", c->path);
    while (c->attempts++ < ATTEMPTS) {
        if ((c->fd >= 0 || dial(c)) && send(c->fd, text, (size_t)n, MSG_NOSIGNAL) == n) {
            return;
        }
        hang_up(c);
    }
    finish(c, FAILED, "it cannot be sent");
}

static void
begin(struct connection *c, uint64_t due)
{
    c->busy = true;
    c->attempts = 0;
    c->due = due;
    c->path = (unsigned)rand() % paths;
    send_request(c);
}

/* Bytes of the whole answer; 0: not known yet. */
static size_t
length_of(struct connection *c)
{
    c->input[c->input_len] = '\0';
    const char *end = strstr(c->input, "\r\n\r\n");
    const char *length = end == NULL ? NULL : strcasestr(c->input, "\r\nContent-Length:");
    return length == NULL || length > end ? 0 : (size_t)(end + 4 - c->input) + strtoul(length + 17, NULL, 10);
}

static void
on_answer(struct connection *c, size_t length)
{
    char line[64];
    (void)snprintf(line, sizeof line, "%.*s", (int)strcspn(c->input, "\r"), c->input);
    const bool good = strncmp(line, "HTTP/1.1 200 ", 13) == 0 && c->input_len == length;
    const bool closes = strcasestr(c->input, "\r\nConnection: close") != NULL;
    finish(c, good ? (c->attempts > 1 ? ANSWERED_AGAIN : ANSWERED) : FAILED, line);
    c->input_len = 0;
    if (closes || !good) {
        hang_up(c);
    }
}

static void
on_readable(struct connection *c)
{
    const ssize_t n = recv(c->fd, c->input + c->input_len, INPUT_MAX - 1 - c->input_len, 0);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n > 0) {
        c->input_len += (size_t)n;
        const size_t length = length_of(c);
        if (!c->busy) {
            hang_up(c); /* nobody has asked */
        } else if (length != 0 && c->input_len >= length) {
            on_answer(c, length);
        }
        return;
    }
    const bool began = c->input_len > 0;
    hang_up(c);
    if (c->busy && began) {
        finish(c, FAILED, "cut in the midst of its answer");
    } else if (c->busy) {
        send_request(c);
    }
}

static void
wait_for(uint64_t due)
{
    if (waiting_count == WAITING_MAX) {
        outcomes[FAILED]++;
        return;
    }
    waiting[(waiting_from + waiting_count++) % WAITING_MAX] = due;
}

static void
use_free_ones(void)
{
    static unsigned last;
    for (unsigned i = 0; i < connection_count && waiting_count > 0; i++) {
        last = (last + 1) % connection_count;
        if (!connections[last].busy) {
            const uint64_t due = waiting[waiting_from];
            waiting_from = (waiting_from + 1) % WAITING_MAX;
            waiting_count--;
            begin(&connections[last], due);
        }
    }
}

static bool
is_working(uint64_t at)
{
    bool working = waiting_count > 0;
    for (unsigned i = 0; i < connection_count; i++) {
        if (connections[i].busy && at > connections[i].due + PATIENCE) {
            hang_up(&connections[i]);
            finish(&connections[i], FAILED, "no answer");
        }
        working = working || connections[i].busy;
    }
    return working;
}

static void
run(unsigned rate, unsigned seconds)
{
    struct epoll_event events[EVENTS_MAX];
    const uint64_t start = now();
    const uint64_t end = start + seconds * 1000000ULL;
    uint64_t sent = 0;
    uint64_t looked = 0;
    for (uint64_t at = start;; at = now()) {
        const bool over = stopped || at >= end;
        for (; !over && start + sent * 1000000 / rate <= at; sent++) {
            wait_for(start + sent * 1000000 / rate);
        }
        use_free_ones();
        if (at > looked + 10000 || over) {
            looked = at;
            if (!is_working(at) && over) {
                return;
            }
        }
        const uint64_t next = start + sent * 1000000 / rate;
        const struct timespec until = {
            0, over || waiting_count > 0 || next <= at ? 500000 : (long)(next - at) * 1000 % 1000000000};
        const int n = epoll_pwait2(poller, events, EVENTS_MAX, &until, NULL);
        for (int i = 0; i < n; i++) {
            on_readable(events[i].data.ptr);
        }
    }
}

int
main(int argc, char **argv)
{
    if (argc != 6) {
        (void)fprintf(stderr, "client PORT CONNECTIONS RATE SECONDS PATHS\n");
        return 2;
    }
    port = atoi(argv[1]);
    connection_count = (unsigned)atoi(argv[2]);
    const unsigned rate = (unsigned)atoi(argv[3]);
    paths = (unsigned)atoi(argv[5]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0 || connection_count == 0 || connection_count > CONNECTIONS_MAX || rate == 0 || paths == 0) {
        (void)fprintf(stderr, "client: a number is out of range\n");
        return 2;
    }
    (void)signal(SIGTERM, on_stop);
    for (unsigned i = 0; i < connection_count; i++) {
        connections[i].fd = -1;
    }
    run(rate, (unsigned)atoi(argv[4]));
    (void)fflush(stdout);
    (void)fprintf(stderr, "%llu answered, %llu after a second attempt, %llu failed\n", outcomes[ANSWERED],
                  outcomes[ANSWERED_AGAIN], outcomes[FAILED]);
    return outcomes[FAILED] == 0 ? 0 : 1;
}
