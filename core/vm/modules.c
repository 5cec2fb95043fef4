#include "vm/modules.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "vm/embedded.h"

/*
 * Modules that make tables with many names for each call. LuaJIT's bytecode does not keep the names of a table whose
 * values are not known before, so that such a table grows name by name; loaded as text it is made in one piece.
 */
static const char *const as_text[] = {"tidegate.branch", "tidegate.call", "tidegate.response", "tidegate.task"};

static struct tg_slice *compiled; /* by the place in tg_embedded; empty: as text */

static bool
stays_text(const char *name)
{
    for (size_t i = 0; i < sizeof as_text / sizeof as_text[0]; i++) {
        if (strcmp(as_text[i], name) == 0) {
            return true;
        }
    }
    return false;
}

struct code {
    char *p;
    size_t n;
};

/* Not onto Lua's stack, which is the dumper's meanwhile. */
static int
append(lua_State *L, const void *p, size_t n, void *arg)
{
    struct code *code = arg;
    char *grown = tg_mem_resize(code->p, code->n + n);
    (void)L;
    if (grown == NULL) {
        return 1;
    }
    memcpy(grown + code->n, p, n);
    *code = (struct code){grown, code->n + n};
    return 0;
}

static enum tg_rc
compile_one(lua_State *L, size_t index, struct tg_err *err)
{
    const struct tg_embedded *module = &tg_embedded[index];
    char where[256];
    struct code code = {0};
    (void)snprintf(where, sizeof where, "@%s", module->path);
    if (luaL_loadbuffer(L, (const char *)module->text, module->size, where) != 0) {
        return tg_err_set(err, TG_ESCRIPT, "%s", lua_tostring(L, -1));
    }
    if (lua_dump(L, append, &code) != 0) {
        tg_mem_free(code.p);
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    lua_settop(L, 0);
    compiled[index] = tg_slice_of(code.p, code.n);
    return TG_OK;
}

enum tg_rc
tg_modules_compile(struct tg_err *err)
{
    enum tg_rc rc = TG_OK;
    size_t count = 0;
    while (tg_embedded[count].name != NULL) {
        count++;
    }
    lua_State *L = luaL_newstate();
    if (compiled == NULL) {
        compiled = tg_mem_alloc(count * sizeof *compiled);
        for (size_t i = 0; compiled != NULL && i < count; i++) {
            compiled[i] = (struct tg_slice){0};
        }
    }
    if (L == NULL || compiled == NULL) {
        rc = tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    if (rc == TG_OK) {
        luaL_openlibs(L); /* a literal such as 5ULL needs a library that is there */
    }
    for (size_t i = 0; i < count && rc == TG_OK; i++) {
        if (compiled[i].n == 0 && !stays_text(tg_embedded[i].name)) {
            rc = compile_one(L, i, err);
        }
    }
    if (L != NULL) {
        lua_close(L);
    }
    return rc;
}

enum tg_rc
tg_modules_find(const char *name, struct tg_module *module)
{
    for (size_t i = 0; tg_embedded[i].name != NULL; i++) {
        const struct tg_embedded *embedded = &tg_embedded[i];
        if (strcmp(embedded->name, name) == 0) {
            const bool has_code = compiled != NULL && compiled[i].n > 0;
            module->code = has_code ? compiled[i] : tg_slice_of((const char *)embedded->text, embedded->size);
            module->path = embedded->path;
            return TG_OK;
        }
    }
    return TG_ENONE;
}
