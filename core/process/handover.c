#include "process/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

static const char variable[] = "TIDEGATE_HANDOVER";
enum { VERSION = 1 };

void
tg_handover_begin(struct tg_handover_writer *writer)
{
    writer->n = 0;
    tg_handover_put(writer, "%d %d\n", VERSION, (int)getpid());
}

void
tg_handover_put(struct tg_handover_writer *writer, const char *format, ...)
{
    va_list args;
    const size_t room = sizeof writer->text - writer->n;
    if (room == 0) {
        return;
    }
    va_start(args, format);
    const int n = vsnprintf(writer->text + writer->n, room, format, args);
    va_end(args);
    writer->n = n < 0 || (size_t)n >= room ? sizeof writer->text : writer->n + (size_t)n;
}

void
tg_handover_put_fd(struct tg_handover_writer *writer, int fd)
{
    (void)fcntl(fd, F_SETFD, 0);
    tg_handover_put(writer, " %d", fd);
}

enum tg_rc
tg_handover_end(const struct tg_handover_writer *writer, struct tg_err *err)
{
    if (writer->n == sizeof writer->text) {
        return tg_err_set(err, TG_ELIMIT, "too many listening sockets for the environment of a process");
    }
    return setenv(variable, writer->text, 1) < 0 ? tg_err_errno(err, "environment") : TG_OK;
}

/* -1: none is open there. */
static int
parse_fd(const char *text)
{
    char *end = NULL;
    if (text == NULL) {
        return -1;
    }
    const long value = strtol(text, &end, 10);
    if (end == text || value <= STDERR_FILENO || value > INT_MAX || fcntl((int)value, F_SETFD, FD_CLOEXEC) < 0) {
        return -1;
    }
    return (int)value;
}

static bool
is_listening(int fd)
{
    int on = 0;
    socklen_t size = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) == 0 && on != 0;
}

static void
close_if_open(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* "ADDRESS PORT FD ..." */
static void
read_listen(struct tg_handover *handover, char *rest)
{
    char *state = NULL;
    struct tg_handover_listen unused;
    const bool fits = handover->listen_count < TG_LISTENERS_MAX;
    struct tg_handover_listen *listen = fits ? &handover->listens[handover->listen_count] : &unused;
    const char *address = strtok_r(rest, " ", &state);
    const char *port = strtok_r(NULL, " ", &state);
    if (address == NULL || port == NULL) {
        return;
    }
    (void)snprintf(listen->address, sizeof listen->address, "%s", address);
    listen->port = (unsigned)strtoul(port, NULL, 10);
    for (unsigned i = 0; i < TG_WORKERS_MAX; i++) {
        listen->fds[i] = -1;
    }
    unsigned slot = 0;
    for (const char *word; (word = strtok_r(NULL, " ", &state)) != NULL; slot++) {
        int fd = parse_fd(word);
        if (fits && slot < TG_WORKERS_MAX && fd >= 0 && is_listening(fd)) {
            listen->fds[slot] = fd;
        } else {
            close_if_open(&fd);
        }
    }
    handover->listen_count += fits;
}

static void
read_line(struct tg_handover *handover, char *line)
{
    char *state = NULL;
    const char *word = strtok_r(line, " ", &state);
    if (word == NULL) {
        return;
    }
    if (strcmp(word, "listen") == 0) {
        read_listen(handover, state);
    } else if (strcmp(word, "report") == 0) {
        handover->report = parse_fd(state);
    } else if (strcmp(word, "control") == 0) {
        handover->control = parse_fd(strtok_r(NULL, " ", &state));
        (void)snprintf(handover->control_path, sizeof handover->control_path, "%s", state);
    } else if (strcmp(word, "dict") == 0 && handover->dict_count < TG_GENERATION_DICTS) {
        struct tg_handover_dict *dict = &handover->dicts[handover->dict_count];
        dict->fd = parse_fd(strtok_r(NULL, " ", &state));
        (void)snprintf(dict->name, sizeof dict->name, "%s", state);
        handover->dict_count += dict->fd >= 0;
    }
}

enum tg_rc
tg_handover_read(struct tg_handover **out, struct tg_err *err)
{
    int version = 0;
    int pid = 0;
    char *state = NULL;
    const char *set = getenv(variable);
    *out = NULL;
    if (set == NULL) {
        return TG_OK;
    }
    char *text = tg_mem_text(set, strlen(set));
    struct tg_handover *handover = tg_mem_new(struct tg_handover);
    (void)unsetenv(variable); /* the numbers mean nothing to those that we start */
    if (text == NULL || handover == NULL) {
        tg_mem_free(text);
        tg_mem_free(handover);
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    handover->report = -1;
    handover->control = -1;
    const int found = sscanf(text, "%d %d", &version, &pid);
    const bool ours = found == 2 && version == VERSION && pid == (int)getpid();
    (void)strtok_r(text, "\n", &state);
    for (char *line; ours && (line = strtok_r(NULL, "\n", &state)) != NULL;) {
        read_line(handover, line);
    }
    tg_mem_free(text);
    if (ours && handover->report >= 0) {
        *out = handover;
        return TG_OK;
    }
    tg_handover_close_rest(handover);
    tg_mem_free(handover);
    return found < 1 || version == VERSION
               ? TG_OK
               : tg_err_set(err, TG_EINVAL, "%s: found version %d, expected %d", variable, version, VERSION);
}

int
tg_handover_take_listen(struct tg_handover *handover, const char *address, unsigned port, unsigned slot)
{
    for (unsigned i = 0; handover != NULL && i < handover->listen_count; i++) {
        struct tg_handover_listen *listen = &handover->listens[i];
        if (listen->port == port && strcmp(listen->address, address) == 0) {
            const int fd = listen->fds[slot];
            listen->fds[slot] = -1;
            return fd;
        }
    }
    return -1;
}

int
tg_handover_take_dict(struct tg_handover *handover, const char *name)
{
    for (unsigned i = 0; handover != NULL && i < handover->dict_count; i++) {
        if (strcmp(handover->dicts[i].name, name) == 0) {
            const int fd = handover->dicts[i].fd;
            handover->dicts[i].fd = -1;
            return fd;
        }
    }
    return -1;
}

void
tg_handover_close_rest(struct tg_handover *handover)
{
    for (unsigned i = 0; handover != NULL && i < handover->listen_count; i++) {
        for (unsigned slot = 0; slot < TG_WORKERS_MAX; slot++) {
            close_if_open(&handover->listens[i].fds[slot]);
        }
    }
    for (unsigned i = 0; handover != NULL && i < handover->dict_count; i++) {
        close_if_open(&handover->dicts[i].fd);
    }
}
