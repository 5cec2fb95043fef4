#include "process/master.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "process/upstreams.h"
#include "process/watch.h"

enum {
    HISTORY_MAX = 16,     /* generations kept for rollback */
    PREPARE_TIMEOUT = 10, /* seconds */
    WAITING_MAX = 32,     /* clients that wait for a reload */
    CHECK_EVERY = 250,    /* milliseconds */
    LOOK_EVERY = 2,       /* milliseconds, while the first workers start */
    STATUS_SIZE = 60 * 1024
};

struct tg_master {
    const struct tg_options *options;
    struct tg_loop *loop;
    struct tg_fleet fleet;
    struct tg_fleet_hooks hooks;
    struct tg_succession succession;
    struct tg_succession_hooks succession_hooks;
    struct tg_watch *watch;
    struct event *signals[8];
    struct event *check;
    struct event *overdue;
    struct event *starting;
    struct tg_compiler compiler;
    struct tg_generation *current; /* and by `next` those before it */
    struct tg_generation *next;    /* being prepared */
    struct tg_control_client *waiting[WAITING_MAX];
    unsigned waiting_count;
    unsigned later; /* of these, the last ones wait for the reload after this one */
    uint64_t serials;
    bool again; /* something changed while a reload was under way */
    bool rolling_back;
    bool live;                /* all workers have begun once */
    bool failed;              /* the exit status is 1 */
    struct tg_err last_error; /* of the last reload; empty: it went well */
    double started;
};

static void start_reload(struct tg_master *master);

/* Answers those who waited for the reload that has ended. */
static void
end_reload(struct tg_master *master, bool ok, const char *text)
{
    const unsigned answered = master->waiting_count - master->later;
    for (unsigned i = 0; i < answered; i++) {
        tg_control_answer(master->waiting[i], ok, text);
    }
    memmove(master->waiting, master->waiting + answered, master->later * sizeof master->waiting[0]);
    master->waiting_count = master->later;
    master->later = 0;
    (void)event_del(master->overdue);
    if (!tg_succession_resume(&master->succession) && master->again) {
        master->again = false;
        start_reload(master);
    }
}

static void
refuse_reload(struct tg_master *master, const char *text)
{
    char answer[sizeof master->last_error.text + 128];
    (void)snprintf(master->last_error.text, sizeof master->last_error.text, "%s", text);
    (void)snprintf(answer, sizeof answer, "%s\nthe generation %s goes on\n", text, master->current->id);
    tg_log(TG_LOG_ERROR, "reload refused: %s; generation %s goes on", text, master->current->id);
    end_reload(master, false, answer);
}

static bool
watch_file(void *arg, struct tg_slice rest)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%.*s", (int)rest.n, rest.p);
    tg_watch_file(arg, path);
    return true;
}

static void
watch_generation(struct tg_master *master, const struct tg_generation *generation)
{
    if (master->watch != NULL) {
        tg_manifest_each(generation, "file", watch_file, master->watch);
        for (const char *const *dir = master->options->source.plugin_dirs; *dir != NULL; dir++) {
            tg_watch_folder(master->watch, *dir);
        }
    }
}

/* Puts the generation on top of the history; the oldest goes. */
static void
remember(struct tg_master *master, struct tg_generation *generation)
{
    unsigned count = 1;
    generation->committed = tg_loop_wall(master->loop);
    generation->next = master->current;
    master->current = generation;
    master->fleet.generation = generation;
    for (struct tg_generation *old = generation; old != NULL; old = old->next, count++) {
        if (count == HISTORY_MAX) {
            tg_generation_free(old->next);
            old->next = NULL;
        }
    }
}

static void
commit(struct tg_master *master)
{
    struct tg_generation *generation = master->next;
    const struct tg_channel_message message = {.type = TG_CHANNEL_COMMIT, .serial = generation->serial};
    char text[128];
    master->next = NULL;
    remember(master, generation);
    tg_fleet_insist(&master->fleet, &message);
    tg_fleet_trim(&master->fleet, generation->manifest);
    master->last_error.text[0] = '\0';
    tg_log(TG_LOG_INFO, "generation %s is live", generation->id);
    (void)snprintf(text, sizeof text, "generation %s is live\n", generation->id);
    end_reload(master, true, text);
}

