#include "vm/names.h"

#include <string.h>

#include "base/json_text.h"
#include "base/mem.h"

enum { FIRST = 16 };

struct kind {
    struct tg_name *list;
    uint32_t count;
};

struct tg_names {
    uint32_t version;
    struct kind kinds[TG_NAMES];
};

struct tg_names *
tg_names_new(void)
{
    return tg_mem_new(struct tg_names);
}

void
tg_names_free(struct tg_names *names)
{
    if (names == NULL) {
        return;
    }
    for (unsigned i = 0; i < TG_NAMES; i++) {
        struct kind *kind = &names->kinds[i];
        for (uint32_t k = 0; k < kind->count; k++) {
            tg_mem_free((char *)(uintptr_t)kind->list[k].text.p);
        }
        tg_mem_free(kind->list);
    }
    tg_mem_free(names);
}

static enum tg_rc
make_room(struct kind *kind, uint32_t number)
{
    uint32_t count = kind->count == 0 ? FIRST : kind->count;
    while (count <= number) {
        count *= 2;
    }
    if (count == kind->count) {
        return TG_OK;
    }
    struct tg_name *list = tg_mem_resize(kind->list, count * sizeof *list);
    if (list == NULL) {
        return TG_ENOMEM;
    }
    memset(list + kind->count, 0, (count - kind->count) * sizeof *list);
    kind->list = list;
    kind->count = count;
    return TG_OK;
}

enum tg_rc
tg_names_set(struct tg_names *names, int kind, uint32_t number, struct tg_slice name)
{
    if (kind < 0 || kind >= TG_NAMES || number >= TG_NAMES_MAX) {
        return TG_EINVAL;
    }
    const enum tg_rc rc = make_room(&names->kinds[kind], number);
    char *copy = rc == TG_OK ? tg_mem_text(name.p, name.n) : NULL;
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    struct tg_name *slot = &names->kinds[kind].list[number];
    tg_mem_free((char *)(uintptr_t)slot->text.p);
    names->version++;
    *slot = (struct tg_name){.text = tg_slice_of(copy, name.n), .plain = tg_json_plain_length(copy, name.n) == name.n};
    return TG_OK;
}

uint32_t
tg_names_version(const struct tg_names *names)
{
    return names == NULL ? 0 : names->version;
}

const struct tg_name *
tg_names_get(const struct tg_names *names, enum tg_abi_name kind, uint32_t number)
{
    if (names == NULL || number >= names->kinds[kind].count || names->kinds[kind].list[number].text.p == NULL) {
        return NULL;
    }
    return &names->kinds[kind].list[number];
}
