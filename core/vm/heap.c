#include "vm/heap.h"

enum {
    HURRY_STEP = 16,         /* parts of the maximum */
    LARGE = 8 * 1024 * 1024, /* bytes of one block */
    LATE = 32 * 1024 * 1024, /* bytes above twice what is needed at which the collector has waited for too long */
    OF_LATE = 64,            /* times that it was settled */
    STEP_MULTIPLE = 200,     /* percent: how much faster than the program the collector is */
    GROWTH_SHARE = 4,        /* parts of what it may grow by, of which one more is allowed after a look */
    FULL_SHARE = 8           /* parts of the maximum of which the last one is for what must not fail */
};

static void
aim(struct tg_heap *heap)
{
    heap->look = heap->told < heap->hurry ? heap->told : heap->hurry;
}

static void
hurry(struct tg_heap *heap, size_t size)
{
    heap->hurry = heap->bytes + heap->max / HURRY_STEP;
    /* LuaJIT's table of strings doubles at once: that there are many says nothing of garbage, and a whole collection of
     * millions takes a second. */
    if (size >= LARGE && heap->bytes < heap->max / 2) {
        return;
    }
    /* Both only set numbers: the collector's next step, where Lua takes one anyway, is then a whole collection. */
    (void)lua_gc(heap->L, LUA_GCSETSTEPMUL, 0);
    (void)lua_gc(heap->L, LUA_GCRESTART, 0);
}

static void
pass(struct tg_heap *heap, size_t size, size_t more)
{
    if (heap->bytes > heap->told) {
        tg_abi_vm.grown = more > heap->growth || tg_abi_vm.grown == 2 ? 2 : 1;
        heap->told = heap->bytes + heap->growth;
    }
    if (heap->bytes > heap->hurry) {
        hurry(heap, size);
    }
    aim(heap);
}

static void *
allocate(void *arg, void *p, size_t old_size, size_t new_size)
{
    struct tg_heap *heap = arg;
    if (new_size <= old_size) {
        void *smaller = heap->allocate(heap->arg, p, old_size, new_size);
        heap->bytes -= smaller != NULL || new_size == 0 ? old_size - new_size : 0;
        return smaller;
    }
    const size_t more = new_size - old_size;
    if (heap->bytes + more > heap->max) {
        return NULL;
    }
    heap->made += more;
    void *result = heap->allocate(heap->arg, p, old_size, new_size);
    heap->bytes += result != NULL ? more : 0;
    if (heap->bytes > heap->look) {
        pass(heap, new_size, more);
    }
    return result;
}

void
tg_heap_settle(struct tg_heap *heap)
{
    const size_t step = heap->max / HURRY_STEP;
    heap->low = heap->bytes < heap->low ? heap->bytes : heap->low;
    const size_t floor = heap->low < heap->low_before ? heap->low : heap->low_before;
    /* Its pause is a multiple of what the last cycle left, too long where garbage comes fast: the next one begins now,
     * in steps. */
    if (heap->bytes > 2 * floor + LATE) {
        (void)lua_gc(heap->L, LUA_GCRESTART, 0);
    }
    if (++heap->settled == OF_LATE) {
        heap->settled = 0;
        heap->low_before = heap->low;
        heap->low = heap->bytes;
    }
    heap->hurry = heap->bytes < step ? 2 * step : heap->bytes + step;
    aim(heap);
    (void)lua_gc(heap->L, LUA_GCSETSTEPMUL, STEP_MULTIPLE);
}

void
tg_heap_grow(struct tg_heap *heap)
{
    const size_t half = heap->max / 2;
    heap->hurry = heap->hurry > half ? heap->hurry : half;
    aim(heap);
}

size_t
tg_heap_excess(struct tg_heap *heap)
{
    const size_t may = heap->from + heap->growth;
    const size_t excess = heap->bytes > may ? heap->bytes - may : tg_abi_vm.grown == 2;
    if (excess == 0) {
        heap->from = heap->bytes < heap->from ? heap->bytes : heap->from; /* so much of it was garbage */
        const size_t next = heap->bytes + heap->growth / GROWTH_SHARE;
        heap->told = next > heap->from + heap->growth ? next : heap->from + heap->growth;
        aim(heap);
        tg_abi_vm.grown = 0;
    }
    return excess;
}

void
tg_heap_reserve(struct tg_heap *heap, bool on)
{
    heap->max = on ? heap->bound + heap->bound / 2 : heap->bound;
}

bool
tg_heap_is_full(const struct tg_heap *heap)
{
    return heap->bound != 0 && heap->bytes > heap->bound - heap->bound / FULL_SHARE;
}

void
tg_heap_collect(struct tg_heap *heap)
{
    tg_heap_reserve(heap, true);
    (void)lua_gc(heap->L, LUA_GCCOLLECT, 0);
    tg_heap_reserve(heap, false);
}

void
tg_heap_bound(struct tg_heap *heap, lua_State *L, size_t max)
{
    heap->allocate = lua_getallocf(L, &heap->arg);
    heap->bytes = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    heap->L = L;
    heap->max = max;
    heap->bound = max;
    heap->low = heap->bytes;
    heap->low_before = heap->bytes;
    heap->growth = TG_HEAP_ANY;
    heap->told = SIZE_MAX;
    tg_heap_settle(heap);
    lua_setallocf(L, allocate, heap);
}

void
tg_heap_release(struct tg_heap *heap, lua_State *L)
{
    if (heap->allocate != NULL) {
        lua_setallocf(L, heap->allocate, heap->arg);
    }
}
