#include "base/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/kafka.h"
#include "base/log.h"
#include "base/mem.h"

enum {
    COMPLAIN_EVERY = 60, /* seconds */
    SEND_TIMEOUT = 2000, /* milliseconds: to connect, and for a socket to take more */
    DATAGRAM_TRIES = 10, /* 10 ms each */
    LENGTH_MAX = 24      /* of a number and a blank */
};

enum kind { KIND_FILE, KIND_STREAM, KIND_OCTETS, KIND_DATAGRAM, KIND_KAFKA };

struct tg_outlet {
    enum kind kind;
    int fd;        /* -1: a socket that is not connected */
    char *host;    /* NULL: a path; of Kafka: all of them, with their ports */
    char *service; /* the port; of Kafka: the topic */
    struct tg_kafka *kafka;
    char *settings;
    const char *path;
    _Atomic uint64_t rotate_size;
    _Atomic unsigned rotate_keep;
    time_t complained;
    char *target;
};

/* Errors once a minute: a full disk must not fill the error log as well. */
static void
complain(struct tg_outlet *outlet, const char *what, const char *why)
{
    const time_t now = time(NULL);
    if (now - outlet->complained >= COMPLAIN_EVERY) {
        outlet->complained = now;
        tg_log(TG_LOG_ERROR, "%s %s: %s%s", what, outlet->target, why,
               outlet->kind == KIND_KAFKA ? "" : " (lines are lost)");
    }
}

static void
complain_errno(struct tg_outlet *outlet, const char *what)
{
    char why[128];
    complain(outlet, what, strerror_r(errno, why, sizeof why));
}

static void
pause_a_little(void)
{
    const struct timespec pause = {0, 10000000L};
    (void)nanosleep(&pause, NULL);
}

static uint64_t
count_lines(const char *p, size_t n)
{
    uint64_t lines = 0;
    for (const char *end = p + n; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++) {
        lines++;
    }
    return lines;
}

/* ------------------------------------------------------------------ files */

/* A fifo that nobody reads would hold whoever opens it for writing alone. */
static int
open_path(const char *path)
{
    struct stat st;
    const bool fifo = stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
    const int mode = fifo ? O_RDWR : O_WRONLY;
    return strcmp(path, "-") == 0 ? dup(STDOUT_FILENO) : open(path, mode | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

static void
reopen_file(struct tg_outlet *outlet)
{
    const int fd = open_path(outlet->path);
    if (fd < 0) {
        complain_errno(outlet, "open");
        return;
    }
    close(outlet->fd);
    outlet->fd = fd;
}

static bool
shift_files(struct tg_outlet *outlet)
{
    char from[4200];
    char to[4200];
    bool moved = true;
    for (unsigned i = outlet->rotate_keep; i > 0; i--) {
        (void)snprintf(to, sizeof to, "%s.%u", outlet->path, i);
        (void)snprintf(from, sizeof from, i == 1 ? "%s" : "%s.%u", outlet->path, i - 1);
        moved = rename(from, to) == 0 || errno == ENOENT;
    }
    return moved;
}

/* The lock is on the file that is to be moved: who comes second finds another one under the name. */
static void
rotate_when_full(struct tg_outlet *outlet, size_t n)
{
    struct stat own;
    struct stat named;
    const uint64_t size = outlet->rotate_size;
    if (size == 0 || fstat(outlet->fd, &own) != 0 || !S_ISREG(own.st_mode) || (uint64_t)own.st_size + n <= size ||
        own.st_size == 0) {
        return;
    }
    if (flock(outlet->fd, LOCK_EX) != 0) {
        complain_errno(outlet, "lock");
        return;
    }
    const bool same = stat(outlet->path, &named) == 0 && named.st_ino == own.st_ino && named.st_dev == own.st_dev;
    if (same && !shift_files(outlet)) {
        complain_errno(outlet, "rotate");
        (void)flock(outlet->fd, LOCK_UN);
        return;
    }
    reopen_file(outlet); /* closing the old one lets go of the lock */
}

/* What a full disk does not take is lost: it will not be emptied for it. */
static size_t
write_file(struct tg_outlet *outlet, const char *p, size_t n, uint64_t *lost)
{
    rotate_when_full(outlet, n);
    for (size_t done = 0; done < n;) {
        const ssize_t written = write(outlet->fd, p + done, n - done);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0 && errno == EAGAIN) {
            pause_a_little();
            continue;
        }
        if (written < 0) {
            complain_errno(outlet, "write");
            *lost += count_lines(p, n);
            break;
        }
        done += (size_t)written;
    }
    return n;
}

/* ------------------------------------------------------------------ sockets */

static void
disconnect(struct tg_outlet *outlet)
{
    if (outlet->fd >= 0) {
        close(outlet->fd);
        outlet->fd = -1;
    }
}

static bool
wait_for(int fd, short events)
{
    struct pollfd one = {.fd = fd, .events = events};
    int rc;
    do {
        rc = poll(&one, 1, SEND_TIMEOUT);
    } while (rc < 0 && errno == EINTR);
    if (rc == 0) {
        errno = ETIMEDOUT;
    }
    return rc == 1;
}

static bool
connect_to(struct tg_outlet *outlet, int family, const struct sockaddr *address, socklen_t len)
{
    const int type = outlet->kind == KIND_DATAGRAM ? SOCK_DGRAM : SOCK_STREAM;
    int error = 0;
    socklen_t size = sizeof error;
    outlet->fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (outlet->fd < 0) {
        return false;
    }
    if (connect(outlet->fd, address, len) == 0) {
        return true;
    }
    if (errno == EINPROGRESS && wait_for(outlet->fd, POLLOUT) &&
        getsockopt(outlet->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0) {
        return true;
    }
    errno = error != 0 ? error : errno;
    const int why = errno;
    disconnect(outlet);
    errno = why;
    return false;
}

static bool
connect_path(struct tg_outlet *outlet)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, outlet->path, strlen(outlet->path) + 1); /* it was measured when it was opened */
    if (connect_to(outlet, AF_UNIX, (struct sockaddr *)&address, sizeof address)) {
        return true;
    }
    complain_errno(outlet, "connect");
    return false;
}

