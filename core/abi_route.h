/*
 * abi_route.h - the part of abi.h about the way from a request to its route.
 */
#ifndef TG_ABI_ROUTE_H
#define TG_ABI_ROUTE_H

#include "abi_cell.h"

struct tg_abi_edits;
struct tg_abi_exchange;

/* A pattern of a route that fits a request. */
struct tg_abi_found {
    uint32_t pattern; /* its number among all of the table, from 0 up */
    uint32_t route;
    uint32_t asks; /* how much more the route asks of a request */
};

/* What every request gets of its route: one cache line of 64 bytes, made once a generation. */
struct tg_abi_route {
    const struct tg_abi_edits
        *request_edits; /* done to the request at once; NULL: none. Both live as long as Lua does */
    const struct tg_abi_edits *response_edits;
    uint64_t body_limit; /* bytes */
    uint32_t route;
    uint32_t timeout;  /* milliseconds */
    uint32_t counted;  /* as in tg_abi_exchange */
    uint32_t upstream; /* Lua's; 0: none */
    uint8_t wants;     /* bits of enum tg_abi_want */
    uint8_t doubts;    /* those of tg_abi_exchange.path_doubts that it refuses */
    uint8_t more;      /* 1: there is more to do than an attempt at the upstream */
    uint8_t unused[13];
};

/*
 * Tables of routes (http/route_table.h), made in set-up, freed by whoever made them. add: the number of the pattern, or
 * -TG_ENOMEM, -TG_ELIMIT; allow: one method of that which was added last; settle: once, when all are added.
 */
struct tg_route_table;
TG_ABI struct tg_route_table *tg_abi_routes_new(void);
TG_ABI void tg_abi_routes_free(struct tg_route_table *table);
TG_ABI int tg_abi_routes_add(struct tg_route_table *table, const char *host, size_t host_len, const char *path,
                             size_t path_len, uint32_t route, int priority, uint32_t asks);
TG_ABI int tg_abi_routes_allow(struct tg_route_table *table, const char *method, size_t method_len);
TG_ABI int tg_abi_routes_settle(struct tg_route_table *table);
/*
 * How many patterns were found, 0 none: the first ones, that is, and more of them, until the next search of whatever
 * table. Those are in tg_abi_routes_found; all but the last one ask more of a request. find_text: without an exchange;
 * the texts stay until the search is over. `every`: whatever the method is.
 */
TG_ABI uint32_t tg_abi_routes_find(const struct tg_route_table *table, const struct tg_abi_exchange *x, int every);
TG_ABI uint32_t tg_abi_routes_find_text(const struct tg_route_table *table, const char *method, size_t method_len,
                                        const char *host, size_t host_len, const char *path, size_t path_len,
                                        int every);
TG_ABI uint32_t tg_abi_routes_more(const struct tg_route_table *table);
TG_ABI const struct tg_abi_found *tg_abi_routes_found(void);
/* Whether a pattern was passed over for its method alone. */
TG_ABI int tg_abi_routes_blocked(void);
/* The segment of a path of this number, from 0 up: vm.out, empty when there is none. */
TG_ABI void tg_abi_path_segment(const char *path, size_t path_len, uint32_t number);

/* The exchange has this route from now on. -TG_ENOMEM, -TG_ELIMIT: its request edits could not all be done. */
TG_ABI int tg_abi_route_enter(struct tg_abi_exchange *x, const struct tg_abi_route *route);

#endif
