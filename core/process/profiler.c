#include "process/profiler.h"

#include <stdio.h>
#include <unistd.h>

#include "base/log.h"

static void
tell(int channel, uint64_t serial, const char *why)
{
    struct tg_channel_message message = {.type = TG_CHANNEL_PROFILED, .serial = serial};
    (void)snprintf(message.text, sizeof message.text, "%s", why);
    if (tg_channel_send(channel, &message, -1) != TG_OK) {
        tg_log(TG_LOG_ERROR, "the master cannot be told of a profile");
    }
}

void
tg_profiler_start(struct tg_profiler *profiler, const struct tg_host *host, int channel,
                  const struct tg_channel_message *message, int fd)
{
    const char *why = profiler->profile != NULL ? "another profile is being taken\n"
                      : host->current == NULL   ? "the worker ends\n"
                                                : NULL;
    if (why == NULL && fd >= 0) {
        struct tg_profile *profile = tg_profile_start(host->current);
        *profiler = (struct tg_profiler){.profile = profile,
                                         .vm = host->current,
                                         .fd = fd,
                                         .channel = channel,
                                         .until = tg_loop_now(host->proxy->loop) + message->number * 1000ULL,
                                         .serial = message->serial};
        why = profile == NULL ? "memory is short\n" : NULL;
    }
    if (why != NULL) {
        if (fd >= 0) {
            close(fd);
        }
        tell(channel, message->serial, why);
    }
}

void
tg_profiler_check(struct tg_profiler *profiler, const struct tg_host *host)
{
    if (profiler->profile == NULL ||
        (host->current == profiler->vm && tg_loop_now(host->proxy->loop) < profiler->until)) {
        return;
    }
    const enum tg_rc rc = tg_profile_stop(profiler->profile, profiler->fd);
    close(profiler->fd);
    profiler->profile = NULL;
    tell(profiler->channel, profiler->serial, rc == TG_OK ? "" : "the profile cannot be written: memory is short\n");
}
