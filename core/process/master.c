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
#include "process/profiling.h"
#include "process/reload.h"
#include "process/rollback.h"
#include "process/stats.h"
#include "process/status.h"
#include "process/token.h"
#include "process/tracing.h"
#include "vm/compile.h"
#include "vm/modules.h"

enum {
    CHECK_EVERY = 250, /* milliseconds */
    LOOK_EVERY = 2     /* milliseconds, while the first workers start */
};

struct tg_master {
    const struct tg_options *options;
    struct tg_loop *loop;
    struct tg_fleet fleet;
    struct tg_fleet_hooks hooks;
    struct tg_succession succession;
    struct tg_succession_hooks succession_hooks;
    struct event *signals[8];
    struct event *check;
    struct event *starting;
    struct tg_keeping keeping;
    struct tg_reload reload;
    struct tg_profiling profiling;
    struct tg_tracing tracing;
    bool live;   /* all workers have begun once */
    bool failed; /* the exit status is 1 */
    double started;
};

static void
on_message(void *arg, struct tg_slot *slot, const struct tg_channel_message *message, int fd)
{
    struct tg_master *master = arg;
    if (message->type == TG_CHANNEL_ASK && fd >= 0) {
        tg_control_join(master->succession.control, fd);
        return;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (message->type == TG_CHANNEL_PROFILED) {
        tg_profiling_message(&master->profiling, message);
        return;
    }
    tg_reload_message(&master->reload, slot, message);
}

static void end_workers(struct tg_master *master, int number);

static void
on_died(void *arg, struct tg_slot *slot)
{
    struct tg_master *master = arg;
    tg_profiling_died(&master->profiling, slot);
    if (master->fleet.waits) {
        master->failed = true; /* the master before us goes on */
        tg_loop_stop(master->loop);
    } else if (!master->live && !master->fleet.ending) {
        master->failed = true; /* what it could not do the next one could not either */
        (void)fprintf(stderr, "tidegate: worker %u ended while it started\n", slot->number);
        end_workers(master, SIGTERM);
    } else {
        tg_reload_died(&master->reload, slot);
        if (master->fleet.ending && tg_fleet_running(&master->fleet) == 0) {
            tg_loop_stop(master->loop);
        }
    }
}

/* A worker that outlives the master must not hold its control socket, or the next master could not have it. */
static void
on_forked(void *arg)
{
    struct tg_master *master = arg;
    tg_succession_forget(&master->succession);
    tg_reload_forget(&master->reload);
    tg_keeping_forget(&master->keeping);
}

static void
on_born(void *arg, struct tg_slot *slot)
{
    struct tg_master *master = arg;
    tg_reload_born(&master->reload, slot);
    tg_tracing_born(&master->tracing, &master->fleet, slot);
}

static struct tg_upstreams
upstreams_of(struct tg_master *master)
{
    return (struct tg_upstreams){master->fleet.cells, master->reload.current->id, tg_loop_now(master->loop)};
}

static struct tg_status
status_of(struct tg_master *master)
{
    const double now = tg_loop_wall(master->loop);
    return (struct tg_status){.fleet = &master->fleet,
                              .current = master->reload.current,
                              .upstreams = upstreams_of(master),
                              .uptime = now - master->started,
                              .now = now,
                              .reload_error = master->reload.last_error.text,
                              .upgrade_error = master->succession.error,
                              .trial = master->reload.trial,
                              .canary = &master->reload.canary,
                              .shadow = &master->reload.shadow};
}

/* Until the next generation: that has its own. */
static void
set_log_level(struct tg_master *master, struct tg_control_client *client, const char *level)
{
    struct tg_channel_message message = {.type = TG_CHANNEL_LOG};
    enum tg_log_level number;
    if (tg_log_level_of(level, &number) != TG_OK) {
        tg_control_answer(client, false, "not a level: debug, info, warn, error\n");
        return;
    }
    (void)snprintf(message.text, sizeof message.text, "%s", level);
    tg_log_set_level(number);
    (void)tg_fleet_send(&master->fleet, &message, -1);
    (void)snprintf(message.text, sizeof message.text, "the log level is %s\n", level);
    tg_control_answer(client, true, message.text);
}

static void
tell_sources(struct tg_master *master, struct tg_control_client *client, const char *id)
{
    const struct tg_generation *generation = tg_history_find(master->reload.current, id);
    char *text = generation == NULL ? NULL : tg_history_sources(generation);
    tg_control_answer(client, text != NULL, text != NULL ? text : "no such generation\n");
    tg_mem_free(text);
}

static void
tell_token(struct tg_master *master, struct tg_control_client *client)
{
    char token[TG_TOKEN_SIZE + 1];
    struct tg_err err = {0};
    const bool ok = tg_token_read(master->options->succession.control, token, &err) == TG_OK;
    if (ok) {
        memcpy(token + strlen(token), "\n", 2);
    }
    tg_control_answer(client, ok, ok ? token : err.text);
    explicit_bzero(token, sizeof token);
}

/* Whether something is another after it: then the log says who wanted it, also where nobody has used the admin
 * interface. Generations tell that themselves. */
static bool
is_change(const char *line)
{
    static const char *const named[] = {"upstream ", "route "};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        const size_t n = strlen(named[i]);
        if (strncmp(line, named[i], n) == 0) {
            return strchr(line + n, ' ') != NULL;
        }
    }
    return strncmp(line, "log ", 4) == 0 || strncmp(line, "canary ", 7) == 0 || strcmp(line, "stop") == 0 ||
           strcmp(line, "drain") == 0 || strcmp(line, "upgrade") == 0;
}

