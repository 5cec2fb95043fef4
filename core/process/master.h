/*
 * master.h - the process that supervises: binds sockets, forks workers, brings generations to them.
 *
 * Owns: the workers' processes, their listening sockets and dictionaries, the generations. Used by: main.c.
 * Runs no user code: configurations are compiled by a child.
 */
#ifndef TG_PROCESS_MASTER_H
#define TG_PROCESS_MASTER_H

#include "process/generation.h"
#include "process/succession.h"

struct tg_options {
    struct tg_source source;
    struct tg_succession_options succession;
    struct tg_privilege privilege;
    unsigned workers;
    unsigned watchdog;      /* seconds without a heartbeat before a worker is killed */
    unsigned drain_timeout; /* seconds */
    bool watch;             /* reload when a file is saved */
    const char *state;      /* folder that generations are kept in; NULL: none */
    unsigned history;       /* generations that are kept */
    bool last_good;         /* start from the newest in `state` when the configuration is refused */
};

/* Runs until it is told to end; returns the exit status: 0, or 1 with a message on standard error. */
int tg_master_run(const struct tg_options *options);

#endif
