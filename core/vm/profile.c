#include "vm/profile.h"

#include <errno.h>
#include <fcntl.h>
#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/symbol.h"
#include "vm/backtrace.h"

enum {
    STACKS_MAX = 8192,
    STACK_MAX = 4096, /* bytes */
    DEPTH = 64,       /* innermost functions */
    NAME_MAX_C = 128  /* bytes of the name of a function of C */
};

/* What stands between a stack of Lua and the number of the stack of C that it has called: in no name of a function. */
#define CALLS "\1"

struct stack {
    char *text;
    unsigned long samples;
};

struct tg_profile {
    struct tg_vm *vm;
    struct tg_map *places; /* from the text of a stack to its place in `stacks`, plus one */
    struct stack *stacks;
    uint32_t count;
    unsigned long others; /* samples of stacks that are too many */
    struct tg_backtraces *traces;
    volatile sig_atomic_t called; /* number of the stack of C that Lua had called when the last signal came; 0: none */
    struct sigaction luajit;
};

static struct tg_profile *running;
static volatile sig_atomic_t core_samples;   /* whose stack is not known */
static volatile sig_atomic_t luajit_samples; /* what the core has LuaJIT do: collect garbage, mostly */

/* LuaJIT would charge what the core does to the function of Lua that runs next. */
static void
on_signal(int number, siginfo_t *info, void *context)
{
    const int error = errno;
    const bool lua = tg_host->running != NULL;
    const uint32_t trace = tg_backtraces_take(running->traces, context, lua);
    (void)info;
    if (lua) {
        running->called = trace == TG_BACKTRACE_LUAJIT ? 0 : (sig_atomic_t)trace;
        running->luajit.sa_handler(number);
    } else if (trace == TG_BACKTRACE_LUAJIT) {
        luajit_samples++;
    } else if (trace != 0) {
        tg_backtraces_get(running->traces, trace)->samples++;
    } else {
        core_samples++;
    }
    errno = error;
}

static void
add(struct tg_profile *profile, const char *text, size_t n, unsigned long samples)
{
    uint32_t place = tg_map_find(profile->places, text, n);
    if (place == 0 && profile->count < STACKS_MAX) {
        char *copy = tg_mem_text(text, n);
        if (copy != NULL && tg_map_add(profile->places, text, n, profile->count + 1) == TG_OK) {
            profile->stacks[profile->count] = (struct stack){copy, 0};
            place = ++profile->count;
        } else {
            tg_mem_free(copy);
        }
    }
    if (place == 0) {
        profile->others += samples;
    } else {
        profile->stacks[place - 1].samples += samples;
    }
}

/* Called between two instructions of Lua; nothing of Lua may be called. */
static void
on_samples(void *arg, lua_State *L, int samples, int state)
{
    struct tg_profile *profile = arg;
    char text[STACK_MAX];
    size_t n = 0;
    const char *stack = luaJIT_profile_dumpstack(L, "pFZ;", -DEPTH, &n);
    const char *what = state == 'G' ? ";(garbage collection)" : state == 'J' ? ";(compilation)" : "";
    const unsigned called = (unsigned)profile->called;
    profile->called = 0;
    int length = snprintf(text, sizeof text, "%.*s%s", (int)n, stack, what);
    if (called != 0 && (size_t)length < sizeof text - 16) {
        length += snprintf(text + length, sizeof text - (size_t)length, CALLS "%u", called);
    }
    add(profile, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1, (unsigned long)samples);
}

static void
free_all(struct tg_profile *profile)
{
    for (uint32_t i = 0; i < profile->count; i++) {
        tg_mem_free(profile->stacks[i].text);
    }
    tg_backtraces_free(profile->traces);
    tg_map_free(profile->places);
    tg_mem_free(profile->stacks);
    tg_mem_free(profile);
}

struct tg_profile *
tg_profile_start(struct tg_vm *vm)
{
    struct sigaction ours = {.sa_sigaction = on_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
    struct tg_profile *profile = running == NULL ? tg_mem_new(struct tg_profile) : NULL;
    if (profile == NULL) {
        return NULL;
    }
    profile->vm = vm;
    profile->places = tg_map_new();
    profile->stacks = tg_mem_zero(STACKS_MAX * sizeof *profile->stacks);
    profile->traces = tg_backtraces_new();
    if (profile->places == NULL || profile->stacks == NULL || profile->traces == NULL) {
        free_all(profile);
        return NULL;
    }
    running = profile;
    core_samples = 0;
    luajit_samples = 0;
    (void)signal(SIGPROF, SIG_IGN); /* what LuaJIT puts back at the end: a late signal must not end the process */
    tg_vm_ref(vm);
    luaJIT_profile_start(vm->L, "fi5", on_samples, profile);
    (void)sigemptyset(&ours.sa_mask);
    (void)sigaction(SIGPROF, NULL, &profile->luajit);
    (void)sigaction(SIGPROF, &ours, NULL);
    return profile;
}

/* A stack of C, outermost first, each function behind a semicolon. */
static void
put_trace(FILE *out, const struct tg_symbols *symbols, const struct tg_backtrace *trace)
{
    char name[NAME_MAX_C];
    for (uint32_t i = trace->count; i > 0; i--) {
        if (tg_symbols_name(symbols, trace->frames[i - 1], name, sizeof name)) {
            (void)fprintf(out, ";%s", name);
        }
    }
}

static void
put_all(FILE *out, const struct tg_symbols *symbols, const struct tg_profile *profile)
{
    for (uint32_t i = 0; i < profile->count; i++) {
        const struct stack *stack = &profile->stacks[i];
        const size_t n = strcspn(stack->text, CALLS);
        (void)fprintf(out, "%.*s", (int)n, stack->text);
        if (stack->text[n] != '\0') {
            const unsigned long number = strtoul(stack->text + n + 1, NULL, 10);
            put_trace(out, symbols, tg_backtraces_get(profile->traces, (uint32_t)number));
        }
        (void)fprintf(out, " %lu\n", stack->samples);
    }
    for (uint32_t i = 1; i <= TG_BACKTRACES_MAX; i++) {
        const struct tg_backtrace *trace = tg_backtraces_get(profile->traces, i);
        if (trace != NULL && trace->samples > 0) {
            (void)fputs("(core)", out);
            put_trace(out, symbols, trace);
            (void)fprintf(out, " %lu\n", (unsigned long)trace->samples);
        }
    }
    if (profile->others > 0) {
        (void)fprintf(out, "(other stacks) %lu\n", profile->others);
    }
    if (luajit_samples > 0) {
        (void)fprintf(out, "(core);(LuaJIT) %lu\n", (unsigned long)luajit_samples);
    }
    if (core_samples > 0) {
        (void)fprintf(out, "(core) %lu\n", (unsigned long)core_samples);
    }
}

enum tg_rc
tg_profile_stop(struct tg_profile *profile, int fd)
{
    bool ok = false;
    luaJIT_profile_stop(profile->vm->L);
    running = NULL;
    tg_vm_unref(profile->vm);
    struct tg_symbols *symbols = tg_symbols_new();
    const int copy = symbols == NULL ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
    if (out != NULL) {
        put_all(out, symbols, profile);
        ok = ferror(out) == 0;
        ok = fclose(out) == 0 && ok;
    } else if (copy >= 0) {
        close(copy);
    }
    tg_symbols_free(symbols);
    free_all(profile);
    return ok ? TG_OK : TG_ESYSTEM;
}
