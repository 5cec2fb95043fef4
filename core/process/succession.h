/*
 * succession.h - which master serves: what one gives up when the next has taken over, and what that one takes.
 *
 * Owns: the control socket, the pid file, the upgrade that is under way. Used by: master.c.
 * Does not know: reloads; it asks whether one is under way, and is told when it has ended.
 */
#ifndef TG_PROCESS_SUCCESSION_H
#define TG_PROCESS_SUCCESSION_H

#include "process/control.h"
#include "process/fleet.h"
#include "process/upgrade.h"

struct tg_succession_options {
    const char *control;      /* path of the control socket */
    const char *pid_file;     /* NULL: none */
    const char *program;      /* path of the file to run at an upgrade, */
    char *const *argv;        /* with these arguments */
    unsigned upgrade_timeout; /* seconds for a new master to be ready */
};

struct tg_succession_hooks {
    void (*command)(void *arg, struct tg_control_client *client, const char *line);
    bool (*is_reloading)(const void *arg);
    void (*left)(void *arg);   /* another master serves; the workers drain */
    void (*stayed)(void *arg); /* the upgrade has failed */
    void *arg;
};

struct tg_succession {
    const struct tg_succession_options *options;
    const struct tg_succession_hooks *hooks;
    struct tg_loop *loop;
    struct tg_fleet *fleet;
    struct tg_control *control;
    struct tg_upgrade_hooks upgrade_hooks;
    struct tg_upgrade upgrade;
    struct tg_control_client *asker; /* of the upgrade; NULL: a signal, or none is under way */
    bool next;                       /* an upgrade begins when the reload has ended */
    struct tg_takeover takeover;     /* from the master before; its report is -1 when there is none */
    char error[1024];                /* of the last upgrade; empty: it has not failed */
};

/* Before anything is opened: finds what a master before us leaves, for the fleet. TG_EINVAL, TG_ENOMEM and `err`. */
TG_MUST_CHECK enum tg_rc tg_succession_init(struct tg_succession *succession, struct tg_fleet *fleet,
                                            struct tg_err *err);
/* The control socket, one of our own or that of the master before. */
TG_MUST_CHECK enum tg_rc tg_succession_open(struct tg_succession *succession, struct tg_loop *loop, struct tg_err *err);
/* When the fleet has its sockets: closes those that nobody wants, and writes the pid file if we are the only master. */
TG_MUST_CHECK enum tg_rc tg_succession_begin(struct tg_succession *succession, struct tg_err *err);
/* The master ends; `why` for the one before us, which goes on if we have not taken over. NULL: as it was told to. */
void tg_succession_close(struct tg_succession *succession, const char *why);

/* Several times a second: takes over once the workers run. */
void tg_succession_check(struct tg_succession *succession);
/* Begins an upgrade, at once or after the reload that is under way. `client` NULL: it was a signal. */
void tg_succession_ask(struct tg_succession *succession, struct tg_control_client *client);
/* An upgrade runs: no reload may begin. */
bool tg_succession_is_busy(const struct tg_succession *succession);
/* A reload has ended: true when an upgrade begins now that had to wait. */
bool tg_succession_resume(struct tg_succession *succession);
/* The workers are told to end. */
void tg_succession_cancel(struct tg_succession *succession);
/* Ends an upgrade of which the new master was not yet told to serve: `stayed` is called later, as for any that failed.
 * One that is further, which is a matter of milliseconds, goes on. */
void tg_succession_give_way(struct tg_succession *succession, const char *why);
/* In a forked worker: closes what is the master's alone. */
void tg_succession_forget(struct tg_succession *succession);

#endif
