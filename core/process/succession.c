#include "process/succession.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "process/pid_file.h"

static void
hand_over(void *arg, struct tg_handover_writer *writer)
{
    const struct tg_succession *succession = arg;
    tg_handover_put(writer, "control");
    tg_handover_put_fd(writer, tg_control_fd(succession->control));
    tg_handover_put(writer, " %s\n", succession->options->control);
    tg_fleet_hand_over(succession->fleet, writer);
}

static void
write_pid_file(const struct tg_succession *succession)
{
    struct tg_err err = {0};
    const char *path = succession->options->pid_file;
    if (path != NULL && tg_pid_file_write(path, &err) != TG_OK) {
        tg_log(TG_LOG_ERROR, "%s", err.text);
    }
}

static void
answer(struct tg_succession *succession, bool ok, const char *text)
{
    tg_log(ok ? TG_LOG_INFO : TG_LOG_ERROR, "%s", text);
    if (succession->asker != NULL) {
        char line[sizeof succession->error + 128];
        (void)snprintf(line, sizeof line, "%s\n", text);
        tg_control_answer(succession->asker, ok, line);
        succession->asker = NULL;
    }
}

static void
on_granted(void *arg)
{
    struct tg_succession *succession = arg;
    tg_control_pause(succession->control, true);
}

static void
on_done(void *arg, pid_t successor)
{
    struct tg_succession *succession = arg;
    char text[128];
    tg_fleet_leave(succession->fleet);
    tg_control_leave(succession->control);
    (void)snprintf(text, sizeof text, "upgraded: pid %d is the master now, pid %d drains", (int)successor,
                   (int)getpid());
    answer(succession, true, text);
    succession->hooks->left(succession->hooks->arg);
}

static void
on_failed(void *arg, const char *why)
{
    struct tg_succession *succession = arg;
    char text[sizeof succession->error + 64];
    (void)snprintf(succession->error, sizeof succession->error, "%s", why);
    tg_control_pause(succession->control, false);
    write_pid_file(succession); /* the new master may have been that far */
    (void)snprintf(text, sizeof text, "upgrade failed: %s; pid %d %s", succession->error, (int)getpid(),
                   succession->fleet->ending ? "ends" : "goes on");
    answer(succession, false, text);
    succession->hooks->stayed(succession->hooks->arg);
}

static void
start(struct tg_succession *succession)
{
    struct tg_err err = {0};
    const struct tg_succession_options *options = succession->options;
    succession->next = false;
    tg_log(TG_LOG_INFO, "upgrade: %s is run anew", options->program);
    if (tg_upgrade_start(&succession->upgrade, options->program, options->argv, options->upgrade_timeout, &err) !=
        TG_OK) {
        on_failed(succession, err.text);
    }
}

void
tg_succession_ask(struct tg_succession *succession, struct tg_control_client *client)
{
    const char *busy = NULL;
    if (succession->fleet->waits || succession->fleet->ending) {
        busy = "this master does not serve now";
    } else if (succession->next || tg_succession_is_busy(succession)) {
        busy = "an upgrade is under way";
    }
    if (busy != NULL) {
        char line[128];
        tg_log(TG_LOG_ERROR, "upgrade refused: %s", busy);
        (void)snprintf(line, sizeof line, "upgrade refused: %s\n", busy);
        if (client != NULL) {
            tg_control_answer(client, false, line);
        }
        return;
    }
    succession->asker = client;
    succession->next = true;
    if (!succession->hooks->is_reloading(succession->hooks->arg)) {
        start(succession);
    }
}

bool
tg_succession_is_busy(const struct tg_succession *succession)
{
    return succession->upgrade.pid != 0;
}

bool
tg_succession_resume(struct tg_succession *succession)
{
    if (!succession->next || succession->fleet->ending) {
        return false;
    }
    start(succession);
    return tg_succession_is_busy(succession);
}

/* The master before has left the control socket to us, or has died. */
static void
take_over(void *arg)
{
    struct tg_succession *succession = arg;
    tg_fleet_accept(succession->fleet);
    tg_control_pause(succession->control, false);
    write_pid_file(succession);
    tg_log(TG_LOG_INFO, "generation %s is live with %u worker%s: pid %d has taken over",
           succession->fleet->generation->id, succession->fleet->count, succession->fleet->count == 1 ? "" : "s",
           (int)getpid());
    tg_takeover_done(&succession->takeover);
}

void
tg_succession_check(struct tg_succession *succession)
{
    if (succession->fleet->waits && tg_fleet_is_ready(succession->fleet)) {
        tg_takeover_ready(&succession->takeover);
    }
}

enum tg_rc
tg_succession_init(struct tg_succession *succession, struct tg_fleet *fleet, struct tg_err *err)
{
    succession->fleet = fleet;
    succession->takeover = (struct tg_takeover){.report = -1, .granted = take_over, .arg = succession};
    const enum tg_rc rc = tg_handover_read(&fleet->handover, err);
    if (fleet->handover != NULL) {
        succession->takeover.report = fleet->handover->report;
        fleet->waits = true;
    }
    return rc;
}

enum tg_rc
tg_succession_open(struct tg_succession *succession, struct tg_loop *loop, struct tg_err *err)
{
    struct tg_handover *handover = succession->fleet->handover;
    const struct tg_succession_hooks *hooks = succession->hooks;
    const char *path = succession->options->control;
    succession->loop = loop;
    succession->upgrade_hooks = (struct tg_upgrade_hooks){hand_over, on_granted, on_done, on_failed, succession};
    succession->upgrade = (struct tg_upgrade){.loop = loop, .hooks = &succession->upgrade_hooks, .report = -1};
    if (handover != NULL && handover->control >= 0 && strcmp(handover->control_path, path) == 0) {
        succession->control = tg_control_adopt(loop, path, handover->control, hooks->command, hooks->arg, err);
    } else {
        succession->control = tg_control_open(loop, path, hooks->command, hooks->arg, err);
    }
    return succession->control == NULL ? TG_ESYSTEM : TG_OK;
}

enum tg_rc
tg_succession_begin(struct tg_succession *succession, struct tg_err *err)
{
    const char *pid_file = succession->options->pid_file;
    tg_handover_close_rest(succession->fleet->handover);
    tg_mem_free(succession->fleet->handover);
    succession->fleet->handover = NULL;
    if (!succession->fleet->waits) {
        return pid_file == NULL ? TG_OK : tg_pid_file_write(pid_file, err);
    }
    if (tg_takeover_open(&succession->takeover, succession->loop) != TG_OK) {
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    return TG_OK;
}

void
tg_succession_cancel(struct tg_succession *succession)
{
    tg_upgrade_cancel(&succession->upgrade, "this master is told to end");
}

void
tg_succession_give_way(struct tg_succession *succession, const char *why)
{
    if (!succession->upgrade.granted) {
        tg_upgrade_cancel(&succession->upgrade, why);
    }
}

void
tg_succession_forget(struct tg_succession *succession)
{
    tg_control_forget(succession->control);
    tg_upgrade_forget(&succession->upgrade);
    if (succession->takeover.report >= 0) {
        close(succession->takeover.report);
    }
}

void
tg_succession_close(struct tg_succession *succession, const char *why)
{
    if (why != NULL && succession->takeover.report >= 0) {
        tg_takeover_fail(&succession->takeover, why);
    }
    tg_control_close(succession->control);
    if (succession->options->pid_file != NULL) {
        tg_pid_file_remove(succession->options->pid_file);
    }
}
