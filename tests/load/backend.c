/*
 * backend.c - the server behind the gateways of the benchmark: `backend PORT`, on 127.0.0.1.
 *
 * Answers GET /1k (1024 bytes), /1m (1048576 bytes) and /stats ("CONNECTIONS REQUESTS" so far, without those for
 * /stats), keeps connections alive, and repeats the header X-Consumer as X-Seen-Consumer, so that the benchmark sees
 * what reached it. One thread, nothing allocated after the start; requests with a body are refused.
 * Prints "ready" when it listens.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FD_MAX = 4096, INPUT_MAX = 8192, HEAD_MAX = 512, CONSUMER_MAX = 128, EVENTS_MAX = 128, BIG = 1048576 };

struct connection {
    size_t input_len;
    size_t head_len;
    size_t sent; /* of head and body together */
    size_t body_len;
    const char *body; /* borrowed: `payload` or `stats` */
    bool answering;
    bool close_after;
    bool waits_to_write; /* EPOLLOUT is asked for */
    char input[INPUT_MAX];
    char head[HEAD_MAX];
    char stats[64];
};

static struct connection connections[FD_MAX]; /* by file descriptor */
static char payload[BIG];
static unsigned long long accepted, answered;
static int poller;

static void
drop(int fd)
{
    close(fd); /* the kernel takes it out of the epoll set */
}

static void
watch(int fd, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, operation, fd, &event) < 0) {
        perror("epoll_ctl");
        exit(1);
    }
}

/* The value of `name` among the lines in [at, end), without spaces around it; NULL when it is not there. */
static const char *
find_header(const char *at, const char *end, const char *name, size_t *len)
{
    size_t name_len = strlen(name);
    while (at < end) {
        const char *eol = memchr(at, '\r', (size_t)(end - at));
        if (eol == NULL) {
            return NULL;
        }
        if ((size_t)(eol - at) > name_len && at[name_len] == ':' && strncasecmp(at, name, name_len) == 0) {
            const char *value = at + name_len + 1;
            while (value < eol && *value == ' ') {
                value++;
            }
            *len = (size_t)(eol - value);
            return value;
        }
        at = eol + 2;
    }
    return NULL;
}

static bool
is(const char *text, size_t len, const char *expected)
{
    return len == strlen(expected) && strncasecmp(text, expected, len) == 0;
}

/* Sets body and status for the request line [line, eol). */
static const char *
choose_body(struct connection *c, const char *line, const char *eol)
{
    size_t len = (size_t)(eol - line);
    c->body = payload;
    if (is(line, len, "GET /1k HTTP/1.1")) {
        c->body_len = 1024;
    } else if (is(line, len, "GET /1m HTTP/1.1")) {
        c->body_len = BIG;
    } else if (is(line, len, "GET /stats HTTP/1.1")) {
        /* This request and its connection are not counted: the benchmark asks about the others. */
        accepted--;
        answered--;
        c->close_after = true;
        c->body = c->stats;
        c->body_len = (size_t)snprintf(c->stats, sizeof c->stats, "%llu %llu\n", accepted, answered);
    } else {
        c->body_len = 0;
        c->close_after = true;
        return "404 Not Found";
    }
    return "200 OK";
}

