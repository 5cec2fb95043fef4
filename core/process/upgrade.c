#include "process/upgrade.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REPORT_SIZE = 1024, EXIT_NO_EXEC = 127 };

static bool
say(int report, const char *text)
{
    const size_t n = strnlen(text, REPORT_SIZE - 1);
    ssize_t sent;
    do {
        sent = send(report, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)n;
}

/* A message, NUL-terminated. TG_AGAIN; TG_ECLOSED when the other side has ended. */
static enum tg_rc
hear(int report, char text[REPORT_SIZE])
{
    ssize_t n;
    do {
        n = recv(report, text, REPORT_SIZE - 1, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? TG_OK : n < 0 && errno == EAGAIN ? TG_AGAIN : TG_ECLOSED;
}

static void
end_upgrade(struct tg_upgrade *upgrade)
{
    if (upgrade->readable != NULL) {
        event_free(upgrade->readable);
    }
    if (upgrade->overdue != NULL) {
        event_free(upgrade->overdue);
    }
    close(upgrade->report);
    *upgrade = (struct tg_upgrade){.loop = upgrade->loop, .hooks = upgrade->hooks, .report = -1};
}

static void
on_said(struct tg_upgrade *upgrade, const char *text)
{
    static const char failed[] = "failed ";
    if (strcmp(text, "ready") == 0 && !upgrade->granted) {
        upgrade->granted = say(upgrade->report, "take"); /* otherwise it has just died: waitpid tells */
        if (upgrade->granted) {
            upgrade->hooks->granted(upgrade->hooks->arg);
        }
    } else if (strcmp(text, "done") == 0 && upgrade->granted && !upgrade->done) {
        upgrade->done = true;
        (void)event_del(upgrade->overdue);
        upgrade->hooks->done(upgrade->hooks->arg, upgrade->pid);
    } else if (strncmp(text, failed, sizeof failed - 1) == 0) {
        (void)snprintf(upgrade->why, sizeof upgrade->why, "%s", text + sizeof failed - 1);
    }
}

static void
listen_to_it(struct tg_upgrade *upgrade)
{
    char text[REPORT_SIZE];
    enum tg_rc rc;
    while ((rc = hear(upgrade->report, text)) == TG_OK) {
        on_said(upgrade, text);
    }
    if (rc != TG_AGAIN) {
        (void)event_del(upgrade->readable);
    }
}

static void
on_report(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    listen_to_it(arg);
}

static void
on_overdue(evutil_socket_t fd, short what, void *arg)
{
    struct tg_upgrade *upgrade = arg;
    (void)fd;
    (void)what;
    (void)snprintf(upgrade->why, sizeof upgrade->why, "the new master was not ready after %u s", upgrade->timeout);
    (void)kill(upgrade->pid, SIGKILL);
}

/* Only the exec separates this from the new program: nothing of ours is freed or closed by hand. */
static _Noreturn void
become_new(struct tg_upgrade *upgrade, const char *program, char *const *argv, int report)
{
    static struct tg_handover_writer writer;
    char text[REPORT_SIZE];
    struct tg_err err = {0};
    sigset_t none;
    tg_handover_begin(&writer);
    tg_handover_put(&writer, "report");
    tg_handover_put_fd(&writer, report);
    tg_handover_put(&writer, "\n");
    upgrade->hooks->hand_over(upgrade->hooks->arg, &writer);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (tg_handover_end(&writer, &err) == TG_OK) {
        (void)execv(program, argv);
        (void)tg_err_errno(&err, "%s", program);
    }
    (void)snprintf(text, sizeof text, "failed %.900s", err.text);
    (void)say(report, text);
    _exit(EXIT_NO_EXEC);
}

enum tg_rc
tg_upgrade_start(struct tg_upgrade *upgrade, const char *program, char *const *argv, unsigned timeout,
                 struct tg_err *err)
{
    const struct timeval wait = {(long)timeout, 0};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        return tg_err_errno(err, "socket pair");
    }
    upgrade->report = ends[0];
    upgrade->timeout = timeout;
    upgrade->readable = event_new(tg_loop_base(upgrade->loop), ends[0], EV_READ | EV_PERSIST, on_report, upgrade);
    upgrade->overdue = event_new(tg_loop_base(upgrade->loop), -1, 0, on_overdue, upgrade);
    if (upgrade->readable == NULL || upgrade->overdue == NULL || event_add(upgrade->readable, NULL) < 0 ||
        event_add(upgrade->overdue, &wait) < 0) {
        close(ends[1]);
        end_upgrade(upgrade);
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    (void)fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        become_new(upgrade, program, argv, ends[1]);
    }
    close(ends[1]);
    if (pid < 0) {
        (void)tg_err_errno(err, "fork");
        end_upgrade(upgrade);
        return TG_ESYSTEM;
    }
    upgrade->pid = pid;
    return TG_OK;
}

bool
tg_upgrade_reaped(struct tg_upgrade *upgrade, pid_t pid, int status)
{
    char why[sizeof upgrade->why + 64];
    if (upgrade->pid == 0 || pid != upgrade->pid) {
        return false;
    }
    listen_to_it(upgrade); /* its last words */
    const bool done = upgrade->done;
    if (upgrade->why[0] != '\0') {
        (void)snprintf(why, sizeof why, "%s", upgrade->why);
    } else if (WIFSIGNALED(status)) {
        (void)snprintf(why, sizeof why, "the new master was ended by signal %d", WTERMSIG(status));
    } else {
        (void)snprintf(why, sizeof why, "the new master ended with status %d", WEXITSTATUS(status));
    }
    end_upgrade(upgrade);
    if (!done) {
        upgrade->hooks->failed(upgrade->hooks->arg, why);
    }
    return true;
}

void
tg_upgrade_cancel(struct tg_upgrade *upgrade, const char *why)
{
    if (upgrade->pid != 0 && !upgrade->done) {
        (void)snprintf(upgrade->why, sizeof upgrade->why, "%s", why);
        (void)kill(upgrade->pid, SIGKILL);
    }
}

void
tg_upgrade_forget(const struct tg_upgrade *upgrade)
{
    if (upgrade->pid != 0) {
        close(upgrade->report);
    }
}

static void
on_answer(evutil_socket_t report, short what, void *arg)
{
    struct tg_takeover *takeover = arg;
    char text[REPORT_SIZE];
    (void)what;
    const enum tg_rc rc = hear(report, text);
    if (rc == TG_AGAIN) {
        return;
    }
    if (rc != TG_OK) {
        takeover->alone = true;
        (void)event_del(takeover->readable);
    }
    if (takeover->ready && (takeover->alone || strcmp(text, "take") == 0)) {
        takeover->granted(takeover->arg);
    }
}

enum tg_rc
tg_takeover_open(struct tg_takeover *takeover, struct tg_loop *loop)
{
    takeover->readable = event_new(tg_loop_base(loop), takeover->report, EV_READ | EV_PERSIST, on_answer, takeover);
    return takeover->readable == NULL || event_add(takeover->readable, NULL) < 0 ? TG_ENOMEM : TG_OK;
}

void
tg_takeover_ready(struct tg_takeover *takeover)
{
    if (takeover->ready) {
        return;
    }
    takeover->ready = true;
    if (takeover->alone || !say(takeover->report, "ready")) {
        takeover->alone = true;
        takeover->granted(takeover->arg);
    }
}

void
tg_takeover_done(struct tg_takeover *takeover)
{
    (void)say(takeover->report, "done"); /* nobody hears it when we are alone */
    event_free(takeover->readable);
    takeover->readable = NULL;
    close(takeover->report);
    takeover->report = -1;
}

void
tg_takeover_fail(const struct tg_takeover *takeover, const char *why)
{
    char text[REPORT_SIZE];
    (void)snprintf(text, sizeof text, "failed %.900s", why);
    (void)say(takeover->report, text);
}
