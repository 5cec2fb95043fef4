/*
 * compile.h - from files to a bundle: runs in a process of its own, which a bad script may crash or hang.
 *
 * Owns: nothing. Used by: process/. The only place that reads configuration files.
 */
#ifndef TG_VM_COMPILE_H
#define TG_VM_COMPILE_H

#include "base/rc.h"
#include "base/slice.h"

/*
 * Reads the configuration file `entry` and all that it needs, validates it, and writes the bundle to `fd`.
 * `plugin_dirs` is a list of folders, NULL at its end; `kept` is the certificate that was made for a
 * generation before, or empty; `pushed` are files as a JSON object by name, in place of those of the disk or
 * (`layered`) on top of them, or empty.
 * TG_ESCRIPT and `err`.
 */
TG_MUST_CHECK enum tg_rc tg_compile(const char *entry, const char *const *plugin_dirs, struct tg_slice kept,
                                    struct tg_slice pushed, bool layered, int fd, struct tg_err *err);

struct lua_State;

/*
 * Calls main(core, arguments) of the Lua module, which returns an exit status; `provide` adds functions to the table
 * core, which is on top of the stack. -1 and `err` when it raised.
 */
int tg_compile_run(const char *module, void (*provide)(struct lua_State *L), int argc, char **argv, struct tg_err *err);

#endif