static bool
connect_host(struct tg_outlet *outlet)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = outlet->kind == KIND_DATAGRAM ? SOCK_DGRAM : SOCK_STREAM};
    struct addrinfo *list = NULL;
    const int rc = getaddrinfo(outlet->host, outlet->service, &hints, &list);
    if (rc != 0) {
        complain(outlet, "resolve", gai_strerror(rc));
        return false;
    }
    bool connected = false;
    for (const struct addrinfo *one = list; one != NULL && !connected; one = one->ai_next) {
        connected = connect_to(outlet, one->ai_family, one->ai_addr, one->ai_addrlen);
    }
    if (!connected) {
        complain_errno(outlet, "connect");
    }
    freeaddrinfo(list);
    return connected;
}

/* A peer that has closed would take what is written next for nobody. */
static bool
has_ended(int fd)
{
    char rest[256];
    ssize_t n;
    do {
        n = recv(fd, rest, sizeof rest, MSG_DONTWAIT);
    } while (n > 0);
    return n == 0 || (errno != EAGAIN && errno != EINTR);
}

static bool
ensure_connected(struct tg_outlet *outlet)
{
    if (outlet->fd >= 0 && outlet->kind != KIND_DATAGRAM && has_ended(outlet->fd)) {
        disconnect(outlet);
    }
    return outlet->fd >= 0 || (outlet->host == NULL ? connect_path(outlet) : connect_host(outlet));
}

static bool
send_all(struct tg_outlet *outlet, const char *p, size_t n, size_t *sent)
{
    while (*sent < n) {
        const ssize_t done = send(outlet->fd, p + *sent, n - *sent, MSG_NOSIGNAL);
        if (done >= 0) {
            *sent += (size_t)done;
        } else if (errno != EINTR && (errno != EAGAIN || !wait_for(outlet->fd, POLLOUT))) {
            complain_errno(outlet, "send");
            disconnect(outlet);
            return false;
        }
    }
    return true;
}

/* What was sent of a line whose rest was not is sent again, on the next connection. */
static size_t
write_stream(struct tg_outlet *outlet, const char *p, size_t n)
{
    size_t sent = 0;
    (void)send_all(outlet, p, n, &sent);
    while (sent > 0 && p[sent - 1] != '\n') {
        sent--;
    }
    return sent;
}

