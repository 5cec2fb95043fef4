#include "http/route_tree.h"

#include <stdlib.h>

#include "base/map.h"
#include "base/mem.h"

/* A node while the tree grows. Numbers of nodes and ends are indexes plus 1; 0 is none. */
struct sketch {
    uint32_t first; /* children by their segment, as a list */
    uint32_t last;
    uint32_t next;
    uint32_t literals; /* how many */
    uint32_t parameter;
    uint32_t exact; /* list of ends */
    uint32_t exact_last;
    uint32_t prefix;
    uint32_t prefix_last;
    int32_t top;
    uint32_t text_at;
    uint32_t text_n;
    uint32_t packed; /* its number in the end */
};

struct listed {
    struct tg_route_end end;
    uint32_t next;
};

struct tg_route_draft {
    struct sketch *nodes;
    struct listed *ends;
    char *texts;
    uint32_t node_count;
    uint32_t node_room;
    uint32_t end_count;
    uint32_t end_room;
    size_t text_count;
    size_t text_room;
    struct tg_map *children; /* number of the parent and segment -> node */
};

struct packing {
    struct tg_route_draft *draft;
    struct tg_route_node *nodes;
    struct tg_route_slot *slots;
    struct tg_route_end *ends;
    uint32_t node_count;
    uint32_t slot_count;
    uint32_t end_count;
};

enum { FIRST_ROOM = 16, LINE = 64, SEGMENT_MAX = 4096 };

struct tg_route_draft *
tg_route_draft_new(void)
{
    struct tg_route_draft *draft = tg_mem_new(struct tg_route_draft);
    if (draft != NULL) {
        draft->children = tg_map_new();
        if (draft->children == NULL) {
            tg_mem_free(draft);
            return NULL;
        }
    }
    return draft;
}

void
tg_route_draft_free(struct tg_route_draft *draft)
{
    if (draft != NULL) {
        tg_map_free(draft->children);
        tg_mem_free(draft->nodes);
        tg_mem_free(draft->ends);
        tg_mem_free(draft->texts);
        tg_mem_free(draft);
    }
}

/* ---------------------------------------------------------------- growing */

static uint32_t
new_node(struct tg_route_draft *draft, struct tg_slice text)
{
    if (draft->node_count == draft->node_room) {
        const uint32_t room = draft->node_room == 0 ? FIRST_ROOM : draft->node_room * 2;
        struct sketch *nodes = tg_mem_resize(draft->nodes, room * sizeof *nodes);
        if (nodes == NULL) {
            return 0;
        }
        draft->nodes = nodes;
        draft->node_room = room;
    }
    if (draft->text_count + text.n > draft->text_room) {
        const size_t room = (draft->text_count + text.n) * 2;
        char *texts = room > UINT32_MAX ? NULL : tg_mem_resize(draft->texts, room);
        if (texts == NULL) {
            return 0;
        }
        draft->texts = texts;
        draft->text_room = room;
    }
    if (text.n > 0) {
        memcpy(draft->texts + draft->text_count, text.p, text.n);
    }
    draft->nodes[draft->node_count] =
        (struct sketch){.top = INT32_MIN, .text_at = (uint32_t)draft->text_count, .text_n = (uint32_t)text.n};
    draft->text_count += text.n;
    return ++draft->node_count;
}

uint32_t
tg_route_draft_root(struct tg_route_draft *draft)
{
    return new_node(draft, (struct tg_slice){0});
}

static struct sketch *
node_of(const struct tg_route_draft *draft, uint32_t number)
{
    return &draft->nodes[number - 1];
}

static uint32_t
parameter_of(struct tg_route_draft *draft, uint32_t parent)
{
    uint32_t child = node_of(draft, parent)->parameter;
    if (child == 0) {
        child = new_node(draft, (struct tg_slice){0});
        node_of(draft, parent)->parameter = child;
    }
    return child;
}

/* The child for this segment, made when there is none; 0: memory is short. */
static uint32_t
literal_of(struct tg_route_draft *draft, uint32_t parent, struct tg_slice text)
{
    char key[SEGMENT_MAX + sizeof parent];
    memcpy(key, &parent, sizeof parent);
    if (text.n > 0) {
        memcpy(key + sizeof parent, text.p, text.n);
    }
    uint32_t child = tg_map_find(draft->children, key, sizeof parent + text.n);
    if (child != 0) {
        return child;
    }
    child = new_node(draft, text);
    if (child == 0 || tg_map_add(draft->children, key, sizeof parent + text.n, child) != TG_OK) {
        return 0;
    }
    struct sketch *node = node_of(draft, parent);
    if (node->last != 0) {
        node_of(draft, node->last)->next = child;
    } else {
        node->first = child;
    }
    node->last = child;
    node->literals++;
    return child;
}