static void
abandon(struct tg_master *master, const char *why)
{
    const struct tg_channel_message message = {.type = TG_CHANNEL_ABORT};
    (void)tg_fleet_send(&master->fleet, &message, -1);
    tg_fleet_trim(&master->fleet, master->current->manifest);
    tg_generation_free(master->next);
    master->next = NULL;
    refuse_reload(master, why);
}

/* Commits when every worker that was asked has prepared. */
static void
commit_when_ready(struct tg_master *master)
{
    for (unsigned i = 0; i < master->fleet.count; i++) {
        const struct tg_slot *slot = &master->fleet.slots[i];
        if (slot->asked && !slot->prepared) {
            return;
        }
    }
    commit(master);
}

/* First step of the two: every worker builds the generation beside the current one. */
static void
prepare(struct tg_master *master, struct tg_generation *generation)
{
    static const struct timeval timeout = {PREPARE_TIMEOUT, 0};
    struct tg_err err = {0};
    if (tg_fleet_provide(&master->fleet, generation->manifest, true, &err) != TG_OK) {
        tg_generation_free(generation);
        refuse_reload(master, err.text);
        return;
    }
    generation->serial = ++master->serials;
    master->next = generation;
    const struct tg_channel_message message = {.type = TG_CHANNEL_PREPARE, .serial = generation->serial};
    bool all = true;
    for (unsigned i = 0; i < master->fleet.count; i++) {
        struct tg_slot *slot = &master->fleet.slots[i];
        slot->prepared = false;
        slot->asked = slot->pid != 0 && tg_channel_send(slot->channel, &message, generation->fd) == TG_OK;
        all = all && slot->asked == (slot->pid != 0);
    }
    if (!all) {
        abandon(master, "a worker could not be asked to build the generation");
        return;
    }
    (void)event_add(master->overdue, &timeout);
    commit_when_ready(master);
}

static void
on_message(void *arg, struct tg_slot *slot, const struct tg_channel_message *message)
{
    struct tg_master *master = arg;
    if (master->next == NULL || message->serial != master->next->serial) {
        return;
    }
    if (message->type == TG_CHANNEL_PREPARED) {
        slot->prepared = true;
        commit_when_ready(master);
    } else if (message->type == TG_CHANNEL_FAILED) {
        abandon(master, message->text);
    }
}

static void end_workers(struct tg_master *master, int number);

static void
on_died(void *arg, struct tg_slot *slot)
{
    struct tg_master *master = arg;
    if (master->fleet.waits) {
        master->failed = true; /* the master before us goes on */
        tg_loop_stop(master->loop);
    } else if (!master->live && !master->fleet.ending) {
        master->failed = true; /* what it could not do the next one could not either */
        (void)fprintf(stderr, "tidegate: worker %u ended while it started\n", slot->number);
        end_workers(master, SIGTERM);
    } else if (master->next != NULL && slot->asked && !slot->prepared) {
        abandon(master, "a worker died while it built the generation");
    } else if (master->fleet.ending && tg_fleet_running(&master->fleet) == 0) {
        tg_loop_stop(master->loop);
    }
}

/* A worker that outlives the master must not hold its control socket, or the next master could not have it. */
static void
on_forked(void *arg)
{
    struct tg_master *master = arg;
    tg_succession_forget(&master->succession);
    tg_watch_forget(master->watch);
}

static void
on_overdue(evutil_socket_t fd, short what, void *arg)
{
    struct tg_master *master = arg;
    (void)fd;
    (void)what;
    if (master->compiler.pid != 0) {
        (void)kill(master->compiler.pid, SIGKILL);
    } else if (master->next != NULL) {
        abandon(master, "a worker did not build the generation in time");
    }
}

static bool
is_reloading(const struct tg_master *master)
{
    return master->compiler.pid != 0 || master->next != NULL;
}

static void
start_reload(struct tg_master *master)
{
    static const struct timeval timeout = {TG_COMPILE_TIMEOUT, 0};
    struct tg_err err = {0};
    if (master->fleet.ending) {
        return;
    }
    if (is_reloading(master) || tg_succession_is_busy(&master->succession)) {
        master->again = true;
        return;
    }
    if (tg_compiler_start(&master->compiler, &master->options->source, master->current, &err) != TG_OK) {
        refuse_reload(master, err.text);
        return;
    }
    (void)event_add(master->overdue, &timeout);
}

