#include "process/preparation.h"

#include <stddef.h>

#include "process/tls_servers.h"
#include "proxy/machine.h"

enum { STEP = 1000 /* microseconds of each turn of the loop */ };

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
    const enum tg_rc rc = tg_vm_build(preparation->unfinished, STEP, &err);
    if (rc == TG_AGAIN) {
        tg_task_queue(preparation->host->proxy->loop, task);
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
tg_preparation_begin(struct tg_preparation *preparation, int fd, uint64_t serial, bool shadow)
{
    struct tg_err err = {0};
    tg_preparation_forget(preparation);
    preparation->serial = serial;
    preparation->step.run = on_step;
    struct tg_generation *generation = tg_generation_open(fd, &err);
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
