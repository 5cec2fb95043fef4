#include "vm/load.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

#include "vm/embedded.h"
#include "vm/modules.h"

/* What our require runs on: package.loaded first, then `find`; the rest is the standard one's. */
static const char prelude[] =
    "local find, standard = ...\n"
    "local loaded, loading = package.loaded, {}\n"
    "local function breathe()\n"
    "  local pace = loaded['runtime.pace']\n"
    "  if pace then pace.breathe() end\n"
    "end\n"
    "function require(name)\n"
    "  local value = loaded[name]\n"
    "  if value ~= nil then return value end\n"
    "  local f = find(name)\n"
    "  if not f then return standard(name) end\n"
    "  if loading[name] then error('modules require each other: ' .. name, 2) end\n"
    "  loading[name] = true\n"
    "  breathe()\n"
    "  value = f(name)\n"
    "  if value == nil then value = true end\n"
    "  loaded[name], loading[name] = value, nil\n"
    "  breathe()\n"
    "  return value\n"
    "end\n"
    /* Nearly all that runs until a generation is current runs once: it is compiled where thousands of something are
     * gone through. */
    "require('jit.opt').start('maxtrace=8000', 'maxrecord=30000', 'maxirconst=4000', 'maxside=1000', 'maxsnap=4000',\n"
    "  'loopunroll=300', 'sizemcode=64', 'maxmcode=16384', 'hotloop=1000')\n";

/* find(name) -> what the module's file is, as a function | nil */
static int
find_module(lua_State *L)
{
    struct tg_module module;
    if (tg_modules_find(luaL_checkstring(L, 1), &module) != TG_OK) {
        return 0;
    }
    lua_pushfstring(L, "@%s", module.path);
    if (luaL_loadbuffer(L, module.code.p, module.code.n, lua_tostring(L, -1)) != 0) {
        return lua_error(L);
    }
    return 1;
}

static bool
keep_entry(void *arg, struct tg_slice name, struct tg_slice data)
{
    lua_State *L = arg; /* files */
    static const char source[] = "source:";
    if (name.n >= sizeof source - 1 && memcmp(name.p, source, sizeof source - 1) == 0) {
        return true; /* for people; never run */
    }
    lua_pushlstring(L, name.p, name.n); /* files name */
    lua_pushlstring(L, data.p, data.n); /* files name data */
    lua_rawset(L, -3);                  /* files */
    return true;
}

struct start {
    struct tg_slice bundle;
    enum tg_rc rc;
};

/* Protected, since each of these may run out of memory. */
static int
prepare(lua_State *L)
{
    struct start *start = lua_touserdata(L, 1);
    luaL_openlibs(L);
    lua_newtable(L); /* start files */
    start->rc = start->bundle.n == 0 ? TG_OK : tg_bundle_each(start->bundle, keep_entry, L);
    lua_setfield(L, LUA_REGISTRYINDEX, "tidegate"); /* start */
    lua_pushlightuserdata(L, NULL);                 /* start null: Lua itself cannot make one */
    lua_setglobal(L, "tg_null");                    /* start */
    lua_pushstring(L, tg_abi_text);
    lua_setglobal(L, "tg_abi_text");
    if (luaL_loadbuffer(L, prelude, sizeof prelude - 1, "=require") != 0) {
        return lua_error(L);
    }
    lua_pushcfunction(L, find_module);
    lua_getglobal(L, "require");
    lua_call(L, 2, 0);
    lua_gc(L, LUA_GCSETPAUSE, 200);
    lua_gc(L, LUA_GCSETSTEPMUL, 200);
    return 0;
}

lua_State *
tg_load_state(struct tg_slice bundle, struct tg_err *err)
{
    struct start start = {.bundle = bundle};
    lua_State *L = luaL_newstate();
    if (L == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "memory is short");
        return NULL;
    }
    (void)lua_gc(L, LUA_GCSTOP, 0);
    if (lua_cpcall(L, prepare, &start) != 0 || start.rc != TG_OK) {
        const char *text = lua_tostring(L, -1);
        (void)tg_err_set(err, TG_ESCRIPT, "%s", start.rc != TG_OK ? "the bundle is broken" : text == NULL ? "?" : text);
        lua_close(L);
        return NULL;
    }
    lua_settop(L, 0);
    return L;
}

/* A message that is a table speaks for itself; one that is text gets a traceback. */
static int
add_traceback(lua_State *L)
{
    const char *text = lua_tostring(L, 1);
    if (text != NULL) {
        luaL_traceback(L, L, text, 1);
    } else if (luaL_callmeta(L, 1, "__tostring") == 0) {
        lua_pushliteral(L, "(an error that is no text)");
    }
    return 1;
}

void
tg_load_error(lua_State *L, struct tg_err *err)
{
    const char *text = lua_tostring(L, -1);
    if (text != NULL) {
        luaL_traceback(L, L, text, 0);
    } else if (luaL_callmeta(L, -1, "__tostring") == 0) {
        lua_pushliteral(L, "(an error that is no text)");
    }
    text = lua_tostring(L, -1);
    (void)tg_err_set(err, TG_ESCRIPT, "%s", text == NULL ? "memory is short" : text);
}

bool
tg_load_call(lua_State *L, int arguments, int results, struct tg_err *err)
{
    const int base = lua_gettop(L) - arguments; /* of the function */
    lua_pushcfunction(L, add_traceback);
    lua_insert(L, base); /* handler function arguments */
    const int status = lua_pcall(L, arguments, results, base);
    lua_remove(L, base);
    if (status == 0) {
        return true;
    }
    const char *text = lua_tostring(L, -1);
    (void)tg_err_set(err, TG_ESCRIPT, "%s", text == NULL ? "memory is short" : text);
    lua_settop(L, base - 1);
    return false;
}

bool
tg_load_module(lua_State *L, const char *name, struct tg_err *err)
{
    lua_getglobal(L, "require"); /* require */
    lua_pushstring(L, name);     /* require name */
    return tg_load_call(L, 1, 1, err);
}
