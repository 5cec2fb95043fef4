/*
 * h2_flood.h - what a peer may make us do for nothing: frames without use, resets, header blocks in crumbs.
 *
 * Owns: nothing. Used by: h2.c. Knows of a frame its header only, and reads it before anybody else does: what goes
 * beyond a budget is never looked at. No budget grows with the number of streams that were ever opened.
 */
#ifndef TG_HTTP_H2_FLOOD_H
#define TG_HTTP_H2_FLOOD_H

#include <stdint.h>

#include "base/limit.h"
#include "base/rc.h"

enum {
    TG_H2_CONTINUATIONS_MAX = 8, /* frames of a header block behind its first */
    TG_H2_CREDIT_MAX = 65536     /* answers to our data that may be expected */
};

/* Set `resets` to `controls`, the rest is zero to begin. */
struct tg_h2_flood {
    uint32_t resets;     /* more of them than answers ... */
    uint32_t reset_time; /* ... in so many milliseconds are a flood */
    uint32_t controls;   /* frames a second that carry nothing */

    uint32_t preface;    /* bytes of the client's connection preface that are still to come */
    uint32_t left;       /* bytes of the frame's payload that are still to come */
    uint8_t header[10];  /* of the frame, with the byte that tells the padding of data */
    uint8_t have;        /* bytes of it */
    uint8_t blocks;      /* CONTINUATION frames of this header block */
    uint32_t count;      /* control frames in this second */
    uint32_t credit;     /* WINDOW_UPDATE and PING frames that our data has earned */
    uint64_t second;     /* when it began, milliseconds */
    uint64_t level;      /* of resets, each `reset_time` high; `resets` of it run off in a millisecond */
    uint64_t level_time; /* when that was, milliseconds */
};

/*
 * Looks at the frames in `n` bytes at `p`, which follow the ones before. Returns how many of the bytes may be read:
 * all, or those before the frame that breaks *limit; nothing may follow then.
 */
size_t tg_h2_flood_scan(struct tg_h2_flood *flood, const char *p, size_t n, uint64_t now_ms, enum tg_limit *limit);

/* A frame that only its reader knew to be of no use. TG_LIMIT_NONE or the limit that it breaks. */
enum tg_limit tg_h2_flood_control(struct tg_h2_flood *flood, uint64_t now_ms);
/* A stream was reset by the peer, or by us for what the peer did. As above. */
enum tg_limit tg_h2_flood_reset(struct tg_h2_flood *flood, uint64_t now_ms);
/* A request was answered to its end. */
void tg_h2_flood_answered(struct tg_h2_flood *flood);
/* A frame of `n` bytes of data has gone out: it brings WINDOW_UPDATEs back, and PINGs of who measures the path. */
void tg_h2_flood_sent(struct tg_h2_flood *flood, size_t n);

#endif
