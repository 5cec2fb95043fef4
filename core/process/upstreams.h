/*
 * upstreams.h - what the master shows and changes of upstreams, peers and routes: the cells of zone/cell.h, by name.
 *
 * Owns: nothing. Used by: master.c. Does not know: what makes a peer healthy; it reads and sets what is there.
 */
#ifndef TG_PROCESS_UPSTREAMS_H
#define TG_PROCESS_UPSTREAMS_H

#include <stddef.h>

#include "zone/cell.h"

/* Times are what the loop says: milliseconds. */
struct tg_upstreams {
    struct tg_cells *cells;
    const char *generation; /* id of the current one */
    uint64_t now;
};

/* Puts a line for each upstream of that name (empty: all) and each of its peers, and for each route that counts;
 * returns the number of bytes, less than `size`. What does not fit is told in a last line. */
size_t tg_upstreams_show(const struct tg_upstreams *upstreams, const char *name, char *out, size_t size);

/*
 * Carries out "NAME [down|drain|up PEER]" or nothing, as `tidegate upstream` is told. True: `out` is what to print;
 * false: it is what is wrong.
 */
bool tg_upstreams_command(const struct tg_upstreams *upstreams, const char *line, char *out, size_t size);

/* The same for routes that have a breaker or a bulkhead: "NAME [open|close]" or nothing. */
bool tg_upstreams_route(const struct tg_upstreams *upstreams, const char *line, char *out, size_t size);

#endif
