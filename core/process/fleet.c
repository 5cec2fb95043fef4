#include "process/fleet.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "net/listener.h"
#include "zone/dict.h"

enum {
    QUICK = 10 * 1000, /* milliseconds: a worker that dies sooner counts as a quick death */
    QUICK_FREE = 5,    /* that many are replaced at once */
    FORK_AGAIN = 1,    /* seconds */
    BACKOFF_MAX = 30   /* seconds */
};

static const char cells_name[] = "@cells";     /* which no dictionary can have, */
static const char metrics_name[] = "@metrics"; /* nor this, */
static const char bundle_name[] = "@bundle";   /* nor this */

static void
on_channel(evutil_socket_t fd, short what, void *arg)
{
    struct tg_slot *slot = arg;
    struct tg_channel_message message;
    int passed = -1;
    (void)what;
    enum tg_rc rc;
    while ((rc = tg_channel_receive(fd, &message, &passed)) == TG_OK) {
        slot->fleet->hooks->message(slot->fleet->hooks->arg, slot, &message, passed);
    }
    if (rc != TG_AGAIN) {
        (void)event_del(slot->readable); /* its end is seen by waitpid */
    }
}

static _Noreturn void
run_child(struct tg_slot *slot, int channel)
{
    struct tg_fleet *fleet = slot->fleet;
    const struct tg_worker_start start = {.slot = slot->number,
                                          .workers = fleet->count,
                                          .channel = channel,
                                          .score = &fleet->board->scores[slot->number],
                                          .generation = fleet->generation,
                                          .listens = slot->listens,
                                          .dicts = fleet->dicts,
                                          .dict_count = fleet->dict_count,
                                          .tickets = fleet->tickets,
                                          .cells = fleet->cells,
                                          .metrics = fleet->metrics,
                                          .board = fleet->board,
                                          .first_row = fleet->first_row,
                                          .bells = fleet->bells,
                                          .side = fleet->side,
                                          .drain_timeout = fleet->drain_timeout,
                                          .waits = fleet->waits,
                                          .privilege = fleet->privilege};
    /* The master's descriptors are not the worker's: neither its loop's nor those of other slots. */
    (void)event_reinit(tg_loop_base(fleet->loop));
    tg_loop_free(fleet->loop);
    fleet->hooks->in_child(fleet->hooks->arg);
    for (unsigned i = 0; i < fleet->count; i++) {
        struct tg_slot *other = &fleet->slots[i];
        for (unsigned k = 0; k < TG_LISTENERS_MAX && other != slot; k++) {
            if (other->listens[k].used) {
                close(other->listens[k].fd);
            }
        }
        if (other->channel >= 0) {
            close(other->channel);
        }
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    exit(tg_worker_run(&start));
}

static bool
serves(const struct tg_slot *slot)
{
    return slot->pid != 0 && slot->fleet->board->scores[slot->number].heartbeat != 0;
}

/*
 * The kernel goes on giving a slot without worker its share of the connections: another worker accepts them, until the
 * next one of that slot has built its generation, which takes seconds where that is large.
 */
static void
lend(struct tg_fleet *fleet)
{
    struct tg_slot *other = NULL;
    for (unsigned i = 0; i < fleet->count && other == NULL; i++) {
        other = serves(&fleet->slots[i]) ? &fleet->slots[i] : NULL;
    }
    for (unsigned i = 0; i < fleet->count && other != NULL; i++) {
        struct tg_slot *slot = &fleet->slots[i];
        if (!slot->pauses || slot->borrower != NULL || slot == other) {
            continue;
        }
        slot->borrower = other;
        for (unsigned k = 0; k < TG_LISTENERS_MAX; k++) {
            const struct tg_channel_message message = {.type = TG_CHANNEL_LEND, .number = k, .serial = slot->number};
            if (slot->listens[k].used && tg_channel_send(other->channel, &message, slot->listens[k].fd) != TG_OK) {
                tg_log(TG_LOG_ERROR, "worker %u does not listen to the master", other->number);
            }
        }
    }
}

static void
take_back(struct tg_slot *slot)
{
    const struct tg_channel_message message = {.type = TG_CHANNEL_RETURN, .serial = slot->number};
    if (slot->borrower != NULL && tg_channel_send(slot->borrower->channel, &message, -1) != TG_OK) {
        tg_log(TG_LOG_ERROR, "worker %u does not listen to the master", slot->borrower->number);
    }
    slot->borrower = NULL;
    slot->pauses = false;
}

/* What the kernel refuses now it may grant in a second; until then another worker accepts for this one. */
static void
fork_later(struct tg_slot *slot, const char *what)
{
    static const struct timeval pause = {FORK_AGAIN, 0};
    tg_log(TG_LOG_ERROR, "worker %u: %s: %s; tried again in %d s", slot->number, what, strerror(errno), FORK_AGAIN);
    slot->pauses = true;
    (void)event_add(slot->restart, &pause);
    lend(slot->fleet);
}

static void
fork_worker(struct tg_slot *slot)
{
    struct tg_fleet *fleet = slot->fleet;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        fork_later(slot, "socket pair");
        return;
    }
    memset(&fleet->board->scores[slot->number], 0, sizeof fleet->board->scores[0]);
    (void)fflush(NULL);
    /* A signal that came to the child while the handlers are still the master's would be lost. */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before);
    const pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        run_child(slot, ends[1]);
    }
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        fork_later(slot, "fork");
        close(ends[0]);
        close(ends[1]);
        return;
    }
    close(ends[1]);
    slot->pid = pid;
    slot->channel = ends[0];
    slot->started = tg_loop_now(fleet->loop);
    slot->readable = event_new(tg_loop_base(fleet->loop), ends[0], EV_READ | EV_PERSIST, on_channel, slot);
    if (slot->readable == NULL || event_add(slot->readable, NULL) < 0) {
        (void)kill(pid, SIGKILL); /* one that cannot be heard is replaced */
    }
    lend(fleet);
    fleet->hooks->born(fleet->hooks->arg, slot);
}

