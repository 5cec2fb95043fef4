/*
 * reload.h - how one generation gives way to the next: compiled by a child, prepared by all workers, perhaps tried on a
 * share of the requests, then committed by all of them or by none.
 *
 * Owns: the generations that are kept, the child that compiles, and who waits for the outcome. Used by: master.c.
 */
#ifndef TG_PROCESS_RELOAD_H
#define TG_PROCESS_RELOAD_H

#include "process/canary.h"
#include "process/history.h"
#include "process/keeping.h"
#include "process/status.h"
#include "process/succession.h"
#include "process/watch.h"

enum { TG_RELOAD_WAITING = 32 /* clients that wait for an outcome */ };

struct tg_reload {
    const struct tg_source *source;
    struct tg_loop *loop;
    struct tg_fleet *fleet;
    struct tg_succession *succession;
    struct tg_watch *watch;
    const char *const *watched_dirs; /* as tg_watch_generation has them */
    struct event *overdue;
    struct tg_compiler compiler;
    struct tg_generation *current; /* and by `next` those before it */
    unsigned most;                 /* of these */
    struct tg_keeping *keeping;
    bool kept;                   /* the current one was given to it */
    struct tg_generation *next;  /* being prepared */
    struct tg_generation *trial; /* on trial */
    struct tg_canary canary;
    struct tg_shadow shadow;         /* of a trial in shadow: canary.options.shadow */
    struct tg_canary_options wanted; /* of the reload that is under way */
    bool decided;                    /* these were said by who asks, so what the configuration says is left */
    struct tg_control_client *waiting[TG_RELOAD_WAITING];
    unsigned waiting_count;
    unsigned later; /* of these, the last ones wait for the reload after this one */
    uint64_t serials;
    char by[TG_CONTROL_WHO];       /* who has asked for the reload that is under way, or the last one */
    char asked_by[TG_CONTROL_WHO]; /* who has asked last, perhaps for the one behind it */
    bool again;                    /* something changed while a reload was under way */
    bool returns;                  /* `next` has served before, and is what everybody waits for */
    bool yields;                   /* something else begins at once */
    struct tg_generation *held;    /* will be prepared when an upgrade has failed; NULL: none */
    char *pushed;                  /* files that came over the control socket, as JSON; NULL: those of the disk */
    size_t pushed_length;
    struct tg_err last_error; /* empty: the last one went well */
};

/* All members of *reload but `most` and `keeping` are 0. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_reload_init(struct tg_reload *reload, const struct tg_source *source, struct tg_loop *loop,
                                        struct tg_fleet *fleet, struct tg_succession *succession);
/* The generation that the workers begin with; `next` of it are those that were kept. `watch`: its files are watched,
 * and reloaded when they change; without it only those that the configuration follows. */
TG_MUST_CHECK enum tg_rc tg_reload_begin(struct tg_reload *reload, struct tg_generation *first, bool watch,
                                         struct tg_err *err);
/* The first generation has proved to run: it is put into the archive, once. */
void tg_reload_keep(struct tg_reload *reload);

/* Asked for by nobody who waits. */
void tg_reload_ask(struct tg_reload *reload, const char *by);
/* "reload WORDS", "push WORDS" and "canary promote|abort": the client is answered when that is done. */
void tg_reload_command(struct tg_reload *reload, struct tg_control_client *client, const char *words);
void tg_reload_push(struct tg_reload *reload, struct tg_control_client *client, const char *words);
void tg_reload_canary(struct tg_reload *reload, struct tg_control_client *client, const char *verb);

/* Ends what is under way, and answers with `why` whoever waits for it or for the one behind it: nothing of it begins
 * anew. An upgrade that waits for it does so still, until the end of what tg_reload_return begins. */
void tg_reload_yield(struct tg_reload *reload, const char *why);
/* Makes `old`, which is ours then, live for `client`, once an upgrade that is under way is over. Nothing else is. */
void tg_reload_return(struct tg_reload *reload, struct tg_generation *old, struct tg_control_client *client);
/* True: the workers go back to the same generation as `old` already, and the client waits with those who asked. */
bool tg_reload_join(struct tg_reload *reload, const struct tg_generation *old, struct tg_control_client *client);

/* What happens to workers and children; true: it was the reload's affair. */
void tg_reload_message(struct tg_reload *reload, struct tg_slot *slot, const struct tg_channel_message *message);
void tg_reload_died(struct tg_reload *reload, struct tg_slot *slot);
void tg_reload_born(struct tg_reload *reload, struct tg_slot *slot);
bool tg_reload_reaped(struct tg_reload *reload, pid_t pid, int status);

/* Several times a second: judges what is on trial. */
void tg_reload_check(struct tg_reload *reload);
bool tg_reload_is_busy(const struct tg_reload *reload);
/* An upgrade has failed: what came meanwhile is done now; or it has not, and another master does it. */
void tg_reload_resume(struct tg_reload *reload);
void tg_reload_leave(struct tg_reload *reload);
/* In a forked worker. */
void tg_reload_forget(struct tg_reload *reload);

#endif
