#include "vm/profile.h"

#include <luajit.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"

enum { STACKS_MAX = 8192, STACK_MAX = 4096 /* bytes */, DEPTH = 64 /* innermost functions */ };

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
    struct sigaction luajit;
};

static struct tg_profile *running;
static volatile sig_atomic_t core_samples;

/* LuaJIT would charge what the core does to the function of Lua that runs next. */
static void
on_signal(int number)
{
    if (tg_host->running == NULL) {
        core_samples++;
    } else {
        running->luajit.sa_handler(number);
    }
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
    const int length = snprintf(text, sizeof text, "%.*s%s", (int)n, stack, what);
    add(profile, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1, (unsigned long)samples);
}

static void
free_all(struct tg_profile *profile)
{
    for (uint32_t i = 0; i < profile->count; i++) {
        tg_mem_free(profile->stacks[i].text);
    }
    tg_map_free(profile->places);
    tg_mem_free(profile->stacks);
    tg_mem_free(profile);
}

struct tg_profile *
tg_profile_start(struct tg_vm *vm)
{
    struct sigaction ours = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct tg_profile *profile = running == NULL ? tg_mem_new(struct tg_profile) : NULL;
    if (profile == NULL) {
        return NULL;
    }
    profile->vm = vm;
    profile->places = tg_map_new();
    profile->stacks = tg_mem_zero(STACKS_MAX * sizeof *profile->stacks);
    if (profile->places == NULL || profile->stacks == NULL) {
        free_all(profile);
        return NULL;
    }
    running = profile;
    core_samples = 0;
    (void)signal(SIGPROF, SIG_IGN); /* what LuaJIT puts back at the end: a late signal must not end the process */
    tg_vm_ref(vm);
    luaJIT_profile_start(vm->L, "fi5", on_samples, profile);
    (void)sigemptyset(&ours.sa_mask);
    (void)sigaction(SIGPROF, NULL, &profile->luajit);
    (void)sigaction(SIGPROF, &ours, NULL);
    return profile;
}

enum tg_rc
tg_profile_stop(struct tg_profile *profile, int fd)
{
    bool ok = true;
    luaJIT_profile_stop(profile->vm->L);
    running = NULL;
    tg_vm_unref(profile->vm);
    for (uint32_t i = 0; i < profile->count; i++) {
        ok = dprintf(fd, "%s %lu\n", profile->stacks[i].text, profile->stacks[i].samples) > 0 && ok;
    }
    if (profile->others > 0) {
        ok = dprintf(fd, "(other stacks) %lu\n", profile->others) > 0 && ok;
    }
    if (core_samples > 0) {
        ok = dprintf(fd, "(core) %lu\n", (unsigned long)core_samples) > 0 && ok;
    }
    free_all(profile);
    return ok ? TG_OK : TG_ESYSTEM;
}
