#include "http/route_table.h"

#include "base/map.h"
#include "base/mem.h"
#include "http/field.h"
#include "http/route_tree.h"

enum { METHODS_MAX = 32 /* that no RFC knows */, FIRST_UNKNOWN = 32 /* bit of the first of them */ };

/* Which hosts a search looks at, in this order. */
enum stage { STAGE_EXACT, STAGE_WILDCARD, STAGE_ANY, STAGE_OVER };

struct method {
    char *name;
    size_t n;
};

struct tg_route_table {
    struct tg_route_trees trees;
    struct tg_map *hosts;     /* lower case -> root */
    struct tg_map *wildcards; /* with the dot in front -> root */
    uint32_t any;             /* 0: none */
    uint32_t host_count;
    uint32_t wildcard_count;
    uint32_t pattern_count;
    uint32_t *roots; /* of the draft, by what the maps have, from 1 on -> node; until settled the draft's */
    uint32_t root_count;
    struct tg_route_draft *draft; /* until settled */
    struct method methods[METHODS_MAX];
    unsigned method_count;
};

struct tg_route_table *
tg_route_table_new(void)
{
    struct tg_route_table *table = tg_mem_new(struct tg_route_table);
    if (table == NULL) {
        return NULL;
    }
    table->hosts = tg_map_new();
    table->wildcards = tg_map_new();
    table->draft = tg_route_draft_new();
    if (table->hosts == NULL || table->wildcards == NULL || table->draft == NULL) {
        tg_route_table_free(table);
        return NULL;
    }
    return table;
}

void
tg_route_table_free(struct tg_route_table *table)
{
    if (table == NULL) {
        return;
    }
    for (unsigned i = 0; i < table->method_count; i++) {
        tg_mem_free(table->methods[i].name);
    }
    tg_map_free(table->hosts);
    tg_map_free(table->wildcards);
    tg_route_draft_free(table->draft);
    tg_route_trees_free(&table->trees);
    tg_mem_free(table->roots);
    tg_mem_free(table);
}

/* ---------------------------------------------------------------- once a generation */

/* A new root: its number among all, from 1 on; 0: memory is short. */
static uint32_t
new_root(struct tg_route_table *table)
{
    uint32_t *roots = tg_mem_resize(table->roots, (table->root_count + 2) * sizeof *roots);
    if (roots == NULL) {
        return 0;
    }
    table->roots = roots;
    const uint32_t root = tg_route_draft_root(table->draft);
    if (root == 0) {
        return 0;
    }
    roots[++table->root_count] = root;
    return table->root_count;
}

/* The root of the tree for a host, made when there is none; 0: memory is short. */
static uint32_t
root_for(struct tg_route_table *table, struct tg_slice host)
{
    if (host.n == 0) {
        table->any = table->any != 0 ? table->any : new_root(table);
        return table->any;
    }
    const bool is_wildcard = host.n > 2 && host.p[0] == '*' && host.p[1] == '.';
    struct tg_map *map = is_wildcard ? table->wildcards : table->hosts;
    const struct tg_slice key = is_wildcard ? tg_slice_of(host.p + 1, host.n - 1) : host;
    uint32_t root = tg_map_find(map, key.p, key.n);
    if (root != 0) {
        return root;
    }
    root = new_root(table);
    if (root == 0 || tg_map_add(map, key.p, key.n, root) != TG_OK) {
        return 0;
    }
    table->host_count += is_wildcard ? 0 : 1;
    table->wildcard_count += is_wildcard ? 1 : 0;
    return root;
}

enum tg_rc
tg_route_table_add(struct tg_route_table *table, const struct tg_route_pattern *pattern, uint32_t *number)
{
    const uint32_t root = root_for(table, pattern->host);
    if (root == 0) {
        return TG_ENOMEM;
    }
    const struct tg_route_end end = {
        .priority = pattern->priority,
        .pattern = table->pattern_count,
        .route = pattern->route,
        .asks = (uint8_t)(pattern->asks < UINT8_MAX ? pattern->asks : UINT8_MAX),
    };
    const enum tg_rc rc = tg_route_draft_put(table->draft, table->roots[root], pattern->path, &end);
    if (rc == TG_OK) {
        *number = table->pattern_count++;
    }
    return rc;
}

