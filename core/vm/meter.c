#include "vm/meter.h"

#include <stddef.h>
#include <time.h>

#include "net/loop.h"

enum { TRIES = 16 };

static uint64_t
read_clock(void)
{
    struct timespec used;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0
               ? (uint64_t)used.tv_sec * 1000000000U + (uint64_t)used.tv_nsec
               : 0;
}

/* The clock is a call of the kernel, between 0.1 and 1 us, which would be most of what a small plugin seems to use. */
static uint64_t
cost_of_clock(void)
{
    static uint64_t cost;
    static bool known;
    for (unsigned i = 0; !known && i < TRIES; i++) {
        const uint64_t from = read_clock();
        const uint64_t took = read_clock() - from;
        cost = i == 0 || took < cost ? took : cost;
    }
    known = true;
    return cost;
}

void
tg_meter_begin(struct tg_meter *meter, uint32_t what, uint32_t weight, uint64_t made)
{
    static uint32_t serials;
    (void)cost_of_clock();
    *meter = (struct tg_meter){.what = what, .weight = weight, .serial = ++serials, .began = tg_loop_clock()};
    tg_meter_go_on(meter, made);
}

void
tg_meter_branch(struct tg_meter *meter, const struct tg_meter *of)
{
    *meter = (struct tg_meter){.what = of->what, .weight = of->weight, .serial = of->serial, .began = of->began};
}

void
tg_meter_join(struct tg_meter *meter, const struct tg_meter *branch)
{
    if (meter->what != 0 && meter->serial == branch->serial) {
        meter->cpu += branch->cpu;
        meter->bytes += branch->bytes;
    }
}

void
tg_meter_pause(struct tg_meter *meter, uint64_t made)
{
    const uint64_t took = read_clock() - meter->cpu_from;
    const uint64_t cost = cost_of_clock();
    meter->cpu += took > cost ? took - cost : 0;
    meter->bytes += made - meter->bytes_from;
}

void
tg_meter_go_on(struct tg_meter *meter, uint64_t made)
{
    meter->bytes_from = made;
    meter->cpu_from = read_clock();
}
