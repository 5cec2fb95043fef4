#include "net/redis_command.h"

#include <event2/event.h>

#include "base/mem.h"

enum { FREE_MAX = 1024 };

static void
unhang(struct tg_redis_command *command)
{
    if (command->earlier != NULL) {
        *command->earlier = command->later;
        if (command->later != NULL) {
            command->later->earlier = command->earlier;
        }
        command->earlier = NULL;
        command->commands->timed--;
    }
}

static void
start_ticking(struct tg_redis_commands *commands)
{
    static const struct timeval tick = {0, TG_REDIS_TICK * 1000L};
    commands->ticking = event_add(&commands->tick, &tick) == 0;
}

static void
hang(struct tg_redis_command *command)
{
    struct tg_redis_commands *commands = command->commands;
    struct tg_redis_command **head = &commands->wheel[(command->at / TG_REDIS_TICK + 1) % TG_REDIS_WHEEL];
    command->later = *head;
    command->earlier = head;
    if (*head != NULL) {
        (*head)->earlier = &command->later;
    }
    *head = command;
    commands->timed++;
    if (!commands->ticking) {
        commands->swept = tg_loop_now(commands->loop) / TG_REDIS_TICK - 1;
        start_ticking(commands);
    }
}

/* Ending one may end others, in the same place, too: the list is read anew after each. */
static void
sweep_place(struct tg_redis_commands *commands, unsigned place, uint64_t now)
{
    struct tg_redis_command *list = commands->wheel[place];
    commands->wheel[place] = NULL;
    if (list != NULL) {
        list->earlier = &list;
    }
    while (list != NULL) {
        struct tg_redis_command *command = list;
        unhang(command);
        if (command->at > now) {
            hang(command);
            continue;
        }
        const bool runs = command->abi.state == TG_CALL_RUNS;
        tg_redis_command_end(command, TG_ETIMEOUT);
        if (runs && command->link != NULL) {
            commands->late(command);
        }
    }
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct tg_redis_commands *commands = arg;
    (void)fd;
    (void)what;
    const uint64_t now = tg_loop_now(commands->loop);
    const uint64_t ticks = now / TG_REDIS_TICK;
    if (ticks > commands->swept + TG_REDIS_WHEEL) {
        commands->swept = ticks - TG_REDIS_WHEEL;
    }
    while (commands->swept < ticks) {
        commands->swept++;
        sweep_place(commands, commands->swept % TG_REDIS_WHEEL, now);
    }
    commands->ticking = false;
    if (commands->timed > 0) {
        start_ticking(commands);
    }
}

enum tg_rc
tg_redis_commands_init(struct tg_redis_commands *commands, struct tg_loop *loop, tg_redis_command_cb done,
                       tg_redis_command_cb late)
{
    *commands = (struct tg_redis_commands){.loop = loop, .done = done, .late = late};
    return event_assign(&commands->tick, tg_loop_base(loop), -1, 0, on_tick, commands) == 0 ? TG_OK : TG_ENOMEM;
}

void
tg_redis_commands_fini(struct tg_redis_commands *commands)
{
    TG_ASSERT(commands->count == commands->free_count);
    (void)event_del(&commands->tick);
    while (commands->free != NULL) {
        struct tg_redis_command *command = commands->free;
        commands->free = command->next;
        tg_mem_free(command);
    }
}

struct tg_redis_command *
tg_redis_command_new(struct tg_redis_commands *commands, void *owner, unsigned timeout)
{
    struct tg_redis_command *command = commands->free;
    if (command != NULL) {
        commands->free = command->next;
        commands->free_count--;
    } else {
        command = tg_mem_new(struct tg_redis_command);
        if (command == NULL) {
            return NULL;
        }
        commands->count++;
        command->commands = commands;
    }
    command->abi = (struct tg_abi_redis_command){.state = TG_CALL_RUNS};
    command->next = NULL;
    command->link = NULL;
    command->own = NULL;
    command->owner = owner;
    command->sibling = NULL;
    command->timeout = timeout;
    tg_resp_reply_init(&command->reply);
    if (timeout > 0) {
        command->at = tg_loop_now(commands->loop) + timeout;
        hang(command);
    }
    return command;
}

/* Back among the free ones when nobody holds it any more. */
static void
recycle(struct tg_redis_command *command)
{
    struct tg_redis_commands *commands = command->commands;
    if (command->owner != NULL || command->link != NULL) {
        return;
    }
    unhang(command);
    tg_resp_reply_fini(&command->reply);
    if (commands->free_count == FREE_MAX) {
        commands->count--;
        tg_mem_free(command);
        return;
    }
    command->next = commands->free;
    commands->free = command;
    commands->free_count++;
}

void
tg_redis_command_end(struct tg_redis_command *command, enum tg_rc rc)
{
    struct tg_resp_reply *reply = &command->reply;
    if (command->abi.state != TG_CALL_RUNS) {
        return;
    }
    unhang(command);
    rc = rc == TG_OK ? reply->rc : rc;
    if (rc != TG_OK) {
        tg_resp_reply_fini(reply); /* half of one, perhaps, and its rest is not kept */
    }
    command->abi.state = rc;
    command->abi.count = reply->count;
    command->abi.values = reply->values;
    command->abi.bytes = reply->bytes;
    if (command->owner != NULL) {
        command->commands->done(command);
    }
}

void
tg_redis_command_disown(struct tg_redis_command *command)
{
    command->owner = NULL;
    tg_redis_command_end(command, TG_ECANCELLED);
    recycle(command);
}

void
tg_redis_command_dequeue(struct tg_redis_command *command)
{
    command->link = NULL;
    recycle(command);
}
