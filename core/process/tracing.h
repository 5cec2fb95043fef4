/*
 * tracing.h - the commands "trace ..." of the control socket: some of the next requests, told in detail.
 *
 * Owns: what is asked for, which all workers know, and what they have told until somebody fetches it; one at a time.
 * Used by: master.c. Who asked has to come again and again; when he does not, the workers stop. Does not know: what is
 * in a question or a trace.
 *
 * - trace begin SECONDS, whose payload is the question (JSON): its number
 * - trace next NUMBER: what has come since, a line each
 * - trace end NUMBER
 * - trace tell NUMBER, by workers, whose payload is lines
 */
#ifndef TG_PROCESS_TRACING_H
#define TG_PROCESS_TRACING_H

#include "process/control.h"
#include "process/fleet.h"

struct tg_tracing {
    uint64_t serial;     /* of the last one */
    bool on;             /* it goes on */
    uint64_t until;      /* milliseconds; it ends, */
    uint64_t idle_until; /* or has been given up */
    char question[1024];
    char *told; /* ends in NUL; NULL: nothing */
    size_t length;
};

/* `words`: what follows "trace ". */
void tg_tracing_command(struct tg_tracing *tracing, struct tg_fleet *fleet, struct tg_control_client *client,
                        const char *words);
/* There is a new worker in the slot. */
void tg_tracing_born(struct tg_tracing *tracing, struct tg_fleet *fleet, struct tg_slot *slot);
/* To be called now and then. */
void tg_tracing_check(struct tg_tracing *tracing, struct tg_fleet *fleet);

#endif
