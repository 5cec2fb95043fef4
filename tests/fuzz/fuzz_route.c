/*
 * fuzz_route.c - a request, "host/path" on the first line, and a pattern of a route on each other one: a byte of which
 * two bits are its priority, one whether it asks for more, one whether it is for POST alone, and then "host/path".
 *
 * Oracle: who looks at each pattern by itself and sorts those that fit finds the same ones in the same order.
 */
#include "fuzz.h"
#include "http/route_table.h"
#include "http/route_tree.h"

enum { INPUT_MAX = 4000, PATTERNS_MAX = 48, SEGMENTS_MAX = 80, GET = 1 };

struct pattern {
    struct tg_slice host;
    struct tg_slice path;
    int32_t priority;
    bool asks;
    bool posts;
    uint32_t number;
    size_t host_rank;
    char rank[SEGMENTS_MAX]; /* by segment: '3' literal, '2' parameter; then '2' the path ends, '1' it goes on */
};

struct segments {
    struct tg_slice list[SEGMENTS_MAX];
    unsigned count;
};

/* ------------------------------------------------------------------ the reference */

static struct segments
split(struct tg_slice path)
{
    struct segments out = {0};
    size_t at = 1;
    while (path.n > 1 && at <= path.n && out.count < SEGMENTS_MAX) {
        size_t end = at;
        while (end < path.n && path.p[end] != '/') {
            end++;
        }
        out.list[out.count++] = tg_slice_of(path.p + at, end - at);
        at = end + 1;
    }
    return out;
}

static bool
is_parameter(struct tg_slice segment)
{
    return segment.n >= 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';
}

static bool
fits_path(struct pattern *pattern, const struct segments *path)
{
    struct tg_slice text = pattern->path;
    const bool is_prefix = text.n >= 2 && text.p[text.n - 2] == '/' && text.p[text.n - 1] == '*';
    text.n -= is_prefix ? 2 : 0;
    /* Without its end "/" is a segment of its own, with it there is none. */
    struct segments own = split(text);
    if (is_prefix && text.n == 1) {
        own = (struct segments){.list = {{text.p + 1, 0}}, .count = 1};
    }
    if (own.count > path->count || (own.count < path->count && !is_prefix)) {
        return false;
    }
    for (unsigned i = 0; i < own.count; i++) {
        const struct tg_slice mine = own.list[i];
        const bool any = is_parameter(mine);
        if (any ? path->list[i].n == 0 : !tg_slice_is(mine, path->list[i].p, path->list[i].n)) {
            return false;
        }
        pattern->rank[i] = any ? '2' : '3';
    }
    pattern->rank[own.count] = is_prefix ? '1' : '2';
    pattern->rank[own.count + 1] = '\0';
    return true;
}

static bool
fits_host(struct pattern *pattern, struct tg_slice host)
{
    const struct tg_slice own = pattern->host;
    if (own.n > 2 && own.p[0] == '*' && own.p[1] == '.') {
        pattern->host_rank = own.n - 1;
        return host.n > own.n - 1 && memcmp(host.p + host.n - (own.n - 1), own.p + 1, own.n - 1) == 0;
    }
    pattern->host_rank = own.n == 0 ? 0 : SIZE_MAX;
    return own.n == 0 || tg_slice_is(own, host.p, host.n);
}

static int
compare(const void *left, const void *right)
{
    const struct pattern *a = left;
    const struct pattern *b = right;
    if (a->host_rank != b->host_rank) {
        return a->host_rank > b->host_rank ? -1 : 1;
    }
    if (a->priority != b->priority) {
        return a->priority > b->priority ? -1 : 1;
    }
    const int rank = strcmp(b->rank, a->rank);
    if (rank != 0 || a->asks != b->asks) {
        return rank != 0 ? rank : a->asks ? -1 : 1;
    }
    return a->number < b->number ? -1 : 1;
}

/* ------------------------------------------------------------------ the table */

