#include "process/reload.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

enum { PREPARE_TIMEOUT = 60 /* seconds: a worker that has much to do builds slowly */ };

static void start(struct tg_reload *reload);
static void prepare(struct tg_reload *reload, struct tg_generation *generation);

/* ------------------------------------------------------------------ the end */

static void
count(struct tg_reload *reload, const char *outcome)
{
    char key[64];
    const int n = snprintf(key, sizeof key, "tidegate_reloads_total\1{outcome=\"%s\"}", outcome);
    const uint32_t series = tg_metrics_series(reload->fleet->metrics, tg_slice_of(key, (size_t)n));
    struct tg_metric_row *row = tg_metrics_row(reload->fleet->metrics, TG_METRIC_MASTER);
    tg_metrics_use(reload->fleet->metrics, row);
    if (series < TG_METRIC_SERIES) {
        row->series[series] += 1;
    }
}

/* Answers those who waited for what has ended. */
static void
end(struct tg_reload *reload, bool ok, const char *text)
{
    const unsigned answered = reload->waiting_count - reload->later;
    for (unsigned i = 0; i < answered; i++) {
        tg_control_answer(reload->waiting[i], ok, text);
    }
    memmove(reload->waiting, reload->waiting + answered, reload->later * sizeof reload->waiting[0]);
    reload->waiting_count = reload->later;
    reload->later = 0;
    reload->decided = false;
    reload->returns = false;
    tg_mem_free(reload->pushed);
    reload->pushed = NULL;
    (void)event_del(reload->overdue);
    if (!reload->yields && !tg_succession_resume(reload->succession) && reload->again) {
        reload->again = false;
        start(reload);
    }
}

static void
refuse(struct tg_reload *reload, const char *text)
{
    char answer[sizeof reload->last_error.text + 128];
    (void)snprintf(reload->last_error.text, sizeof reload->last_error.text, "%s", text);
    (void)snprintf(answer, sizeof answer, "%s\nthe generation %s goes on\n", text, reload->current->id);
    tg_log(TG_LOG_ERROR, "reload refused: %s; generation %s goes on", text, reload->current->id);
    count(reload, "refused");
    end(reload, false, answer);
}

/* Puts the generation on top of the history. */
static void
remember(struct tg_reload *reload, struct tg_generation *generation)
{
    generation->committed = tg_loop_wall(reload->loop);
    (void)snprintf(generation->by, sizeof generation->by, "%s", reload->by);
    if (reload->current != NULL) {
        tg_history_change(reload->current, generation, generation->change, sizeof generation->change);
    }
    reload->current = tg_history_add(reload->current, generation, reload->most);
    reload->fleet->generation = generation;
    reload->kept = false;
}

void
tg_reload_keep(struct tg_reload *reload)
{
    if (!reload->kept) {
        tg_keeping_put(reload->keeping, reload->current);
        reload->kept = true;
    }
}

static void
commit(struct tg_reload *reload, struct tg_generation *generation)
{
    const struct tg_channel_message message = {.type = TG_CHANNEL_COMMIT, .serial = generation->serial};
    char text[128];
    tg_reload_keep(reload); /* the first one, which nobody has looked at yet */
    remember(reload, generation);
    tg_fleet_insist(reload->fleet, &message);
    tg_fleet_trim(reload->fleet, generation->manifest);
    tg_reload_keep(reload);
    reload->last_error.text[0] = '\0';
    tg_log(TG_LOG_INFO, "generation %s is live", generation->id);
    (void)snprintf(text, sizeof text, "generation %s is live\n", generation->id);
    count(reload, "committed");
    end(reload, true, text);
}

static void
abandon(struct tg_reload *reload, struct tg_generation *generation, const char *why)
{
    const struct tg_channel_message message = {.type = TG_CHANNEL_ABORT};
    (void)tg_fleet_send(reload->fleet, &message, -1);
    tg_fleet_trim(reload->fleet, reload->current->manifest);
    tg_generation_free(generation);
    refuse(reload, why);
}

static void
abandon_next(struct tg_reload *reload, const char *why)
{
    struct tg_generation *next = reload->next;
    reload->next = NULL;
    abandon(reload, next, why);
}

