/*
 * route_tree.h - the tree of segments that patterns of routes are put into: grown a pattern at a time, then packed.
 *
 * Packed, a node is one cache line with the bytes of its segment in it, and its only child stands behind it: with
 * thousands of routes each place that is looked at is a cache miss. Owns: copies of segments. Used by: route_table.c.
 */
#ifndef TG_HTTP_ROUTE_TREE_H
#define TG_HTTP_ROUTE_TREE_H

#include "base/rc.h"
#include "base/slice.h"

enum { TG_ROUTE_TEXT_INLINE = 16, TG_ROUTE_SEGMENTS_MAX = 64 };

/* In place of a list of ends: there is but one, the node's own. */
#define TG_ROUTE_OWN UINT32_MAX

/* A pattern where it ends; of a list the one of the highest priority first. */
struct tg_route_end {
    uint64_t methods; /* bits; 0: all */
    int32_t priority;
    uint32_t pattern;
    uint32_t route;
    uint8_t asks;
    uint8_t is_last;         /* of its list */
    uint16_t segment_length; /* of a node's own one: that of the node */
};

struct tg_route_node {
    uint32_t literals;      /* one child: its node; more: the first of their slots */
    uint32_t literal_count; /* children by their segment */
    uint32_t parameter;     /* node of the child for any other segment; 0: none, since the root is nobody's child */
    uint32_t exact;         /* first of the ends of paths that end here, plus 1; 0: none do; or TG_ROUTE_OWN */
    uint32_t prefix;        /* the same of prefixes */
    int32_t top;            /* highest priority here and below */
    struct tg_route_end own;
    union {
        char text[TG_ROUTE_TEXT_INLINE];
        uint32_t text_at; /* of one that is longer: where it stands in `texts` */
    } segment;
};

/* Of a child among several. Their number is a power of two, at least twice that of the children. */
struct tg_route_slot {
    uint32_t hash;
    uint32_t node; /* 0: free */
};

/* All trees of a table. */
struct tg_route_trees {
    const struct tg_route_node *nodes;
    const struct tg_route_slot *slots;
    const struct tg_route_end *ends;
    const char *texts;
    void *memory; /* of the nodes */
};

struct tg_route_draft;

struct tg_route_draft *tg_route_draft_new(void);
void tg_route_draft_free(struct tg_route_draft *draft);

/* A new tree: its root; 0: memory is short. Drafts have numbers of their own. */
uint32_t tg_route_draft_root(struct tg_route_draft *draft);
/* TG_ENOMEM; TG_ELIMIT: more segments than TG_ROUTE_SEGMENTS_MAX, or one of more than 4 KiB. */
TG_MUST_CHECK enum tg_rc tg_route_draft_put(struct tg_route_draft *draft, uint32_t root, struct tg_slice path,
                                            const struct tg_route_end *end);
/* The methods of the end that was put last. */
void tg_route_draft_allow(struct tg_route_draft *draft, uint64_t methods);
/* Packs all trees. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_route_draft_pack(struct tg_route_draft *draft, struct tg_route_trees *trees);
/* Where a root is now. */
uint32_t tg_route_draft_packed(const struct tg_route_draft *draft, uint32_t root);

void tg_route_trees_free(struct tg_route_trees *trees);

static inline uint32_t
tg_route_slots_of(uint32_t literals)
{
    uint32_t n = 4;
    while (n < literals * 2) {
        n *= 2;
    }
    return n;
}

/* Equal texts have equal ones. Who chose the texts is who wrote the configuration: a request cannot make them collide.
 */
static inline uint32_t
tg_route_hash(const char *p, size_t n)
{
    uint64_t hash = n;
    for (size_t i = 0; i + 8 < n; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
        hash ^= hash >> 29;
    }
    hash = (hash ^ tg_last8(p, n)) * 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15ULL; /* segments often differ in their last digits alone */
    return (uint32_t)(hash >> 32);
}

#endif