static size_t
write_octets(struct tg_outlet *outlet, const char *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        const char *line = p + done;
        const size_t len = (size_t)((const char *)memchr(line, '\n', n - done) - line);
        char head[LENGTH_MAX];
        size_t sent = 0;
        const int head_len = snprintf(head, sizeof head, "%zu ", len);
        if (!send_all(outlet, head, (size_t)head_len, &sent)) {
            return done;
        }
        sent = 0;
        if (!send_all(outlet, line, len, &sent)) {
            return done;
        }
        done += len + 1;
    }
    return n;
}

static bool
send_datagram(struct tg_outlet *outlet, const char *p, size_t n)
{
    for (int i = 0; i < DATAGRAM_TRIES; i++) {
        if (!ensure_connected(outlet)) {
            return false;
        }
        if (send(outlet->fd, p, n, MSG_NOSIGNAL) >= 0) {
            return true;
        }
        if (errno == EAGAIN || errno == ENOBUFS) {
            pause_a_little();
        } else if (errno == EMSGSIZE) {
            break;
        } else if (errno != EINTR) {
            complain_errno(outlet, "send");
            disconnect(outlet); /* ECONNREFUSED is the answer to an earlier one: this one has another try */
        }
    }
    return false;
}

/* A receiver that is away for some lines is not waited for with all the others. */
static size_t
write_datagrams(struct tg_outlet *outlet, const char *p, size_t n, uint64_t *lost)
{
    for (size_t done = 0; done < n;) {
        const char *line = p + done;
        const size_t len = (size_t)((const char *)memchr(line, '\n', n - done) - line);
        if (!send_datagram(outlet, line, len)) {
            if (outlet->fd < 0) {
                *lost += count_lines(line, n - done);
                return n;
            }
            *lost += 1;
        }
        done += len + 1;
    }
    return n;
}

/* ------------------------------------------------------------------ Kafka */

static struct tg_kafka_target
target_of(const struct tg_outlet *outlet)
{
    return (struct tg_kafka_target){outlet->host, outlet->service, outlet->settings};
}

static size_t
write_kafka(struct tg_outlet *outlet, const char *p, size_t n, uint64_t *lost)
{
    struct tg_err err;
    const struct tg_kafka_target target = target_of(outlet);
    outlet->kafka = outlet->kafka != NULL ? outlet->kafka : tg_kafka_open(&target, &err);
    if (outlet->kafka == NULL) {
        complain(outlet, "open", err.text);
        return 0;
    }
    const size_t done = tg_kafka_write(outlet->kafka, p, n, lost);
    const char *error = tg_kafka_error(outlet->kafka);
    if (error != NULL) {
        complain(outlet, "send", error);
    }
    return done;
}

static void
close_kafka(struct tg_outlet *outlet)
{
    tg_kafka_close(outlet->kafka);
    outlet->kafka = NULL;
}

void
tg_outlet_configure(struct tg_outlet *outlet, char *settings)
{
    const bool same = outlet->settings == NULL || settings == NULL ? outlet->settings == settings
                                                                   : strcmp(outlet->settings, settings) == 0;
    if (same) {
        tg_mem_free(settings);
        return;
    }
    close_kafka(outlet);
    tg_mem_free(outlet->settings);
    outlet->settings = settings;
}

/* ------------------------------------------------------------------ */

size_t
tg_outlet_write(struct tg_outlet *outlet, const char *p, size_t n, uint64_t *lost)
{
    if (outlet->kind == KIND_FILE) {
        return write_file(outlet, p, n, lost);
    }
    if (outlet->kind == KIND_DATAGRAM) {
        return write_datagrams(outlet, p, n, lost);
    }
    if (outlet->kind == KIND_KAFKA) {
        return write_kafka(outlet, p, n, lost);
    }
    if (!ensure_connected(outlet)) {
        return 0;
    }
    return outlet->kind == KIND_OCTETS ? write_octets(outlet, p, n) : write_stream(outlet, p, n);
}

void
tg_outlet_reopen(struct tg_outlet *outlet)
{
    if (outlet->kind == KIND_FILE) {
        reopen_file(outlet);
    } else if (outlet->kind != KIND_KAFKA) { /* its library sees to its connections */
        disconnect(outlet);
    }
}

void
tg_outlet_rotate(struct tg_outlet *outlet, uint64_t size, unsigned keep)
{
    outlet->rotate_size = size;
    outlet->rotate_keep = keep;
}

