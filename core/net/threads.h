/*
 * threads.h - a few threads for work that would hold the loop, and the way back from them.
 *
 * Owns: the threads, the queue, and each job between its start and its end. Used by: the border, for passwords.
 * A thread runs `work` and touches nothing but the job; all else happens on the loop's thread. Does not know: Lua.
 */
#ifndef TG_NET_THREADS_H
#define TG_NET_THREADS_H

#include "net/loop.h"

struct tg_threads;

struct tg_job;
typedef void (*tg_job_cb)(struct tg_job *job);

enum tg_job_state { TG_JOB_IDLE, TG_JOB_QUEUED, TG_JOB_RUNS, TG_JOB_WORKED };

/* Embedded in its owner. Zero it, then set the functions, before it is started. */
struct tg_job {
    struct tg_job *next;
    tg_job_cb work; /* in a thread */
    tg_job_cb done; /* in the loop, never inside of tg_threads_start; it is the owner's again, idle */
    tg_job_cb free; /* in the loop: nobody wants it any more */
    enum tg_job_state state;
    bool dropped;
};

struct tg_threads_limits {
    unsigned threads; /* at most 16 */
    unsigned waiting; /* jobs that no thread has begun */
};

/* Starts the threads; to be freed with tg_threads_free before `loop` is. NULL and errno when the system refuses. */
struct tg_threads *tg_threads_new(struct tg_loop *loop, const struct tg_threads_limits *limits);
/*
 * Jobs that no thread has begun are freed; those that run are waited for, for two seconds. What takes longer keeps its
 * thread and its memory: the process is about to end.
 */
void tg_threads_free(struct tg_threads *threads);

/* TG_OK: `done` will be called, once, unless the job is dropped. TG_EBUSY: too many wait; it stays the caller's. */
TG_MUST_CHECK enum tg_rc tg_threads_start(struct tg_threads *threads, struct tg_job *job);
/* Gives up a job in any state: it is freed now, or as soon as the thread is done with it; `done` is not called. */
void tg_threads_drop(struct tg_threads *threads, struct tg_job *job);

#endif