/* ------------------------------------------------------------------ on trial */

static struct tg_channel_message
trial_message(const struct tg_reload *reload)
{
    struct tg_channel_message message = {
        .type = reload->canary.options.shadow ? TG_CHANNEL_SHADOW : TG_CHANNEL_CANARY,
        .serial = reload->trial->serial,
        .number = reload->canary.options.share,
    };
    (void)snprintf(message.text, sizeof message.text, "%s", reload->canary.options.by);
    return message;
}

static void
begin_trial(struct tg_reload *reload)
{
    char text[128];
    reload->trial = reload->next;
    reload->fleet->trial = reload->next;
    reload->next = NULL;
    reload->canary.options = reload->wanted;
    (void)event_del(reload->overdue);
    tg_canary_begin(&reload->canary, reload->fleet->metrics, reload->current->serial, reload->trial->serial,
                    tg_loop_now(reload->loop));
    if (reload->wanted.shadow) {
        tg_shadow_begin(&reload->shadow, reload->fleet->metrics, reload->trial, &reload->wanted, reload->by,
                        tg_loop_wall(reload->loop));
    }
    const struct tg_channel_message message = trial_message(reload);
    (void)tg_fleet_send(reload->fleet, &message, -1);
    (void)snprintf(text, sizeof text, "generation %s is %s with %.2f %% of the requests for %u s", reload->trial->id,
                   reload->wanted.shadow ? "in shadow" : "on trial", reload->wanted.share * 100.0 / TG_CANARY_WHOLE,
                   reload->wanted.watch);
    tg_log(TG_LOG_INFO, "%s", text);
    count(reload, "tried");
    for (unsigned i = 0; reload->wanted.detach && i < reload->waiting_count; i++) {
        char line[160];
        (void)snprintf(line, sizeof line, "%s\n", text);
        tg_control_answer(reload->waiting[i], true, line);
    }
    reload->waiting_count = reload->wanted.detach ? 0 : reload->waiting_count;
    reload->later = reload->wanted.detach ? 0 : reload->later;
}

/*
 * What was in shadow cannot serve: its code runs as one that changes nothing. To be made live it is built again, as
 * after any reload; otherwise nothing has failed, and whoever waits gets the report.
 */
static void
end_shadow(struct tg_reload *reload, struct tg_generation *generation, bool promote, const char *how)
{
    static char text[TG_STATUS_SIZE];
    const struct tg_channel_message message = {.type = TG_CHANNEL_ABORT};
    tg_shadow_end(&reload->shadow, reload->fleet->metrics, how, tg_loop_wall(reload->loop));
    (void)tg_status_shadow(&reload->shadow.past[0], false, text, sizeof text);
    tg_log(TG_LOG_INFO, "%.*s", (int)strcspn(text, "\n"), text);
    (void)tg_fleet_send(reload->fleet, &message, -1);
    tg_fleet_trim(reload->fleet, reload->current->manifest);
    if (promote) {
        reload->wanted = (struct tg_canary_options){0};
        (void)snprintf(reload->by, sizeof reload->by, "%s", reload->shadow.past[0].by); /* who asks since waits */
        prepare(reload, generation);
        return;
    }
    tg_generation_free(generation);
    count(reload, "shadowed");
    end(reload, true, text);
}

static void
end_trial(struct tg_reload *reload, bool good, const char *why)
{
    struct tg_generation *trial = reload->trial;
    reload->trial = NULL;
    reload->fleet->trial = NULL;
    if (reload->canary.options.shadow) {
        end_shadow(reload, trial, good, why);
        return;
    }
    if (good) {
        tg_log(TG_LOG_INFO, "the trial of generation %s went well: %s", trial->id, why);
        commit(reload, trial);
        return;
    }
    char text[sizeof reload->canary.why + 128];
    (void)snprintf(text, sizeof text, "the trial of generation %s has failed: %s", trial->id, why);
    count(reload, "rolled_back");
    abandon(reload, trial, text);
}

