/*
 * compile.h - from files to a bundle: runs in a process of its own, which a bad script may crash or hang.
 *
 * Owns: nothing. Used by: process/. The only place that reads configuration files.
 */
#ifndef TG_VM_COMPILE_H
#define TG_VM_COMPILE_H

#include "base/rc.h"
#include "base/slice.h"

struct tg_compile_source {
    const char *entry;              /* the configuration file */
    const char *const *plugin_dirs; /* folders, NULL at its end */
    struct tg_slice kept;           /* the certificate that was made for a generation before, or empty */
    struct tg_slice pushed;         /* files as a JSON object by name, or empty */
    bool layered;                   /* they come on top of those of the disk, not in their place */
    bool ends;                      /* the process does, soon: nothing is freed, and what was warmed is used up */
};

/* Loads what a compilation needs, once, for children that this process forks: each begins with it in place. Of the
 * program's own modules only; they do nothing but define. TG_ESCRIPT and `err`. */
TG_MUST_CHECK enum tg_rc tg_compile_warm(struct tg_err *err);

/* Reads the configuration file and all that it needs, validates it, and writes the bundle to `fd`. TG_ESCRIPT and
 * `err`.
 */
TG_MUST_CHECK enum tg_rc tg_compile(const struct tg_compile_source *source, int fd, struct tg_err *err);

struct lua_State;

/*
 * Calls main(core, arguments) of the Lua module, which returns an exit status; `provide` adds functions to the table
 * core, which is on top of the stack. -1 and `err` when it raised.
 */
int tg_compile_run(const char *module, void (*provide)(struct lua_State *L), int argc, char **argv, struct tg_err *err);

#endif
