#include "net/loop.h"

#include <event2/event.h>
#include <stdio.h>
#include <time.h>

#include "base/mem.h"

enum {
    WHEEL_SIZE = 1024, /* times TG_LOOP_TICK: four minutes; what is further away hangs in the last place */
    SPARE_EVERY = 300, /* microseconds between two moments for what can wait, unless */
    SPARE_IDLE = 5,    /* nothing has happened for so many turns */
    SPARE_MIN = 100,   /* microseconds of a moment */
    SPARE_MAX = 300,
    SPARE_SHARE = 3 /* parts of the time since the last one, of which it may take one */
};

struct tg_loop {
    struct event_base *base;
    struct event *tick;
    struct tg_deadline *wheel[WHEEL_SIZE];
    uint64_t swept; /* ticks done */
    uint64_t now;   /* microseconds; 0: not read in this turn */
    double wall;
    time_t date_second;
    char date[32];
    struct tg_task *first;
    struct tg_task **last;
    struct tg_task *running; /* what is left of this turn's */
    struct tg_task *spare;   /* in no hurry */
    struct event *spare_tick;
    uint64_t spare_until; /* microseconds: of this moment, */
    uint64_t spare_ended; /* and when the last one was over */
    unsigned idle;        /* turns in which nothing has happened */
    bool stop;
};

