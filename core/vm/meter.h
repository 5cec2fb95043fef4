/*
 * meter.h - what one call of a plugin uses: processor time and memory of Lua, what others use while it waits left out.
 *
 * Owns: nothing; embedded in struct tg_coroutine. Used by: coroutine.c, which stops it while the coroutine waits, and
 * the border. Does not know: which calls are measured, and what for; who begins a measurement gives it two numbers,
 * which come back with the result.
 */
#ifndef TG_VM_METER_H
#define TG_VM_METER_H

#include <stdbool.h>
#include <stdint.h>

struct tg_meter {
    uint32_t what;   /* 0: nothing is measured */
    uint32_t weight; /* calls that this one stands for */
    uint32_t serial; /* of the measurement: a task adds what it has used to the one that it was begun in */
    uint64_t began;  /* microseconds, of tg_loop_clock */
    uint64_t cpu;    /* nanoseconds used, up to the last pause */
    uint64_t cpu_from;
    uint64_t bytes; /* made, up to the last pause */
    uint64_t bytes_from;
};

/* `made` of all these: bytes that the Lua state has ever made. A measurement under way is forgotten. */
void tg_meter_begin(struct tg_meter *meter, uint32_t what, uint32_t weight, uint64_t made);
/* The same measurement, of what is done for it elsewhere: `meter` is another one, and does not run yet. */
void tg_meter_branch(struct tg_meter *meter, const struct tg_meter *of);
/* Adds what a branch has used, unless that measurement is over. */
void tg_meter_join(struct tg_meter *meter, const struct tg_meter *branch);
/* Something is measured, and from now on nothing is for its account; or all is again. */
void tg_meter_pause(struct tg_meter *meter, uint64_t made);
void tg_meter_go_on(struct tg_meter *meter, uint64_t made);

#endif
