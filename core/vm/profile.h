/*
 * profile.h - where a worker's processor time goes: samples of the stacks of Lua and of C.
 *
 * Owns: the samples, from the start to the end. Used by: process/profiler.c. One a process. A timer of the process's
 * time sends SIGPROF. LuaJIT's own profiler shows the stack of Lua at the next instruction; what C does meanwhile, as a
 * function that Lua has called or on its own, is seen at the signal itself and named at the end. What is compiled is
 * compiled anew at the begin, with places where that can happen, and at the end, without them: it costs nothing while
 * it is off. Does not know: what the C library and LuaJIT themselves do for Lua, which is charged to the function of
 * Lua.
 */
#ifndef TG_VM_PROFILE_H
#define TG_VM_PROFILE_H

#include "vm/vm.h"

struct tg_profile;

/* Samples `vm`, which lives until the end. NULL: memory is short. */
struct tg_profile *tg_profile_start(struct tg_vm *vm);
/*
 * Ends it: a line for each stack, "outermost;...;innermost samples" (folded stacks), goes to `fd`. Those of the core
 * begin with "(core)"; those without more are samples of which nothing is known. TG_ESYSTEM.
 */
TG_MUST_CHECK enum tg_rc tg_profile_stop(struct tg_profile *profile, int fd);

#endif
