/*
 * heap.h - a maximum for the memory of a Lua state, and for what it grows by in one go.
 *
 * Owns: nothing; embedded in struct tg_vm. Used by: vm.c. LuaJIT has no emergency collection: at the maximum an
 * allocation fails, which raises "not enough memory" in the coroutine that wanted it, also when all else is garbage. So
 * the maximum stands well above the size at which the worker collects. For the same reason what grows too much in one
 * go is not stopped by the allocator: it tells (tg_abi_vm.grown), and who runs looks at that.
 */
#ifndef TG_VM_HEAP_H
#define TG_VM_HEAP_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

struct tg_heap {
    lua_Alloc allocate; /* LuaJIT's own */
    void *arg;
    lua_State *L;
    size_t bytes;
    uint64_t made; /* bytes, ever: what was freed is not taken off */
    size_t max;    /* what holds at this time: `bound`, or more of it */
    size_t bound;
    size_t hurry; /* at so many bytes a collection begins, however long the collector would still wait */
    size_t low;   /* the least that it had of late, and in the time before that */
    size_t low_before;
    unsigned settled; /* times, since that time ended */
    size_t from;      /* what there was when Lua was entered, */
    size_t growth;    /* by how much more it may be left; TG_HEAP_ANY */
    size_t told;      /* at so many bytes tg_abi_vm.grown is set */
    size_t look;      /* the lower one of `hurry` and `told`: below it nothing is to be done */
};

#define TG_HEAP_ANY (SIZE_MAX / 2)

/* From now on `L` has at most `max` bytes. */
void tg_heap_bound(struct tg_heap *heap, lua_State *L, size_t max);
/* Lua is entered: what it grows by from now on is counted. */
static inline void
tg_heap_enter(struct tg_heap *heap)
{
    heap->from = heap->bytes;
    heap->told = heap->bytes + heap->growth;
    heap->look = heap->told < heap->hurry ? heap->told : heap->hurry;
    tg_abi_vm.grown = 0;
}
/* Bytes by which it has grown since then, above what it may; 0: by none, and it is told again when it has grown by some
 * more. To be asked after a collection, since what is garbage is no reason; but one block that is too large alone is.
 */
size_t tg_heap_excess(struct tg_heap *heap);
/* To be called now and then: what was collected meanwhile may be taken again before a collection must begin. */
void tg_heap_settle(struct tg_heap *heap);
/* It is being built, and grows: that is no reason to collect all of it at once before half of the maximum is in use.
 * Holds until the next time that it is settled. */
void tg_heap_grow(struct tg_heap *heap);
/*
 * The core's own calls into Lua must not fail: an error that nobody catches ends the process. While `on` the maximum is
 * half as high again, since any of them may also resize LuaJIT's table of strings or the registry.
 */
void tg_heap_reserve(struct tg_heap *heap, bool on);
/* Nearly all is in use. Who asks in time can stop what grows before an allocation fails, which LuaJIT does not always
 * survive where that happens inside of compiled code. */
bool tg_heap_is_full(const struct tg_heap *heap);
/* A whole collection. */
void tg_heap_collect(struct tg_heap *heap);
/* Before lua_close: LuaJIT gives the memory of a state back as a whole only when the allocator is its own. */
void tg_heap_release(struct tg_heap *heap, lua_State *L);

#endif