static void
on_restart(evutil_socket_t fd, short what, void *arg)
{
    struct tg_slot *slot = arg;
    (void)fd;
    (void)what;
    if (slot->pid == 0 && !slot->fleet->ending) {
        fork_worker(slot);
    }
}

/* What is known of upstreams outlives the master, too; unless another version of the program has made it. */
static enum tg_rc
open_cells(struct tg_fleet *fleet)
{
    fleet->cells_fd = tg_handover_take_dict(fleet->handover, cells_name);
    fleet->cells = fleet->cells_fd < 0 ? NULL : tg_cells_open(fleet->cells_fd);
    if (fleet->cells == NULL) {
        if (fleet->cells_fd >= 0) {
            tg_log(TG_LOG_INFO, "what is known of upstreams has another form now: it begins empty");
            close(fleet->cells_fd);
        }
        fleet->cells_fd = tg_cells_create(NULL);
        fleet->cells = fleet->cells_fd < 0 ? NULL : tg_cells_open(fleet->cells_fd);
    }
    if (fleet->cells == NULL) {
        return TG_ENOMEM;
    }
    fleet->side = tg_cells_next_side(fleet->cells);
    for (unsigned i = 0; i < fleet->count; i++) {
        fleet->bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        tg_cells_forget(fleet->cells, fleet->side + i);
    }
    return TG_OK;
}

/* What was counted goes on being counted. */
static enum tg_rc
open_metrics(struct tg_fleet *fleet)
{
    fleet->metrics_fd = tg_handover_take_dict(fleet->handover, metrics_name);
    fleet->metrics = fleet->metrics_fd < 0 ? NULL : tg_metrics_open(fleet->metrics_fd);
    if (fleet->metrics == NULL) {
        if (fleet->metrics_fd >= 0) {
            tg_log(TG_LOG_INFO, "metrics have another form now: they begin at 0");
            close(fleet->metrics_fd);
        }
        fleet->metrics_fd = tg_metrics_create(NULL);
        fleet->metrics = fleet->metrics_fd < 0 ? NULL : tg_metrics_open(fleet->metrics_fd);
    }
    if (fleet->metrics == NULL) {
        return TG_ENOMEM;
    }
    fleet->first_row = tg_metrics_next_side(fleet->metrics);
    return TG_OK;
}