static uint64_t
bit_of(const struct tg_route_table *table, struct tg_slice method, unsigned id)
{
    if (id > 0) {
        return 1ULL << id;
    }
    for (unsigned i = 0; i < table->method_count; i++) {
        if (tg_slice_is(method, table->methods[i].name, table->methods[i].n)) {
            return 1ULL << (FIRST_UNKNOWN + i);
        }
    }
    return 0;
}

enum tg_rc
tg_route_table_allow(struct tg_route_table *table, struct tg_slice method)
{
    uint64_t bit = bit_of(table, method, method.n > 0 ? tg_method_id(method) : 0);
    if (bit == 0) {
        if (table->method_count == METHODS_MAX) {
            return TG_ELIMIT;
        }
        char *name = tg_mem_text(method.p, method.n);
        if (name == NULL) {
            return TG_ENOMEM;
        }
        table->methods[table->method_count] = (struct method){.name = name, .n = method.n};
        bit = 1ULL << (FIRST_UNKNOWN + table->method_count++);
    }
    tg_route_draft_allow(table->draft, bit);
    return TG_OK;
}

enum tg_rc
tg_route_table_settle(struct tg_route_table *table)
{
    const enum tg_rc rc = tg_route_draft_pack(table->draft, &table->trees);
    for (uint32_t i = 1; i <= table->root_count && rc == TG_OK; i++) {
        table->roots[i] = tg_route_draft_packed(table->draft, table->roots[i]);
    }
    tg_route_draft_free(table->draft);
    table->draft = NULL;
    return rc;
}

/* ---------------------------------------------------------------- once a request */

/* The bytes from `at` on up to the next slash. */
static struct tg_slice
segment_at(struct tg_slice path, size_t at)
{
    const char *begin = path.p + at;
    const size_t left = path.n - at;
    const char *slash = left > 0 ? memchr(begin, '/', left) : NULL;
    return tg_slice_of(begin, slash == NULL ? left : (size_t)(slash - begin));
}

static bool
has_segment(const struct tg_route_trees *trees, const struct tg_route_node *node, struct tg_slice segment)
{
    const size_t n = node->own.segment_length;
    const char *text = n > TG_ROUTE_TEXT_INLINE ? trees->texts + node->segment.text_at : node->segment.text;
    return n == segment.n && memcmp(text, segment.p, n) == 0;
}

static const struct tg_route_node *
child_of(const struct tg_route_trees *trees, const struct tg_route_node *node, struct tg_slice segment)
{
    if (node->literal_count <= 1) {
        const struct tg_route_node *child = &trees->nodes[node->literals];
        return node->literal_count == 1 && has_segment(trees, child, segment) ? child : NULL;
    }
    const uint32_t mask = tg_route_slots_of(node->literal_count) - 1;
    const uint32_t hash = tg_route_hash(segment.p, segment.n);
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        const struct tg_route_slot *slot = &trees->slots[node->literals + i];
        if (slot->node == 0) {
            return NULL;
        }
        const struct tg_route_node *child = &trees->nodes[slot->node];
        if (slot->hash == hash && has_segment(trees, child, segment)) {
            return child;
        }
    }
}

/* One of the highest priority that is of interest; those before it have lost if theirs is lower. */
static void
keep(struct tg_route_search *s, const struct tg_route_end *end)
{
    if (end->priority > s->best) {
        s->best = end->priority;
        s->count = 0;
        s->passed = 0;
        s->full = false;
    }
    if (s->passed < s->skip) {
        s->passed++;
    } else if (s->count == TG_ROUTE_FOUND_MAX) {
        s->full = true;
        s->closed = true;
        return;
    } else {
        s->found[s->count++] = (struct tg_abi_found){.pattern = end->pattern, .route = end->route, .asks = end->asks};
    }
    s->closed = end->asks == 0 && !s->request.every;
}

