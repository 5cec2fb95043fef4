/*
 * The border: regular expressions. Contracts are in abi.h.
 */
#include "base/mem.h"
#include "base/regex.h"
#include "vm/coroutine.h"

struct tg_abi_regex *
tg_abi_regex_new(const char *pattern, size_t n, const char *flags, size_t flags_n)
{
    static struct tg_err err;
    struct tg_regex *regex = NULL;
    const enum tg_rc rc = tg_regex_new(tg_slice_of(pattern, n), tg_slice_of(flags, flags_n), &regex, &err);
    if (rc != TG_OK) {
        const char *text = rc == TG_ENOMEM ? "memory is short" : err.text;
        tg_abi_vm.out = tg_slice_of(text, strlen(text));
        return NULL;
    }
    tg_abi_vm.number = (double)tg_regex_groups(regex);
    tg_abi_vm.type = tg_regex_matches_nothing(regex);
    return (struct tg_abi_regex *)regex;
}

void
tg_abi_regex_free(struct tg_abi_regex *regex)
{
    tg_regex_free((struct tg_regex *)regex);
}

int
tg_abi_regex_name(const struct tg_abi_regex *regex, uint32_t group)
{
    tg_abi_vm.out = tg_regex_name((const struct tg_regex *)regex, group);
    return tg_abi_vm.out.n == 0 ? TG_ENONE : TG_OK;
}

uint32_t
tg_abi_regex_lookbehind(const struct tg_abi_regex *regex)
{
    return tg_regex_lookbehind((const struct tg_regex *)regex);
}

int
tg_abi_regex_match(struct tg_abi_regex *regex, const char *p, size_t n, size_t start, uint32_t options)
{
    return tg_regex_match((struct tg_regex *)regex, tg_slice_of(p, n), start, options);
}

const size_t *
tg_abi_regex_offsets(void)
{
    return tg_regex_offsets();
}
