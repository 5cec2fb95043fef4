/*
 * attempt.h - what a request in flight is counted in, and what is learnt from how it ends.
 *
 * Owns: nothing; changes the cells of zone/cell.h. Used by: upstream.c for each attempt at a peer, and exchange.c for
 * the route. Does not know: what follows; who judges is told which cells to look at (struct tg_news).
 */
#ifndef TG_PROXY_ATTEMPT_H
#define TG_PROXY_ATTEMPT_H

#include "net/loop.h"
#include "zone/cell.h"

enum { TG_NEWS_MAX = 256, TG_ATTEMPT_WATCHES = 2 /* of a peer and of its upstream */ };

/* What a worker has of the cells, and of which there is something to hear. */
struct tg_news {
    struct tg_cells *cells; /* NULL: nothing is counted */
    unsigned place;         /* of this worker, */
    unsigned first;         /* among those of its master */
    unsigned last;
    const int *bells; /* event descriptors of those, by place less `first`: rung when a worker gives room to another */
    struct event *bell;
    uint32_t list[TG_NEWS_MAX]; /* indices of cells; when there are more, the oldest wait for the next time */
    unsigned count;
    void (*heard)(void *arg); /* there is something in the list; NULL: nobody wants to hear it */
    void *arg;
};

struct tg_attempt {
    struct tg_abi_watch watch[TG_ATTEMPT_WATCHES];
    uint64_t start; /* microseconds */
    bool begun;
    bool judged;
};

/* `slot` of `workers` workers, whose places begin at `side`. The descriptors are borrowed. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_news_open(struct tg_news *news, struct tg_loop *loop, struct tg_cells *cells,
                                      const int *bells, unsigned side, unsigned slot, unsigned workers);
void tg_news_close(struct tg_news *news);

/* Takes over `watch`, which is empty afterwards. `first`: it is not a second try of the same request. */
void tg_attempt_begin(struct tg_news *news, struct tg_attempt *attempt, struct tg_abi_watch *watch, bool first,
                      uint64_t micros);
/* A response head has come (`rc` TG_OK), or the attempt has failed. Once for each attempt; what is not judged was ended
 * by somebody else. */
void tg_attempt_judge(struct tg_news *news, struct tg_attempt *attempt, enum tg_rc rc, unsigned status,
                      uint64_t micros);
/* It is in flight no more. Does nothing when none has begun. */
void tg_attempt_end(struct tg_news *news, struct tg_attempt *attempt);

/* The same for a single watch that is held: its result, and its end. */
void tg_watch_judge(struct tg_news *news, const struct tg_abi_watch *watch, enum tg_rc rc, unsigned status,
                    uint64_t took, uint64_t micros);
void tg_watch_end(struct tg_news *news, struct tg_abi_watch *watch);

/* The judge is to look at this cell; TG_CELLS_MAX: at all in which requests wait here. */
void tg_news_tell(struct tg_news *news, uint32_t cell);

/* Whether this status is among those that `bits` has. */
static inline bool
tg_status_is_in(const uint64_t bits[10], unsigned status)
{
    return status < 640 && (bits[status / 64] >> (status % 64) & 1) != 0;
}

#endif
