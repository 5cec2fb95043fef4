/*
 * load.h - Lua states and the code in them: modules of the program, and in a worker what is in a bundle.
 *
 * Owns: nothing. Used by: vm.c and compile.c. Does not know: exchanges, coroutines.
 */
#ifndef TG_VM_LOAD_H
#define TG_VM_LOAD_H

#include <lua.h>

#include "vm/bundle.h"

/*
 * A state with the standard libraries and our `require`, which finds the modules of the program. Entries of `bundle`
 * (empty while validating) are in the registry table "tidegate". The collector waits for its first cycle. NULL and
 * `err`.
 */
lua_State *tg_load_state(struct tg_slice bundle, struct tg_err *err);

/* Calls the function below `arguments` values. false: `err` has the message with its traceback; the stack is as before.
 */
bool tg_load_call(lua_State *L, int arguments, int results, struct tg_err *err);

/* Takes the error on top of a coroutine that has raised: the message with its traceback. */
void tg_load_error(lua_State *L, struct tg_err *err);

/* Pushes the module of this name. false and `err`. */
bool tg_load_module(lua_State *L, const char *name, struct tg_err *err);

#endif
