/*
 * The border, part five: Redis. Contracts are in abi.h.
 */
#include "vm/coroutine.h"

static void
on_done(struct tg_redis_command *command)
{
    tg_coroutine_ready(command->owner);
}

static struct tg_redis *
redis_of(uint32_t index)
{
    TG_ASSERT(index < TG_HOST_REDIS && tg_host->redis[index].client != NULL);
    return tg_host->redis[index].client;
}

int
tg_abi_redis_open(const char *key, size_t key_len, const struct tg_abi_redis_settings *settings)
{
    struct tg_vm *vm = tg_host->building;
    if (vm == NULL || settings->connections == 0 || settings->connections > TG_REDIS_CONNECTIONS ||
        settings->timeout == 0 || settings->tls > tg_host->proxy->peers.tls_count) {
        return TG_EINVAL;
    }
    return tg_host_hold_redis(tg_host, &vm->redis, tg_slice_of(key, key_len), settings, on_done);
}

int
tg_abi_redis_node(uint32_t redis, const char *host, size_t host_len, uint32_t port)
{
    if (host_len == 0 || host_len > 255 || memchr(host, '\0', host_len) != NULL || port > 65535) {
        return TG_EINVAL;
    }
    return tg_redis_node(redis_of(redis), tg_slice_of(host, host_len), port);
}

int
tg_abi_redis_assign(uint32_t redis, uint32_t first, uint32_t last, uint32_t node)
{
    return tg_redis_assign(redis_of(redis), first, last, node);
}

int
tg_abi_redis_assign_replica(uint32_t redis, uint32_t first, uint32_t last, int node)
{
    return tg_redis_assign_replica(redis_of(redis), first, last, node);
}

void
tg_abi_redis_settle(uint32_t redis)
{
    tg_redis_settle(redis_of(redis));
}

int
tg_abi_redis_slot(const char *key, size_t key_len)
{
    return (int)tg_resp_slot(key, key_len);
}

int
tg_abi_redis_node_of(uint32_t redis, uint32_t slot)
{
    return tg_redis_node_of(redis_of(redis), slot);
}

int
tg_abi_redis_node_name(uint32_t redis, uint32_t node)
{
    tg_abi_vm.out = tg_redis_node_name(redis_of(redis), node);
    return tg_abi_vm.out.p == NULL ? TG_ENONE : TG_OK;
}

int
tg_abi_redis_why(uint32_t redis, uint32_t node)
{
    tg_abi_vm.out = tg_redis_node_why(redis_of(redis), node);
    return tg_abi_vm.out.p == NULL ? TG_ENONE : TG_OK;
}

const struct tg_abi_redis_counts *
tg_abi_redis_counts(uint32_t redis)
{
    return tg_redis_counts(redis_of(redis));
}

/* What became of a request to send: the running coroutine owns it. */
static struct tg_abi_redis_command *
own(struct tg_redis_command *command, enum tg_rc rc)
{
    struct tg_coroutine *co = tg_host->running;
    tg_abi_vm.number = rc;
    if (command == NULL) {
        return NULL;
    }
    command->sibling = co->commands;
    co->commands = command;
    return &command->abi;
}

struct tg_abi_redis_command *
tg_abi_redis_send(uint32_t redis, int node, uint32_t count, const char *const *words, const size_t *lengths,
                  uint32_t key, uint32_t timeout, struct tg_abi_redis_command *after, uint32_t flags)
{
    const struct tg_redis_request request = {.node = node,
                                             .key = key,
                                             .timeout = timeout,
                                             .count = count,
                                             .words = words,
                                             .lengths = lengths,
                                             .after = (struct tg_redis_command *)after,
                                             .flags = flags,
                                             .owner = tg_host->running};
    enum tg_rc rc = TG_EINVAL;
    unsigned index = 0;
    struct tg_redis_command *command = NULL;
    if (tg_host->running != NULL && count > 0 && timeout > 0) {
        command = tg_redis_send(redis_of(redis), &request, &rc, &index);
    }
    tg_abi_vm.type = index;
    return own(command, rc);
}

void
tg_abi_redis_free(struct tg_abi_redis_command *abi)
{
    struct tg_redis_command *command = (struct tg_redis_command *)abi;
    struct tg_coroutine *co = command->owner;
    struct tg_redis_command **link = &co->commands;
    while (*link != command) {
        link = &(*link)->sibling;
    }
    *link = command->sibling;
    tg_redis_let_go(command);
}

struct tg_abi_redis_command *
tg_abi_redis_subscribe(uint32_t redis, int node, uint32_t count, const char *const *words, const size_t *lengths)
{
    const struct tg_redis_request request = {
        .node = node, .count = count, .words = words, .lengths = lengths, .owner = tg_host->running};
    enum tg_rc rc = TG_EINVAL;
    struct tg_redis_command *command = NULL;
    if (tg_host->running != NULL && count > 0) {
        command = tg_redis_subscribe(redis_of(redis), &request, &rc);
    }
    return own(command, rc);
}

int
tg_abi_redis_next(struct tg_abi_redis_command *abi)
{
    const struct tg_redis_command *command = (const struct tg_redis_command *)abi;
    if (command->abi.state != TG_CALL_RUNS || command->own == NULL) {
        return command->abi.state < 0 ? command->abi.state : TG_ERESET;
    }
    return tg_redis_link_next(command->own);
}
