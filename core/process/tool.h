/*
 * tool.h - commands that are written in Lua: tidegate test, doc, top ...; and what a command is.
 *
 * Owns: the processes that a spec starts, each ended by its own id. Used by: main.c.
 */
#ifndef TG_PROCESS_TOOL_H
#define TG_PROCESS_TOOL_H

/* `help` begins with "usage: tidegate NAME ..." and a line that says what it does: completion and manual are made of
 * it. */
struct tg_command {
    const char *name; /* NULL at the end of a list */
    int (*run)(int argc, char **argv);
    const char *help;
};

/* What tools are told. */
struct tg_tool {
    const char *const *plugin_dirs; /* NULL at its end */
    const char *control;            /* the control socket, when nobody says another */
    const char *version;
    const struct tg_command *commands;
};

/* Runs main(core, arguments ...) of lua/tool/NAME.lua; returns its exit status, 1 when it raised. */
int tg_tool_run(const char *name, const struct tg_tool *tool, int argc, char **argv);

#endif