enum tg_rc
tg_fleet_init(struct tg_fleet *fleet, struct tg_loop *loop, unsigned count, const struct tg_fleet_hooks *hooks)
{
    fleet->loop = loop;
    fleet->hooks = hooks;
    fleet->count = count;
    fleet->board = tg_scoreboard_new();
    fleet->tickets = tg_tickets_new();
    fleet->slots = tg_mem_zero(count * sizeof *fleet->slots);
    if (fleet->board == NULL || fleet->tickets == NULL || fleet->slots == NULL || open_cells(fleet) != TG_OK ||
        open_metrics(fleet) != TG_OK) {
        return TG_ENOMEM;
    }
    for (unsigned i = 0; i < count; i++) {
        struct tg_slot *slot = &fleet->slots[i];
        *slot = (struct tg_slot){.fleet = fleet, .number = i, .channel = -1};
        slot->restart = event_new(tg_loop_base(loop), -1, 0, on_restart, slot);
        if (slot->restart == NULL) {
            return TG_ENOMEM;
        }
    }
    return TG_OK;
}

static bool
same_address(const struct tg_manifest_listen *a, const struct tg_manifest_listen *b)
{
    return a->config.port == b->config.port && strcmp(a->address, b->address) == 0;
}

static int
find_place(const struct tg_fleet *fleet, const struct tg_manifest_listen *listen)
{
    for (int i = 0; i < TG_LISTENERS_MAX; i++) {
        if (fleet->places[i] && same_address(&fleet->slots[0].listens[i].listen, listen)) {
            return i;
        }
    }
    return -1;
}

/* The socket of a slot: what the master before has had, the one at the path that all slots share, or a new one. */
static int
listen_for(struct tg_fleet *fleet, const struct tg_manifest_listen *listen, unsigned place, unsigned slot,
           struct tg_err *err)
{
    const int fd = tg_handover_take_listen(fleet->handover, listen->address, listen->config.port, slot);
    if (fd >= 0) {
        return fd;
    }
    if (slot > 0 && tg_listener_is_path(listen->address)) {
        const int copy = fcntl(fleet->slots[0].listens[place].fd, F_DUPFD_CLOEXEC, 0);
        return copy >= 0 ? copy : (tg_err_errno(err, "listen on %s", listen->address), -1);
    }
    return tg_listener_bind(listen->address, listen->config.port, err);
}

static void
remove_path(const struct tg_fleet *fleet, unsigned place)
{
    const char *address = fleet->slots[0].listens[place].listen.address;
    if (tg_listener_is_path(address)) {
        (void)unlink(address);
    }
}

static void
drop_place(struct tg_fleet *fleet, unsigned place)
{
    for (unsigned i = 0; i < fleet->count; i++) {
        struct tg_worker_listen *listen = &fleet->slots[i].listens[place];
        if (listen->used) {
            close(listen->fd);
            listen->used = false;
        }
    }
    fleet->places[place] = false;
}

static enum tg_rc
add_place(struct tg_fleet *fleet, const struct tg_manifest_listen *listen, unsigned *place, struct tg_err *err)
{
    unsigned i = 0;
    while (i < TG_LISTENERS_MAX && fleet->places[i]) {
        i++;
    }
    if (i == TG_LISTENERS_MAX) {
        return tg_err_set(err, TG_ELIMIT, "more than %d listeners", TG_LISTENERS_MAX);
    }
    fleet->places[i] = true;
    for (unsigned k = 0; k < fleet->count; k++) {
        const int fd = listen_for(fleet, listen, i, k, err);
        if (fd < 0) {
            drop_place(fleet, i);
            return TG_ESYSTEM;
        }
        fleet->slots[k].listens[i] = (struct tg_worker_listen){true, fd, *listen};
    }
    *place = i;
    return TG_OK;
}

