/*
 * tool.h - commands that are written in Lua: tidegate test, tidegate doc.
 *
 * Owns: the processes that a spec starts, each ended by its own id. Used by: main.c.
 */
#ifndef TG_PROCESS_TOOL_H
#define TG_PROCESS_TOOL_H

/* Runs main(arguments) of lua/tool/NAME.lua; returns its exit status, 1 when it raised. */
int tg_tool_run(const char *name, const char *const *plugin_dirs, int argc, char **argv);

#endif