static struct tg_slice
next_line(struct tg_slice *rest)
{
    const char *newline = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
    const struct tg_slice line = {rest->p, newline == NULL ? rest->n : (size_t)(newline - rest->p)};
    const size_t used = line.n + (newline == NULL ? 0 : 1);
    *rest = tg_slice_of(rest->p + used, rest->n - used);
    return line;
}

/* The path from its slash on; false: there is none. */
static bool
cut(struct tg_slice text, struct tg_slice *host, struct tg_slice *path)
{
    const char *slash = text.n > 0 ? memchr(text.p, '/', text.n) : NULL;
    if (slash == NULL) {
        return false;
    }
    *host = tg_slice_of(text.p, (size_t)(slash - text.p));
    *path = tg_slice_of(slash, text.n - host->n);
    return true;
}

static bool
add(struct tg_route_table *table, struct tg_slice line, struct pattern *pattern)
{
    if (line.n < 2 || !cut(tg_slice_of(line.p + 1, line.n - 1), &pattern->host, &pattern->path)) {
        return false;
    }
    const unsigned bits = (unsigned char)line.p[0];
    pattern->priority = (int32_t)(bits & 3) - 1;
    pattern->asks = (bits & 4) != 0;
    pattern->posts = (bits & 8) != 0;
    const struct tg_route_pattern wanted = {
        .host = pattern->host, .path = pattern->path, .priority = pattern->priority, .asks = pattern->asks};
    const enum tg_rc rc = tg_route_table_add(table, &wanted, &pattern->number);
    MUST(rc == TG_OK || rc == TG_ELIMIT);
    if (rc == TG_OK && pattern->posts) {
        MUST(tg_route_table_allow(table, TG_SLICE("POST")) == TG_OK);
    }
    return rc == TG_OK;
}

/* What is left of those that fit, when each that asks for more is refused, and one that does not ends its priority. */
static unsigned
expect(struct pattern *fit, unsigned count, uint32_t *numbers)
{
    unsigned n = 0;
    bool closed = false;
    qsort(fit, count, sizeof *fit, compare);
    for (unsigned i = 0; i < count; i++) {
        closed = closed && fit[i].host_rank == fit[i - 1].host_rank && fit[i].priority == fit[i - 1].priority;
        if (!closed) {
            numbers[n++] = fit[i].number;
            closed = !fit[i].asks;
        }
    }
    return n;
}

static void
check(const struct tg_route_table *table, const struct tg_route_request *request, const uint32_t *numbers,
      unsigned count)
{
    static struct tg_route_search search;
    unsigned n = 0;
    for (unsigned i = tg_route_table_find(table, request, &search); i > 0; i = tg_route_table_more(table, &search)) {
        for (unsigned k = 0; k < i; k++) {
            MUST(n < count && search.found[k].pattern == numbers[n]);
            n++;
        }
    }
    MUST(n == count);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct pattern fit[PATTERNS_MAX];
    uint32_t numbers[PATTERNS_MAX];
    struct tg_slice rest = {(const char *)bytes, n};
    struct tg_route_request request = {.method = TG_SLICE("GET"), .method_id = GET};
    if (n > INPUT_MAX || !cut(next_line(&rest), &request.host, &request.path)) {
        return 0;
    }
    struct tg_route_table *table = tg_route_table_new();
    const struct segments path = split(request.path);
    unsigned count = 0;
    MUST(table != NULL);
    for (unsigned i = 0; i < PATTERNS_MAX && rest.n > 0; i++) {
        struct pattern *pattern = &fit[count];
        const bool added = add(table, next_line(&rest), pattern);
        count += added && !pattern->posts && fits_host(pattern, request.host) && fits_path(pattern, &path) ? 1 : 0;
    }
    MUST(tg_route_table_settle(table) == TG_OK);
    check(table, &request, numbers, expect(fit, count, numbers));
    tg_route_table_free(table);
    return 0;
}
