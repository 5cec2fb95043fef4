#include "proxy/hints.h"

#include "base/mem.h"

struct tg_hint {
    struct tg_message message;
    struct tg_hint *next;
};

void
tg_hints_put(struct tg_hints *hints, const struct tg_message *message)
{
    struct tg_hint **place = &hints->first;
    struct tg_hint *hint = NULL;
    if (++hints->interim <= TG_INTERIM_MAX && message->status == 103) { /* the others tell nothing */
        hint = tg_arena_alloc(message->arena, sizeof *hint);
    }
    if (hint == NULL) {
        return;
    }
    while (*place != NULL) {
        place = &(*place)->next;
    }
    *hint = (struct tg_hint){.message = *message};
    *place = hint;
}

const struct tg_message *
tg_hints_take(struct tg_hints *hints)
{
    const struct tg_hint *hint = hints->first;
    if (hint == NULL) {
        return NULL;
    }
    hints->first = hint->next;
    return &hint->message;
}