static enum tg_rc
put_end(struct tg_route_draft *draft, uint32_t *first, uint32_t *last, const struct tg_route_end *end)
{
    if (draft->end_count == draft->end_room) {
        const uint32_t room = draft->end_room == 0 ? FIRST_ROOM : draft->end_room * 2;
        struct listed *ends = tg_mem_resize(draft->ends, room * sizeof *ends);
        if (ends == NULL) {
            return TG_ENOMEM;
        }
        draft->ends = ends;
        draft->end_room = room;
    }
    draft->ends[draft->end_count++] = (struct listed){.end = *end};
    if (*last != 0) {
        draft->ends[*last - 1].next = draft->end_count;
    } else {
        *first = draft->end_count;
    }
    *last = draft->end_count;
    return TG_OK;
}

/* The next segment of a pattern from *at on; false: there is none. */
static bool
next_segment(struct tg_slice path, size_t *at, struct tg_slice *segment)
{
    if (*at >= path.n) {
        return false;
    }
    const char *begin = path.p + *at + 1; /* behind the slash */
    const size_t left = path.n - *at - 1;
    const char *slash = left > 0 ? memchr(begin, '/', left) : NULL;
    *segment = tg_slice_of(begin, slash == NULL ? left : (size_t)(slash - begin));
    *at += 1 + segment->n;
    return true;
}

enum tg_rc
tg_route_draft_put(struct tg_route_draft *draft, uint32_t root, struct tg_slice path, const struct tg_route_end *end)
{
    const bool is_prefix = path.n >= 2 && memcmp(path.p + path.n - 2, "/*", 2) == 0;
    if (is_prefix) {
        path.n -= 2;
    } else if (path.n == 1) {
        path.n = 0; /* the root itself */
    }
    uint32_t way[TG_ROUTE_SEGMENTS_MAX + 1] = {root};
    unsigned depth = 0;
    size_t at = 0;
    struct tg_slice segment;
    while (next_segment(path, &at, &segment)) {
        if (depth == TG_ROUTE_SEGMENTS_MAX || segment.n > SEGMENT_MAX) {
            return TG_ELIMIT;
        }
        const bool is_parameter = segment.n >= 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';
        way[depth + 1] = is_parameter ? parameter_of(draft, way[depth]) : literal_of(draft, way[depth], segment);
        if (way[++depth] == 0) {
            return TG_ENOMEM;
        }
    }
    struct sketch *node = node_of(draft, way[depth]);
    const enum tg_rc rc = is_prefix ? put_end(draft, &node->prefix, &node->prefix_last, end)
                                    : put_end(draft, &node->exact, &node->exact_last, end);
    for (unsigned i = 0; i <= depth && rc == TG_OK; i++) {
        struct sketch *passed = node_of(draft, way[i]);
        passed->top = passed->top < end->priority ? end->priority : passed->top;
    }
    return rc;
}

void
tg_route_draft_allow(struct tg_route_draft *draft, uint64_t methods)
{
    draft->ends[draft->end_count - 1].end.methods |= methods;
}

/* ---------------------------------------------------------------- packing */

/* Patterns are numbered as they were added. */
static int
compare_ends(const void *left, const void *right)
{
    const struct tg_route_end *a = left;
    const struct tg_route_end *b = right;
    if (a->priority != b->priority) {
        return a->priority > b->priority ? -1 : 1;
    }
    if (a->asks != b->asks) {
        return a->asks > b->asks ? -1 : 1;
    }
    if ((a->methods == 0) != (b->methods == 0)) {
        return a->methods != 0 ? -1 : 1;
    }
    return a->pattern < b->pattern ? -1 : 1;
}