/* Another version of the program may have made it: what does not fit is left, and begins anew. */
static int
inherit_dict(struct tg_fleet *fleet, const struct tg_manifest_dict *wanted)
{
    const int fd = tg_handover_take_dict(fleet->handover, wanted->name);
    if (fd < 0) {
        return fd;
    }
    struct tg_dict *dict = tg_dict_open(fd);
    const size_t size = wanted->size < TG_DICT_SIZE_MIN ? TG_DICT_SIZE_MIN : wanted->size;
    const bool fits = dict != NULL && tg_dict_size(dict) == size;
    tg_dict_close(dict);
    if (!fits) {
        tg_log(TG_LOG_INFO, "dictionary %s has another size or form now: it begins empty", wanted->name);
        close(fd);
    }
    return fits ? fd : -1;
}

static enum tg_rc
provide_dicts(struct tg_fleet *fleet, const struct tg_manifest *manifest, bool tell, struct tg_err *err)
{
    for (unsigned i = 0; i < manifest->dict_count; i++) {
        const struct tg_manifest_dict *wanted = &manifest->dicts[i];
        unsigned k = 0;
        while (k < fleet->dict_count && strcmp(fleet->dicts[k].name, wanted->name) != 0) {
            k++;
        }
        if (k < fleet->dict_count) {
            continue;
        }
        if (k == TG_GENERATION_DICTS) {
            return tg_err_set(err, TG_ELIMIT, "more than %d dictionaries since the start", TG_GENERATION_DICTS);
        }
        int fd = inherit_dict(fleet, wanted);
        fd = fd >= 0 ? fd : tg_dict_create(wanted->size, err);
        if (fd < 0) {
            return TG_ESYSTEM;
        }
        struct tg_worker_dict *dict = &fleet->dicts[fleet->dict_count++];
        (void)snprintf(dict->name, sizeof dict->name, "%s", wanted->name);
        dict->fd = fd;
        if (tell) {
            struct tg_channel_message message = {.type = TG_CHANNEL_DICT};
            (void)snprintf(message.text, sizeof message.text, "%s", wanted->name);
            (void)tg_fleet_send(fleet, &message, fd);
        }
    }
    return TG_OK;
}

static void
tell_of_place(struct tg_fleet *fleet, unsigned place)
{
    for (unsigned i = 0; i < fleet->count; i++) {
        const struct tg_slot *slot = &fleet->slots[i];
        const struct tg_worker_listen *listen = &slot->listens[place];
        struct tg_channel_message message = {.type = TG_CHANNEL_LISTEN, .number = place};
        (void)snprintf(message.text, sizeof message.text, "%s %u", listen->listen.address, listen->listen.config.port);
        if (slot->pid != 0 && tg_channel_send(slot->channel, &message, listen->fd) != TG_OK) {
            tg_log(TG_LOG_ERROR, "worker %u does not listen to the master", slot->number);
        }
    }
}

enum tg_rc
tg_fleet_provide(struct tg_fleet *fleet, const struct tg_manifest *manifest, bool tell, struct tg_err *err)
{
    unsigned added[TG_LISTENERS_MAX];
    unsigned count = 0;
    enum tg_rc rc = provide_dicts(fleet, manifest, tell, err);
    for (unsigned i = 0; i < manifest->listen_count && rc == TG_OK; i++) {
        if (find_place(fleet, &manifest->listens[i]) < 0) {
            rc = add_place(fleet, &manifest->listens[i], &added[count], err);
            count += rc == TG_OK;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        if (rc != TG_OK) {
            drop_place(fleet, added[i]);
        } else if (tell) {
            tell_of_place(fleet, added[i]);
        }
    }
    return rc;
}

void
tg_fleet_trim(struct tg_fleet *fleet, const struct tg_manifest *manifest)
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        bool wanted = false;
        for (unsigned k = 0; k < manifest->listen_count && fleet->places[i]; k++) {
            wanted = wanted || same_address(&fleet->slots[0].listens[i].listen, &manifest->listens[k]);
        }
        if (fleet->places[i] && !wanted) {
            remove_path(fleet, i);
            drop_place(fleet, i);
        }
    }
}

void
tg_fleet_start(struct tg_fleet *fleet)
{
    for (unsigned i = 0; i < fleet->count; i++) {
        if (fleet->slots[i].pid == 0) {
            fork_worker(&fleet->slots[i]);
        }
    }
}

