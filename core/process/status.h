/*
 * status.h - what the master tells of itself: its generations, its workers, why something was refused.
 *
 * Owns: nothing. Used by: master.c, which answers with it, as lines for people or as JSON for programs.
 */
#ifndef TG_PROCESS_STATUS_H
#define TG_PROCESS_STATUS_H

#include "process/canary.h"
#include "process/fleet.h"
#include "process/shadow.h"
#include "process/upstreams.h"

enum { TG_STATUS_SIZE = 60 * 1024 };

struct tg_status {
    const struct tg_fleet *fleet;
    const struct tg_generation *current; /* and by `next` those before it */
    struct tg_upstreams upstreams;
    double uptime; /* seconds */
    double now;    /* wall clock */
    const char *reload_error;
    const char *upgrade_error;
    const struct tg_generation *trial; /* NULL: none is on trial */
    const struct tg_canary *canary;
    struct tg_shadow *shadow; /* its numbers are brought up to date */
};

/* Writes at most `size` bytes with their NUL; what does not fit is left out. Returns the length. */
size_t tg_status_text(const struct tg_status *status, char *out, size_t size);
size_t tg_status_json(const struct tg_status *status, char *out, size_t size);
/* The generations alone: who asked for each, when, and what is live; and reports of those that were in shadow. */
size_t tg_status_history(const struct tg_status *status, bool json, char *out, size_t size);
/* What a generation in shadow would have done; the first line of the text says it in short. */
size_t tg_status_shadow(const struct tg_shadow_report *report, bool json, char *out, size_t size);

#endif
