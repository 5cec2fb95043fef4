#include "vm/compile.h"

#include <glob.h>
#include <lauxlib.h>

#include "vm/bundle.h"
#include "vm/fetch.h"
#include "vm/load.h"

/* Percent, of the collector: what is built here lives, or ends with its process. */
enum { FIRST_PAUSE = 1000, CHILD_PAUSE = 400 };

static lua_State *warm; /* for the children of this process; it runs nothing itself */

/* glob(pattern) -> list of paths, sorted */
static int
list_files(lua_State *L)
{
    const char *pattern = luaL_checkstring(L, 1);
    glob_t found;
    lua_newtable(L);
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            lua_pushstring(L, found.gl_pathv[i]);
            lua_rawseti(L, -2, (int)i + 1);
        }
        globfree(&found);
    }
    return 1;
}

/* fetch(host, port, authorities or false, request, seconds) -> status, body | nil, why. `authorities`: PEM, or "" for
 * those that the system trusts; false: without TLS. It waits. */
static int
fetch_once(lua_State *L)
{
    struct tg_tls_client_options tls = {.verify = true, .tls12 = true};
    struct tg_err err = {0};
    struct tg_fetch fetch = {
        .host = luaL_checkstring(L, 1),
        .port = luaL_checkstring(L, 2),
        .tls = lua_isstring(L, 3) != 0 ? &tls : NULL,
        .timeout = (unsigned)(luaL_checknumber(L, 5) * 1000),
    };
    tls.ca.p = lua_tolstring(L, 3, &tls.ca.n);
    fetch.request.p = luaL_checklstring(L, 4, &fetch.request.n);
    if (tg_fetch_run(&fetch, &err) == TG_OK) {
        lua_pushinteger(L, (lua_Integer)fetch.status);
        lua_pushlstring(L, fetch.body.p, fetch.body.n);
    } else {
        lua_pushnil(L);
        lua_pushstring(L, err.text);
    }
    tg_fetch_fini(&fetch);
    return 2;
}

/* Writes the list of { name, data } on top of the stack, and pops it. */
static enum tg_rc
write_bundle(lua_State *L, int fd, struct tg_err *err)
{
    enum tg_rc rc = tg_bundle_begin(fd);
    const int count = (int)lua_objlen(L, -1);
    for (int i = 1; i <= count && rc == TG_OK; i++) {
        struct tg_slice name;
        struct tg_slice data;
        lua_rawgeti(L, -1, i); /* list pair */
        lua_rawgeti(L, -1, 1); /* list pair name */
        lua_rawgeti(L, -2, 2); /* list pair name data */
        name.p = lua_tolstring(L, -2, &name.n);
        data.p = lua_tolstring(L, -1, &data.n);
        rc = name.p == NULL || data.p == NULL ? TG_EINVAL : tg_bundle_write(fd, name, data);
        lua_pop(L, 3); /* list */
    }
    lua_pop(L, 1);
    return rc == TG_OK ? TG_OK : tg_err_errno(err, "write the bundle");
}

/* boot compile -> boot compile core */
static void
push_source(lua_State *L, const struct tg_compile_source *source)
{
    lua_createtable(L, 0, 8);
    lua_pushstring(L, source->entry);
    lua_setfield(L, -2, "entry");
    lua_pushcfunction(L, list_files);
    lua_setfield(L, -2, "glob");
    lua_pushcfunction(L, fetch_once);
    lua_setfield(L, -2, "fetch");
    if (source->kept.n > 0) {
        lua_pushlstring(L, source->kept.p, source->kept.n);
        lua_setfield(L, -2, "kept");
    }
    if (source->pushed.n > 0) {
        lua_pushlstring(L, source->pushed.p, source->pushed.n);
        lua_setfield(L, -2, "pushed");
        lua_pushboolean(L, source->layered);
        lua_setfield(L, -2, "layered");
    }
    lua_newtable(L); /* boot compile core dirs */
    for (int i = 0; source->plugin_dirs[i] != NULL; i++) {
        lua_pushstring(L, source->plugin_dirs[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "plugin_dirs"); /* boot compile core */
}

/* A state with the module boot on its stack, or NULL and `err`. */
static lua_State *
new_state(struct tg_err *err)
{
    lua_State *L = tg_load_state((struct tg_slice){0}, err);
    if (L != NULL && !tg_load_module(L, "runtime.boot", err)) {
        lua_close(L);
        L = NULL;
    }
    return L;
}

enum tg_rc
tg_compile_warm(struct tg_err *err)
{
    if (warm == NULL) {
        warm = new_state(err);
    }
    return warm != NULL ? TG_OK : TG_ESCRIPT;
}

enum tg_rc
tg_compile(const struct tg_compile_source *source, int fd, struct tg_err *err)
{
    lua_State *L = source->ends && warm != NULL ? warm : new_state(err); /* boot */
    enum tg_rc rc = TG_ESCRIPT;
    if (L == NULL) {
        return TG_ESCRIPT;
    }
    /* The first cycle of the collector comes late, and for most configurations never. */
    (void)lua_gc(L, LUA_GCSETPAUSE, FIRST_PAUSE);
    (void)lua_gc(L, LUA_GCRESTART, -1);
    (void)lua_gc(L, LUA_GCSETPAUSE, CHILD_PAUSE);
    lua_getfield(L, -1, "compile"); /* boot compile */
    push_source(L, source);
    if (tg_load_call(L, 1, 2, err)) { /* boot list|nil message */
        if (lua_istable(L, -2)) {
            lua_pop(L, 1);
            rc = write_bundle(L, fd, err);
        } else {
            const char *text = lua_tostring(L, -1);
            (void)tg_err_set(err, TG_ESCRIPT, "%s", text == NULL ? "no message" : text);
        }
    }
    if (!source->ends) {
        lua_close(L);
    }
    return rc;
}

int
tg_compile_run(const char *module, void (*provide)(struct lua_State *L), int argc, char **argv, struct tg_err *err)
{
    int status = -1;
    lua_State *L = tg_load_state((struct tg_slice){0}, err);
    if (L == NULL) {
        return -1;
    }
    (void)lua_gc(L, LUA_GCRESTART, -1);
    if (tg_load_module(L, module, err)) { /* module */
        lua_getfield(L, -1, "main");      /* module main */
        lua_newtable(L);                  /* module main core */
        lua_pushcfunction(L, list_files);
        lua_setfield(L, -2, "glob");
        provide(L);
        for (int i = 0; i < argc; i++) {
            lua_pushstring(L, argv[i]);
        }
        if (tg_load_call(L, argc + 1, 1, err)) { /* module status */
            status = (int)lua_tointeger(L, -1);
        }
    }
    lua_close(L);
    return status;
}
