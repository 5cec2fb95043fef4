#include "process/rollback.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The current one was meant: it stays, whatever was about to take its place. */
static void
stay(struct tg_reload *reload, struct tg_control_client *client, const char *why)
{
    char text[128];
    const bool was_busy = tg_reload_is_busy(reload) || tg_succession_is_busy(reload->succession);
    (void)snprintf(text, sizeof text,
                   was_busy ? "generation %s goes on: what was under way has ended\n"
                            : "generation %s is live already\n",
                   reload->current->id);
    tg_reload_yield(reload, why);
    tg_succession_give_way(reload->succession, why);
    tg_control_answer(client, true, text);
    (void)tg_succession_resume(reload->succession); /* one that has waited for what has ended */
}

void
tg_rollback(struct tg_reload *reload, struct tg_control_client *client, const char *id)
{
    struct tg_err err = {0};
    char why[TG_CONTROL_WHO + 64];
    const struct tg_generation *old = tg_history_find(reload->current->next, id);
    (void)snprintf(why, sizeof why, "a rollback by %s came before it", tg_control_who(client));
    if (reload->trial != NULL && *id == '\0') {
        tg_reload_canary(reload, client, "abort");
        return;
    }
    if (*id != '\0' && strncmp(reload->current->id, id, strlen(id)) == 0) {
        stay(reload, client, why);
        return;
    }
    if (old == NULL) {
        tg_control_answer(client, false,
                          *id == '\0' ? "there is no generation before this one\n" : "no such generation\n");
        return;
    }
    if (tg_reload_join(reload, old, client)) {
        return;
    }
    const int fd = dup(old->fd);
    struct tg_generation *generation = fd < 0 ? NULL : tg_generation_open(fd, NULL, &err);
    if (generation == NULL) {
        tg_control_answer(client, false, err.text[0] != '\0' ? err.text : "no file descriptor is left\n");
        return;
    }
    tg_reload_yield(reload, why);
    tg_succession_give_way(reload->succession, why);
    tg_reload_return(reload, generation, client);
}
