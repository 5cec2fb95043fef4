/*
 * The border: filters of names. Contracts are in abi_filter.h.
 */
#include <string.h>

#include "abi.h"
#include "base/bloom.h"
#include "base/mem.h"

struct filter {
    struct tg_abi_filter shown; /* first: it is what Lua has */
    struct tg_bloom *bloom;
    struct filter *next;
    unsigned holders;
    size_t n;
    char name[TG_FILTER_NAME_MAX + 1];
};

static struct filter *filters; /* of this worker; the newest first */

struct tg_abi_filter *
tg_abi_filter_take(const char *name, size_t n)
{
    for (struct filter *filter = filters; filter != NULL; filter = filter->next) {
        if (filter->n == n && memcmp(filter->name, name, n) == 0) {
            filter->holders++;
            return &filter->shown;
        }
    }
    return NULL;
}

struct tg_abi_filter *
tg_abi_filter_new(const char *name, size_t n, size_t names)
{
    struct filter *filter = n > 0 && n <= TG_FILTER_NAME_MAX ? tg_mem_new(struct filter) : NULL;
    if (filter == NULL) {
        return NULL;
    }
    filter->bloom = tg_bloom_new(names);
    if (filter->bloom == NULL) {
        tg_mem_free(filter);
        return NULL;
    }
    filter->shown.room = (double)names;
    filter->shown.bytes = (uint32_t)tg_bloom_size(filter->bloom);
    memcpy(filter->name, name, n);
    filter->n = n;
    filter->holders = 1;
    filter->next = filters;
    filters = filter;
    return &filter->shown;
}

void
tg_abi_filter_give(struct tg_abi_filter *shown)
{
    struct filter *filter = (struct filter *)shown;
    if (filter == NULL || --filter->holders > 0) {
        return;
    }
    struct filter **at = &filters;
    while (*at != filter) {
        at = &(*at)->next;
    }
    *at = filter->next;
    tg_bloom_free(filter->bloom);
    tg_mem_free(filter);
}

int
tg_abi_filter_add(struct tg_abi_filter *filter, const char *p, size_t n)
{
    const char *colon = memchr(p, ':', n);
    if (colon == NULL) {
        return TG_EINVAL;
    }
    const size_t kind = (size_t)(colon - p);
    tg_bloom_add(((struct filter *)filter)->bloom, tg_slice_of(p, kind), tg_slice_of(colon + 1, n - kind - 1));
    return TG_OK;
}

int
tg_abi_filter_has(const struct tg_abi_filter *filter, const char *kind, size_t kind_n, const char *p, size_t n)
{
    const struct filter *own = (const struct filter *)filter;
    return tg_bloom_has(own->bloom, tg_slice_of(kind, kind_n), tg_slice_of(p, n)) ? 1 : 0;
}