static void
compiled(struct tg_master *master, int status)
{
    struct tg_err err = {0};
    struct tg_generation *generation = tg_compiler_finish(&master->compiler, status, &err);
    (void)event_del(master->overdue);
    if (generation == NULL) {
        refuse_reload(master, err.text);
        return;
    }
    watch_generation(master, generation);
    if (strcmp(generation->id, master->current->id) == 0) {
        char text[128];
        (void)snprintf(text, sizeof text, "generation %s is live: nothing has changed\n", generation->id);
        tg_generation_free(generation);
        master->last_error.text[0] = '\0';
        end_reload(master, true, text);
        return;
    }
    prepare(master, generation);
}

static void
on_saved(void *arg)
{
    start_reload(arg);
}

static void
wait_for_reload(struct tg_master *master, struct tg_control_client *client)
{
    if (master->waiting_count == WAITING_MAX) {
        tg_control_answer(client, false, "too many wait for a reload\n");
        return;
    }
    master->waiting[master->waiting_count++] = client;
    if (is_reloading(master)) {
        master->later++;
    }
    start_reload(master);
}

/* A commit of an old bundle; no files are needed. */
static void
roll_back(struct tg_master *master, struct tg_control_client *client, const char *id)
{
    struct tg_err err = {0};
    const struct tg_generation *old = master->current->next;
    while (old != NULL && *id != '\0' && strncmp(old->id, id, strlen(id)) != 0) {
        old = old->next;
    }
    if (old == NULL) {
        tg_control_answer(client, false,
                          *id == '\0' ? "there is no generation before this one\n" : "no such generation\n");
        return;
    }
    if (is_reloading(master) || tg_succession_is_busy(&master->succession)) {
        tg_control_answer(client, false, "a reload or an upgrade is under way; try again\n");
        return;
    }
    const int fd = dup(old->fd);
    struct tg_generation *generation = fd < 0 ? NULL : tg_generation_open(fd, &err);
    if (generation == NULL) {
        tg_control_answer(client, false, err.text);
        return;
    }
    master->waiting[master->waiting_count++] = client;
    prepare(master, generation);
}

/* The limits that were reached, over all workers. */
static size_t
put_limits(const struct tg_master *master, char *out, size_t size)
{
    size_t n = 0;
    for (unsigned limit = 1; limit < TG_LIMIT_COUNT && n < size; limit++) {
        unsigned long long reached = 0;
        for (unsigned i = 0; i < master->fleet.count; i++) {
            reached += master->fleet.board->scores[i].limits[limit];
        }
        if (reached > 0) {
            n += (size_t)snprintf(out + n, size - n, "limit       %s reached %llu time%s\n",
                                  tg_limit_name((enum tg_limit)limit), reached, reached == 1 ? "" : "s");
        }
    }
    unsigned long long lost = 0;
    for (unsigned i = 0; i < master->fleet.count; i++) {
        lost += master->fleet.board->scores[i].log_lost;
    }
    if (lost > 0 && n < size) {
        n += (size_t)snprintf(out + n, size - n, "log         %llu line%s lost\n", lost, lost == 1 ? "" : "s");
    }
    return n < size ? n : size;
}

static struct tg_upstreams
upstreams_of(struct tg_master *master)
{
    return (struct tg_upstreams){master->fleet.cells, master->current->id, tg_loop_now(master->loop)};
}

static size_t
put_status(struct tg_master *master, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "generation  %s\n", master->current->id);
    n += (size_t)snprintf(out + n, size - n, "uptime      %.0f s\n", tg_loop_wall(master->loop) - master->started);
    n += (size_t)snprintf(out + n, size - n, "master      pid %d\n", (int)getpid());
    for (unsigned i = 0; i < master->fleet.count && n < size; i++) {
        const struct tg_score *score = &master->fleet.board->scores[i];
        n += (size_t)snprintf(out + n, size - n,
                              "worker %-4u pid %d, connections %llu open of %llu, requests %llu, failed %llu, "
                              "Lua %llu KiB in %llu generation%s\n",
                              i, (int)master->fleet.slots[i].pid, (unsigned long long)score->active,
                              (unsigned long long)score->connections, (unsigned long long)score->requests,
                              (unsigned long long)score->failed, (unsigned long long)(score->lua_bytes / 1024),
                              (unsigned long long)score->generations, score->generations == 1 ? "" : "s");
    }
    const struct tg_upstreams upstreams = upstreams_of(master);
    n += put_limits(master, out + n, size - n);
    n += tg_upstreams_show(&upstreams, "", out + n, (size - n) / 2);
    for (const struct tg_generation *old = master->current->next; old != NULL && n < size; old = old->next) {
        n += (size_t)snprintf(out + n, size - n, "earlier     %s\n", old->id);
    }
    if (master->last_error.text[0] != '\0' && n < size) {
        n += (size_t)snprintf(out + n, size - n, "the last reload was refused:\n%s\n", master->last_error.text);
    }
    if (master->succession.error[0] != '\0' && n < size) {
        n += (size_t)snprintf(out + n, size - n, "the last upgrade failed:\n%s\n", master->succession.error);
    }
    return n;
}

