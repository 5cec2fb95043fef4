#include "process/control.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    LINE_MAX_BYTES = 512,
    EXIT_REFUSED = 1,
    EXIT_NOBODY = 3,
    ANSWER_TIME = 60 /* seconds; a reload may wait for an upgrade, which has a limit of its own */,
    PAUSE = 100 /* milliseconds */
};

struct tg_control {
    int fd;
    char *path;
    struct tg_loop *loop;
    struct event *readable;
    struct event *resume;
    bool paused;
    struct tg_control_client *clients;
    tg_control_cb command;
    void *arg;
};

struct tg_control_client {
    struct tg_control *control;
    struct tg_control_client *next;
    struct tg_control_client **link;
    int fd;
    struct event *readable;
    char line[LINE_MAX_BYTES];
    size_t length;
    bool asked;
};

static bool
address_of(const char *path, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    const int n = snprintf(address->sun_path, sizeof address->sun_path, "%s", path);
    return n > 0 && (size_t)n < sizeof address->sun_path;
}

static void
client_free(struct tg_control_client *client)
{
    if (client->readable != NULL) {
        event_free(client->readable);
    }
    *client->link = client->next;
    if (client->next != NULL) {
        client->next->link = client->link;
    }
    close(client->fd);
    tg_mem_free(client);
}

static void
on_client(evutil_socket_t fd, short what, void *arg)
{
    struct tg_control_client *client = arg;
    (void)what;
    const ssize_t n = read(fd, client->line + client->length, sizeof client->line - 1 - client->length);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    client->length += n > 0 ? (size_t)n : 0;
    client->line[client->length] = '\0';
    char *end = strchr(client->line, '\n');
    if (end == NULL) {
        if (n <= 0 || client->length == sizeof client->line - 1) {
            client_free(client);
        }
        return;
    }
    *end = '\0';
    (void)event_del(client->readable);
    client->asked = true;
    client->control->command(client->control->arg, client, client->line);
}

static void
on_resume(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval pause = {0, PAUSE * 1000L};
    struct tg_control *control = arg;
    (void)fd;
    (void)what;
    if (!control->paused && event_add(control->readable, NULL) < 0) {
        (void)event_add(control->resume, &pause);
    }
}

