/*
 * route_table.h - from method, host and path of a request to the routes whose patterns fit it, the best ones first.
 *
 * Of hosts, an exact one precedes a wildcard, the longer of these the shorter, and any of them none. In a host the
 * higher priority comes first; then, a segment at a time, a literal one precedes a parameter, that the end of a prefix,
 * and the end of the path this; then who asks more, who names methods, and who was added first.
 *
 * Owns: copies of hosts and paths. Used by: the border to Lua. Does not know: what a route does, and what else one asks
 * of a request: who searches goes on with the next one when that does not fit.
 */
#ifndef TG_HTTP_ROUTE_TABLE_H
#define TG_HTTP_ROUTE_TABLE_H

#include "base/rc.h"
#include "base/slice.h"

struct tg_route_table;

enum { TG_ROUTE_FOUND_MAX = 32 };

struct tg_route_pattern {
    struct tg_slice host; /* lower case; "*.x": all below x; empty: any */
    struct tg_slice path; /* "/a/{name}"; with "/" and "*" at its end also all below */
    int32_t priority;
    uint32_t route; /* whatever the caller knows it by */
    unsigned asks;  /* how much more than what is here the route asks of a request; from 255 on that is all the same */
};

/* NULL: memory is short. */
struct tg_route_table *tg_route_table_new(void);
void tg_route_table_free(struct tg_route_table *table);

/* The number of the pattern, from 0 up, into *number. TG_ENOMEM; TG_ELIMIT: too many segments, or too long ones. All is
 * as before then. */
TG_MUST_CHECK enum tg_rc tg_route_table_add(struct tg_route_table *table, const struct tg_route_pattern *pattern,
                                            uint32_t *number);

/* One more of the methods that the pattern added last is for; without any it is for all. TG_ENOMEM; TG_ELIMIT: too many
 * that no RFC knows. */
TG_MUST_CHECK enum tg_rc tg_route_table_allow(struct tg_route_table *table, struct tg_slice method);

/* All are added: to be called once, before the first search. TG_ENOMEM: the table can only be freed. */
TG_MUST_CHECK enum tg_rc tg_route_table_settle(struct tg_route_table *table);

/* What is searched for; the slices stay until the search is over. */
struct tg_route_request {
    struct tg_slice method;
    unsigned method_id; /* of tg_method_id */
    struct tg_slice host;
    struct tg_slice path; /* decoded */
    bool every;           /* whatever its method is */
};

/*
 * What a search has found: some patterns, of which each but the last `asks`. When none of them fits, `more` has the
 * next ones, until there are none. One search at a time.
 */
struct tg_route_search {
    struct tg_abi_found found[TG_ROUTE_FOUND_MAX];
    unsigned count;
    bool blocked; /* a pattern was passed over for its method alone */
    struct tg_route_request request;
    uint64_t method; /* its bit */
    const struct tg_route_node *tree;
    uint8_t stage;   /* which hosts are looked at */
    size_t host_at;  /* where the suffix of the wildcard begins */
    int64_t below;   /* priorities that are of interest are lower */
    int64_t best;    /* the highest one yet */
    unsigned skip;   /* patterns of that priority that are known */
    unsigned passed; /* of them, how many came by */
    bool closed;     /* no other one of that priority is of interest */
    bool full;       /* there may be more of it than there is room for */
};

/* How many there are: search->count, 0 none. */
unsigned tg_route_table_find(const struct tg_route_table *table, const struct tg_route_request *request,
                             struct tg_route_search *search);
unsigned tg_route_table_more(const struct tg_route_table *table, struct tg_route_search *search);

/* The segment of a path of this number, from 0 on: where a parameter of a pattern has its value. Empty: there is none.
 */
struct tg_slice tg_path_segment(struct tg_slice path, unsigned number);

#endif
