/*
 * preparation.h - the next generation, built in a worker beside the one that serves: a little in each turn of the loop.
 *
 * Owns: the generation, its Lua state and its TLS until they are taken. Used by: worker.c. Does not know: when it
 * becomes the current one, or is tried first.
 */
#ifndef TG_PROCESS_PREPARATION_H
#define TG_PROCESS_PREPARATION_H

#include "process/generation.h"
#include "vm/vm.h"

struct tg_preparation {
    struct tg_host *host;
    const struct tg_tickets *tickets;
    /* It is ready, or (`why` is not empty) will not be: then all of it is forgotten already. */
    void (*done)(void *arg, uint64_t serial, const char *why);
    void *arg;
    uint64_t serial;
    struct tg_vm *vm; /* NULL: there is none that is ready */
    struct tg_vm *unfinished;
    struct tg_generation *generation;
    struct tg_tls_server *tls[TG_LISTENERS_MAX]; /* by listener of its manifest */
    struct tg_task step;
    uint64_t spent; /* microseconds, in its steps */
};

/* Begins; `fd` is the generation's bundle and the callee's, `id` its id. `shadow`: it will be in shadow only. What was
 * prepared before is forgotten. `done` may be called at once. All members but the first four are 0 before the first
 * call. */
void tg_preparation_begin(struct tg_preparation *preparation, int fd, uint64_t serial, const char *id, bool shadow);
/* All that nobody has taken. One that is on trial ends as a generation that served. */
void tg_preparation_forget(struct tg_preparation *preparation);

#endif
