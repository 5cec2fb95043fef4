#include "process/tool_request.h"

#include <lauxlib.h>

#include "http/target.h"

enum { BLOCK = 16 * 1024, ARENA_MAX = 1024 * 1024 };

static void
put_slice(lua_State *L, const char *name, struct tg_slice value)
{
    lua_pushlstring(L, value.p, value.n);
    lua_setfield(L, -2, name);
}

static void
put_number(lua_State *L, const char *name, int value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static void
push_request(lua_State *L, const struct tg_message *message, const struct tg_target *target)
{
    lua_newtable(L); /* request */
    put_slice(L, "method", message->method);
    put_slice(L, "path", target->path);
    put_slice(L, "raw_path", target->raw_path);
    put_slice(L, "query", target->query);
    put_slice(L, "host", target->host);
    put_slice(L, "authority", target->authority);
    put_number(L, "doubts", target->doubts);
    put_number(L, "minor", message->version_minor);
    lua_newtable(L); /* request fields */
    for (unsigned i = 0; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        lua_pushlstring(L, field->name, field->name_len);
        lua_rawseti(L, -2, (int)(2 * i + 1));
        lua_pushlstring(L, field->value, field->value_len);
        lua_rawseti(L, -2, (int)(2 * i + 2));
    }
    lua_setfield(L, -2, "fields"); /* request */
}

int
tg_tool_request_parse(lua_State *L)
{
    static const struct tg_h1_limits limits = {8192, 8192, 32768, 100};
    static char block[BLOCK];
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    struct tg_arena arena;
    struct tg_message message;
    struct tg_target target = {0};
    size_t n = 0;
    const char *head = luaL_checklstring(L, 1, &n);
    tg_arena_init(&arena, block, sizeof block, ARENA_MAX);
    tg_message_init(&message, &arena);
    message.reading.keep_slashes = lua_toboolean(L, 2) != 0;
    message.reading.underscores = (uint8_t)luaL_optinteger(L, 3, TG_UNDERSCORES_DROP);
    enum tg_rc rc = tg_h1_scan(&scan, head, n, &limits, true, &fault);
    if (rc == TG_OK) {
        rc = tg_h1_parse_request(&message, head + scan.start, scan.pos - scan.start, &fault);
    }
    if (rc == TG_OK) {
        rc = tg_target_parse(&target, &message, &arena, &fault);
    }
    if (rc == TG_OK) {
        push_request(L, &message, &target);
    } else {
        lua_pushnil(L);
        lua_pushinteger(L, fault == NULL ? 400 : fault->status);
        lua_pushstring(L, fault != NULL ? fault->text : rc == TG_AGAIN ? "the head has no end" : "it is too large");
    }
    tg_arena_fini(&arena);
    return rc == TG_OK ? 1 : 3;
}
