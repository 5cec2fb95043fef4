#include "process/keeping.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "net/loop.h"

enum { LONG = 10 * 1000, END_WAIT = 2 * 1000 /* milliseconds */ };

void
tg_keeping_init(struct tg_keeping *keeping, const char *path, unsigned most)
{
    *keeping = (struct tg_keeping){.archive = {.path = path, .most = most}, .message = -1};
    keeping->last = &keeping->first;
}

static uint64_t
now(void)
{
    return tg_loop_clock() / 1000;
}

static void
free_item(struct tg_archive_item *item)
{
    close(item->bundle);
    tg_mem_free(item);
}

/* What comes out of an attempt: the first failure after a success is told, and the first success after a failure. */
static void
tell(struct tg_keeping *keeping, const char *id, const char *why)
{
    struct tg_archive *archive = &keeping->archive;
    if (why != NULL && !archive->failing) {
        tg_log(TG_LOG_WARN, "generation %s is not kept in %s: %s", id, archive->path, why);
    } else if (why == NULL && archive->failing) {
        tg_log(TG_LOG_INFO, "generations are kept in %s again", archive->path);
    }
    archive->failing = why != NULL;
}

/* ------------------------------------------------------------------ the child */

/* One that hangs lives on after the master: a socket of its that stayed open here would keep its port. */
static void
close_all_but(int one, int other)
{
    const unsigned low = (unsigned)(one < other ? one : other);
    const unsigned high = (unsigned)(one < other ? other : one);
    if (low > STDERR_FILENO + 1) {
        (void)close_range(STDERR_FILENO + 1, low - 1, 0);
    }
    if (high > low + 1) {
        (void)close_range(low + 1, high - 1, 0);
    }
    (void)close_range(high + 1, ~0U, 0);
}

/* Signals stay blocked: it ends what it has begun, and the handlers are the master's. */
static _Noreturn void
write_in_child(const struct tg_archive *archive, const struct tg_archive_item *item, int message)
{
    struct tg_err err = {0};
    close_all_but(item->bundle, message);
    if (tg_archive_write(archive, item, &err) == TG_OK) {
        _exit(0);
    }
    const ssize_t ignored = write(message, err.text, strlen(err.text));
    (void)ignored;
    _exit(1);
}

static enum tg_rc
start(struct tg_keeping *keeping, struct tg_err *err)
{
    int ends[2];
    sigset_t all;
    sigset_t before;
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return tg_err_errno(err, "pipe");
    }
    (void)fflush(NULL);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before);
    const pid_t pid = fork();
    if (pid == 0) {
        write_in_child(&keeping->archive, keeping->first, ends[1]);
    }
    const int failure = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        errno = failure;
        return tg_err_errno(err, "fork");
    }
    keeping->pid = pid;
    keeping->message = ends[0];
    keeping->began = now();
    keeping->overdue = false;
    return TG_OK;
}

static void
drop_first(struct tg_keeping *keeping)
{
    struct tg_archive_item *item = keeping->first;
    keeping->first = item->next;
    if (keeping->first == NULL) {
        keeping->last = &keeping->first;
    }
    keeping->count--;
    free_item(item);
}

/* The next that can be begun. */
static void
go_on(struct tg_keeping *keeping)
{
    struct tg_err err = {0};
    while (keeping->pid == 0 && keeping->first != NULL && start(keeping, &err) != TG_OK) {
        tell(keeping, keeping->first->id, err.text);
        drop_first(keeping);
    }
}

/* ------------------------------------------------------------------ the master */

/* The first is with the child. */
static void
give_up_oldest(struct tg_keeping *keeping)
{
    struct tg_archive_item *item = keeping->first->next;
    tell(keeping, item->id, "too many wait for the disk");
    keeping->first->next = item->next;
    if (item->next == NULL) {
        keeping->last = &keeping->first->next;
    }
    keeping->count--;
    free_item(item);
}

void
tg_keeping_put(struct tg_keeping *keeping, const struct tg_generation *generation)
{
    if (keeping->archive.path == NULL) {
        return;
    }
    struct tg_archive_item *item = tg_mem_new(struct tg_archive_item);
    /* The memory file outlives the generation, which the history may let go of meanwhile. */
    const int bundle = item == NULL ? -1 : fcntl(generation->fd, F_DUPFD_CLOEXEC, 0);
    if (bundle < 0) {
        tell(keeping, generation->id, item == NULL ? "memory is short" : strerror(errno));
        tg_mem_free(item);
        return;
    }
    *item = (struct tg_archive_item){.bundle = bundle, .committed = generation->committed};
    memcpy(item->id, generation->id, sizeof item->id);
    memcpy(item->by, generation->by, sizeof item->by);
    memcpy(item->change, generation->change, sizeof item->change);
    *keeping->last = item;
    keeping->last = &item->next;
    keeping->count++;
    if (keeping->count > keeping->archive.most + 1) {
        give_up_oldest(keeping);
    }
    go_on(keeping);
}

/* The child has ended. */
static void
finish(struct tg_keeping *keeping, int status)
{
    struct tg_err err = {0};
    char why[sizeof err.text];
    /* The message fits into the pipe's buffer, so the child never waits for us to read it. */
    const ssize_t n = read(keeping->message, why, sizeof why - 1);
    why[n > 0 ? n : 0] = '\0';
    close(keeping->message);
    keeping->message = -1;
    keeping->pid = 0;
    if (WIFSIGNALED(status)) {
        (void)snprintf(why, sizeof why, "the process that writes was ended by signal %d", WTERMSIG(status));
    }
    const bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    tell(keeping, keeping->first->id, ok ? NULL : why[0] == '\0' ? "the process that writes has failed" : why);
    drop_first(keeping);
}

bool
tg_keeping_reaped(struct tg_keeping *keeping, pid_t pid, int status)
{
    if (keeping->pid == 0 || pid != keeping->pid) {
        return false;
    }
    finish(keeping, status);
    go_on(keeping);
    return true;
}

void
tg_keeping_check(struct tg_keeping *keeping)
{
    if (keeping->pid != 0 && !keeping->overdue && now() - keeping->began >= LONG) {
        keeping->overdue = true;
        tell(keeping, keeping->first->id, "the disk does not answer; it is waited for");
    }
}

void
tg_keeping_end(struct tg_keeping *keeping)
{
    const uint64_t until = now() + END_WAIT;
    while (keeping->pid != 0) {
        const uint64_t at = now();
        struct pollfd end = {.fd = keeping->message, .events = 0}; /* it ends with the child */
        int status = 0;
        const int ended = at >= until ? 0 : poll(&end, 1, (int)(until - at));
        if (ended == 0 || (ended < 0 && errno != EINTR)) {
            break;
        }
        if (ended > 0 && waitpid(keeping->pid, &status, 0) == keeping->pid) {
            finish(keeping, status);
            go_on(keeping);
        }
    }
    for (const struct tg_archive_item *item = keeping->first; item != NULL; item = item->next) {
        keeping->archive.failing = false; /* each is told: nobody will come back to them */
        tell(keeping, item->id,
             item == keeping->first ? "the disk does not answer; who writes it goes on after the master's end"
                                    : "the disk does not answer, and the master ends");
    }
}

void
tg_keeping_forget(struct tg_keeping *keeping)
{
    for (const struct tg_archive_item *item = keeping->first; item != NULL; item = item->next) {
        close(item->bundle);
    }
    if (keeping->message >= 0) {
        close(keeping->message);
    }
}
