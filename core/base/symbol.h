/*
 * symbol.h - the name of the function that an address of code is in.
 *
 * Owns: the executable's own table of symbols, read from its file, since the loader knows but what is exported. Used
 * by: vm/profile.c. Does not know: static functions of shared libraries, and code that was made at run time. A function
 * that the compiler has put into another one has that one's name.
 */
#ifndef TG_BASE_SYMBOL_H
#define TG_BASE_SYMBOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tg_symbols;

/* To be freed with tg_symbols_free; NULL when memory is short. An executable that was stripped has no names of its own.
 */
struct tg_symbols *tg_symbols_new(void);
void tg_symbols_free(struct tg_symbols *symbols);
/*
 * Writes the function's name, or "[file]" of the module when it is not known, into `out` of `room` bytes, cut to fit.
 * false: the address is in no module, and `out` is empty.
 */
bool tg_symbols_name(const struct tg_symbols *symbols, uintptr_t address, char *out, size_t room);

#endif
