#include "net/listener.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

enum {
    BACKLOG = 4096,
    ACCEPTS_A_TURN = 64, /* so that a storm of connections leaves turns to those that are there */
    PAUSE = 100          /* milliseconds without accepting when descriptors have run out */
};

struct tg_listener {
    struct tg_loop *loop;
    struct event *readable;
    struct event *resume;
    int fd;
    bool paused; /* by its owner */
    int reserve; /* a descriptor to give up, so that a connection can be accepted to be closed */
    tg_accept_cb accepted;
    void *arg;
};

bool
tg_listener_is_path(const char *host)
{
    return host[0] == '/';
}

/*
 * A socket whose maker has ended: what a master has left that was killed, perhaps with workers that listen on it still.
 * Those are not asked, or its next master could not begin. Anybody else's stays.
 */
static bool
is_left_over(const struct tg_address *address, const char *path)
{
    struct stat st;
    struct ucred maker = {.pid = 0};
    socklen_t size = sizeof maker;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool left_over = false;
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address->sa, address->len) < 0) {
        left_over = errno == ECONNREFUSED;
    } else if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &maker, &size) == 0) {
        left_over = maker.pid > 0 && kill(maker.pid, 0) < 0 && errno == ESRCH;
    }
    if (fd >= 0) {
        close(fd);
    }
    return left_over;
}

static int
bind_path(const char *path, struct tg_err *err)
{
    struct tg_address address;
    if (tg_address_of_path(&address, path) != TG_OK) {
        (void)tg_err_set(err, TG_EINVAL, "listen on %s: the path is too long", path);
        return -1;
    }
    if (is_left_over(&address, path)) {
        (void)unlink(path);
    }
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const mode_t before = umask(0177); /* from the first moment on */
    const bool ok = fd >= 0 && bind(fd, (const struct sockaddr *)&address.sa, address.len) == 0;
    (void)umask(before);
    if (!ok || listen(fd, BACKLOG) < 0) {
        (void)tg_err_errno(err, "listen on %s", path);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

int
tg_listener_bind(const char *host, unsigned port, struct tg_err *err)
{
    const int on = 1;
    struct tg_address address;
    if (tg_listener_is_path(host)) {
        return bind_path(host, err);
    }
    if (tg_address_parse(&address, host, port) != TG_OK) {
        (void)tg_err_set(err, TG_EINVAL, "listen on %s:%u: not an IP address", host, port);
        return -1;
    }
    const int fd = socket(address.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        (void)tg_err_errno(err, "socket for %s:%u", host, port);
        return -1;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
        bind(fd, (const struct sockaddr *)&address.sa, address.len) < 0 || listen(fd, BACKLOG) < 0) {
        (void)tg_err_errno(err, "listen on %s:%u", host, port);
        close(fd);
        return -1;
    }
    return fd;
}

static void
pause_accepting(struct tg_listener *listener)
{
    const struct timeval pause = {0, PAUSE * 1000L};
    if (event_add(listener->resume, &pause) == 0) { /* otherwise a busy loop is better than an end */
        (void)event_del(listener->readable);
    }
}

/* EMFILE: without this the same connection would wake the loop for ever. */
static void
shed(struct tg_listener *listener)
{
    if (listener->reserve >= 0) {
        close(listener->reserve);
        const int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            close(fd);
        }
        listener->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    listener->accepted(listener->arg, -1, NULL);
    tg_log(TG_LOG_WARN, "no descriptors left: accepting pauses");
    pause_accepting(listener);
}

void
tg_listener_drain(struct tg_listener *listener, unsigned max)
{
    for (unsigned i = 0; i < max; i++) {
        struct tg_address peer;
        peer.len = sizeof peer.sa;
        const int fd = accept4(listener->fd, (struct sockaddr *)&peer.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            listener->accepted(listener->arg, fd, &peer);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE) {
            shed(listener);
            return;
        }
        if (errno == ENOMEM || errno == ENOBUFS) {
            pause_accepting(listener);
            return;
        }
        if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO) {
            return; /* EAGAIN: nothing is left */
        }
    }
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    tg_listener_drain(arg, ACCEPTS_A_TURN);
}

static void
on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct tg_listener *listener = arg;
    (void)fd;
    (void)what;
    if (!listener->paused && event_add(listener->readable, NULL) < 0) {
        pause_accepting(listener); /* the kernel is short of memory: once more */
    }
}

void
tg_listener_pause(struct tg_listener *listener, bool pause)
{
    if (listener->paused == pause) {
        return;
    }
    listener->paused = pause;
    if (pause) {
        (void)event_del(listener->readable);
    } else if (event_add(listener->readable, NULL) < 0) {
        pause_accepting(listener);
    }
}

struct tg_listener *
tg_listener_new(struct tg_loop *loop, int fd, tg_accept_cb accepted, void *arg)
{
    struct tg_listener *listener = tg_mem_new(struct tg_listener);
    if (listener == NULL) {
        return NULL;
    }
    *listener = (struct tg_listener){.loop = loop, .fd = fd, .accepted = accepted, .arg = arg};
    listener->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
    listener->readable = event_new(tg_loop_base(loop), fd, EV_READ | EV_PERSIST, on_readable, listener);
    listener->resume = event_new(tg_loop_base(loop), -1, 0, on_resume, listener);
    if (listener->readable == NULL || listener->resume == NULL || event_add(listener->readable, NULL) < 0) {
        tg_listener_free(listener);
        return NULL;
    }
    return listener;
}

void
tg_listener_free(struct tg_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    if (listener->readable != NULL) {
        event_free(listener->readable);
    }
    if (listener->resume != NULL) {
        event_free(listener->resume);
    }
    if (listener->reserve >= 0) {
        close(listener->reserve);
    }
    tg_mem_free(listener);
}
