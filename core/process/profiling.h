/*
 * profiling.h - the command "profile SECONDS WORKER" of the control socket.
 *
 * Owns: the memory file that a worker writes its profile to, and the client that waits for it; one at a time. Used by:
 * master.c. Does not know: what is in a profile.
 */
#ifndef TG_PROCESS_PROFILING_H
#define TG_PROCESS_PROFILING_H

#include "process/control.h"
#include "process/fleet.h"

enum { TG_PROFILE_SECONDS_MAX = 50 /* a client of the control socket waits for a minute */ };

struct tg_profiling {
    struct tg_control_client *client; /* NULL: nobody waits */
    const struct tg_slot *slot;
    int fd;
    uint64_t serial; /* of the last one */
    uint64_t until;  /* milliseconds; when the worker has not answered by then, it does not */
};

/* `words`: what follows "profile ". Answers the client at once, or later. */
void tg_profiling_command(struct tg_profiling *profiling, struct tg_fleet *fleet, struct tg_control_client *client,
                          const char *words);
/* TG_CHANNEL_PROFILED has come. */
void tg_profiling_message(struct tg_profiling *profiling, const struct tg_channel_message *message);
/* The worker of the slot has ended. */
void tg_profiling_died(struct tg_profiling *profiling, const struct tg_slot *slot);
/* To be called now and then. */
void tg_profiling_check(struct tg_profiling *profiling, uint64_t now);

#endif
