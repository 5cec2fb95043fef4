#include "process/preparation.h"

#include <stddef.h>

#include "process/tls_servers.h"
#include "proxy/machine.h"

enum {
    SMALL = 40000 /* microseconds that most generations are built in, */,
    SMALL_STEP = 300, /* in steps of so many */
    CLOSING_MAX = 2   /* generations that are still to be freed: where there are more, they come first */
};

void
tg_preparation_forget(struct tg_preparation *preparation)
{
    struct tg_host *host = preparation->host;
    tg_task_remove(host->proxy->loop, &preparation->step);
    tg_vm_unref(preparation->unfinished);
    preparation->unfinished = NULL;
    if (preparation->vm != NULL && preparation->vm == host->trial.vm) {
        host->trial = (struct tg_host_trial){0};
        tg_vm_retire(preparation->vm, false);
    } else {
        tg_vm_unref(preparation->vm);
    }
    preparation->vm = NULL;
    tg_tls_servers_drop(preparation->tls);
    tg_generation_free(preparation->generation);
    preparation->generation = NULL;
}

static void
fail(struct tg_preparation *preparation, const char *why)
{
    tg_preparation_forget(preparation);
    preparation->done(preparation->arg, preparation->serial, why);
}

static void
on_step(struct tg_task *task)
{
    struct tg_preparation *preparation =
        (struct tg_preparation *)((char *)task - offsetof(struct tg_preparation, step));
    struct tg_err err = {0};
    if (preparation->host->closing > CLOSING_MAX) {
        tg_task_queue_spare(preparation->host->proxy->loop, task);
        return;
    }
    /* Whoever has saved a file waits for it. Only what takes long has to give way to everything else. */
    const uint64_t begin = tg_loop_clock();
    const bool is_small = preparation->spent < SMALL;
    const uint64_t until = is_small ? begin + SMALL_STEP : tg_loop_spare(preparation->host->proxy->loop);
    const enum tg_rc rc = tg_vm_build(preparation->unfinished, until, &err);
    preparation->spent += tg_loop_clock() - begin;
    if (rc == TG_AGAIN) {
        if (is_small) {
            tg_task_queue(preparation->host->proxy->loop, task);
        } else {
            tg_task_queue_spare(preparation->host->proxy->loop, task);
        }
        return;
    }
    if (rc != TG_OK) {
        fail(preparation, err.text);
        return;
    }
    preparation->vm = preparation->unfinished;
    preparation->unfinished = NULL;
    preparation->done(preparation->arg, preparation->serial, "");
}

void
tg_preparation_begin(struct tg_preparation *preparation, int fd, uint64_t serial, const char *id, bool shadow)
{
    struct tg_err err = {0};
    tg_preparation_forget(preparation);
    preparation->serial = serial;
    preparation->step.run = on_step;
    preparation->spent = 0;
    struct tg_generation *generation = tg_generation_open(fd, id, &err);
    preparation->generation = generation;
    if (generation == NULL ||
        tg_tls_servers_make(preparation->tls, generation, preparation->tickets, preparation->host, &err) != TG_OK) {
        fail(preparation, err.text);
        return;
    }
    preparation->host->lua_memory = generation->manifest->lua_memory;
    preparation->unfinished = tg_vm_begin(preparation->host, generation->bytes, serial, generation->id, shadow, &err);
    if (preparation->unfinished == NULL) {
        fail(preparation, err.text);
        return;
    }
    tg_task_queue(preparation->host->proxy->loop, &preparation->step);
}
