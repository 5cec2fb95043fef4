/*
 * profiler.h - a worker that is told to show where its time goes.
 *
 * Owns: the profile that runs, and the memory file that the master wants it in. Used by: worker.c.
 */
#ifndef TG_PROCESS_PROFILER_H
#define TG_PROCESS_PROFILER_H

#include "process/channel.h"
#include "vm/profile.h"

struct tg_profiler {
    struct tg_profile *profile; /* NULL: none runs */
    const struct tg_vm *vm;
    int fd;
    int channel;    /* to the master */
    uint64_t until; /* milliseconds */
    uint64_t serial;
};

/* TG_CHANNEL_PROFILE: begins, or tells the master why not. `fd` is ours. */
void tg_profiler_start(struct tg_profiler *profiler, const struct tg_host *host, int channel,
                       const struct tg_channel_message *message, int fd);
/* To be called now and then: ends it when the time is over, or the generation is no longer the current one. */
void tg_profiler_check(struct tg_profiler *profiler, const struct tg_host *host);

#endif
