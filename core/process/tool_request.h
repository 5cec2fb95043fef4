/*
 * tool_request.h - requests out of files, for the tools written in Lua: read as the gateway reads them.
 *
 * Owns: nothing. Used by: tool.c. Does not know: configurations, routes.
 */
#ifndef TG_PROCESS_TOOL_REQUEST_H
#define TG_PROCESS_TOOL_REQUEST_H

struct lua_State;

/*
 * parse(head, keep_slashes, underscores) -> { method, path, raw_path, query, host, authority, doubts, minor, fields =
 * { name, value ... } }, or nil, status, why: the gateway would refuse it. `head` ends with its empty line.
 */
int tg_tool_request_parse(struct lua_State *L);

#endif