void
tg_reload_check(struct tg_reload *reload)
{
    if (reload->trial == NULL) {
        return;
    }
    if (reload->canary.options.shadow) {
        if (tg_loop_now(reload->loop) >= reload->canary.since + reload->canary.options.watch * 1000ULL) {
            end_trial(reload, false, "its time is over");
        }
        return;
    }
    const enum tg_canary_verdict verdict =
        tg_canary_judge(&reload->canary, reload->fleet->metrics, tg_loop_now(reload->loop));
    if (verdict != TG_CANARY_GOES_ON) {
        end_trial(reload, verdict == TG_CANARY_PROMOTE, reload->canary.why);
    }
}

void
tg_reload_canary(struct tg_reload *reload, struct tg_control_client *client, const char *verb)
{
    char why[128];
    const bool promote = strcmp(verb, "promote") == 0;
    if (reload->trial == NULL) {
        tg_control_answer(client, false, "no generation is on trial\n");
    } else if (!promote && strcmp(verb, "abort") != 0) {
        tg_control_answer(client, false, "not a command: promote, abort\n");
    } else {
        (void)snprintf(why, sizeof why, "%s by %s", promote ? "promoted" : "aborted", tg_control_who(client));
        const bool builds = promote && reload->canary.options.shadow && reload->waiting_count < TG_RELOAD_WAITING;
        if (builds) { /* whether it can be is known later */
            reload->waiting[reload->waiting_count++] = client;
        }
        end_trial(reload, promote, why);
        if (!builds) {
            tg_control_answer(client, true, promote ? "promoted\n" : "aborted\n");
        }
    }
}

/* ------------------------------------------------------------------ the two steps */

/* When every worker that was asked has prepared. */
static void
go_on_when_ready(struct tg_reload *reload)
{
    for (unsigned i = 0; i < reload->fleet->count; i++) {
        const struct tg_slot *slot = &reload->fleet->slots[i];
        if (slot->asked && !slot->prepared) {
            return;
        }
    }
    if (reload->wanted.share > 0) {
        begin_trial(reload);
        return;
    }
    struct tg_generation *next = reload->next;
    reload->next = NULL;
    commit(reload, next);
}

/* False: a worker runs that cannot be asked. */
static bool
ask_slot(const struct tg_reload *reload, struct tg_slot *slot, const struct tg_generation *generation)
{
    struct tg_channel_message message = {
        .type = TG_CHANNEL_PREPARE, .serial = generation->serial, .number = reload->wanted.shadow};
    (void)snprintf(message.text, sizeof message.text, "%s", generation->id);
    slot->prepared = false;
    slot->asked = slot->pid != 0 && tg_channel_send(slot->channel, &message, generation->fd) == TG_OK;
    return slot->asked || slot->pid == 0;
}

/* First step: every worker builds the generation beside the current one. */
static void
prepare(struct tg_reload *reload, struct tg_generation *generation)
{
    static const struct timeval timeout = {PREPARE_TIMEOUT, 0};
    struct tg_err err = {0};
    if (tg_fleet_provide(reload->fleet, generation->manifest, true, &err) != TG_OK) {
        tg_generation_free(generation);
        refuse(reload, err.text);
        return;
    }
    generation->serial = ++reload->serials;
    reload->next = generation;
    bool all = true;
    for (unsigned i = 0; i < reload->fleet->count; i++) {
        all = ask_slot(reload, &reload->fleet->slots[i], generation) && all;
    }
    if (!all) {
        abandon_next(reload, "a worker could not be asked to build the generation");
        return;
    }
    (void)event_add(reload->overdue, &timeout);
    go_on_when_ready(reload);
}

void
tg_reload_message(struct tg_reload *reload, struct tg_slot *slot, const struct tg_channel_message *message)
{
    if (message->type == TG_CHANNEL_DIFFERS) {
        if (reload->trial != NULL && message->serial == reload->trial->serial) {
            tg_shadow_example(&reload->shadow, message->number, message->text);
        }
        return;
    }
    if (reload->trial != NULL && message->serial == reload->trial->serial) { /* a worker that was replaced */
        const struct tg_channel_message trial = trial_message(reload);
        if (message->type == TG_CHANNEL_PREPARED && tg_channel_send(slot->channel, &trial, -1) == TG_OK) {
            return;
        }
        end_trial(reload, false, message->type == TG_CHANNEL_FAILED ? message->text : "a worker cannot be told of it");
        return;
    }
    if (reload->next == NULL || message->serial != reload->next->serial) {
        return;
    }
    if (message->type == TG_CHANNEL_PREPARED) {
        slot->prepared = true;
        go_on_when_ready(reload);
    } else if (message->type == TG_CHANNEL_FAILED) {
        abandon_next(reload, message->text);
    }
}