/* Prepares the answer to the first request of the input. False: it is not complete yet. */
static bool
prepare_answer(struct connection *c)
{
    const char *end = memmem(c->input, c->input_len, "\r\n\r\n", 4);
    if (end == NULL) {
        return false;
    }
    const char *eol = memchr(c->input, '\r', c->input_len);
    const char *headers = eol + 2;
    const char *value;
    size_t len;

    answered++;
    c->close_after = false;
    const char *status = choose_body(c, c->input, eol);
    if (eol < end) {
        const char *last = end + 2; /* includes the line end of the last header */
        value = find_header(headers, last, "Connection", &len);
        c->close_after = c->close_after || (value != NULL && is(value, len, "close"));
        value = find_header(headers, last, "Content-Length", &len);
        if ((value != NULL && !is(value, len, "0")) || find_header(headers, last, "Transfer-Encoding", &len) != NULL) {
            status = "400 Bad Request";
            c->body_len = 0;
            c->close_after = true;
        }
        value = find_header(headers, last, "X-Consumer", &len);
    } else {
        value = NULL;
    }
    bool seen = value != NULL && len <= CONSUMER_MAX;
    c->head_len =
        (size_t)snprintf(c->head, sizeof c->head,
                         "HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\n"
                         "Content-Length: %zu\r\n%s%.*s%s%s\r\n",
                         status, c->body_len, seen ? "X-Seen-Consumer: " : "", seen ? (int)len : 0, seen ? value : "",
                         seen ? "\r\n" : "", c->close_after ? "Connection: close\r\n" : "");
    c->sent = 0;
    c->answering = true;

    size_t used = (size_t)(end + 4 - c->input);
    c->input_len -= used;
    memmove(c->input, c->input + used, c->input_len);
    return true;
}

/* Writes what the socket takes. 1: the answer is out; 0: the socket is full; -1: the connection is dead. */
static int
write_answer(int fd, struct connection *c)
{
    size_t total = c->head_len + c->body_len;
    while (c->sent < total) {
        struct iovec parts[2];
        int count = 0;
        if (c->sent < c->head_len) {
            parts[count++] = (struct iovec){c->head + c->sent, c->head_len - c->sent};
        }
        size_t done = c->sent > c->head_len ? c->sent - c->head_len : 0;
        if (done < c->body_len) {
            parts[count++] = (struct iovec){(char *)c->body + done, c->body_len - done};
        }
        ssize_t n = writev(fd, parts, count);
        if (n < 0) {
            return errno == EAGAIN ? 0 : -1;
        }
        c->sent += (size_t)n;
    }
    c->answering = false;
    return 1;
}

/* Goes on with the connection as far as input and socket allow. */
static void
serve(int fd, struct connection *c)
{
    while (c->answering || prepare_answer(c)) {
        int out = write_answer(fd, c);
        if (out < 0 || (out == 1 && c->close_after)) {
            drop(fd);
            return;
        }
        if (out == 0) {
            if (!c->waits_to_write) {
                watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
                c->waits_to_write = true;
            }
            return;
        }
    }
    if (c->waits_to_write) {
        watch(fd, EPOLL_CTL_MOD, EPOLLIN);
        c->waits_to_write = false;
    }
    if (c->input_len == sizeof c->input) {
        drop(fd); /* a request head that does not fit */
    }
}

static void
on_readable(int fd, struct connection *c)
{
    ssize_t n = read(fd, c->input + c->input_len, sizeof c->input - c->input_len);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        drop(fd);
        return;
    }
    c->input_len += (size_t)n;
    serve(fd, c);
}

static void
accept_all(int listener)
{
    const int on = 1;
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= FD_MAX) {
            drop(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = &connections[fd];
        c->input_len = 0;
        c->answering = c->close_after = c->waits_to_write = false;
        accepted++;
        watch(fd, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static int
open_listener(unsigned long port)
{
    const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1024) < 0) {
        perror("listen");
        exit(1);
    }
    return fd;
}

int
main(int argc, char **argv)
{
    char *rest = NULL;
    unsigned long port = argc == 2 ? strtoul(argv[1], &rest, 10) : 0;
    if (port == 0 || port > 65535 || *rest != '\0') {
        fprintf(stderr, "usage: backend PORT\n");
        return 2;
    }
    /* Not all the same byte, so that a block lost or doubled on the way shows. */
    for (size_t i = 0; i < sizeof payload; i++) {
        payload[i] = (char)('a' + (i + i / 1009) % 26);
    }
    signal(SIGPIPE, SIG_IGN); /* a gateway that leaves in the middle of an answer is an error of writev */
    int listener = open_listener(port);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) {
        perror("epoll_create1");
        return 1;
    }
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(listener);
            } else if (connections[fd].waits_to_write) {
                serve(fd, &connections[fd]);
            } else {
                on_readable(fd, &connections[fd]);
            }
        }
    }
}
