/*
 * profile.h - where a worker's processor time goes: samples of the stacks of Lua.
 *
 * Owns: the samples, from the start to the end. Used by: process/profiler.c. One a process. LuaJIT's own profiler takes
 * the samples: a timer of the process's time sends SIGPROF, and the next instruction of Lua shows its stack. What is
 * compiled is compiled anew at the begin, with places where that can happen, and at the end, without them: it costs
 * nothing while it is off. Does not know: the stacks of C, which has one line for all.
 */
#ifndef TG_VM_PROFILE_H
#define TG_VM_PROFILE_H

#include "vm/vm.h"

struct tg_profile;

/* Samples `vm`, which lives until the end. NULL: memory is short. */
struct tg_profile *tg_profile_start(struct tg_vm *vm);
/* Ends it: a line for each stack, "outermost;...;innermost samples" (folded stacks), goes to `fd`. TG_ESYSTEM. */
TG_MUST_CHECK enum tg_rc tg_profile_stop(struct tg_profile *profile, int fd);

#endif
