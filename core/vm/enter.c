#include "vm/enter.h"

#include <lauxlib.h>
#include <string.h>

#include "base/log.h"
#include "base/map.h"
#include "proxy/machine.h"
#include "vm/steps.h"
#include "vm/vm.h"

/*
 * Asks the runtime about the error value on top of a failed coroutine's stack: a response that was thrown answers the
 * exchange; everything else is logged with its traceback.
 */
static enum tg_rc
judge_error(struct tg_coroutine *co)
{
    struct tg_vm *vm = co->vm;
    lua_State *L = vm->L;
    enum tg_rc rc = TG_ESCRIPT;
    tg_coroutine_measured(co);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->error_ref); /* judge */
    lua_pushvalue(co->L, -1);
    lua_xmove(co->L, L, 1);            /* judge value */
    luaL_traceback(L, co->L, NULL, 0); /* judge value traceback */
    lua_pushinteger(L, (lua_Integer)co->entry);
    lua_pushinteger(L, (lua_Integer)co->plugin);
    if (lua_pcall(L, 4, 1, 0) == 0) { /* handled */
        rc = lua_toboolean(L, -1) ? TG_OK : TG_ESCRIPT;
    } else {
        const char *text = lua_tostring(L, -1);
        tg_log(TG_LOG_ERROR, "error while judging an error: %s", text == NULL ? "(no text)" : text);
    }
    lua_settop(L, 0);
    return rc;
}

/* Runs a phase; drops the coroutine when it failed. */
static enum tg_rc
run(struct tg_coroutine *co)
{
    switch (tg_coroutine_resume(co)) {
    case TG_COROUTINE_DONE:
    case TG_COROUTINE_PARKED:
        return TG_OK;
    case TG_COROUTINE_WAITS:
        return TG_AGAIN;
    case TG_COROUTINE_FAILED:
        break;
    }
    struct tg_vm *vm = co->vm;
    tg_heap_reserve(&vm->heap, true);
    const enum tg_rc rc = judge_error(co);
    tg_heap_reserve(&vm->heap, false);
    const bool grown = tg_abi_vm.grown != 0;
    tg_coroutine_drop(co);
    if (grown || vm->heap.bytes > vm->heap.max / 2) {
        (void)tg_vm_collect(
            vm); /* what it held is garbage now: the next one shall not fail for it, or hide behind it */
    }
    return rc;
}

static void
resume_ready(struct tg_coroutine *co)
{
    struct tg_exchange *x = co->exchange;
    const bool phase = co->phase;
    const uint32_t entry = co->entry;
    const enum tg_rc rc = run(co);
    if (!phase || rc == TG_AGAIN) {
        return;
    }
    if (entry == TG_ENTRY_REQUEST_BODY || entry == TG_ENTRY_RESPONSE_BODY) {
        tg_machine_body_done(x, entry == TG_ENTRY_REQUEST_BODY ? TG_SIDE_REQUEST : TG_SIDE_RESPONSE, rc);
    } else if (entry == TG_ENTRY_REQUEST_MESSAGE || entry == TG_ENTRY_RESPONSE_MESSAGE) {
        tg_machine_message_done(x, entry == TG_ENTRY_REQUEST_MESSAGE ? TG_SIDE_REQUEST : TG_SIDE_RESPONSE, rc);
    } else {
        tg_machine_policy_done(x, rc);
    }
}

void
tg_vm_run_ready(struct tg_task *task)
{
    struct tg_host *host = (struct tg_host *)((char *)task - offsetof(struct tg_host, ready_task));
    /* At most those that are here now: a coroutine that wakes itself must not keep the loop from its sockets. */
    unsigned budget = 0;
    for (const struct tg_coroutine *co = host->ready; co != NULL; co = co->next_ready) {
        budget++;
    }
    while (budget-- > 0 && host->ready != NULL) {
        struct tg_coroutine *co = host->ready;
        host->ready = co->next_ready;
        if (host->ready == NULL) {
            host->ready_last = &host->ready;
        }
        co->is_ready = false;
        resume_ready(co);
    }
    if (host->ready != NULL) {
        tg_task_queue(host->proxy->loop, &host->ready_task);
    }
}

/* One client, or one value of the header, is always on the same side. */
static bool
is_on_trial(const struct tg_host_trial *trial, const struct tg_exchange *x)
{
    uint64_t hash;
    if (trial->ordinals[x->down->listener] == 0) {
        return false;
    }
    if (trial->header[0] == '\0') {
        hash = tg_hash(trial->vm->serial, (const char *)&x->client.sin6_addr, sizeof x->client.sin6_addr);
    } else {
        unsigned from = 0;
        const struct tg_field *field = tg_message_find(&x->request, trial->header, strlen(trial->header), &from);
        if (field == NULL) {
            return false;
        }
        hash = tg_hash(trial->vm->serial, field->value, field->value_len);
    }
    return hash % 10000 < trial->share;
}

static void
bind_to(struct tg_exchange *x, struct tg_vm *vm, unsigned listener)
{
    tg_vm_ref(vm);
    x->generation = vm;
    x->abi.wants = vm->wants;
    x->abi.generation = vm->serial;
    x->abi.listener = (uint16_t)listener;
}

static void
begin(struct tg_exchange *x)
{
    if (x->generation == NULL) {
        bind_to(x, tg_host->current, tg_downstream_config(x->down)->ordinal);
    }
}