void
tg_reload_died(struct tg_reload *reload, struct tg_slot *slot)
{
    char where[256];
    const struct tg_generation *in = tg_fleet_running_in(reload->fleet, slot, where, sizeof where);
    if (in != NULL && in == reload->trial) { /* it has taken along what the other one served */
        char why[sizeof where + 64];
        (void)snprintf(why, sizeof why, "worker %u has died in it: %s", slot->number, where);
        end_trial(reload, false, why);
        return;
    }
    if (reload->next == NULL || !slot->asked || slot->prepared) {
        return;
    }
    if (!reload->returns) {
        abandon_next(reload, "a worker died while it built the generation");
        return;
    }
    /* That generation has served: it is the one which is left that kills workers, so going back cannot depend on them.
     * Who replaces this one is asked, or begins with it. */
    slot->asked = false;
    go_on_when_ready(reload);
}

void
tg_reload_born(struct tg_reload *reload, struct tg_slot *slot)
{
    const struct tg_generation *coming = reload->returns ? reload->next : reload->trial;
    if (coming != NULL && !ask_slot(reload, slot, coming)) {
        tg_log(TG_LOG_ERROR, "worker %u cannot be told of generation %s", slot->number, coming->id);
    }
}

static void
on_overdue(evutil_socket_t fd, short what, void *arg)
{
    struct tg_reload *reload = arg;
    (void)fd;
    (void)what;
    if (reload->compiler.pid != 0) {
        (void)kill(reload->compiler.pid, SIGKILL);
    } else if (reload->next != NULL) {
        abandon_next(reload, "a worker did not build the generation in time");
    }
}

/* ------------------------------------------------------------------ the begin */

bool
tg_reload_is_busy(const struct tg_reload *reload)
{
    return reload->compiler.pid != 0 || reload->next != NULL || reload->trial != NULL;
}

static void
start(struct tg_reload *reload)
{
    static const struct timeval timeout = {TG_COMPILE_TIMEOUT, 0};
    struct tg_err err = {0};
    if (reload->fleet->ending) {
        return;
    }
    if (tg_reload_is_busy(reload) || tg_succession_is_busy(reload->succession)) {
        reload->again = true;
        return;
    }
    memcpy(reload->by, reload->asked_by, sizeof reload->by);
    struct tg_source source = *reload->source;
    if (reload->pushed != NULL) {
        source.pushed = tg_slice_of(reload->pushed, reload->pushed_length);
        source.layered = reload->current->manifest->layered;
    } else { /* what came from elsewhere goes on while the files of the disk are read anew */
        source.pushed = tg_generation_pushed(reload->current);
        source.layered = true;
    }
    if (tg_compiler_start(&reload->compiler, &source, reload->current, &err) != TG_OK) {
        refuse(reload, err.text);
        return;
    }
    (void)event_add(reload->overdue, &timeout);
}

/* What the configuration says of trials holds when who asks has said nothing. */
static enum tg_rc
decide(struct tg_reload *reload, const struct tg_generation *generation, struct tg_err *err)
{
    if (reload->decided) {
        return TG_OK;
    }
    reload->wanted = (struct tg_canary_options){0};
    return tg_canary_read(generation->manifest->canary, &reload->wanted, err);
}

/* A file that is followed may have become live between the saving and the asking, which is no reason for doubts. */
static void
tell_unchanged(const struct tg_reload *reload, char *text, size_t n)
{
    const struct tg_generation *current = reload->current;
    const double age = tg_loop_wall(reload->loop) - current->committed;
    const int length = snprintf(text, n, "generation %s is live: nothing has changed", current->id);
    if (current->change[0] != '\0') {
        (void)snprintf(text + length, n - (size_t)length, " since it became so %.0f s ago (%s)\n", age > 0 ? age : 0,
                       current->change);
    } else {
        (void)snprintf(text + length, n - (size_t)length, "\n");
    }
}

