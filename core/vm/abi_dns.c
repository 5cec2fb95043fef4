/*
 * The border: names of services. Contract is in abi.h.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "vm/coroutine.h"

enum { ASKING_MAX = 64, NAME_MAX_BYTES = 255, LINE = 300 };

/* One who asks, from the question until it has taken the answer. */
struct asking {
    bool used;
    bool told;
    uint32_t coroutine;
    uint32_t serial;
    enum tg_rc rc;
    unsigned ttl;
    char *text; /* NULL: memory was short */
};

static struct asking list[ASKING_MAX];
static char *told; /* what vm.out of the last answer points into */

static void
write_services(struct asking *one, const struct tg_services *result)
{
    size_t n = 0;
    const size_t size = (size_t)result->count * LINE + 1;
    one->text = tg_mem_zero(size);
    for (unsigned i = 0; one->text != NULL && i < result->count; i++) {
        const struct tg_service *service = &result->services[i];
        const int written = snprintf(one->text + n, size - n, "%u %u %u %s\n", service->priority, service->weight,
                                     service->port, service->host);
        n += written > 0 ? (size_t)written : 0;
    }
}

static void
on_services(void *arg, const struct tg_services *result)
{
    struct asking *one = arg;
    struct tg_coroutine *co = tg_coroutine_find(one->coroutine, one->serial);
    if (co == NULL) { /* nobody waits any more */
        *one = (struct asking){0};
        return;
    }
    one->told = true;
    one->rc = result->rc;
    one->ttl = result->ttl;
    if (result->rc == TG_OK) {
        write_services(one, result);
    } else {
        one->text = tg_mem_text(result->why, strlen(result->why));
    }
    tg_coroutine_ready(co);
}

static struct asking *
find(const struct tg_coroutine *co)
{
    struct asking *spare = NULL;
    for (unsigned i = 0; i < ASKING_MAX; i++) {
        struct asking *one = &list[i];
        if (one->used && one->coroutine == co->index && one->serial == co->serial) {
            return one;
        }
        if (one->told && tg_coroutine_find(one->coroutine, one->serial) == NULL) {
            tg_mem_free(one->text);
            *one = (struct asking){0};
        }
        spare = !one->used ? one : spare;
    }
    return spare;
}

static int
ask(struct asking *one, const struct tg_coroutine *co, const char *name, size_t n)
{
    char text[NAME_MAX_BYTES + 1];
    if (n == 0 || n > NAME_MAX_BYTES || memchr(name, '\0', n) != NULL) {
        return TG_EINVAL;
    }
    memcpy(text, name, n);
    text[n] = '\0';
    *one = (struct asking){.used = true, .coroutine = co->index, .serial = co->serial};
    const enum tg_rc rc = tg_resolver_services(tg_host->proxy->peers.resolver, text, on_services, one);
    if (rc != TG_OK) {
        *one = (struct asking){0};
        return rc;
    }
    return TG_AGAIN;
}

int
tg_abi_services(const char *name, size_t n)
{
    const struct tg_coroutine *co = tg_host->running;
    struct asking *one = co == NULL ? NULL : find(co);
    if (one == NULL) {
        return co == NULL ? TG_EINVAL : TG_EBUSY;
    }
    if (!one->used) {
        return ask(one, co, name, n);
    }
    if (!one->told) {
        return TG_AGAIN;
    }
    const enum tg_rc rc = one->text == NULL ? TG_ENOMEM : one->rc;
    tg_mem_free(told);
    told = one->text;
    tg_abi_vm.out = told == NULL ? tg_slice_of("", 0) : tg_slice_of(told, strlen(told));
    tg_abi_vm.number = one->ttl;
    *one = (struct asking){0};
    return rc;
}