static uint64_t
read_clock(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void
hang(struct tg_loop *loop, struct tg_deadline *deadline)
{
    uint64_t tick = deadline->at / TG_LOOP_TICK + 1;
    if (tick <= loop->swept) {
        tick = loop->swept + 1;
    } else if (tick > loop->swept + WHEEL_SIZE - 1) {
        tick = loop->swept + WHEEL_SIZE - 1;
    }
    struct tg_deadline **head = &loop->wheel[tick % WHEEL_SIZE];
    deadline->due = tick * TG_LOOP_TICK;
    deadline->next = *head;
    if (*head != NULL) {
        (*head)->link = &deadline->next;
    }
    deadline->link = head;
    *head = deadline;
}

void
tg_deadline_remove(struct tg_deadline *deadline)
{
    if (deadline->link != NULL) {
        *deadline->link = deadline->next;
        if (deadline->next != NULL) {
            deadline->next->link = deadline->link;
        }
        deadline->link = NULL;
    }
    deadline->at = 0;
}

void
tg_deadline_set(struct tg_loop *loop, struct tg_deadline *deadline, uint64_t milliseconds)
{
    const uint64_t at = tg_loop_now(loop) + milliseconds;
    if (deadline->link != NULL && deadline->due > at + TG_LOOP_TICK) {
        tg_deadline_remove(deadline);
    }
    deadline->at = at;
    if (deadline->link == NULL) {
        hang(loop, deadline);
    }
}

/* Expired owners may free themselves or others: each is taken off before its callback, and the list is read anew. */
static void
sweep_place(struct tg_loop *loop, unsigned place)
{
    struct tg_deadline *list = loop->wheel[place];
    loop->wheel[place] = NULL;
    if (list != NULL) {
        list->link = &list;
    }
    while (list != NULL) {
        struct tg_deadline *deadline = list;
        const uint64_t at = deadline->at;
        tg_deadline_remove(deadline);
        if (at == 0) {
            continue;
        }
        if (at > tg_loop_now(loop)) {
            deadline->at = at;
            hang(loop, deadline);
            continue;
        }
        deadline->expired(deadline);
    }
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct tg_loop *loop = arg;
    (void)fd;
    (void)what;
    const uint64_t ticks = tg_loop_now(loop) / TG_LOOP_TICK;
    /* After a long sleep each place needs to be looked at once only. */
    if (ticks > loop->swept + WHEEL_SIZE) {
        loop->swept = ticks - WHEEL_SIZE;
    }
    while (loop->swept < ticks) {
        loop->swept++;
        sweep_place(loop, loop->swept % WHEEL_SIZE);
    }
}

/* All that it does is to end the wait. */
static void
on_spare_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

struct tg_loop *
tg_loop_new(void)
{
    const struct timeval tick = {0, TG_LOOP_TICK * 1000L};
    struct tg_loop *loop = tg_mem_new(struct tg_loop);
    if (loop == NULL) {
        return NULL;
    }
    struct event_config *config = event_config_new();
    if (config == NULL) {
        goto fail;
    }
    /* No locks: a worker has one thread that knows of its loop. */
    (void)event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
    loop->base = event_base_new_with_config(config);
    event_config_free(config);
    if (loop->base == NULL) {
        goto fail;
    }
    loop->last = &loop->first;
    loop->swept = read_clock() / 1000 / TG_LOOP_TICK;
    loop->tick = event_new(loop->base, -1, EV_PERSIST, on_tick, loop);
    loop->spare_tick = event_new(loop->base, -1, 0, on_spare_tick, NULL);
    if (loop->tick == NULL || loop->spare_tick == NULL || event_add(loop->tick, &tick) < 0) {
        goto fail;
    }
    return loop;

fail:
    tg_loop_free(loop);
    return NULL;
}

void
tg_loop_free(struct tg_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    if (loop->tick != NULL) {
        event_free(loop->tick);
    }
    if (loop->spare_tick != NULL) {
        event_free(loop->spare_tick);
    }
    if (loop->base != NULL) {
        event_base_free(loop->base);
    }
    tg_mem_free(loop);
}

struct event_base *
tg_loop_base(struct tg_loop *loop)
{
    return loop->base;
}

static void
run_tasks(struct tg_loop *loop)
{
    /* Those queued meanwhile run in the next turn, so that sockets get their share. */
    loop->running = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    while (loop->running != NULL) {
        struct tg_task *task = loop->running;
        loop->running = task->next;
        task->next = NULL;
        task->queued = false;
        task->run(task);
    }
}

/* Who rests between two moments sleeps meanwhile: the scheduler of the system lets whoever does so run at once when it
 * is woken, and makes others wait for whoever always has something to do. */
static void
run_spare(struct tg_loop *loop)
{
    if (loop->spare == NULL) {
        return;
    }
    loop->idle = loop->now == 0 ? loop->idle + 1 : 0;
    const uint64_t clock = read_clock();
    const uint64_t rested = clock - loop->spare_ended;
    if (loop->idle < SPARE_IDLE && rested < SPARE_EVERY) {
        return;
    }
    const uint64_t share = rested / SPARE_SHARE;
    loop->spare_until = clock + (share < SPARE_MIN ? SPARE_MIN : share > SPARE_MAX ? SPARE_MAX : share);
    struct tg_task *task = loop->spare;
    loop->spare = task->next;
    task->next = NULL;
    task->queued = false;
    task->run(task);
    loop->spare_ended = read_clock();
}

static bool
must_not_wait(struct tg_loop *loop)
{
    static const struct timeval moment = {0, 1000};
    if (loop->first != NULL || loop->spare == NULL) {
        return loop->first != NULL;
    }
    return loop->idle >= SPARE_IDLE ||
           (!event_pending(loop->spare_tick, EV_TIMEOUT, NULL) && event_add(loop->spare_tick, &moment) < 0);
}

void
tg_loop_run(struct tg_loop *loop)
{
    while (!loop->stop) {
        loop->now = 0;
        /* Once also where it must not block: libevent would go on until nothing is ready, which under load is never,
         * and neither would tasks run nor time go on. */
        (void)event_base_loop(loop->base, EVLOOP_ONCE | (must_not_wait(loop) ? EVLOOP_NONBLOCK : 0));
        run_spare(loop);
        run_tasks(loop);
    }
    loop->stop = false;
}

void
tg_loop_stop(struct tg_loop *loop)
{
    loop->stop = true;
    (void)event_base_loopbreak(loop->base);
}

uint64_t
tg_loop_micros(struct tg_loop *loop)
{
    if (loop->now == 0) {
        struct timespec wall;
        (void)clock_gettime(CLOCK_REALTIME, &wall);
        loop->wall = (double)wall.tv_sec + (double)wall.tv_nsec / 1e9;
        loop->now = read_clock();
    }
    return loop->now;
}

uint64_t
tg_loop_clock(void)
{
    return read_clock();
}

uint64_t
tg_loop_spare(struct tg_loop *loop)
{
    return loop->spare_until;
}

uint64_t
tg_loop_now(struct tg_loop *loop)
{
    return tg_loop_micros(loop) / 1000;
}

double
tg_loop_wall(struct tg_loop *loop)
{
    (void)tg_loop_now(loop);
    return loop->wall;
}

const char *
tg_loop_http_date(struct tg_loop *loop)
{
    const time_t second = (time_t)tg_loop_wall(loop);
    if (second != loop->date_second) {
        static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
        static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                             "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
        struct tm tm;
        (void)gmtime_r(&second, &tm);
        (void)snprintf(loop->date, sizeof loop->date, "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday],
                       tm.tm_mday % 100, months[tm.tm_mon], (tm.tm_year + 1900) % 10000, tm.tm_hour % 100,
                       tm.tm_min % 100, tm.tm_sec % 100);
        loop->date_second = second;
    }
    return loop->date;
}

void
tg_task_queue(struct tg_loop *loop, struct tg_task *task)
{
    if (!task->queued) {
        task->queued = true;
        task->next = NULL;
        *loop->last = task;
        loop->last = &task->next;
    }
}

void
tg_task_queue_spare(struct tg_loop *loop, struct tg_task *task)
{
    struct tg_task **last = &loop->spare;
    if (task->queued) {
        return;
    }
    while (*last != NULL) {
        last = &(*last)->next;
    }
    task->queued = true;
    task->next = NULL;
    *last = task;
}

void
tg_task_remove(struct tg_loop *loop, struct tg_task *task)
{
    if (!task->queued) {
        return;
    }
    task->queued = false;
    for (struct tg_task **p = &loop->spare; *p != NULL; p = &(*p)->next) {
        if (*p == task) {
            *p = task->next;
            return;
        }
    }
    for (struct tg_task **p = &loop->running; *p != NULL; p = &(*p)->next) {
        if (*p == task) {
            *p = task->next;
            return;
        }
    }
    for (struct tg_task **p = &loop->first; *p != NULL; p = &(*p)->next) {
        if (*p == task) {
            *p = task->next;
            if (loop->last == &task->next) {
                loop->last = p;
            }
            return;
        }
    }
}