/* At once, but with a pause of 1, 2, 4 .. 30 s after five quick deaths (SECURITY 2). */
static void
replace(struct tg_slot *slot)
{
    struct tg_fleet *fleet = slot->fleet;
    struct timeval pause = {0, 0};
    if (tg_loop_now(fleet->loop) - slot->started > QUICK) {
        slot->quick_deaths = 0;
    }
    slot->quick_deaths++;
    slot->pauses = true;
    if (slot->quick_deaths > QUICK_FREE) {
        const unsigned shift = slot->quick_deaths - QUICK_FREE - 1;
        pause.tv_sec = shift < 5 ? 1 << shift : BACKOFF_MAX;
        tg_log(TG_LOG_ERROR, "worker %u dies too often: the next one in %ld s", slot->number, (long)pause.tv_sec);
    }
    (void)event_add(slot->restart, &pause);
}

bool
tg_fleet_reaped(struct tg_fleet *fleet, pid_t pid, int status)
{
    for (unsigned i = 0; i < fleet->count; i++) {
        struct tg_slot *slot = &fleet->slots[i];
        if (slot->pid != pid) {
            continue;
        }
        if (WIFSIGNALED(status)) {
            tg_log(TG_LOG_ERROR, "worker %u (pid %d) was ended by signal %d", i, (int)pid, WTERMSIG(status));
        } else if (!fleet->ending) {
            tg_log(TG_LOG_ERROR, "worker %u (pid %d) ended with status %d", i, (int)pid, WEXITSTATUS(status));
        }
        slot->pid = 0;
        if (slot->readable != NULL) {
            event_free(slot->readable);
            slot->readable = NULL;
        }
        close(slot->channel);
        slot->channel = -1;
        fleet->board->scores[i].heartbeat = 0;
        tg_cells_forget(fleet->cells, fleet->side + i);
        tg_metrics_forget(fleet->metrics, fleet->first_row + i);
        fleet->hooks->died(fleet->hooks->arg, slot);
        for (unsigned k = 0; k < fleet->count; k++) {
            if (fleet->slots[k].borrower == slot) {
                fleet->slots[k].borrower = NULL;
            }
        }
        if (!fleet->ending) {
            replace(slot);
            lend(fleet);
        }
        return true;
    }
    return false;
}

const struct tg_generation *
tg_fleet_running_in(const struct tg_fleet *fleet, const struct tg_slot *slot, char *out, size_t size)
{
    const struct tg_score *score = &fleet->board->scores[slot->number];
    const struct tg_generation *in = NULL;
    struct tg_slice plugin = TG_SLICE("?");
    struct tg_slice route = TG_SLICE("?");
    if (fleet->trial != NULL && (uint32_t)fleet->trial->serial == score->mark[2]) {
        in = fleet->trial;
    } else if ((uint32_t)fleet->generation->serial == score->mark[2]) {
        in = fleet->generation;
    }
    if (in != NULL) {
        plugin = tg_manifest_name(in, "use", score->mark[0]);
        route = tg_manifest_name(in, "route", score->mark[1]);
    }
    (void)snprintf(out, size, "plugin %.*s, route %.*s", (int)plugin.n, plugin.p, (int)route.n, route.p);
    return score->mark[0] == 0 ? NULL : in;
}

void
tg_fleet_check(struct tg_fleet *fleet)
{
    const uint64_t now = tg_loop_now(fleet->loop);
    for (unsigned i = 0; i < fleet->count; i++) {
        struct tg_slot *slot = &fleet->slots[i];
        struct tg_score *score = &fleet->board->scores[i];
        const uint64_t beat = score->heartbeat != 0 ? score->heartbeat : slot->started + 10000U;
        if (slot->pauses && serves(slot)) {
            take_back(slot);
        }
        if (slot->pid == 0 || now < beat || now - beat < fleet->watchdog * 1000ULL) {
            continue;
        }
        char where[256];
        const struct tg_generation *in = tg_fleet_running_in(fleet, slot, where, sizeof where);
        tg_log(TG_LOG_ERROR, "worker %u (pid %d) is stuck since %llu ms: %s%s%s; it is killed", i, (int)slot->pid,
               (unsigned long long)(now - beat), where, in == NULL ? "" : ", generation ", in == NULL ? "" : in->id);
        score->heartbeat = now; /* once is enough */
        (void)kill(slot->pid, SIGKILL);
    }
}

