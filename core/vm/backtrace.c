#include "vm/backtrace.h"

#include <link.h>
#include <luajit.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unwind.h>

#include "base/mem.h"

struct range {
    uintptr_t start;
    uintptr_t end;
};

enum { MODULES_MAX = 64, PROBES_MAX = 32 };

struct tg_backtraces {
    struct range luajit;
    struct range unwinder;
    struct range c_library;
    struct range modules[MODULES_MAX]; /* all code that did not come into being at run time */
    unsigned module_count;
    struct tg_backtrace list[TG_BACKTRACES_MAX];
};

struct walk {
    const struct tg_backtraces *traces;
    struct tg_backtrace found;
    uintptr_t pc; /* what was interrupted: all frames before it are the handler's */
    bool lua;
    bool began;
};

static volatile sig_atomic_t held;

void
tg_backtrace_hold(bool on)
{
    held += on ? 1 : -1;
}

static bool
is_in(const struct range *range, uintptr_t address)
{
    return address >= range->start && address < range->end;
}

static int
add_module(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct tg_backtraces *traces = arg;
    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *head = &info->dlpi_phdr[i];
        const uintptr_t start = info->dlpi_addr + head->p_vaddr;
        if (head->p_type == PT_LOAD && (head->p_flags & PF_X) != 0 && traces->module_count < MODULES_MAX) {
            traces->modules[traces->module_count++] = (struct range){start, start + head->p_memsz};
        }
    }
    return 0;
}

static struct range
module_of(const struct tg_backtraces *traces, uintptr_t address)
{
    for (unsigned i = 0; i < traces->module_count; i++) {
        if (is_in(&traces->modules[i], address)) {
            return traces->modules[i];
        }
    }
    return (struct range){0, 0};
}

static uintptr_t
interrupted_at(const void *context)
{
    const ucontext_t *at = context;
#if defined(__x86_64__)
    return (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)at->uc_mcontext.pc;
#else
    (void)at;
    return 0;
#endif
}

/* Functions are kept by where they begin, so that one place of a loop more is not one stack more. */
static _Unwind_Reason_Code
on_frame(struct _Unwind_Context *context, void *arg)
{
    struct walk *walk = arg;
    struct tg_backtrace *found = &walk->found;
    const uintptr_t pc = (uintptr_t)_Unwind_GetIP(context);
    walk->began = walk->began || pc == walk->pc;
    if (!walk->began) {
        return _URC_NO_REASON;
    }
    if (module_of(walk->traces, pc).end == 0 || (walk->lua && is_in(&walk->traces->luajit, pc)) ||
        found->count == TG_BACKTRACE_DEPTH) {
        return _URC_END_OF_STACK;
    }
    const uintptr_t start = (uintptr_t)_Unwind_GetRegionStart(context);
    found->frames[found->count] = start != 0 ? start : pc;
    found->hash = (found->hash ^ found->frames[found->count]) * 0x9E3779B97F4A7C15ULL;
    found->hash ^= found->hash >> 29;
    found->count++;
    return _URC_NO_REASON;
}

struct tg_backtraces *
tg_backtraces_new(void)
{
    struct tg_backtraces *traces = tg_mem_new(struct tg_backtraces);
    struct walk walk = {.traces = traces};
    if (traces != NULL) {
        (void)dl_iterate_phdr(add_module, traces);
        traces->luajit = module_of(traces, (uintptr_t)luaJIT_profile_start);
        traces->unwinder = module_of(traces, (uintptr_t)_Unwind_Backtrace);
        traces->c_library = module_of(traces, (uintptr_t)abort);
        (void)_Unwind_Backtrace(on_frame, &walk); /* what it does but once it does here */
    }
    return traces;
}

void
tg_backtraces_free(struct tg_backtraces *traces)
{
    tg_mem_free(traces);
}

static uint32_t
keep(struct tg_backtraces *traces, const struct tg_backtrace *found)
{
    for (uint32_t i = 0; i < PROBES_MAX; i++) {
        const uint32_t place = (uint32_t)((found->hash + i) % TG_BACKTRACES_MAX);
        struct tg_backtrace *entry = &traces->list[place];
        if (entry->count == 0) {
            *entry = *found;
            return place + 1;
        }
        if (entry->hash == found->hash && entry->count == found->count &&
            memcmp(entry->frames, found->frames, found->count * sizeof *found->frames) == 0) {
            return place + 1;
        }
    }
    return 0;
}

uint32_t
tg_backtraces_take(struct tg_backtraces *traces, const void *context, bool lua)
{
    const uintptr_t pc = interrupted_at(context);
    struct walk walk = {.traces = traces, .pc = pc, .lua = lua};
    if (is_in(&traces->luajit, pc)) {
        return TG_BACKTRACE_LUAJIT;
    }
    if (module_of(traces, pc).end == 0 || is_in(&traces->unwinder, pc) ||
        ((lua || held != 0) && is_in(&traces->c_library, pc))) {
        return 0;
    }
    (void)_Unwind_Backtrace(on_frame, &walk);
    return walk.found.count == 0 ? 0 : keep(traces, &walk.found);
}

struct tg_backtrace *
tg_backtraces_get(struct tg_backtraces *traces, uint32_t number)
{
    return number == 0 || number > TG_BACKTRACES_MAX || traces->list[number - 1].count == 0 ? NULL
                                                                                            : &traces->list[number - 1];
}
