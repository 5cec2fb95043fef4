#include "base/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

enum { CLOSE_WAIT = 2, RETRY_PAUSE = 1, COMPLAIN_EVERY = 60 /* seconds */ };

struct tg_sink {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    char *queue; /* filled by the loop */
    char *batch; /* being written by the thread */
    size_t queued;
    uint64_t dropped;
    bool closing;
    bool reopen;
    bool idle; /* the thread waits */
    bool running;
    int fd;
    time_t complained;
    char *path;
};

/* A fifo that nobody reads would hold whoever opens it for writing alone. */
static int
open_path(const char *path)
{
    struct stat st;
    const bool fifo = stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
    const int mode = fifo ? O_RDWR : O_WRONLY;
    return strcmp(path, "-") == 0 ? dup(STDOUT_FILENO) : open(path, mode | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

/* Errors once a minute: a full disk must not fill the error log as well. */
static void
complain(struct tg_sink *sink, const char *what)
{
    const time_t now = time(NULL);
    if (now - sink->complained >= COMPLAIN_EVERY) {
        char why[128];
        const char *text = strerror_r(errno, why, sizeof why);
        sink->complained = now;
        tg_log(TG_LOG_ERROR, "%s %s: %s (lines are lost)", what, sink->path, text);
    }
}

/* Returns false when the rest of the batch is lost. */
static bool
write_all(struct tg_sink *sink, const char *p, size_t n)
{
    while (n > 0) {
        const ssize_t done = write(sink->fd, p, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0 && errno == EAGAIN) {
            const struct timespec pause = {0, 10000000L};
            (void)nanosleep(&pause, NULL);
            continue;
        }
        if (done < 0) {
            complain(sink, "write");
            return false;
        }
        p += done;
        n -= (size_t)done;
    }
    return true;
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

static void
reopen_file(struct tg_sink *sink)
{
    const int fd = open_path(sink->path);
    if (fd < 0) {
        complain(sink, "open");
        return;
    }
    close(sink->fd);
    sink->fd = fd;
}

static void *
run(void *arg)
{
    struct tg_sink *sink = arg;
    (void)pthread_mutex_lock(&sink->mutex);
    for (;;) {
        while (sink->queued == 0 && !sink->closing && !sink->reopen) {
            sink->idle = true;
            (void)pthread_cond_wait(&sink->wake, &sink->mutex);
        }
        sink->idle = false;
        const bool reopen = sink->reopen;
        const size_t n = sink->queued;
        char *batch = sink->queue;
        if (n == 0 && !reopen && sink->closing) {
            break;
        }
        sink->queue = sink->batch;
        sink->batch = batch;
        sink->queued = 0;
        sink->reopen = false;
        (void)pthread_mutex_unlock(&sink->mutex);
        if (reopen) {
            reopen_file(sink);
        }
        const bool written = write_all(sink, batch, n);
        (void)pthread_mutex_lock(&sink->mutex);
        if (!written) {
            sink->dropped += count_lines(batch, n);
        }
    }
    (void)pthread_mutex_unlock(&sink->mutex);
    return NULL;
}

static void
sink_free(struct tg_sink *sink)
{
    if (sink->fd >= 0) {
        close(sink->fd);
    }
    tg_mem_free(sink->queue);
    tg_mem_free(sink->batch);
    tg_mem_free(sink->path);
    tg_mem_free(sink);
}

struct tg_sink *
tg_sink_open(const char *path, struct tg_err *err)
{
    sigset_t all;
    sigset_t old;
    struct tg_sink *sink = tg_mem_new(struct tg_sink);
    if (sink == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "log %s: memory is short", path);
        return NULL;
    }
    sink->path = tg_mem_text(path, strlen(path));
    sink->queue = tg_mem_alloc(TG_SINK_QUEUE);
    sink->batch = tg_mem_alloc(TG_SINK_QUEUE);
    sink->fd = open_path(path);
    if (sink->fd < 0) {
        (void)tg_err_errno(err, "open %s", path);
        sink_free(sink);
        return NULL;
    }
    if (sink->path == NULL || sink->queue == NULL || sink->batch == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "log %s: memory is short", path);
        sink_free(sink);
        return NULL;
    }
    (void)pthread_mutex_init(&sink->mutex, NULL);
    (void)pthread_cond_init(&sink->wake, NULL);
    /* Signals are the loop's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    sink->running = pthread_create(&sink->thread, NULL, run, sink) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!sink->running) {
        (void)tg_err_set(err, TG_ESYSTEM, "log %s: no thread", path);
        sink_free(sink);
        return NULL;
    }
    return sink;
}

void
tg_sink_close(struct tg_sink *sink)
{
    struct timespec until;
    if (sink == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&sink->mutex);
    sink->closing = true;
    (void)pthread_cond_signal(&sink->wake);
    (void)pthread_mutex_unlock(&sink->mutex);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_WAIT;
    if (pthread_timedjoin_np(sink->thread, NULL, &until) != 0) {
        return; /* stuck in a write: its memory stays with it */
    }
    sink_free(sink);
}

enum tg_rc
tg_sink_write(struct tg_sink *sink, const char *p, size_t n)
{
    enum tg_rc rc = TG_ELIMIT;
    if (n > TG_SINK_LINE - 1) {
        n = TG_SINK_LINE - 1;
    }
    (void)pthread_mutex_lock(&sink->mutex);
    if (sink->queued + n + 1 <= TG_SINK_QUEUE) {
        char *line = sink->queue + sink->queued;
        memcpy(line, p, n);
        /* A newline within would feign a line. In JSON it stands between values only, where a blank is the same. */
        for (char *at = line; (at = memchr(at, '\n', n - (size_t)(at - line))) != NULL; at++) {
            *at = ' ';
        }
        line[n] = '\n';
        sink->queued += n + 1;
        rc = TG_OK;
    } else {
        sink->dropped++;
    }
    if (sink->queued > TG_SINK_QUEUE / 2 && sink->idle) {
        (void)pthread_cond_signal(&sink->wake);
    }
    (void)pthread_mutex_unlock(&sink->mutex);
    return rc;
}

void
tg_sink_flush(struct tg_sink *sink)
{
    (void)pthread_mutex_lock(&sink->mutex);
    if (sink->queued > 0 && sink->idle) {
        (void)pthread_cond_signal(&sink->wake);
    }
    (void)pthread_mutex_unlock(&sink->mutex);
}

void
tg_sink_reopen(struct tg_sink *sink)
{
    (void)pthread_mutex_lock(&sink->mutex);
    sink->reopen = true;
    (void)pthread_cond_signal(&sink->wake);
    (void)pthread_mutex_unlock(&sink->mutex);
}

uint64_t
tg_sink_dropped(struct tg_sink *sink)
{
    (void)pthread_mutex_lock(&sink->mutex);
    const uint64_t dropped = sink->dropped;
    (void)pthread_mutex_unlock(&sink->mutex);
    return dropped;
}

const char *
tg_sink_path(const struct tg_sink *sink)
{
    return sink->path;
}