static void
on_command(void *arg, struct tg_control_client *client, const char *line)
{
    static char text[STATUS_SIZE];
    struct tg_master *master = arg;
    if (tg_control_fd(master->succession.control) < 0) {
        tg_control_answer(client, false, "the gateway was upgraded a moment ago; ask again\n");
    } else if (strcmp(line, "upgrade") == 0) {
        tg_succession_ask(&master->succession, client);
    } else if (strcmp(line, "reload") == 0) {
        wait_for_reload(master, client);
    } else if (strncmp(line, "rollback ", 9) == 0) {
        roll_back(master, client, line + 9);
    } else if (strcmp(line, "status") == 0) {
        (void)put_status(master, text, sizeof text);
        tg_control_answer(client, true, text);
    } else if (strncmp(line, "upstream ", 9) == 0) {
        const struct tg_upstreams upstreams = upstreams_of(master);
        const bool ok = tg_upstreams_command(&upstreams, line + 9, text, sizeof text);
        tg_control_answer(client, ok, text);
    } else if (strncmp(line, "route ", 6) == 0) {
        const struct tg_upstreams upstreams = upstreams_of(master);
        const bool ok = tg_upstreams_route(&upstreams, line + 6, text, sizeof text);
        tg_control_answer(client, ok, text);
    } else if (strcmp(line, "stop") == 0 || strcmp(line, "drain") == 0) {
        const int number = line[0] == 's' ? SIGTERM : SIGQUIT; /* the line goes with the client */
        tg_control_answer(client, true, "");
        (void)kill(getpid(), number);
    } else {
        tg_control_answer(client, false, "unknown command\n");
    }
}

static void
reap(struct tg_master *master)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == master->compiler.pid) {
            compiled(master, status);
        } else if (!tg_upgrade_reaped(&master->succession.upgrade, pid, status)) {
            (void)tg_fleet_reaped(&master->fleet, pid, status);
        }
    }
}

static void
end_workers(struct tg_master *master, int number)
{
    master->fleet.ending = true;
    tg_succession_cancel(&master->succession);
    if (tg_fleet_running(&master->fleet) == 0) {
        tg_loop_stop(master->loop);
    }
    tg_fleet_signal(&master->fleet, number);
}

static void
on_signal(evutil_socket_t number, short what, void *arg)
{
    struct tg_master *master = arg;
    (void)what;
    const struct tg_channel_message reopen = {.type = TG_CHANNEL_REOPEN};
    switch (number) {
    case SIGCHLD:
        reap(master);
        break;
    case SIGHUP:
        start_reload(master);
        break;
    case SIGUSR1:
        (void)tg_fleet_send(&master->fleet, &reopen, -1);
        break;
    case SIGUSR2:
        tg_succession_ask(&master->succession, NULL);
        break;
    case SIGQUIT:
        end_workers(master, SIGQUIT);
        break;
    default:
        end_workers(master, SIGTERM);
    }
}

static void
on_check(evutil_socket_t fd, short what, void *arg)
{
    struct tg_master *master = arg;
    (void)fd;
    (void)what;
    tg_fleet_check(&master->fleet);
    tg_tickets_rotate(master->fleet.tickets, tg_loop_now(master->loop));
    tg_succession_check(&master->succession);
}

