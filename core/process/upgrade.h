/*
 * upgrade.h - how one master gives way to the next: the talk of the two, an end in each process.
 *
 * Owns: the process of the new master until it has taken over, and the socket between the two. Used by: master.c.
 * Does not know: what is handed over (handover.h), nor what a master has to stop or to start.
 *
 *     old                              new
 *     forks, execs          ------>    validates, starts workers that do not accept yet
 *                           "ready"
 *     leaves the control    "take"
 *     socket alone
 *                                      accepts, answers commands, writes the pid file
 *     drains                "done"
 *
 * Until "done" the old master serves as if nothing were; whatever happens to the new one before is told and survived.
 * A new one whose old master dies takes over when it is ready.
 */
#ifndef TG_PROCESS_UPGRADE_H
#define TG_PROCESS_UPGRADE_H

#include <sys/types.h>

#include "net/loop.h"
#include "process/handover.h"

struct event;

struct tg_upgrade_hooks {
    void (*hand_over)(void *arg, struct tg_handover_writer *writer); /* in the child */
    void (*granted)(void *arg);                                      /* the new master answers commands from now on */
    void (*done)(void *arg, pid_t successor);
    void (*failed)(void *arg, const char *why); /* all is as before but what `granted` did */
    void *arg;
};

/* The old master's end. Zero it, then set `loop` and `hooks`. */
struct tg_upgrade {
    struct tg_loop *loop;
    const struct tg_upgrade_hooks *hooks;
    pid_t pid; /* 0: no upgrade is under way */
    int report;
    bool granted;
    bool done;
    unsigned timeout; /* seconds */
    struct event *readable;
    struct event *overdue;
    char why[1024]; /* of what the new master says, or why it was killed */
};

/* Runs the file `program`; `timeout` in seconds. The hooks tell how it went. TG_ESYSTEM and `err`: nothing has begun.
 */
TG_MUST_CHECK enum tg_rc tg_upgrade_start(struct tg_upgrade *upgrade, const char *program, char *const *argv,
                                          unsigned timeout, struct tg_err *err);
/* A child has ended: true when it was the new master. */
bool tg_upgrade_reaped(struct tg_upgrade *upgrade, pid_t pid, int status);
/* Ends the new master, unless it serves already: `why` is what is told of it then, as of any that failed. Nothing when
 * none is under way. */
void tg_upgrade_cancel(struct tg_upgrade *upgrade, const char *why);
/* In a forked worker: closes the socket. */
void tg_upgrade_forget(const struct tg_upgrade *upgrade);

/* The new master's end. Zero it, then set `report` and `granted`. */
struct tg_takeover {
    int report;
    bool ready;
    bool alone; /* the old master has died */
    struct event *readable;
    void (*granted)(void *arg); /* it is our turn */
    void *arg;
};

/* Listens to the old master. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_takeover_open(struct tg_takeover *takeover, struct tg_loop *loop);
/* The workers run. `granted` may be called at once. */
void tg_takeover_ready(struct tg_takeover *takeover);
/* Tells the old master that its time has come, and ends the talk. */
void tg_takeover_done(struct tg_takeover *takeover);
/* Tells the old master why the new one is about to end. */
void tg_takeover_fail(const struct tg_takeover *takeover, const char *why);

#endif
