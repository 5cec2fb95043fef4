/*
 * loop.h - the event loop of a process: time once a turn, deadlines, and work put off to the end of a turn.
 *
 * Owns: the event base and the wheel of deadlines. Used by: everything that waits. One a process; no locks.
 * A deadline costs a store to move: it stays where it hangs in the wheel and is looked at again when that place is
 * due (libevent's own timers cost 950 to 1,600 instructions a request). It is at most TG_LOOP_TICK late.
 */
#ifndef TG_NET_LOOP_H
#define TG_NET_LOOP_H

#include <stdint.h>

#include "base/rc.h"

enum { TG_LOOP_TICK = 250 }; /* milliseconds */

struct event_base;
struct tg_loop;

struct tg_deadline;
typedef void (*tg_deadline_cb)(struct tg_deadline *deadline);

/* Embedded in its owner. Milliseconds of tg_loop_now. Zero it, then set `expired`, before the first use. */
struct tg_deadline {
    struct tg_deadline *next;
    struct tg_deadline **link; /* NULL while it hangs nowhere */
    uint64_t at;               /* 0: none */
    uint64_t due;              /* of the place where it hangs */
    tg_deadline_cb expired;
};

struct tg_task;
typedef void (*tg_task_cb)(struct tg_task *task);

/* Work for the end of this turn, before the loop waits again. Embedded in its owner. */
struct tg_task {
    struct tg_task *next;
    tg_task_cb run;
    bool queued;
};

/* A new loop, to be freed with tg_loop_free; NULL when memory is short. */
struct tg_loop *tg_loop_new(void);
void tg_loop_free(struct tg_loop *loop);
struct event_base *tg_loop_base(struct tg_loop *loop);

/* Runs turns until tg_loop_stop; may be called again then. */
void tg_loop_run(struct tg_loop *loop);
void tg_loop_stop(struct tg_loop *loop);

/* Milliseconds of the monotonic clock; read once a turn. */
uint64_t tg_loop_now(struct tg_loop *loop);
/* The same in microseconds. */
uint64_t tg_loop_micros(struct tg_loop *loop);
/* The same clock, read now: for how long something took within a turn. */
uint64_t tg_loop_clock(void);
/* Seconds of the wall clock; read once a turn. */
double tg_loop_wall(struct tg_loop *loop);
/* Time of day in the form of RFC 9110, section 5.6.7; made once a second. 29 bytes. */
const char *tg_loop_http_date(struct tg_loop *loop);

/* From now on `milliseconds` are left. Replaces what was set before. */
void tg_deadline_set(struct tg_loop *loop, struct tg_deadline *deadline, uint64_t milliseconds);
/* None is left; the deadline may still hang in the wheel. */
static inline void
tg_deadline_clear(struct tg_deadline *deadline)
{
    deadline->at = 0;
}
/* Takes it out of the wheel; needed before its memory goes. */
void tg_deadline_remove(struct tg_deadline *deadline);

/* Queues the task unless it is queued already. */
void tg_task_queue(struct tg_loop *loop, struct tg_task *task);
/*
 * The same for work that is in no hurry: while anybody is served it gets a quarter of the time at most, in moments that
 * nobody who asks meanwhile notices; all of it where nothing else happens. It may go on until tg_loop_spare.
 */
void tg_task_queue_spare(struct tg_loop *loop, struct tg_task *task);
/* Until when, by tg_loop_clock, the task may go on that runs as such a one. */
uint64_t tg_loop_spare(struct tg_loop *loop);
/* Takes it out of either queue. */
void tg_task_remove(struct tg_loop *loop, struct tg_task *task);

#endif
