/*
 * The border: what all workers know of peers, upstreams and routes. Contracts are in abi.h.
 */
#include "vm/coroutine.h"

static struct tg_news *
news(void)
{
    return &tg_host->proxy->peers.news;
}

static uint64_t
now(void)
{
    return tg_loop_now(tg_host->proxy->loop);
}

struct tg_abi_cell *
tg_abi_cell(const char *key, size_t n)
{
    struct tg_cells *cells = news()->cells;
    return cells == NULL ? NULL : tg_cells_want(cells, key, n, now());
}

void
tg_abi_cell_keep(struct tg_abi_cell *cell, int keep)
{
    const struct tg_vm *current = tg_host->current;
    const struct tg_vm *vm = tg_host->running == NULL ? current : tg_host->running->vm;
    if (vm == NULL || (vm == tg_host->trial.vm && current != NULL && cell->mark == current->mark)) {
        return; /* what the current generation keeps, one on trial neither takes nor drops */
    }
    if (keep == 0) {
        tg_cell_drop(cell);
    } else {
        tg_cell_keep(cell, vm->mark, now());
    }
}

int
tg_abi_cell_flag(struct tg_abi_cell *cell, uint32_t set, uint32_t clear)
{
    return tg_cell_flag(cell, set, clear) ? 1 : 0;
}

void
tg_abi_cell_changed(struct tg_abi_cell *upstream)
{
    __atomic_fetch_add(&upstream->version, 1, __ATOMIC_RELEASE);
}

void
tg_abi_cell_up(struct tg_abi_cell *cell, double since)
{
    __atomic_store(&cell->up_since, &since, __ATOMIC_RELAXED);
}

int
tg_abi_cell_eject(struct tg_abi_cell *cell, double until, uint32_t ejections)
{
    const enum tg_rc rc = tg_cell_eject(cell, (double)now() / 1000, until);
    if (rc == TG_OK) {
        __atomic_store_n(&cell->ejections, ejections, __ATOMIC_RELAXED);
    }
    return rc;
}

void
tg_abi_cell_sum(struct tg_abi_cell *cell, uint32_t window)
{
    const struct tg_cell_sum sum = tg_cell_sum(cell, window, now());
    tg_abi_vm.number = sum.total;
    tg_abi_vm.out = tg_slice_of("", sum.failed);
    tg_abi_vm.type = sum.slow;
}

int
tg_abi_cell_breaker_enter(struct tg_abi_cell *cell, uint32_t probes, uint32_t patience)
{
    uint32_t period = 0;
    const enum tg_rc rc = tg_cell_breaker_enter(cell, probes, patience, now(), &period);
    tg_abi_vm.number = period;
    return rc;
}

int
tg_abi_cell_breaker_set(struct tg_abi_cell *cell, uint32_t seen, int state, double until, uint32_t opened)
{
    const enum tg_rc rc = tg_cell_breaker_set(cell, seen, (enum tg_abi_breaker)state, (uint64_t)(until * 1000));
    if (rc == TG_OK) {
        __atomic_store_n(&cell->opened, opened, __ATOMIC_RELAXED);
        __atomic_store_n(&cell->opened_at, (uint32_t)now(), __ATOMIC_RELAXED);
    }
    return rc;
}

int
tg_abi_cell_budget_retry(struct tg_abi_cell *cell, double share, uint32_t least)
{
    return tg_cell_budget_retry(cell, share, least, now());
}

int
tg_abi_cell_enter(struct tg_abi_watch *watch, uint32_t most)
{
    if (watch->cell == NULL || watch->held != 0) {
        return TG_EINVAL;
    }
    const enum tg_rc rc = tg_cell_enter(news()->cells, watch->cell, news()->place, most);
    watch->held = rc == TG_OK;
    return rc;
}

void
tg_abi_cell_set_waiting(struct tg_abi_cell *cell, uint32_t count)
{
    tg_cell_set_waiting(news()->cells, cell, news()->place, count);
}

void
tg_abi_cell_set_limit(struct tg_abi_cell *cell, uint32_t limit)
{
    __atomic_store_n(&cell->limit, limit, __ATOMIC_RELAXED);
}

static void
on_news(void *arg)
{
    const struct tg_host *host = arg;
    struct tg_coroutine *co = tg_coroutine_find(host->listener, host->listener_serial);
    if (co != NULL) {
        tg_coroutine_ready(co);
    }
}

int
tg_abi_cell_listen(void)
{
    const struct tg_coroutine *co = tg_host->running;
    if (co != NULL && co->vm == tg_host->trial.vm) {
        co->vm->listener = co->index;
        co->vm->listener_serial = co->serial;
        return TG_AGAIN;
    }
    if (co != NULL) {
        tg_host->listener = co->index;
        tg_host->listener_serial = co->serial;
        news()->heard = on_news;
        news()->arg = tg_host;
    }
    return TG_OK;
}

int
tg_abi_cell_next(void)
{
    struct tg_news *all = news();
    return all->count > 0 ? (int)all->list[--all->count] : TG_ENONE;
}

struct tg_abi_watch *
tg_abi_call_watch(void)
{
    return tg_host->watch;
}

void
tg_abi_call_unwatch(void)
{
    for (unsigned i = 0; i < TG_WATCHES; i++) {
        tg_watch_end(news(), &tg_host->watch[i]);
    }
}
