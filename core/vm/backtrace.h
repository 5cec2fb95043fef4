/*
 * backtrace.h - stacks of C, taken in the handler of a signal.
 *
 * Owns: a table of the stacks that were seen, of fixed size, as addresses. Used by: vm/profile.c; vm/vm.c holds it.
 * A stack is found by the tables for unwinding, since the program has no frame pointers. Those of code that LuaJIT has
 * made are behind a lock: nothing is unwound while that may be taken (in LuaJIT or the unwinder, and in the C library
 * while Lua runs or a state of it is made or closed).
 */
#ifndef TG_VM_BACKTRACE_H
#define TG_VM_BACKTRACE_H

#include <stdbool.h>
#include <stdint.h>

enum { TG_BACKTRACE_DEPTH = 64 /* innermost functions */, TG_BACKTRACES_MAX = 2048 };

/* What tg_backtraces_take says of a moment within LuaJIT itself. */
#define TG_BACKTRACE_LUAJIT UINT32_MAX

struct tg_backtrace {
    uint64_t hash;
    uint32_t count; /* of frames; 0: the place is free */
    uint32_t samples;
    uintptr_t frames[TG_BACKTRACE_DEPTH]; /* innermost first; where each function begins */
};

struct tg_backtraces;

/* To be freed with tg_backtraces_free; NULL when memory is short. It must be made before the first signal. */
struct tg_backtraces *tg_backtraces_new(void);
void tg_backtraces_free(struct tg_backtraces *traces);
/*
 * In a handler with SA_SIGINFO, whose third argument is `context`. `lua`: the code was called by Lua, and the stack
 * ends where LuaJIT begins. -> number of the stack | TG_BACKTRACE_LUAJIT | 0: there is none, or there are too many.
 */
uint32_t tg_backtraces_take(struct tg_backtraces *traces, const void *context, bool lua);
/* The stack of a number; NULL when there is none. Numbers go from 1 to TG_BACKTRACES_MAX, not all are used. */
struct tg_backtrace *tg_backtraces_get(struct tg_backtraces *traces, uint32_t number);
/* From now on, or no longer, a state of Lua is made or closed. Calls nest. */
void tg_backtrace_hold(bool on);

#endif
