#include "base/sink.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/outlet.h"

enum {
    WAKE_AT = 64 * 1024 /* bytes */,
    CLOSE_WAIT = 2 /* seconds */,
    PAUSE_MIN = 50,
    PAUSE_MAX = 3000 /* milliseconds */
};

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
    char *settings; /* for the outlet, at the next batch; NULL: as before */
    struct tg_outlet *outlet;
    char *path;
};

/* False: the sink closes. */
static bool
wait_a_while(struct tg_sink *sink, unsigned milliseconds)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(milliseconds % 1000) * 1000000L;
    until.tv_sec += (time_t)(milliseconds / 1000) + until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_mutex_lock(&sink->mutex);
    int rc = 0;
    while (!sink->closing && rc == 0) {
        rc = pthread_cond_timedwait(&sink->wake, &sink->mutex, &until);
    }
    const bool closing = sink->closing;
    (void)pthread_mutex_unlock(&sink->mutex);
    return !closing;
}

/*
 * Writes what is in the batch. A stream that is away is tried again, ever later, while the queue fills and then drops;
 * when the sink closes, it is not waited for.
 */
static void
write_batch(struct tg_sink *sink, const char *p, size_t n)
{
    unsigned pause = PAUSE_MIN;
    uint64_t lost = 0;
    while (n > 0) {
        const size_t done = tg_outlet_write(sink->outlet, p, n, &lost);
        p += done;
        n -= done;
        if (n == 0 || !wait_a_while(sink, pause)) {
            break;
        }
        pause = done > 0 ? PAUSE_MIN : pause < PAUSE_MAX ? pause * 2 : PAUSE_MAX;
    }
    for (const char *end = p + n; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++) {
        lost++;
    }
    (void)pthread_mutex_lock(&sink->mutex);
    sink->dropped += lost;
    (void)pthread_mutex_unlock(&sink->mutex);
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
        char *settings = sink->settings;
        sink->settings = NULL;
        (void)pthread_mutex_unlock(&sink->mutex);
        if (settings != NULL) {
            tg_outlet_configure(sink->outlet, settings);
        }
        if (reopen) {
            tg_outlet_reopen(sink->outlet);
        }
        write_batch(sink, batch, n);
        (void)pthread_mutex_lock(&sink->mutex);
    }
    (void)pthread_mutex_unlock(&sink->mutex);
    return NULL;
}

static void
sink_free(struct tg_sink *sink)
{
    tg_outlet_close(sink->outlet);
    tg_mem_free(sink->queue);
    tg_mem_free(sink->batch);
    tg_mem_free(sink->path);
    tg_mem_free(sink->settings);
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
    sink->outlet = tg_outlet_open(path, err);
    if (sink->outlet == NULL) {
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
    /* Early: what is in the cache yet costs less to write than a wake-up for so many lines. */
    if (sink->queued > WAKE_AT && sink->idle) {
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

enum tg_rc
tg_sink_configure(struct tg_sink *sink, const char *settings)
{
    char *copy = tg_mem_text(settings, strlen(settings));
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    (void)pthread_mutex_lock(&sink->mutex);
    char *before = sink->settings;
    sink->settings = copy;
    (void)pthread_mutex_unlock(&sink->mutex);
    tg_mem_free(before);
    return TG_OK;
}

void
tg_sink_rotate(struct tg_sink *sink, uint64_t size, unsigned keep)
{
    tg_outlet_rotate(sink->outlet, size, keep);
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