static void
compiled(struct tg_reload *reload, int status)
{
    struct tg_err err = {0};
    struct tg_generation *generation = tg_compiler_finish(&reload->compiler, status, &err);
    (void)event_del(reload->overdue);
    if (generation != NULL && decide(reload, generation, &err) != TG_OK) {
        tg_generation_free(generation);
        generation = NULL;
    }
    if (generation == NULL) {
        refuse(reload, err.text);
        return;
    }
    tg_watch_generation(reload->watch, generation, reload->watched_dirs);
    if (strcmp(generation->id, reload->current->id) == 0) {
        char text[sizeof reload->current->change + 128];
        tell_unchanged(reload, text, sizeof text);
        tg_generation_free(generation);
        reload->last_error.text[0] = '\0';
        end(reload, true, text);
        return;
    }
    prepare(reload, generation);
}

bool
tg_reload_reaped(struct tg_reload *reload, pid_t pid, int status)
{
    if (pid != reload->compiler.pid) {
        return false;
    }
    compiled(reload, status);
    return true;
}

void
tg_reload_ask(struct tg_reload *reload, const char *by)
{
    (void)snprintf(reload->asked_by, sizeof reload->asked_by, "%s", by);
    start(reload);
}

static void
on_saved(void *arg)
{
    tg_reload_ask(arg, "a file that was saved");
}

/* Takes what is said of a trial; false: the client was answered. */
static bool
take_words(struct tg_reload *reload, struct tg_control_client *client, const char *words)
{
    struct tg_err err = {0};
    struct tg_canary_options wanted = {0};
    if (reload->trial != NULL) {
        tg_control_answer(client, false, "a generation is on trial: tidegate canary promote, or abort\n");
        return false;
    }
    if (reload->waiting_count == TG_RELOAD_WAITING) {
        tg_control_answer(client, false, "too many wait for a reload\n");
        return false;
    }
    if (tg_canary_read(words, &wanted, &err) != TG_OK) {
        (void)strncat(err.text, "\n", sizeof err.text - strlen(err.text) - 1);
        tg_control_answer(client, false, err.text);
        return false;
    }
    if (*words != '\0') {
        reload->wanted = wanted;
        reload->decided = true;
    }
    return true;
}

void
tg_reload_command(struct tg_reload *reload, struct tg_control_client *client, const char *words)
{
    if (*words != '\0' && tg_reload_is_busy(reload)) {
        tg_control_answer(client, false, "a reload is under way; try again\n");
        return;
    }
    if (!take_words(reload, client, words)) {
        return;
    }
    reload->waiting[reload->waiting_count++] = client;
    if (tg_reload_is_busy(reload)) {
        reload->later++;
    }
    tg_reload_ask(reload, tg_control_who(client));
}

void
tg_reload_push(struct tg_reload *reload, struct tg_control_client *client, const char *words)
{
    const struct tg_slice files = tg_control_payload(client);
    if (tg_reload_is_busy(reload) || tg_succession_is_busy(reload->succession)) {
        tg_control_answer(client, false, "a reload or an upgrade is under way; try again\n");
        return;
    }
    if (files.n == 0) {
        tg_control_answer(client, false, "found no files\n");
        return;
    }
    if (!take_words(reload, client, words)) {
        return;
    }
    reload->pushed = tg_mem_text(files.p, files.n);
    reload->pushed_length = files.n;
    if (reload->pushed == NULL) {
        tg_control_answer(client, false, "memory is short\n");
        return;
    }
    reload->waiting[reload->waiting_count++] = client;
    (void)snprintf(reload->asked_by, sizeof reload->asked_by, "push by %.50s", tg_control_who(client));
    start(reload);
}