static void
on_connection(evutil_socket_t listener, short what, void *arg)
{
    static const struct timeval pause = {0, PAUSE * 1000L};
    struct tg_control *control = arg;
    (void)what;
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    /* Without descriptors the connection stays where it is, and would wake the loop for ever. */
    if (fd < 0 && errno != EAGAIN && errno != EINTR && event_add(control->resume, &pause) == 0) {
        (void)event_del(control->readable);
        return;
    }
    struct tg_control_client *client = fd < 0 ? NULL : tg_mem_new(struct tg_control_client);
    if (client == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    *client =
        (struct tg_control_client){.control = control, .next = control->clients, .link = &control->clients, .fd = fd};
    if (client->next != NULL) {
        client->next->link = &client->next;
    }
    control->clients = client;
    client->readable = event_new(tg_loop_base(control->loop), fd, EV_READ | EV_PERSIST, on_client, client);
    if (client->readable == NULL || event_add(client->readable, NULL) < 0) {
        client_free(client);
    }
}

void
tg_control_answer(struct tg_control_client *client, bool ok, const char *text)
{
    char head[8];
    const int n = snprintf(head, sizeof head, "%s\n", ok ? "ok" : "error");
    /* An answer fits into the socket's buffer; a client that does not read it loses it. */
    if (send(client->fd, head, (size_t)n, MSG_NOSIGNAL) == n) {
        const ssize_t ignored = send(client->fd, text, strlen(text), MSG_NOSIGNAL);
        (void)ignored;
    }
    client_free(client);
}

static int
dial(const struct sockaddr_un *address)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A socket that listens at `path`; -1 and `err`. */
static int
bind_at(const char *path, struct tg_err *err)
{
    struct sockaddr_un address;
    if (!address_of(path, &address)) {
        (void)tg_err_set(err, TG_EINVAL, "control socket %s: the path is too long", path);
        return -1;
    }
    const int other = dial(&address);
    if (other >= 0) {
        close(other);
        (void)tg_err_set(err, TG_EBUSY,
                         "control socket %s: another gateway answers there (give this one --control PATH)", path);
        return -1;
    }
    (void)unlink(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const mode_t mask = umask(0177);
    const bool bound =
        fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 16) == 0;
    (void)umask(mask);
    if (!bound) {
        (void)tg_err_errno(err, "control socket %s", path);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

struct tg_control *
tg_control_adopt(struct tg_loop *loop, const char *path, int fd, tg_control_cb command, void *arg, struct tg_err *err)
{
    struct tg_control *control = tg_mem_new(struct tg_control);
    if (control != NULL) {
        *control = (struct tg_control){.fd = fd, .loop = loop, .paused = true, .command = command, .arg = arg};
        control->path = tg_mem_text(path, strlen(path));
        control->readable = event_new(tg_loop_base(loop), fd, EV_READ | EV_PERSIST, on_connection, control);
        control->resume = event_new(tg_loop_base(loop), -1, 0, on_resume, control);
    }
    if (control == NULL || control->path == NULL || control->readable == NULL || control->resume == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "memory is short");
        if (control == NULL) {
            close(fd);
        }
        tg_control_close(control);
        return NULL;
    }
    return control;
}

struct tg_control *
tg_control_open(struct tg_loop *loop, const char *path, tg_control_cb command, void *arg, struct tg_err *err)
{
    const int fd = bind_at(path, err);
    struct tg_control *control = fd < 0 ? NULL : tg_control_adopt(loop, path, fd, command, arg, err);
    if (control != NULL) {
        tg_control_pause(control, false);
    }
    return control;
}

int
tg_control_fd(const struct tg_control *control)
{
    return control->fd;
}

void
tg_control_pause(struct tg_control *control, bool pause)
{
    control->paused = pause;
    if (pause) {
        (void)event_del(control->readable);
    } else {
        on_resume(-1, 0, control);
    }
}

void
tg_control_leave(struct tg_control *control)
{
    tg_control_pause(control, true);
    (void)event_del(control->resume);
    close(control->fd);
    control->fd = -1;
}

void
tg_control_close(struct tg_control *control)
{
    if (control == NULL) {
        return;
    }
    if (control->readable != NULL) {
        event_free(control->readable);
    }
    if (control->resume != NULL) {
        event_free(control->resume);
    }
    if (control->fd >= 0) {
        close(control->fd);
    }
    if (!control->paused) {
        (void)unlink(control->path);
    }
    tg_mem_free(control->path);
    tg_mem_free(control);
}

void
tg_control_forget(struct tg_control *control)
{
    close(control->fd);
    /* A client waits for the end of its connection, which must not be held by a worker. */
    for (const struct tg_control_client *client = control->clients; client != NULL; client = client->next) {
        close(client->fd);
    }
}

int
tg_control_ask(const char *path, const char *line)
{
    struct sockaddr_un address;
    char answer[64 * 1024];
    size_t length = 0;
    ssize_t n;
    const int fd = address_of(path, &address) ? dial(&address) : -1;
    if (fd < 0) {
        (void)fprintf(stderr, "tidegate: no gateway answers at %s: %s\n", path, strerror(errno));
        return EXIT_NOBODY;
    }
    const struct timeval wait = {strcmp(line, "upgrade") == 0 ? 0 : ANSWER_TIME, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    (void)dprintf(fd, "%s\n", line);
    while (length < sizeof answer - 1 && (n = read(fd, answer + length, sizeof answer - 1 - length)) > 0) {
        length += (size_t)n;
    }
    close(fd);
    answer[length] = '\0';
    if (strncmp(answer, "ok\n", 3) == 0) {
        (void)fputs(answer + 3, stdout);
        return 0;
    }
    if (strncmp(answer, "error\n", 6) == 0) {
        (void)fprintf(stderr, "%s", answer + 6);
        return EXIT_REFUSED;
    }
    (void)fprintf(stderr, "tidegate: the gateway at %s gave no answer\n", path);
    return EXIT_NOBODY;
}
