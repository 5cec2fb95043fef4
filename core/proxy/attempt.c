#include "proxy/attempt.h"

#include <event2/event.h>
#include <unistd.h>

void
tg_news_tell(struct tg_news *news, uint32_t cell)
{
    for (unsigned i = 0; i < news->count; i++) {
        if (news->list[i] == cell) {
            return; /* it is looked at in a moment */
        }
    }
    if (news->heard != NULL && news->count < TG_NEWS_MAX) {
        news->list[news->count++] = cell;
        news->heard(news->arg);
    }
}

static void
on_bell(evutil_socket_t fd, short what, void *arg)
{
    uint64_t rung;
    (void)what;
    const ssize_t ignored = read(fd, &rung, sizeof rung);
    (void)ignored;
    tg_news_tell(arg, TG_CELLS_MAX);
}

enum tg_rc
tg_news_open(struct tg_news *news, struct tg_loop *loop, struct tg_cells *cells, const int *bells, unsigned side,
             unsigned slot, unsigned workers)
{
    *news = (struct tg_news){
        .cells = cells, .place = side + slot, .first = side, .last = side + workers - 1, .bells = bells};
    news->bell = event_new(tg_loop_base(loop), bells[slot], EV_READ | EV_PERSIST, on_bell, news);
    return news->bell == NULL || event_add(news->bell, NULL) < 0 ? TG_ENOMEM : TG_OK;
}

void
tg_news_close(struct tg_news *news)
{
    if (news->bell != NULL) {
        event_free(news->bell);
    }
    *news = (struct tg_news){0};
}

void
tg_attempt_begin(struct tg_news *news, struct tg_attempt *attempt, struct tg_abi_watch *watch, bool first,
                 uint64_t micros)
{
    attempt->start = micros;
    attempt->begun = true;
    attempt->judged = false;
    for (unsigned i = 0; i < TG_ATTEMPT_WATCHES; i++) {
        struct tg_abi_watch *one = &attempt->watch[i];
        *one = watch[i];
        watch[i] = (struct tg_abi_watch){0};
        if (one->cell == NULL) {
            continue;
        }
        if (one->held == 0) {
            const enum tg_rc rc = tg_cell_enter(news->cells, one->cell, news->place, 0);
            (void)rc; /* without a limit there always is room */
            one->held = 1;
        }
        if (i == TG_WATCH_PEER) {
            __atomic_fetch_add(&one->cell->requests, 1, __ATOMIC_RELAXED);
        } else if (first) {
            __atomic_fetch_add(&one->cell->requests, 1, __ATOMIC_RELAXED);
            tg_cell_budget_request(one->cell, micros / 1000);
        }
    }
}

static bool
is_failure(const struct tg_abi_rules *rules, enum tg_rc rc, unsigned status)
{
    if (rc != TG_OK) {
        return true;
    }
    return rules == NULL ? status / 100 == 5 : tg_status_is_in(rules->failures, status);
}

/* Whether the judge has to look at what the window says. */
static bool
is_worth_a_look(const struct tg_abi_rules *rules, const struct tg_abi_cell *cell, uint64_t now)
{
    if (rules->consecutive != 0 && cell->consecutive >= rules->consecutive) {
        return true;
    }
    if (rules->failed > 1 && rules->slow_share > 1) {
        return false;
    }
    const struct tg_cell_sum sum = tg_cell_sum(cell, rules->window, now);
    return sum.total >= rules->min &&
           ((double)sum.failed >= rules->failed * sum.total || (double)sum.slow >= rules->slow_share * sum.total);
}

static void
learn(struct tg_news *news, const struct tg_abi_watch *watch, bool failed, uint64_t took, uint64_t now)
{
    const struct tg_abi_rules *rules = watch->rules;
    struct tg_abi_cell *cell = watch->cell;
    const bool slow = rules->slow != 0 && took / 1000 >= rules->slow;
    if (failed) {
        __atomic_fetch_add(&cell->consecutive, 1, __ATOMIC_RELAXED);
    } else if (__atomic_load_n(&cell->consecutive, __ATOMIC_RELAXED) != 0) {
        __atomic_store_n(&cell->consecutive, 0, __ATOMIC_RELAXED);
    }
    if (rules->window != 0) {
        tg_cell_count(cell, rules->window, failed, slow, now);
    }
    if (rules->timed != 0 && !failed) {
        __atomic_fetch_add(&cell->time, took, __ATOMIC_RELAXED);
        __atomic_fetch_add(&cell->timed, 1, __ATOMIC_RELAXED);
    }
    if (watch->probe != 0) {
        tg_cell_breaker_probed(cell, watch->probe, failed || slow);
        tg_news_tell(news, cell->index);
    } else if ((failed || slow) && is_worth_a_look(rules, cell, now)) {
        tg_news_tell(news, cell->index);
    }
}

void
tg_watch_judge(struct tg_news *news, const struct tg_abi_watch *watch, enum tg_rc rc, unsigned status, uint64_t took,
               uint64_t micros)
{
    const bool failed = is_failure(watch->rules, rc, status);
    if (failed) {
        __atomic_fetch_add(&watch->cell->failures, 1, __ATOMIC_RELAXED);
    }
    if (watch->rules != NULL) {
        learn(news, watch, failed, took, micros / 1000);
    }
}

void
tg_attempt_judge(struct tg_news *news, struct tg_attempt *attempt, enum tg_rc rc, unsigned status, uint64_t micros)
{
    if (!attempt->begun || attempt->judged) {
        return;
    }
    attempt->judged = true;
    const uint64_t took = micros - attempt->start;
    for (unsigned i = 0; i < TG_ATTEMPT_WATCHES; i++) {
        const struct tg_abi_watch *watch = &attempt->watch[i];
        if (watch->cell == NULL) {
            continue;
        }
        if (i == TG_WATCH_PEER) {
            tg_cell_time(watch->cell, (double)took / 1e6, is_failure(watch->rules, rc, status), micros / 1000);
        }
        tg_watch_judge(news, watch, rc, status, took, micros);
        attempt->watch[i].probe = 0;
    }
}

/* Some wait for room, here or in another worker: each place has its turn. */
static void
pass_room_on(struct tg_news *news, const struct tg_abi_cell *cell)
{
    const uint64_t one = 1;
    const unsigned place = tg_cell_next_waiting(cell, news->place, news->first, news->last);
    if (place == news->place) {
        tg_news_tell(news, cell->index);
    } else if (place < TG_CELLS_PLACES) {
        const ssize_t ignored = write(news->bells[place - news->first], &one, sizeof one);
        (void)ignored; /* it is rung already */
    }
}

void
tg_watch_end(struct tg_news *news, struct tg_abi_watch *watch)
{
    struct tg_abi_cell *cell = watch->cell;
    if (cell == NULL) {
        return;
    }
    if (watch->probe != 0) { /* nobody knows how it would have ended */
        tg_cell_breaker_give_back(cell, watch->probe);
    }
    if (watch->held != 0) {
        tg_cell_leave(news->cells, cell, news->place);
        if (__atomic_load_n(&cell->waiting, __ATOMIC_RELAXED) != 0) {
            pass_room_on(news, cell);
        }
    }
    *watch = (struct tg_abi_watch){0};
}

void
tg_attempt_end(struct tg_news *news, struct tg_attempt *attempt)
{
    if (!attempt->begun) {
        return;
    }
    attempt->begun = false;
    for (unsigned i = 0; i < TG_ATTEMPT_WATCHES; i++) {
        tg_watch_end(news, &attempt->watch[i]);
    }
}
