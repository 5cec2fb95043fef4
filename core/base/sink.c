#include "base/sink.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/outlet.h"

enum {
    WAKE_AT = 64 * 1024 /* bytes: what is in the cache yet costs less to write than a wake-up for so many lines */,
    ROOM = TG_SINK_QUEUE + TG_SINK_LINE + TG_SINK_SLACK,
    CLOSE_WAIT = 2 /* seconds */,
    PAUSE_MIN = 50,
    PAUSE_MAX = 3000 /* milliseconds */
};

struct tg_sink {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    /* The loop's, without the mutex, until it closes: a lock for each line would show. */
    char *queue;
    size_t queued;
    uint64_t refused;
    /* Handed over under the mutex, when the thread has nothing; then it is the thread's. */
    char *batch;
    size_t handed;    /* bytes */
    atomic_bool idle; /* nothing is handed */
    uint64_t lost;
    bool closing;
    bool reopen;
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
    sink->lost += lost;
    (void)pthread_mutex_unlock(&sink->mutex);
}

/* Under the mutex. */
static void
swap(struct tg_sink *sink)
{
    char *queue = sink->queue;
    sink->queue = sink->batch;
    sink->batch = queue;
    sink->handed = sink->queued;
    sink->queued = 0;
    atomic_store_explicit(&sink->idle, false, memory_order_relaxed);
}

static void *
run(void *arg)
{
    struct tg_sink *sink = arg;
    (void)pthread_mutex_lock(&sink->mutex);
    for (;;) {
        while (sink->handed == 0 && !sink->closing && !sink->reopen) {
            (void)pthread_cond_wait(&sink->wake, &sink->mutex);
        }
        if (sink->handed == 0 && sink->closing) {
            swap(sink); /* the loop is done with it */
        }
        const bool reopen = sink->reopen;
        if (sink->handed == 0 && sink->closing && !reopen) {
            break;
        }
        const size_t n = sink->handed; /* 0: more may be handed over meanwhile */
        const char *batch = sink->batch;
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
        if (n > 0) {
            sink->handed = 0;
            atomic_store_explicit(&sink->idle, true, memory_order_relaxed);
        }
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
    sink->queue = tg_mem_alloc(ROOM);
    sink->batch = tg_mem_alloc(ROOM);
    atomic_init(&sink->idle, true);
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

/* Gives what is queued to the thread, if that has nothing. */
static void
hand_over(struct tg_sink *sink)
{
    if (sink->queued == 0 || !atomic_load_explicit(&sink->idle, memory_order_relaxed)) {
        return;
    }
    (void)pthread_mutex_lock(&sink->mutex);
    swap(sink);
    (void)pthread_cond_signal(&sink->wake);
    (void)pthread_mutex_unlock(&sink->mutex);
}

char *
tg_sink_begin(struct tg_sink *sink)
{
    if (sink->queued > TG_SINK_QUEUE) {
        hand_over(sink);
    }
    if (sink->queued > TG_SINK_QUEUE) {
        sink->refused++;
        return NULL;
    }
    return sink->queue + sink->queued;
}

void
tg_sink_end(struct tg_sink *sink, size_t n)
{
    TG_ASSERT(n < TG_SINK_LINE);
    sink->queue[sink->queued + n] = '\n';
    sink->queued += n + 1;
    if (sink->queued > WAKE_AT) {
        hand_over(sink);
    }
}

enum tg_rc
tg_sink_write(struct tg_sink *sink, const char *p, size_t n)
{
    char *line = tg_sink_begin(sink);
    if (line == NULL) {
        return TG_ELIMIT;
    }
    if (n > TG_SINK_LINE - 1) {
        n = TG_SINK_LINE - 1;
    }
    memcpy(line, p, n);
    /* A newline within would feign a line. In JSON it stands between values only, where a blank is the same. */
    for (char *at = line; (at = memchr(at, '\n', n - (size_t)(at - line))) != NULL; at++) {
        *at = ' ';
    }
    tg_sink_end(sink, n);
    return TG_OK;
}

void
tg_sink_flush(struct tg_sink *sink)
{
    hand_over(sink);
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
    const uint64_t lost = sink->lost;
    (void)pthread_mutex_unlock(&sink->mutex);
    return lost + sink->refused;
}

const char *
tg_sink_path(const struct tg_sink *sink)
{
    return sink->path;
}