/* A generation is live when every worker serves it, not when they have been forked. */
static void
on_starting(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval again = {0, LOOK_EVERY * 1000L};
    struct tg_master *master = arg;
    const unsigned workers = master->options->workers;
    (void)fd;
    (void)what;
    if (!tg_fleet_is_ready(&master->fleet)) {
        (void)event_add(master->starting, &again);
        return;
    }
    master->live = true;
    tg_log(TG_LOG_INFO, "generation %s is live with %u worker%s", master->current->id, workers,
           workers == 1 ? "" : "s");
}

static enum tg_rc
open_events(struct tg_master *master)
{
    static const int numbers[] = {SIGCHLD, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGTERM, SIGINT};
    static const struct timeval every = {0, CHECK_EVERY * 1000L};
    struct event_base *base = tg_loop_base(master->loop);
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        master->signals[i] = evsignal_new(base, numbers[i], on_signal, master);
        if (master->signals[i] == NULL || event_add(master->signals[i], NULL) < 0) {
            return TG_ENOMEM;
        }
    }
    master->check = event_new(base, -1, EV_PERSIST, on_check, master);
    master->overdue = event_new(base, -1, 0, on_overdue, master);
    master->starting = event_new(base, -1, 0, on_starting, master);
    if (master->check == NULL || master->overdue == NULL || master->starting == NULL ||
        event_add(master->check, &every) < 0) {
        return TG_ENOMEM;
    }
    return TG_OK;
}

static bool
reloads(const void *arg)
{
    return is_reloading(arg);
}

static void
on_left(void *arg)
{
    struct tg_master *master = arg;
    tg_watch_free(master->watch);
    master->watch = NULL;
    end_reload(master, false, "the gateway was upgraded meanwhile, with the configuration that it found; ask again\n");
    if (tg_fleet_running(&master->fleet) == 0) {
        tg_loop_stop(master->loop);
    }
}

static void
on_stayed(void *arg)
{
    struct tg_master *master = arg;
    if (master->again) {
        master->again = false;
        start_reload(master);
    }
}

static void
raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static enum tg_rc
open_master(struct tg_master *master, struct tg_err *err)
{
    const struct tg_options *options = master->options;
    struct tg_generation *first = tg_generation_compile(&options->source, err);
    if (first == NULL) {
        return TG_ESCRIPT;
    }
    first->serial = ++master->serials;
    master->loop = tg_loop_new();
    master->hooks = (struct tg_fleet_hooks){on_message, on_died, on_forked, master};
    master->fleet.watchdog = options->watchdog;
    master->fleet.drain_timeout = options->drain_timeout;
    master->fleet.privilege = &options->privilege;
    if (master->loop == NULL || open_events(master) != TG_OK ||
        tg_fleet_init(&master->fleet, master->loop, options->workers, &master->hooks) != TG_OK) {
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    master->started = tg_loop_wall(master->loop);
    if (tg_succession_open(&master->succession, master->loop, err) != TG_OK ||
        tg_fleet_provide(&master->fleet, first->manifest, false, err) != TG_OK ||
        tg_succession_begin(&master->succession, err) != TG_OK) {
        return TG_ESYSTEM;
    }
    if (options->watch) {
        master->watch = tg_watch_new(master->loop, on_saved, master, err);
        if (master->watch == NULL) {
            return TG_ESYSTEM;
        }
    }
    remember(master, first);
    watch_generation(master, first);
    return TG_OK;
}

int
tg_master_run(const struct tg_options *options)
{
    struct tg_err err = {0};
    struct tg_master *master = tg_mem_new(struct tg_master);
    tg_log_set(TG_LOG_INFO, "master");
    (void)signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if (master == NULL) {
        return 1;
    }
    master->options = options;
    master->succession_hooks = (struct tg_succession_hooks){on_command, reloads, on_left, on_stayed, master};
    master->succession.options = &options->succession;
    master->succession.hooks = &master->succession_hooks;
    tg_privilege_guard(&options->privilege);
    if (tg_succession_init(&master->succession, &master->fleet, &err) != TG_OK || open_master(master, &err) != TG_OK) {
        (void)fprintf(stderr, "tidegate: %s\n", err.text);
        tg_succession_close(&master->succession, err.text);
        return 1;
    }
    tg_fleet_start(&master->fleet);
    master->live = master->fleet.waits;
    if (!master->live) {
        on_starting(-1, 0, master);
    }
    tg_loop_run(master->loop);
    tg_succession_close(&master->succession, master->failed ? "a worker ended while it started" : NULL);
    return master->failed ? 1 : 0;
}
