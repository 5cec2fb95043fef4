/*
 * fleet.h - the workers: forked, watched, replaced.
 *
 * Owns: their slots, the listening sockets of each slot (which its next worker inherits, so that the backlog survives),
 * the shared dictionaries and the scoreboard. Used by: master.c. Does not know: why a generation changes.
 */
#ifndef TG_PROCESS_FLEET_H
#define TG_PROCESS_FLEET_H

#include "process/channel.h"
#include "process/handover.h"
#include "process/worker.h"

struct tg_fleet;

struct tg_slot {
    struct tg_fleet *fleet;
    unsigned number;
    pid_t pid;   /* 0: not running */
    int channel; /* -1 */
    struct event *readable;
    struct event *restart;
    uint64_t started; /* milliseconds */
    unsigned quick_deaths;
    bool pauses;              /* has no worker for a while; */
    struct tg_slot *borrower; /* whose worker accepts for it; NULL: nobody's */
    bool prepared;            /* has answered for the generation that is being prepared, */
    bool asked;               /* which it was asked to prepare */
    struct tg_worker_listen listens[TG_LISTENERS_MAX];
};

struct tg_fleet_hooks {
    /* `fd` came along, or is -1; it is the callee's. */
    void (*message)(void *arg, struct tg_slot *slot, const struct tg_channel_message *message, int fd);
    void (*died)(void *arg, struct tg_slot *slot);
    void (*in_child)(void *arg);                   /* in a fresh worker: close what is the master's alone */
    void (*born)(void *arg, struct tg_slot *slot); /* its worker runs */
    void *arg;
};

struct tg_fleet {
    struct tg_loop *loop;
    struct tg_scoreboard *board;
    struct tg_tickets *tickets;
    struct tg_cells *cells;
    int cells_fd;
    unsigned side; /* where the places of its workers in the cells begin */
    struct tg_metrics *metrics;
    int metrics_fd;
    unsigned first_row;        /* of its workers, in the metrics */
    int bells[TG_WORKERS_MAX]; /* by slot */
    const struct tg_fleet_hooks *hooks;
    const struct tg_generation *generation; /* that new workers begin with */
    const struct tg_generation *trial;      /* runs beside it; NULL: there is none */
    struct tg_slot *slots;
    unsigned count;
    unsigned watchdog;            /* seconds */
    unsigned drain_timeout;       /* seconds */
    bool ending;                  /* dead workers are not replaced */
    bool waits;                   /* another master's workers accept still */
    struct tg_handover *handover; /* what that master leaves; NULL: there is none */
    const struct tg_privilege *privilege;
    bool places[TG_LISTENERS_MAX]; /* in use by any generation */
    struct tg_worker_dict dicts[TG_GENERATION_DICTS];
    unsigned dict_count;
};

/* TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_fleet_init(struct tg_fleet *fleet, struct tg_loop *loop, unsigned count,
                                       const struct tg_fleet_hooks *hooks);

/* Binds what the manifest needs and is not there yet, in each slot, and makes its dictionaries. On failure (`err`) what
 * was added is taken away again. Workers that run are told of the new ones when `tell`. */
TG_MUST_CHECK enum tg_rc tg_fleet_provide(struct tg_fleet *fleet, const struct tg_manifest *manifest, bool tell,
                                          struct tg_err *err);
/* Closes the listening sockets that the manifest does not name. */
void tg_fleet_trim(struct tg_fleet *fleet, const struct tg_manifest *manifest);

/* Forks a worker into each empty slot. */
void tg_fleet_start(struct tg_fleet *fleet);
/* A child has ended: true when it was a worker; it is replaced. */
bool tg_fleet_reaped(struct tg_fleet *fleet, pid_t pid, int status);
/* Which plugin of which route a worker runs, or has run when it died, as text; returns the generation, NULL when it is
 * none of the two, or no plugin ran. */
const struct tg_generation *tg_fleet_running_in(const struct tg_fleet *fleet, const struct tg_slot *slot, char *out,
                                                size_t size);
/* Kills workers whose heartbeat is older than `watchdog`, and says what they were doing. */
void tg_fleet_check(struct tg_fleet *fleet);
/* Sends to all that run; returns how many it reached. `fd` -1: none. */
unsigned tg_fleet_send(struct tg_fleet *fleet, const struct tg_channel_message *message, int fd);
/* The same for what no worker may miss: one that cannot be reached is killed, and replaced by one that knows. */
void tg_fleet_insist(struct tg_fleet *fleet, const struct tg_channel_message *message);
void tg_fleet_signal(struct tg_fleet *fleet, int number);
unsigned tg_fleet_running(const struct tg_fleet *fleet);
/* Every slot has a worker whose loop runs. */
bool tg_fleet_is_ready(const struct tg_fleet *fleet);
/* The other master has given way: the workers accept. */
void tg_fleet_accept(struct tg_fleet *fleet);
/* Names listening sockets, dictionaries and the current generation for the next master. */
void tg_fleet_hand_over(const struct tg_fleet *fleet, struct tg_handover_writer *writer);
/* The generation that the master before runs, to be read and freed: another version may have made it. NULL: there is
 * none. */
struct tg_generation *tg_fleet_take_generation(struct tg_fleet *fleet);
/* Another master serves: our copies of the sockets are closed, the workers finish what is in work. */
void tg_fleet_leave(struct tg_fleet *fleet);
/* The master ends: what it listens on by a path is there no more, unless another master has it. */
void tg_fleet_end(struct tg_fleet *fleet);

#endif