unsigned
tg_fleet_send(struct tg_fleet *fleet, const struct tg_channel_message *message, int fd)
{
    unsigned reached = 0;
    for (unsigned i = 0; i < fleet->count; i++) {
        const struct tg_slot *slot = &fleet->slots[i];
        if (slot->pid != 0 && tg_channel_send(slot->channel, message, fd) == TG_OK) {
            reached++;
        }
    }
    return reached;
}

void
tg_fleet_insist(struct tg_fleet *fleet, const struct tg_channel_message *message)
{
    for (unsigned i = 0; i < fleet->count; i++) {
        const struct tg_slot *slot = &fleet->slots[i];
        if (slot->pid != 0 && tg_channel_send(slot->channel, message, -1) != TG_OK) {
            tg_log(TG_LOG_ERROR, "worker %u (pid %d) does not listen to the master; it is killed", i, (int)slot->pid);
            (void)kill(slot->pid, SIGKILL);
        }
    }
}

void
tg_fleet_signal(struct tg_fleet *fleet, int number)
{
    for (unsigned i = 0; i < fleet->count; i++) {
        if (fleet->slots[i].pid != 0) {
            (void)kill(fleet->slots[i].pid, number);
        }
    }
}

unsigned
tg_fleet_running(const struct tg_fleet *fleet)
{
    unsigned running = 0;
    for (unsigned i = 0; i < fleet->count; i++) {
        running += fleet->slots[i].pid != 0;
    }
    return running;
}

bool
tg_fleet_is_ready(const struct tg_fleet *fleet)
{
    for (unsigned i = 0; i < fleet->count; i++) {
        if (fleet->slots[i].pid == 0 || fleet->board->scores[i].heartbeat == 0) {
            return false;
        }
    }
    return true;
}

void
tg_fleet_accept(struct tg_fleet *fleet)
{
    const struct tg_channel_message message = {.type = TG_CHANNEL_ACCEPT};
    fleet->waits = false;
    tg_fleet_insist(fleet, &message);
}

void
tg_fleet_hand_over(const struct tg_fleet *fleet, struct tg_handover_writer *writer)
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        const struct tg_manifest_listen *listen = &fleet->slots[0].listens[i].listen;
        if (!fleet->places[i]) {
            continue;
        }
        tg_handover_put(writer, "listen %s %u", listen->address, listen->config.port);
        for (unsigned k = 0; k < fleet->count; k++) {
            tg_handover_put_fd(writer, fleet->slots[k].listens[i].fd);
        }
        tg_handover_put(writer, "\n");
    }
    tg_handover_put(writer, "dict");
    tg_handover_put_fd(writer, fleet->cells_fd);
    tg_handover_put(writer, " %s\n", cells_name);
    tg_handover_put(writer, "dict");
    tg_handover_put_fd(writer, fleet->metrics_fd);
    tg_handover_put(writer, " %s\n", metrics_name);
    tg_handover_put(writer, "dict");
    tg_handover_put_fd(writer, fleet->generation->fd);
    tg_handover_put(writer, " %s\n", bundle_name);
    for (unsigned i = 0; i < fleet->dict_count; i++) {
        tg_handover_put(writer, "dict");
        tg_handover_put_fd(writer, fleet->dicts[i].fd);
        tg_handover_put(writer, " %s\n", fleet->dicts[i].name);
    }
}

struct tg_generation *
tg_fleet_take_generation(struct tg_fleet *fleet)
{
    struct tg_err err = {0};
    const int fd = tg_handover_take_dict(fleet->handover, bundle_name);
    return fd < 0 ? NULL : tg_generation_open(fd, NULL, &err);
}

void
tg_fleet_leave(struct tg_fleet *fleet)
{
    fleet->ending = true;
    /* First: a socket of which only we are left would keep connections that nobody takes. */
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        if (fleet->places[i]) {
            drop_place(fleet, i);
        }
    }
    tg_fleet_signal(fleet, SIGQUIT);
}

void
tg_fleet_end(struct tg_fleet *fleet)
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        if (fleet->places[i] && !fleet->waits) {
            remove_path(fleet, i);
        }
    }
}
