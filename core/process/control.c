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
    PAYLOAD_MAX = 8 * 1024 * 1024,
    ANSWER_MAX = 16 * 1024 * 1024,
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
    struct event *writable; /* NULL until the answer does not go out at once */
    char line[LINE_MAX_BYTES];
    size_t length;
    char who[TG_CONTROL_WHO];
    char *payload; /* what follows the line, NUL-terminated; NULL: nothing does */
    size_t payload_length;
    size_t payload_wanted;
    char *answer;
    size_t answer_length;
    size_t answer_sent;
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
    if (client->writable != NULL) {
        event_free(client->writable);
    }
    tg_mem_free(client->payload);
    tg_mem_free(client->answer);
    *client->link = client->next;
    if (client->next != NULL) {
        client->next->link = client->link;
    }
    close(client->fd);
    tg_mem_free(client);
}

static void
carry_out(struct tg_control_client *client)
{
    (void)event_del(client->readable);
    client->control->command(client->control->arg, client, client->line);
}

/* What comes behind the line; false: nothing more of it, for now or for good. */
static bool
read_payload(struct tg_control_client *client)
{
    const ssize_t n =
        read(client->fd, client->payload + client->payload_length, client->payload_wanted - client->payload_length);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (n <= 0) {
        client_free(client);
        return false;
    }
    client->payload_length += (size_t)n;
    if (client->payload_length < client->payload_wanted) {
        return true;
    }
    carry_out(client);
    return false;
}

/* "command +BYTES": so many bytes follow. False: it has none, or has them already. */
static bool
expect_payload(struct tg_control_client *client, const char *more, size_t n)
{
    char *plus = strrchr(client->line, '+');
    if (plus == NULL || plus == client->line || plus[-1] != ' ') {
        return false;
    }
    const unsigned long long wanted = strtoull(plus + 1, NULL, 10);
    client->payload = wanted == 0 || wanted > PAYLOAD_MAX || n > wanted ? NULL : tg_mem_zero((size_t)wanted + 1);
    if (client->payload == NULL) {
        return false;
    }
    plus[-1] = '\0';
    memcpy(client->payload, more, n);
    client->payload_length = n;
    client->payload_wanted = (size_t)wanted;
    return n < wanted;
}

/* "@who command": who asks, when that is not told by the connection. */
static void
take_who(struct tg_control_client *client)
{
    char *blank = client->line[0] == '@' ? strchr(client->line, ' ') : NULL;
    if (blank != NULL) {
        *blank = '\0';
        (void)snprintf(client->who, sizeof client->who, "%s", client->line + 1);
        memmove(client->line, blank + 1, strlen(blank + 1) + 1);
    }
}