static void
on_command(void *arg, struct tg_control_client *client, const char *line)
{
    static char text[TG_STATUS_SIZE];
    struct tg_master *master = arg;
    const struct tg_status status = status_of(master);
    const struct tg_stats stats = {master->fleet.metrics, master->reload.current, status.upstreams, status.now};
    if (tg_control_fd(master->succession.control) < 0) {
        tg_control_answer(client, false, "the gateway was upgraded a moment ago; ask again\n");
        return;
    }
    if (is_change(line)) {
        tg_log(TG_LOG_INFO, "%s: %s", tg_control_who(client), line);
    }
    if (strcmp(line, "upgrade") == 0) {
        tg_succession_ask(&master->succession, client);
    } else if (strcmp(line, "reload") == 0 || strncmp(line, "reload ", 7) == 0) {
        tg_reload_command(&master->reload, client, line[6] == ' ' ? line + 7 : "");
    } else if (strcmp(line, "push") == 0 || strncmp(line, "push ", 5) == 0) {
        tg_reload_push(&master->reload, client, line[4] == ' ' ? line + 5 : "");
    } else if (strncmp(line, "canary ", 7) == 0) {
        tg_reload_canary(&master->reload, client, line + 7);
    } else if (strncmp(line, "rollback ", 9) == 0) {
        tg_rollback(&master->reload, client, line + 9);
    } else if (strcmp(line, "status") == 0) {
        (void)tg_status_text(&status, text, sizeof text);
        tg_control_answer(client, true, text);
    } else if (strcmp(line, "status --json") == 0) {
        (void)tg_status_json(&status, text, sizeof text);
        tg_control_answer(client, true, text);
    } else if (strcmp(line, "history") == 0 || strcmp(line, "history --json") == 0) {
        (void)tg_status_history(&status, line[7] == ' ', text, sizeof text);
        tg_control_answer(client, true, text);
    } else if (strcmp(line, "token") == 0) {
        tell_token(master, client);
    } else if (strncmp(line, "sources ", 8) == 0) {
        tell_sources(master, client, line + 8);
    } else if (strncmp(line, "log ", 4) == 0) {
        set_log_level(master, client, line + 4);
    } else if (strncmp(line, "profile ", 8) == 0) {
        tg_profiling_command(&master->profiling, &master->fleet, client, line + 8);
    } else if (strncmp(line, "trace ", 6) == 0) {
        tg_tracing_command(&master->tracing, &master->fleet, client, line + 6);
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
    } else if (!tg_stats_command(&stats, client, line)) {
        tg_control_answer(client, false, "unknown command\n");
    }
}