static void
offer(const struct tg_route_trees *trees, const struct tg_route_node *node, uint32_t first, struct tg_route_search *s)
{
    if (first == 0) {
        return;
    }
    for (const struct tg_route_end *end = first == TG_ROUTE_OWN ? &node->own : &trees->ends[first - 1];; end++) {
        if (end->priority < s->best || (end->priority == s->best && s->closed)) {
            return;
        }
        if (end->priority < s->below) {
            if (end->methods == 0 || (end->methods & s->method) != 0) {
                keep(s, end);
            } else {
                s->blocked = true;
            }
        }
        if (end->is_last) {
            return;
        }
    }
}

/* Looks at each node at most once, and goes no deeper than a pattern has segments. `at`: where the next segment begins,
 * or behind the end. */
static void
walk(const struct tg_route_trees *trees, const struct tg_route_node *node, size_t at, // NOLINT(misc-no-recursion)
     struct tg_route_search *s)
{
    if (node->top < s->best || (node->top == s->best && s->closed)) {
        return;
    }
    if (at > s->request.path.n) {
        offer(trees, node, node->exact, s);
    } else {
        const struct tg_slice segment = segment_at(s->request.path, at);
        const struct tg_route_node *child = node->literal_count > 0 ? child_of(trees, node, segment) : NULL;
        if (child != NULL) {
            walk(trees, child, at + segment.n + 1, s);
        }
        if (node->parameter != 0 && segment.n > 0) {
            walk(trees, &trees->nodes[node->parameter], at + segment.n + 1, s);
        }
    }
    offer(trees, node, node->prefix, s);
}

/* The next tree whose host fits, or NULL. "*" of a wildcard stands for something. */
static const struct tg_route_node *
next_tree(const struct tg_route_table *table, struct tg_route_search *s)
{
    const struct tg_slice host = s->request.host;
    uint32_t root = 0;
    if (s->stage == STAGE_EXACT) {
        s->stage = STAGE_WILDCARD;
        root = table->host_count > 0 && host.n > 0 ? tg_map_find(table->hosts, host.p, host.n) : 0;
    }
    while (root == 0 && s->stage == STAGE_WILDCARD) {
        const char *dot = table->wildcard_count > 0 && s->host_at + 1 < host.n
                              ? memchr(host.p + s->host_at + 1, '.', host.n - s->host_at - 1)
                              : NULL;
        if (dot == NULL) {
            s->stage = STAGE_ANY;
        } else {
            s->host_at = (size_t)(dot - host.p);
            root = tg_map_find(table->wildcards, dot, host.n - s->host_at);
        }
    }
    if (root == 0 && s->stage == STAGE_ANY) {
        s->stage = STAGE_OVER;
        root = table->any;
    }
    return root == 0 ? NULL : &table->trees.nodes[table->roots[root]];
}

unsigned
tg_route_table_more(const struct tg_route_table *table, struct tg_route_search *s)
{
    do {
        if (s->full) {
            s->skip += s->count;
            s->below = s->best + 1;
        } else {
            s->skip = 0;
            s->below = s->best;
        }
        if (s->tree == NULL || s->below == INT64_MIN) { /* all of this tree is known */
            s->tree = next_tree(table, s);
            s->below = INT64_MAX;
            if (s->tree == NULL) {
                s->count = 0;
                return 0;
            }
        }
        s->best = INT64_MIN;
        s->count = 0;
        s->passed = 0;
        s->closed = false;
        s->full = false;
        walk(&table->trees, s->tree, s->request.path.n <= 1 ? s->request.path.n + 1 : 1, s);
    } while (s->count == 0);
    return s->count;
}

unsigned
tg_route_table_find(const struct tg_route_table *table, const struct tg_route_request *request,
                    struct tg_route_search *s)
{
    s->request = *request;
    s->method = request->every ? ~0ULL : bit_of(table, request->method, request->method_id);
    s->tree = NULL;
    s->stage = STAGE_EXACT;
    s->host_at = 0;
    s->best = INT64_MIN;
    s->blocked = false;
    s->full = false;
    return tg_route_table_more(table, s);
}

struct tg_slice
tg_path_segment(struct tg_slice path, unsigned number)
{
    size_t at = 1;
    for (; number > 0 && at <= path.n; number--) {
        at += segment_at(path, at).n + 1;
    }
    return at <= path.n ? segment_at(path, at) : (struct tg_slice){path.p, 0};
}