static void
on_client(evutil_socket_t fd, short what, void *arg)
{
    struct tg_control_client *client = arg;
    (void)what;
    if (client->payload != NULL) {
        while (read_payload(client)) {
        }
        return;
    }
    const ssize_t n = read(fd, client->line + client->length, sizeof client->line - 1 - client->length);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    client->length += n > 0 ? (size_t)n : 0;
    client->line[client->length] = '\0';
    char *end = memchr(client->line, '\n', client->length);
    if (end == NULL) {
        if (n <= 0 || client->length == sizeof client->line - 1) {
            client_free(client);
        }
        return;
    }
    *end = '\0';
    const size_t more = client->length - (size_t)(end + 1 - client->line);
    if (!expect_payload(client, end + 1, more)) {
        take_who(client);
        carry_out(client);
        return;
    }
    take_who(client);
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
add_client(struct tg_control *control, int fd)
{
    struct ucred credentials = {.uid = (uid_t)-1};
    socklen_t size = sizeof credentials;
    struct tg_control_client *client = tg_mem_new(struct tg_control_client);
    if (client == NULL) {
        close(fd);
        return;
    }
    *client =
        (struct tg_control_client){.control = control, .next = control->clients, .link = &control->clients, .fd = fd};
    if (client->next != NULL) {
        client->next->link = &client->next;
    }
    control->clients = client;
    (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
    (void)snprintf(client->who, sizeof client->who, "uid %u", (unsigned)credentials.uid);
    client->readable = event_new(tg_loop_base(control->loop), fd, EV_READ | EV_PERSIST, on_client, client);
    if (client->readable == NULL || event_add(client->readable, NULL) < 0) {
        client_free(client);
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
    if (fd >= 0) {
        add_client(control, fd);
    }
}

void
tg_control_join(struct tg_control *control, int fd)
{
    if (evutil_make_socket_nonblocking(fd) < 0) {
        close(fd);
        return;
    }
    add_client(control, fd);
}

const char *
tg_control_who(const struct tg_control_client *client)
{
    return client->who;
}

struct tg_slice
tg_control_payload(const struct tg_control_client *client)
{
    return tg_slice_of(client->payload, client->payload_length);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct tg_control_client *client = arg;
    (void)what;
    const ssize_t n =
        send(fd, client->answer + client->answer_sent, client->answer_length - client->answer_sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    client->answer_sent += n > 0 ? (size_t)n : 0;
    if (n <= 0 || client->answer_sent == client->answer_length) {
        client_free(client);
    }
}

/* What does not go out at once goes out when the client reads. */
void
tg_control_answer(struct tg_control_client *client, bool ok, const char *text)
{
    const size_t length = strlen(text);
    client->answer = length > ANSWER_MAX ? NULL : tg_mem_alloc(length + 8);
    if (client->answer == NULL) {
        client_free(client);
        return;
    }
    client->answer_length = (size_t)snprintf(client->answer, 8, "%s\n", ok ? "ok" : "error");
    memcpy(client->answer + client->answer_length, text, length);
    client->answer_length += length;
    const ssize_t n = send(client->fd, client->answer, client->answer_length, MSG_NOSIGNAL);
    client->answer_sent = n > 0 ? (size_t)n : 0;
    if (client->answer_sent < client->answer_length && (n >= 0 || errno == EAGAIN)) {
        client->writable =
            event_new(tg_loop_base(client->control->loop), client->fd, EV_WRITE | EV_PERSIST, on_writable, client);
        if (client->writable != NULL && event_add(client->writable, NULL) == 0) {
            return;
        }
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

/* Takes the head "ok" or "error" off. */
static int
judge(const char *path, char *answer, size_t length)
{
    static const char *const heads[] = {"ok\n", "error\n"};
    for (int status = 0; status <= EXIT_REFUSED; status++) {
        const size_t head = strlen(heads[status]);
        if (strncmp(answer, heads[status], head) == 0) {
            memmove(answer, answer + head, length - head + 1);
            return status;
        }
    }
    (void)snprintf(answer, ANSWER_MAX, "tidegate: the gateway at %s gave no answer\n", path);
    return EXIT_NOBODY;
}

int
tg_control_call(const char *path, const char *line, struct tg_slice payload, char **text)
{
    struct sockaddr_un address;
    size_t length = 0;
    ssize_t n;
    char *answer = tg_mem_alloc(ANSWER_MAX);
    *text = answer;
    if (answer == NULL) {
        return EXIT_NOBODY;
    }
    const int fd = address_of(path, &address) ? dial(&address) : -1;
    if (fd < 0) {
        (void)snprintf(answer, ANSWER_MAX, "tidegate: no gateway answers at %s: %s\n", path, strerror(errno));
        return EXIT_NOBODY;
    }
    const struct timeval wait = {strcmp(line, "upgrade") == 0 || strstr(line, "--canary") != NULL ||
                                         strstr(line, "--shadow") != NULL
                                     ? 0
                                     : ANSWER_TIME,
                                 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (payload.n == 0) {
        (void)dprintf(fd, "%s\n", line);
    } else {
        (void)dprintf(fd, "%s +%zu\n%.*s", line, payload.n, (int)payload.n, payload.p);
    }
    while (length < ANSWER_MAX - 1 && (n = read(fd, answer + length, ANSWER_MAX - 1 - length)) > 0) {
        length += (size_t)n;
    }
    close(fd);
    answer[length] = '\0';
    return judge(path, answer, length);
}

int
tg_control_ask(const char *path, const char *line)
{
    char *text = NULL;
    const int status = tg_control_call(path, line, (struct tg_slice){0}, &text);
    (void)fputs(text == NULL ? "tidegate: memory is short\n" : text, status == 0 ? stdout : stderr);
    tg_mem_free(text);
    return status;
}
