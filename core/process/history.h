/*
 * history.h - the generations that were, to go back to and to compare: newest first, a bounded number.
 *
 * Owns: the list. Used by: master.c. Does not know: Lua; a change is told by the names of the bundle's sources.
 */
#ifndef TG_PROCESS_HISTORY_H
#define TG_PROCESS_HISTORY_H

#include "process/generation.h"

enum { TG_HISTORY_DEFAULT = 10, TG_HISTORY_MAX = 50 };

/* Puts the generation before `newest`, which may be NULL, and returns it; more than `most` are not kept. */
struct tg_generation *tg_history_add(struct tg_generation *newest, struct tg_generation *generation, unsigned most);
/* The one whose id begins with `id`; NULL: there is none. */
struct tg_generation *tg_history_find(struct tg_generation *newest, const char *id);
/* What `after` changes, in a line: "changed gateway.lua, added plugins/x"; empty: nothing that has a name. */
void tg_history_change(const struct tg_generation *before, const struct tg_generation *after, char *out, size_t size);
/* The texts that it was made of, as a JSON object by name, NUL-terminated; to be freed with tg_mem_free. NULL: memory
 * is short. No secret is among them. */
char *tg_history_sources(const struct tg_generation *generation);

#endif
