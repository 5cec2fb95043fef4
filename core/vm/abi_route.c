/*
 * The border: the way from a request to its route. Contracts are in abi_route.h.
 */
#include "http/field.h"
#include "http/route_table.h"
#include "proxy/count.h"
#include "vm/host.h"

static struct tg_route_search search; /* Lua does not wait between its steps */

struct tg_route_table *
tg_abi_routes_new(void)
{
    return tg_route_table_new();
}

void
tg_abi_routes_free(struct tg_route_table *table)
{
    tg_route_table_free(table);
}

int
tg_abi_routes_add(struct tg_route_table *table, const char *host, size_t host_len, const char *path, size_t path_len,
                  uint32_t route, int priority, uint32_t asks)
{
    const struct tg_route_pattern pattern = {
        .host = tg_slice_of(host, host_len),
        .path = tg_slice_of(path, path_len),
        .priority = priority,
        .route = route,
        .asks = asks,
    };
    uint32_t number = 0;
    const enum tg_rc rc = tg_route_table_add(table, &pattern, &number);
    return rc == TG_OK ? (int)number : (int)rc;
}

int
tg_abi_routes_allow(struct tg_route_table *table, const char *method, size_t method_len)
{
    return tg_route_table_allow(table, tg_slice_of(method, method_len));
}

int
tg_abi_routes_settle(struct tg_route_table *table)
{
    return tg_route_table_settle(table);
}

uint32_t
tg_abi_routes_find(const struct tg_route_table *table, const struct tg_abi_exchange *x, int every)
{
    const struct tg_route_request request = {
        .method = x->method, .method_id = x->method_id, .host = x->host, .path = x->path, .every = every != 0};
    return tg_route_table_find(table, &request, &search);
}

uint32_t
tg_abi_routes_find_text(const struct tg_route_table *table, const char *method, size_t method_len, const char *host,
                        size_t host_len, const char *path, size_t path_len, int every)
{
    const struct tg_slice name = tg_slice_of(method, method_len);
    const struct tg_route_request request = {
        .method = name,
        .method_id = method_len > 0 ? tg_method_id(name) : 0,
        .host = tg_slice_of(host, host_len),
        .path = tg_slice_of(path, path_len),
        .every = every != 0,
    };
    return tg_route_table_find(table, &request, &search);
}

uint32_t
tg_abi_routes_more(const struct tg_route_table *table)
{
    return tg_route_table_more(table, &search);
}

const struct tg_abi_found *
tg_abi_routes_found(void)
{
    return search.found;
}

int
tg_abi_routes_blocked(void)
{
    return search.blocked ? 1 : 0;
}

void
tg_abi_path_segment(const char *path, size_t path_len, uint32_t number)
{
    tg_abi_vm.out = tg_path_segment(tg_slice_of(path, path_len), number);
}

int
tg_abi_route_enter(struct tg_abi_exchange *x, const struct tg_abi_route *route)
{
    enum { BODY_IDLE = 60000 }; /* milliseconds; of a body that we make, an upstream has its own */
    x->route = route->route;
    x->counted = route->counted;
    x->wants = route->wants;
    x->edits = route->response_edits;
    x->total_timeout = route->timeout;
    x->idle_timeout = BODY_IDLE;
    x->body_limit = route->body_limit;
    tg_abi_vm.mark[1] = route->route;
    tg_count_expect(tg_exchange_of(x));
    return route->request_edits == NULL ? TG_OK : tg_abi_edits_apply(route->request_edits, x, TG_SIDE_REQUEST);
}