static void
reap(struct tg_master *master)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (!tg_reload_reaped(&master->reload, pid, status) && !tg_keeping_reaped(&master->keeping, pid, status) &&
            !tg_upgrade_reaped(&master->succession.upgrade, pid, status)) {
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
        tg_reload_ask(&master->reload, "signal");
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
    tg_reload_check(&master->reload);
    tg_profiling_check(&master->profiling, tg_loop_now(master->loop));
    tg_tracing_check(&master->tracing, &master->fleet);
    tg_keeping_check(&master->keeping);
    if (master->live && !master->fleet.waits) {
        tg_reload_keep(&master->reload);
    }
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
    tg_log(TG_LOG_INFO, "generation %s is live with %u worker%s", master->reload.current->id, workers,
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
    master->starting = event_new(base, -1, 0, on_starting, master);
    if (master->check == NULL || master->starting == NULL || event_add(master->check, &every) < 0) {
        return TG_ENOMEM;
    }
    return TG_OK;
}

static bool
reloads(const void *arg)
{
    const struct tg_master *master = arg;
    return tg_reload_is_busy(&master->reload);
}

static void
on_left(void *arg)
{
    struct tg_master *master = arg;
    tg_reload_leave(&master->reload);
    if (tg_fleet_running(&master->fleet) == 0) {
        tg_loop_stop(master->loop);
    }
}

static void
on_stayed(void *arg)
{
    struct tg_master *master = arg;
    tg_reload_resume(&master->reload);
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

/*
 * What the configuration is, or else, where that is wanted, what it was when it was last good: a gateway that is
 * started by nobody who looks must come up. At an upgrade somebody does, and the master before serves.
 */
static struct tg_generation *
first_generation(struct tg_master *master, struct tg_err *err)
{
    const struct tg_options *options = master->options;
    struct tg_source source = options->source;
    struct tg_generation *kept = tg_archive_open(&master->keeping.archive);
    struct tg_generation *before = tg_fleet_take_generation(&master->fleet);
    source.pushed = before != NULL ? tg_generation_pushed(before) : master->keeping.archive.pushed;
    source.layered = true;
    struct tg_generation *first = tg_generation_compile(&source, err);
    tg_generation_free(before);
    if (first != NULL) {
        first->next = kept;
        return first;
    }
    if (options->last_good && !master->fleet.waits && kept != NULL) {
        master->reload.last_error = *err;
        tg_log(TG_LOG_ERROR,
               "generation %s of %s, the last good one, is started, since the configuration is refused: %s", kept->id,
               options->state, err->text);
        return kept;
    }
    return NULL; /* the process ends, and what was kept with it */
}

static enum tg_rc
open_master(struct tg_master *master, struct tg_err *err)
{
    const struct tg_options *options = master->options;
    tg_keeping_init(&master->keeping, options->state, options->history);
    master->reload.keeping = &master->keeping;
    master->reload.most = options->history;
    if (tg_modules_compile(err) != TG_OK || tg_compile_warm(err) != TG_OK) {
        return TG_ESCRIPT;
    }
    struct tg_generation *first = first_generation(master, err);
    if (first == NULL) {
        return TG_ESCRIPT;
    }
    first->serial = ++master->reload.serials;
    master->loop = tg_loop_new();
    master->hooks = (struct tg_fleet_hooks){on_message, on_died, on_forked, on_born, master};
    master->fleet.watchdog = options->watchdog;
    master->fleet.drain_timeout = options->drain_timeout;
    master->fleet.privilege = &options->privilege;
    if (master->loop == NULL || open_events(master) != TG_OK ||
        tg_fleet_init(&master->fleet, master->loop, options->workers, &master->hooks) != TG_OK ||
        tg_reload_init(&master->reload, &options->source, master->loop, &master->fleet, &master->succession) != TG_OK) {
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    master->started = tg_loop_wall(master->loop);
    if (tg_succession_open(&master->succession, master->loop, err) != TG_OK ||
        tg_fleet_provide(&master->fleet, first->manifest, false, err) != TG_OK ||
        tg_succession_begin(&master->succession, err) != TG_OK) {
        return TG_ESYSTEM;
    }
    return tg_reload_begin(&master->reload, first, options->watch, err);
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
    tg_keeping_end(&master->keeping);
    tg_fleet_end(&master->fleet);
    tg_succession_close(&master->succession, master->failed ? "a worker ended while it started" : NULL);
    return master->failed ? 1 : 0;
}