/* "host:port" or "[address]:port", cut in place. */
static bool
cut_host(struct tg_outlet *outlet, char *text)
{
    char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text || colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return false;
    }
    *colon = '\0';
    outlet->service = colon + 1;
    outlet->host = text;
    if (text[0] == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        outlet->host = text + 1;
    }
    return outlet->host[0] != '\0';
}

/* "host:port,host:port/topic", cut in place. */
static bool
cut_topic(struct tg_outlet *outlet, char *text)
{
    char *slash = strchr(text, '/');
    if (slash == NULL || slash == text || slash[1] == '\0') {
        return false;
    }
    *slash = '\0';
    outlet->service = slash + 1;
    outlet->host = text;
    return true;
}

/* What comes behind the name of the kind is in `copy`, which lives as long as the outlet. Nothing is opened. */
static enum tg_rc
understand(struct tg_outlet *outlet, char *copy, struct tg_err *err)
{
    static const struct {
        const char *prefix;
        enum kind kind;
        bool path;
    } kinds[] = {{"tcp://", KIND_STREAM, false},   {"tcp+octets://", KIND_OCTETS, false},
                 {"udp://", KIND_DATAGRAM, false}, {"kafka://", KIND_KAFKA, false},
                 {"unix:", KIND_STREAM, true},     {"unixgram:", KIND_DATAGRAM, true}};
    outlet->path = outlet->target;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const size_t n = strlen(kinds[i].prefix);
        if (strncmp(copy, kinds[i].prefix, n) != 0) {
            continue;
        }
        outlet->kind = kinds[i].kind;
        outlet->path = outlet->target + n;
        if (kinds[i].path) {
            const bool fits = strlen(outlet->path) < sizeof((struct sockaddr_un *)NULL)->sun_path;
            return fits ? TG_OK : tg_err_set(err, TG_EINVAL, "log %s: the path is too long", outlet->target);
        }
        const bool kafka = outlet->kind == KIND_KAFKA;
        const bool cut = kafka ? cut_topic(outlet, copy + n) : cut_host(outlet, copy + n);
        return cut ? TG_OK
                   : tg_err_set(err, TG_EINVAL, "log %s: expected %s", outlet->target,
                                kafka ? "host:port/topic" : "host:port");
    }
    return TG_OK;
}

/* One of which everything is known, and nothing is open. */
static struct tg_outlet *
outlet_new(const char *target, struct tg_err *err)
{
    const size_t n = strlen(target) + 1;
    struct tg_outlet *outlet = tg_mem_alloc(sizeof *outlet + 2 * n);
    if (outlet == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "log %s: memory is short", target);
        return NULL;
    }
    memset(outlet, 0, sizeof *outlet);
    outlet->fd = -1;
    outlet->target = (char *)(outlet + 1);
    char *copy = outlet->target + n;
    memcpy(outlet->target, target, n);
    memcpy(copy, target, n);
    if (understand(outlet, copy, err) != TG_OK) {
        tg_outlet_close(outlet);
        return NULL;
    }
    return outlet;
}

enum tg_rc
tg_outlet_judge(const char *target, const char *settings, struct tg_err *err)
{
    struct tg_outlet *outlet = outlet_new(target, err);
    if (outlet == NULL) {
        return TG_EINVAL;
    }
    const struct tg_kafka_target kafka = {outlet->host, outlet->service, settings};
    const enum tg_rc rc = outlet->kind == KIND_KAFKA ? tg_kafka_judge(&kafka, err) : TG_OK;
    tg_outlet_close(outlet);
    return rc;
}

struct tg_outlet *
tg_outlet_open(const char *target, struct tg_err *err)
{
    struct tg_outlet *outlet = outlet_new(target, err);
    if (outlet == NULL || outlet->kind != KIND_FILE) {
        return outlet;
    }
    outlet->fd = open_path(outlet->path);
    if (outlet->fd < 0) {
        (void)tg_err_errno(err, "open %s", outlet->path);
        tg_outlet_close(outlet);
        return NULL;
    }
    return outlet;
}

void
tg_outlet_close(struct tg_outlet *outlet)
{
    if (outlet != NULL) {
        disconnect(outlet);
        close_kafka(outlet);
        tg_mem_free(outlet->settings);
        tg_mem_free(outlet);
    }
}