static void
settle(struct tg_exchange *x)
{
    const struct tg_host_trial *trial = &tg_host->trial;
    if (trial->vm == NULL || !is_on_trial(trial, x)) {
        return;
    }
    if (trial->shadow) {
        tg_vm_ref(trial->vm);
        x->shadow = trial->vm;
        x->abi.shadow = trial->ordinals[x->down->listener];
    } else {
        tg_vm_unref(x->generation);
        bind_to(x, trial->vm, trial->ordinals[x->down->listener]);
    }
}

/* An allowed X_Consumer_ID is read as X-Consumer-ID by CGI-like upstreams. */
static uint32_t
dashed_hash(const struct tg_field *field)
{
    char name[TG_HOST_STRIP_NAME];
    if (field->name_len > sizeof name) { /* no name of theirs is as long */
        return field->hash;
    }
    for (unsigned i = 0; i < field->name_len; i++) {
        const char byte = field->name[i];
        name[i] = (char)(byte == '_' ? '-' : byte);
    }
    return tg_field_hash(name, field->name_len);
}

/* Identity that only a plugin may state is taken from the client's request before any plugin sees it (SECURITY 1.4). */
static void
strip_identity(const struct tg_vm *vm, struct tg_message *request)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < request->count; i++) {
        const struct tg_field *field = &request->fields[i];
        const uint32_t hash = (field->flags & TG_FIELD_UNDERSCORE) == 0 ? field->hash : dashed_hash(field);
        bool strip = false;
        for (unsigned k = 0; k < vm->strip_count && !strip; k++) {
            strip = hash == vm->strip[k];
        }
        if (!strip && kept++ != i) {
            request->fields[kept - 1] = request->fields[i];
        }
    }
    request->count = kept;
}

/* The one of this generation that waits inside `around` for the response, and is to be entered for it; or a new one. */
static struct tg_coroutine *
take(struct tg_exchange *x, struct tg_vm *vm, enum tg_abi_entry entry, bool resumes)
{
    struct tg_coroutine *co = resumes ? x->coroutines : NULL;
    while (co != NULL && (!co->parked || co->vm != vm)) {
        co = co->next;
    }
    if (co == NULL) {
        return tg_coroutine_take(vm, x, entry);
    }
    co->parked = false;
    co->entry = entry;
    return co;
}

/* Enters the generation in shadow. What comes of it concerns nobody else: it may wait, or raise. */
static void
enter_shadow(struct tg_exchange *x, enum tg_abi_entry entry)
{
    struct tg_coroutine *co = take(x, x->shadow, entry, entry == TG_ENTRY_HEAD);
    if (co != NULL) {
        const enum tg_rc rc = run(co);
        (void)rc;
    }
}

static void
show(struct tg_exchange *x)
{
    enter_shadow(x, TG_ENTRY_HEAD);
}

static void
compare(struct tg_exchange *x)
{
    enter_shadow(x, TG_ENTRY_COMPARE);
}

static enum tg_rc
enter(struct tg_exchange *x, enum tg_abi_entry entry)
{
    struct tg_vm *vm = x->generation;
    if (entry == TG_ENTRY_REQUEST && x->shadow != NULL) { /* while the request is as it came */
        enter_shadow(x, TG_ENTRY_SHADOW);
    }
    if (entry == TG_ENTRY_REQUEST && vm->strip_count > 0) {
        strip_identity(vm, &x->request);
    }
    if (entry == TG_ENTRY_REQUEST && vm->steps != NULL && tg_steps_open(vm->steps, x) != TG_OK) {
        tg_log(TG_LOG_ERROR, "the id of a request: memory is short, or it has too many headers");
        return TG_ESCRIPT;
    }
    struct tg_coroutine *co = take(x, vm, entry, entry == TG_ENTRY_RESPONSE);
    if (co == NULL) {
        tg_log(TG_LOG_ERROR, "no coroutine: memory is short, or too many wait");
        return TG_ESCRIPT;
    }
    const enum tg_rc rc = run(co);
    if (rc == TG_AGAIN) {
        co->phase = true;
    }
    return rc;
}

static void
body_ready(struct tg_exchange *x, enum tg_rc rc)
{
    (void)rc; /* asked for again by the coroutine, which then gets the result */
    for (struct tg_coroutine *co = x->coroutines; co != NULL; co = co->next) {
        if (co->waiting) {
            tg_coroutine_ready(co);
        }
    }
}

static void
over(struct tg_exchange *x)
{
    const struct tg_vm *vm = x->generation;
    if (vm->steps != NULL) {
        tg_steps_end(vm->steps, x);
    }
}

static void
cancel(struct tg_exchange *x)
{
    tg_coroutine_drop_all(x, false);
}

static void
end(struct tg_exchange *x)
{
    tg_coroutine_drop_all(x, true);
    tg_vm_unref(x->generation);
    x->generation = NULL;
    if (x->shadow != NULL) {
        tg_vm_unref(x->shadow);
        x->shadow = NULL;
    }
}

static void
identify(struct tg_exchange *x)
{
    const int rc = tg_abi_id(&x->abi, 0);
    (void)rc; /* without memory it has none */
}

const struct tg_policy tg_vm_policy = {.begin = begin,
                                       .identify = identify,
                                       .settle = settle,
                                       .enter = enter,
                                       .show = show,
                                       .compare = compare,
                                       .over = over,
                                       .body_ready = body_ready,
                                       .cancel = cancel,
                                       .end = end};
