#include "proxy/inbox.h"

#include <string.h>

#include "base/mem.h"

enum { CAPACITY_MIN = 4096 };

enum tg_rc
tg_inbox_put(struct tg_inbox *inbox, const char *p, size_t n)
{
    const size_t there = tg_inbox_size(inbox);
    if (inbox->capacity - inbox->end < n && inbox->begin > 0) {
        memmove(inbox->p, inbox->p + inbox->begin, there);
        inbox->begin = 0;
        inbox->end = there;
    }
    if (inbox->capacity - inbox->end < n) {
        size_t capacity = inbox->capacity == 0 ? CAPACITY_MIN : inbox->capacity;
        while (capacity < there + n) {
            capacity *= 2;
        }
        char *grown = tg_mem_resize(inbox->p, capacity);
        if (grown == NULL) {
            return TG_ENOMEM;
        }
        inbox->p = grown;
        inbox->capacity = capacity;
    }
    if (n > 0) {
        memcpy(inbox->p + inbox->end, p, n);
        inbox->end += n;
    }
    return TG_OK;
}

size_t
tg_inbox_look(const struct tg_inbox *inbox, char *p, size_t n)
{
    const size_t there = tg_inbox_size(inbox);
    const size_t taken = there < n ? there : n;
    if (taken > 0) {
        memcpy(p, inbox->p + inbox->begin, taken);
    }
    return taken;
}

void
tg_inbox_drop(struct tg_inbox *inbox, size_t n)
{
    inbox->begin += n;
    if (inbox->begin == inbox->end) {
        inbox->begin = inbox->end = 0;
    }
}

void
tg_inbox_fini(struct tg_inbox *inbox)
{
    tg_mem_free(inbox->p);
    *inbox = (struct tg_inbox){0};
}
