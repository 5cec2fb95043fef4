/*
 * names.h - what routes, upstreams and peers of one generation are called, by their numbers: for what the core says of
 * an exchange without Lua.
 *
 * Owns: copies of the names; freed with the generation. Used by: lines of access logs. Does not know: configurations.
 */
#ifndef TG_VM_NAMES_H
#define TG_VM_NAMES_H

#include <stdbool.h>

#include "abi.h"
#include "base/rc.h"
#include "base/slice.h"

enum { TG_NAMES_MAX = 1 << 20 }; /* numbers of one kind */

struct tg_names;

struct tg_name {
    struct tg_slice text;
    bool plain; /* no byte of it has to be escaped, in JSON or elsewhere */
};

/* NULL: memory is short. */
struct tg_names *tg_names_new(void);
/* NULL is allowed. */
void tg_names_free(struct tg_names *names);
/* In place of what `number` was called before. TG_EINVAL: no kind, or the number is too large; TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_names_set(struct tg_names *names, int kind, uint32_t number, struct tg_slice name);
/* Another number whenever one is set. 0: there are none (NULL). */
uint32_t tg_names_version(const struct tg_names *names);
/* Valid until it is set anew. NULL: it has no name, or there are none (NULL). */
const struct tg_name *tg_names_get(const struct tg_names *names, enum tg_abi_name kind, uint32_t number);

#endif