static uint32_t
pack_ends(struct packing *to, uint32_t first, struct tg_route_node *node)
{
    if (first == 0) {
        return 0;
    }
    if (to->draft->ends[first - 1].next == 0 && node->own.is_last == 0) {
        const uint16_t length = node->own.segment_length;
        node->own = to->draft->ends[first - 1].end;
        node->own.is_last = 1;
        node->own.segment_length = length;
        return TG_ROUTE_OWN;
    }
    const uint32_t begin = to->end_count;
    for (uint32_t i = first; i != 0; i = to->draft->ends[i - 1].next) {
        to->ends[to->end_count++] = to->draft->ends[i - 1].end;
    }
    qsort(to->ends + begin, to->end_count - begin, sizeof *to->ends, compare_ends);
    to->ends[to->end_count - 1].is_last = 1;
    return begin + 1;
}

static uint32_t pack_node(struct packing *to, struct sketch *from);

static void
pack_literals(struct packing *to, const struct sketch *from, uint32_t parent)
{
    struct tg_route_node *node = &to->nodes[parent];
    node->literal_count = from->literals;
    if (from->literals == 1) {
        node->literals = pack_node(to, node_of(to->draft, from->first));
        return;
    }
    const uint32_t room = from->literals == 0 ? 0 : tg_route_slots_of(from->literals);
    node->literals = to->slot_count;
    struct tg_route_slot *slots = to->slots + to->slot_count;
    to->slot_count += room;
    for (uint32_t i = from->first; i != 0; i = node_of(to->draft, i)->next) {
        struct sketch *child = node_of(to->draft, i);
        const uint32_t hash = tg_route_hash(to->draft->texts + child->text_at, child->text_n);
        uint32_t k = hash & (room - 1);
        while (slots[k].node != 0) {
            k = (k + 1) & (room - 1);
        }
        slots[k] = (struct tg_route_slot){.hash = hash, .node = pack_node(to, child)};
    }
}

/* Goes no deeper than a pattern has segments. */
static uint32_t
pack_node(struct packing *to, struct sketch *from) // NOLINT(misc-no-recursion)
{
    const uint32_t number = to->node_count++;
    struct tg_route_node *node = &to->nodes[number];
    from->packed = number;
    node->top = from->top;
    node->own.segment_length = (uint16_t)from->text_n;
    if (from->text_n > TG_ROUTE_TEXT_INLINE) {
        node->segment.text_at = from->text_at;
    } else if (from->text_n > 0) {
        memcpy(node->segment.text, to->draft->texts + from->text_at, from->text_n);
    }
    node->exact = pack_ends(to, from->exact, node);
    node->prefix = pack_ends(to, from->prefix, node);
    pack_literals(to, from, number);
    if (from->parameter != 0) {
        node->parameter = pack_node(to, node_of(to->draft, from->parameter));
    }
    return number;
}

enum tg_rc
tg_route_draft_pack(struct tg_route_draft *draft, struct tg_route_trees *trees)
{
    size_t slots = 0;
    for (uint32_t i = 1; i <= draft->node_count; i++) {
        const uint32_t literals = node_of(draft, i)->literals;
        slots += literals > 1 ? tg_route_slots_of(literals) : 0;
    }
    struct packing to = {.draft = draft};
    trees->memory = tg_mem_zero((draft->node_count + 1) * sizeof(struct tg_route_node) + LINE);
    to.slots = tg_mem_zero((slots + 1) * sizeof(struct tg_route_slot));
    to.ends = tg_mem_zero((draft->end_count + 1) * sizeof(struct tg_route_end));
    trees->slots = to.slots;
    trees->ends = to.ends;
    if (trees->memory == NULL || to.slots == NULL || to.ends == NULL || slots > UINT32_MAX) {
        return TG_ENOMEM;
    }
    to.nodes = (struct tg_route_node *)(((uintptr_t)trees->memory + LINE - 1) & ~(uintptr_t)(LINE - 1));
    to.node_count = 1; /* 0 stands for none */
    for (uint32_t i = 1; i <= draft->node_count; i++) {
        struct sketch *node = node_of(draft, i);
        if (node->packed == 0) { /* a parent is older than its children: this is a root */
            pack_node(&to, node);
        }
    }
    trees->nodes = to.nodes;
    trees->texts = draft->texts;
    draft->texts = NULL;
    return TG_OK;
}

uint32_t
tg_route_draft_packed(const struct tg_route_draft *draft, uint32_t root)
{
    return node_of(draft, root)->packed;
}

void
tg_route_trees_free(struct tg_route_trees *trees)
{
    tg_mem_free(trees->memory);
    tg_mem_free((void *)trees->slots);
    tg_mem_free((void *)trees->ends);
    tg_mem_free((void *)trees->texts);
}
