#include "vm/host.h"

#include <stdio.h>

#include "base/mem.h"

struct tg_host *tg_host;

enum tg_rc
tg_host_add_dict(struct tg_host *host, const char *name, int fd)
{
    for (unsigned i = 0; i < host->dict_count; i++) {
        if (strcmp(host->dicts[i].name, name) == 0) {
            return TG_OK;
        }
    }
    if (host->dict_count == TG_HOST_DICTS) {
        return TG_ELIMIT;
    }
    struct tg_host_dict *entry = &host->dicts[host->dict_count];
    entry->dict = tg_dict_open(fd);
    if (entry->dict == NULL) {
        return TG_ENOMEM;
    }
    (void)snprintf(entry->name, sizeof entry->name, "%s", name);
    host->dict_count++;
    return TG_OK;
}

void
tg_host_each_sink(const struct tg_host *host, void (*deed)(struct tg_sink *sink))
{
    for (unsigned i = 0; i < host->sink_count; i++) {
        deed(host->sinks[i]);
    }
}

int
tg_host_find_dict(const struct tg_host *host, struct tg_slice name)
{
    for (unsigned i = 0; i < host->dict_count; i++) {
        if (tg_slice_is(name, host->dicts[i].name, strlen(host->dicts[i].name))) {
            return (int)i;
        }
    }
    return TG_ENONE;
}

int
tg_host_hold_redis(struct tg_host *host, uint64_t *held, struct tg_slice key,
                   const struct tg_abi_redis_settings *settings, tg_redis_command_cb done)
{
    unsigned index = TG_HOST_REDIS;
    for (unsigned i = 0; i < TG_HOST_REDIS; i++) {
        const struct tg_host_redis *place = &host->redis[i];
        if (place->client != NULL && tg_slice_is(key, place->key, place->key_len)) {
            index = i;
            break;
        }
        if (place->client == NULL && index == TG_HOST_REDIS) {
            index = i;
        }
    }
    if (index == TG_HOST_REDIS) {
        return TG_ELIMIT;
    }
    struct tg_host_redis *place = &host->redis[index];
    if (place->client == NULL) {
        struct tg_proxy *proxy = host->proxy;
        struct tg_tls_client *tls = settings->tls == 0 ? NULL : proxy->peers.tls[settings->tls - 1];
        char *copy = tg_mem_text(key.p, key.n);
        struct tg_redis *client =
            copy == NULL ? NULL : tg_redis_new(proxy->loop, proxy->peers.resolver, tls, settings, done);
        if (client == NULL) {
            tg_mem_free(copy);
            return TG_ENOMEM;
        }
        *place = (struct tg_host_redis){.client = client, .key = copy, .key_len = key.n};
    }
    place->refs += (*held >> index & 1) == 0;
    *held |= (uint64_t)1 << index;
    return (int)index;
}

void
tg_host_release_redis(struct tg_host *host, uint64_t *held)
{
    for (unsigned i = 0; i < TG_HOST_REDIS; i++) {
        struct tg_host_redis *place = &host->redis[i];
        if ((*held >> i & 1) != 0 && --place->refs == 0) {
            tg_redis_free(place->client);
            tg_mem_free(place->key);
            *place = (struct tg_host_redis){0};
        }
    }
    *held = 0;
}