void
tg_reload_yield(struct tg_reload *reload, const char *why)
{
    reload->again = false; /* what was saved or asked for until now would undo what comes next */
    reload->later = 0;
    reload->yields = true;
    if (reload->trial != NULL) {
        end_trial(reload, false, why);
    } else if (reload->next != NULL) {
        abandon_next(reload, why);
    } else if (reload->compiler.pid != 0) {
        tg_compiler_cancel(&reload->compiler);
        refuse(reload, why);
    } else if (reload->waiting_count > 0) { /* for an upgrade */
        char text[128];
        (void)snprintf(text, sizeof text, "%s\n", why);
        end(reload, false, text);
    }
    reload->yields = false;
    tg_generation_free(reload->held);
    reload->held = NULL;
}

void
tg_reload_return(struct tg_reload *reload, struct tg_generation *old, struct tg_control_client *client)
{
    reload->waiting[reload->waiting_count++] = client;
    reload->wanted = (struct tg_canary_options){0};
    (void)snprintf(reload->by, sizeof reload->by, "rollback by %.50s", tg_control_who(client));
    if (tg_succession_is_busy(reload->succession)) {
        reload->held = old;
        return;
    }
    reload->returns = true;
    prepare(reload, old);
}

bool
tg_reload_join(struct tg_reload *reload, const struct tg_generation *old, struct tg_control_client *client)
{
    if (!reload->returns || reload->next == NULL || strcmp(reload->next->id, old->id) != 0 ||
        reload->waiting_count == TG_RELOAD_WAITING) {
        return false;
    }
    struct tg_control_client **place = reload->waiting + reload->waiting_count - reload->later;
    memmove(place + 1, place, reload->later * sizeof *place);
    *place = client;
    reload->waiting_count++;
    return true;
}

/* ------------------------------------------------------------------ life */

enum tg_rc
tg_reload_init(struct tg_reload *reload, const struct tg_source *source, struct tg_loop *loop, struct tg_fleet *fleet,
               struct tg_succession *succession)
{
    reload->source = source;
    reload->loop = loop;
    reload->fleet = fleet;
    reload->succession = succession;
    reload->overdue = event_new(tg_loop_base(loop), -1, 0, on_overdue, reload);
    return reload->overdue == NULL ? TG_ENOMEM : TG_OK;
}

/* A start changes nothing when the newest of those that were kept is the same: it goes on, as it was asked for. */
static void
begin_history(struct tg_reload *reload, struct tg_generation *first)
{
    struct tg_generation *before = first->next;
    if (first->committed == 0 && before != NULL && strcmp(before->id, first->id) == 0) {
        first->committed = before->committed;
        memcpy(first->by, before->by, sizeof first->by);
        memcpy(first->change, before->change, sizeof first->change);
        first->next = before->next;
        tg_generation_free(before);
    }
    reload->kept = first->committed > 0;
    if (reload->kept) {
        reload->current = first;
        reload->fleet->generation = first;
        return;
    }
    reload->current = before;
    (void)snprintf(reload->by, sizeof reload->by, "start");
    remember(reload, first);
}

enum tg_rc
tg_reload_begin(struct tg_reload *reload, struct tg_generation *first, bool watch, struct tg_err *err)
{
    reload->watched_dirs = watch ? reload->source->plugin_dirs : NULL;
    reload->watch = tg_watch_new(reload->loop, watch, on_saved, reload, err);
    if (reload->watch == NULL) {
        return TG_ESYSTEM;
    }
    begin_history(reload, first);
    tg_watch_generation(reload->watch, first, reload->watched_dirs);
    return TG_OK;
}

void
tg_reload_resume(struct tg_reload *reload)
{
    struct tg_generation *held = reload->held;
    if (held != NULL) {
        reload->held = NULL;
        reload->returns = true;
        prepare(reload, held);
    } else if (reload->again) {
        reload->again = false;
        start(reload);
    }
}

void
tg_reload_leave(struct tg_reload *reload)
{
    tg_watch_free(reload->watch);
    reload->watch = NULL;
    tg_generation_free(reload->held);
    reload->held = NULL;
    end(reload, false, "the gateway was upgraded meanwhile, with the configuration that it found; ask again\n");
}

void
tg_reload_forget(struct tg_reload *reload)
{
    tg_watch_forget(reload->watch);
}
