/*
 * cell.h - what all workers know of each peer, upstream and route: a piece of shared memory each, found by a key.
 *
 * Owns: the mapping of its memory; the memory itself lives as long as a process has it (a memory file that one master
 * hands on to the next), so that neither a reload nor the death of a worker forgets anything. Used by: proxy/attempt.c,
 * which counts, the border to Lua, which judges, and the master, which shows it. Does not know: what follows from it.
 * No lock but for making a cell: each field stands for itself, and what belongs together is one word.
 */
#ifndef TG_ZONE_CELL_H
#define TG_ZONE_CELL_H

#include "abi.h"
#include "base/rc.h"

enum {
    TG_CELLS_MAX = 16384,
    TG_CELLS_PLACES = 256, /* workers of two masters, one of which gives way to the other */
    TG_CELL_KEY_MAX = 383
};

struct tg_cells;

/* A memory file with no cells in it; -1 and `err`. The descriptor is the caller's. */
int tg_cells_create(struct tg_err *err);
/* Maps the cells in `fd`, which may be closed afterwards. NULL: it holds none, or memory is short. */
struct tg_cells *tg_cells_open(int fd);
void tg_cells_close(struct tg_cells *cells);
/* Where the places of a master's workers begin: 0, or half of them later, in turn. */
unsigned tg_cells_next_side(struct tg_cells *cells);

/*
 * The cell of this key, made when there is none; `now` is in milliseconds. NULL: there are too many, the key is too
 * long or empty. One that nobody has wanted or kept for ten minutes, and that nothing is counted in, may be made
 * another's.
 */
struct tg_abi_cell *tg_cells_want(struct tg_cells *cells, const char *key, size_t n, uint64_t now);
/* What stands for a generation in its cells. */
uint64_t tg_cells_mark(const char *id);
/* The generation with this mark has it, and is the current one. */
void tg_cell_keep(struct tg_abi_cell *cell, uint64_t mark, uint64_t now);
/* The current generation has no use for it any more. */
void tg_cell_drop(struct tg_abi_cell *cell);
/* The cell of this key, or NULL. */
struct tg_abi_cell *tg_cells_find(struct tg_cells *cells, const char *key, size_t n);
/* Calls for all cells that the generation `mark` keeps and whose key begins with `prefix`, in the order in which
 * they were made. */
void tg_cells_each(struct tg_cells *cells, uint64_t mark, const char *prefix,
                   void (*each)(void *arg, const char *key, struct tg_abi_cell *cell), void *arg);
/* The worker in this place has ended: what it had in flight or let wait is counted no more. */
void tg_cells_forget(struct tg_cells *cells, unsigned place);

/* One more, or one less, in flight for the worker in this place. `most` 0: without a limit; TG_EBUSY: there are as
 * many already. */
TG_MUST_CHECK enum tg_rc tg_cell_enter(struct tg_cells *cells, struct tg_abi_cell *cell, unsigned place, uint32_t most);
void tg_cell_leave(struct tg_cells *cells, struct tg_abi_cell *cell, unsigned place);

/*
 * How many wait in the worker at this place. A place where some wait may be asked for with next_waiting, which is the
 * first one behind `after`, in a circle, that lies between `first` and `last`; TG_CELLS_PLACES: there is none.
 */
void tg_cell_set_waiting(struct tg_cells *cells, struct tg_abi_cell *cell, unsigned place, uint32_t count);
unsigned tg_cell_next_waiting(const struct tg_abi_cell *cell, unsigned after, unsigned first, unsigned last);

/* A request took so long, or failed after this time. Milliseconds. */
void tg_cell_time(struct tg_abi_cell *cell, double seconds, bool failed, uint64_t now);

/* Counts a result in the sliding window of `window` milliseconds. */
void tg_cell_count(struct tg_abi_cell *cell, uint32_t window, bool failed, bool slow, uint64_t now);
struct tg_cell_sum {
    uint32_t total;
    uint32_t failed;
    uint32_t slow;
};
struct tg_cell_sum tg_cell_sum(const struct tg_abi_cell *cell, uint32_t window, uint64_t now);

/* One request more that retries may be made for; a retry is allowed while there are fewer than `share` of these, or
 * than `least`, in the last ten seconds. TG_EBUSY: it is not. */
void tg_cell_budget_request(struct tg_abi_cell *cell, uint64_t now);
TG_MUST_CHECK enum tg_rc tg_cell_budget_retry(struct tg_abi_cell *cell, double share, uint32_t least, uint64_t now);

/*
 * The breaker. enter: TG_OK, and *period is 0 when it is closed, or the period in which this is a probe, which must be
 * told by probed or given back; TG_EOPEN. At most `probes` of a period are let through; a period whose probes are not
 * told about in `patience` milliseconds gives way to the next.
 */
TG_MUST_CHECK enum tg_rc tg_cell_breaker_enter(struct tg_abi_cell *cell, uint32_t probes, uint32_t patience,
                                               uint64_t now, uint32_t *period);
void tg_cell_breaker_probed(struct tg_abi_cell *cell, uint32_t period, bool failed);
void tg_cell_breaker_give_back(struct tg_abi_cell *cell, uint32_t period);
/* Goes from the state that was read as `seen` (cell->breaker) to another one, until `until` (milliseconds). TG_EBUSY:
 * it has changed since. */
TG_MUST_CHECK enum tg_rc tg_cell_breaker_set(struct tg_abi_cell *cell, uint32_t seen, enum tg_abi_breaker state,
                                             uint64_t until);

/* Ejects the peer until then (seconds). TG_EBUSY: it is ejected already. */
TG_MUST_CHECK enum tg_rc tg_cell_eject(struct tg_abi_cell *cell, double now, double until);

/* Sets and clears bits of cell->flags; whether that changed anything. */
bool tg_cell_flag(struct tg_abi_cell *cell, uint32_t set, uint32_t clear);

#endif
