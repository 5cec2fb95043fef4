/*
 * The border: networks. Contracts are in abi.h.
 */
#include <string.h>

#include "base/mem.h"
#include "base/slice.h"
#include "net/cidr.h"

enum { NETWORKS_MAX = 1000000 };

/* Lua is done with vm.out before it calls again. */
static struct tg_err err;

static int
say(enum tg_rc rc)
{
    const bool said = rc == TG_EINVAL || rc == TG_ELIMIT;
    tg_abi_vm.out = tg_slice_of(err.text, said ? strlen(err.text) : 0);
    return rc;
}

int
tg_abi_valid_cidr(const char *p, size_t n)
{
    struct tg_cidr_list list;
    tg_cidr_list_init(&list, 1);
    const enum tg_rc rc = tg_cidr_list_add(&list, p, n, &err);
    tg_cidr_list_fini(&list);
    return say(rc);
}

struct tg_cidr_list *
tg_abi_cidr_new(void)
{
    struct tg_cidr_list *list = tg_mem_new(struct tg_cidr_list);
    if (list != NULL) {
        tg_cidr_list_init(list, NETWORKS_MAX);
    }
    return list;
}

void
tg_abi_cidr_free(struct tg_cidr_list *list)
{
    if (list != NULL) {
        tg_cidr_list_fini(list);
        tg_mem_free(list);
    }
}

int
tg_abi_cidr_add(struct tg_cidr_list *list, const char *p, size_t n)
{
    return say(tg_cidr_list_append(list, p, n, &err));
}

void
tg_abi_cidr_settle(struct tg_cidr_list *list)
{
    tg_cidr_list_settle(list);
}

int
tg_abi_cidr_holds(const struct tg_cidr_list *list, const char *p, size_t n)
{
    return tg_cidr_list_match_text(list, p, n) ? 1 : 0;
}
