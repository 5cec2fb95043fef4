/*
 * modules.h - the modules of the program as `require` gets them: text, or bytecode once that was made.
 *
 * Owns: the bytecode, until the process ends. Used by: load.c; the master makes it before it forks, so that neither a
 * worker nor who compiles a configuration ever parses them again, and all share its pages. Does not know: bundles,
 * generations: modules belong to the program, a generation runs with those of the program that runs it.
 */
#ifndef TG_VM_MODULES_H
#define TG_VM_MODULES_H

#include "base/rc.h"
#include "base/slice.h"

struct tg_module {
    struct tg_slice code; /* bytecode or text */
    const char *path;     /* "lua/runtime/schema.lua": what messages name */
};

/* Makes the bytecode. TG_ENOMEM, TG_ESCRIPT and `err`: it goes on with the text. */
TG_MUST_CHECK enum tg_rc tg_modules_compile(struct tg_err *err);

/* The module of this name. TG_ENONE. */
TG_MUST_CHECK enum tg_rc tg_modules_find(const char *name, struct tg_module *module);

#endif
