/*
 * steps.h - what is done with each exchange of a generation in place of phases of plugins: to its request, before Lua
 * is entered, and when it is over. Lua would need a coroutine and a view of the exchange to say the same each time.
 *
 * Owns: the names of the fields that are set; lines and endings are Lua's. Used by: vm.c. Contracts of what fills it
 * are in abi_steps.h. Does not know: which plugin wants it.
 */
#ifndef TG_VM_STEPS_H
#define TG_VM_STEPS_H

#include "vm/coroutine.h"

/* NULL is allowed. */
void tg_steps_free(struct tg_steps *steps);
/* The request is to be judged. Anything but TG_OK: it cannot be as it should. */
TG_MUST_CHECK enum tg_rc tg_steps_open(const struct tg_steps *steps, struct tg_exchange *x);
/* It is over. May set TG_WANT_LOG. */
void tg_steps_end(const struct tg_steps *steps, struct tg_exchange *x);

#endif
