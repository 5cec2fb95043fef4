/*
 * enter.h - where an exchange enters Lua: its phases, in the coroutines of the generation that it began on.
 *
 * Owns: nothing; an exchange holds its generation until it is over. Used by: process/, which gives it to the proxy.
 * Does not know: what a phase does.
 */
#ifndef TG_VM_ENTER_H
#define TG_VM_ENTER_H

#include "base/rc.h"
#include "net/loop.h"
#include "proxy/policy.h"

/* The task of host->ready_task. */
void tg_vm_run_ready(struct tg_task *task);

extern const struct tg_policy tg_vm_policy;

#endif
