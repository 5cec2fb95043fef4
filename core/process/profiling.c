#include "process/profiling.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { GRACE = 5000 /* milliseconds that a worker may take to write */, PROFILE_MAX = 8 * 1024 * 1024 };

static void
end(struct tg_profiling *profiling, bool ok, const char *text)
{
    struct tg_control_client *client = profiling->client;
    profiling->client = NULL;
    close(profiling->fd);
    tg_control_answer(client, ok, text);
}

void
tg_profiling_command(struct tg_profiling *profiling, struct tg_fleet *fleet, struct tg_control_client *client,
                     const char *words)
{
    struct tg_channel_message message = {.type = TG_CHANNEL_PROFILE, .serial = profiling->serial + 1};
    unsigned worker = 0;
    char more;
    if (sscanf(words, "%u %u%c", &message.number, &worker, &more) != 2 || message.number < 1 ||
        message.number > TG_PROFILE_SECONDS_MAX) {
        tg_control_answer(client, false, "not a profile: expected 1 to 50 seconds, and the number of a worker\n");
        return;
    }
    if (profiling->client != NULL) {
        tg_control_answer(client, false, "another profile is being taken; try again\n");
        return;
    }
    if (worker >= fleet->count || fleet->slots[worker].pid == 0) {
        tg_control_answer(client, false, "there is no such worker\n");
        return;
    }
    const int fd = memfd_create("tidegate-profile", MFD_CLOEXEC);
    if (fd < 0 || tg_channel_send(fleet->slots[worker].channel, &message, fd) != TG_OK) {
        if (fd >= 0) {
            close(fd);
        }
        tg_control_answer(client, false, "the worker cannot be asked\n");
        return;
    }
    *profiling = (struct tg_profiling){.client = client,
                                       .slot = &fleet->slots[worker],
                                       .fd = fd,
                                       .serial = message.serial,
                                       .until = tg_loop_now(fleet->loop) + message.number * 1000ULL + GRACE};
}

/* It is read, not mapped: the worker has it still, and could cut it. */
void
tg_profiling_message(struct tg_profiling *profiling, const struct tg_channel_message *message)
{
    struct stat st;
    if (profiling->client == NULL || message->serial != profiling->serial) {
        return;
    }
    if (message->text[0] != '\0') {
        end(profiling, false, message->text);
        return;
    }
    if (fstat(profiling->fd, &st) < 0 || st.st_size > PROFILE_MAX) {
        end(profiling, false, "the profile is too large; take it for a shorter time\n");
        return;
    }
    char *text = tg_mem_zero((size_t)st.st_size + 1);
    const ssize_t n = text == NULL ? -1 : pread(profiling->fd, text, (size_t)st.st_size, 0);
    end(profiling, n >= 0, n >= 0 ? text : "memory is short\n");
    tg_mem_free(text);
}

void
tg_profiling_died(struct tg_profiling *profiling, const struct tg_slot *slot)
{
    if (profiling->client != NULL && profiling->slot == slot) {
        end(profiling, false, "the worker has ended meanwhile\n");
    }
}

void
tg_profiling_check(struct tg_profiling *profiling, uint64_t now)
{
    if (profiling->client != NULL && now >= profiling->until) {
        end(profiling, false, "the worker does not answer\n");
    }
}
