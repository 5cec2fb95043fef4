/*
 * channel.h - messages between the master and a worker, with descriptors.
 *
 * Owns: nothing; works on one end of a SOCK_SEQPACKET pair. Used by: master.c and worker.c.
 */
#ifndef TG_PROCESS_CHANNEL_H
#define TG_PROCESS_CHANNEL_H

#include <stdint.h>

#include "base/rc.h"

enum tg_channel_type {
    TG_CHANNEL_DICT = 1, /* to the worker: a dictionary (fd) of the next generation, by name */
    TG_CHANNEL_LISTEN,   /* to the worker: a listening socket (fd), by number of its place */
    TG_CHANNEL_PREPARE,  /* to the worker: build this generation (fd) beside the current one; number 1: to be in shadow
                          */
    TG_CHANNEL_CANARY,   /* to the worker: run it for `number` of 10,000 requests; text: see struct tg_canary_options */
    TG_CHANNEL_SHADOW,   /* to the worker: the same, but it answers nothing */
    TG_CHANNEL_COMMIT,   /* to the worker: make it the current one */
    TG_CHANNEL_ABORT,    /* to the worker: drop it */
    TG_CHANNEL_DRAIN,    /* to the worker: finish what is in work, then end */
    TG_CHANNEL_LEND,     /* to the worker: a listening socket (fd) of a slot (serial) that pauses: accept for it too */
    TG_CHANNEL_RETURN,   /* to the worker: the slot (serial) accepts again itself */
    TG_CHANNEL_REOPEN,   /* to the worker: open log files anew */
    TG_CHANNEL_ACCEPT,   /* to the worker: its master has taken over, accept from now on */
    TG_CHANNEL_LOG,      /* to the worker: log from this level on, by name */
    TG_CHANNEL_PROFILE,  /* to the worker: write into the memory file (fd) what has run for `number` seconds */
    TG_CHANNEL_TRACE,    /* to the worker: tell of requests as text asks, for `number` milliseconds; 0: no longer */
    TG_CHANNEL_PREPARED, /* to the master */
    TG_CHANNEL_DIFFERS,  /* to the master: the generation in shadow (serial); text: an example of kind `number` */
    TG_CHANNEL_FAILED,   /* to the master; text says why */
    TG_CHANNEL_PROFILED, /* to the master: that is done, or text says why not; serial as it was asked */
    TG_CHANNEL_ASK       /* to the master: a connection (fd) on which a command comes, as on its control socket */
};

struct tg_channel_message {
    uint32_t type;
    uint32_t number;
    uint64_t serial; /* of the generation */
    char text[4096];
};

/* `fd` goes along, -1: none. TG_ESYSTEM, TG_AGAIN when the other side does not read. */
TG_MUST_CHECK enum tg_rc tg_channel_send(int channel, const struct tg_channel_message *message, int fd);
/* *fd is the caller's, or -1. TG_AGAIN: nothing is there. TG_ECLOSED. TG_ESYSTEM. */
TG_MUST_CHECK enum tg_rc tg_channel_receive(int channel, struct tg_channel_message *message, int *fd);

#endif
