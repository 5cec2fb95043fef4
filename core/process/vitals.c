#include "process/vitals.h"

#include <string.h>

#include "base/log.h"
#include "vm/vm.h"

enum { STRETCH = 50 /* beats */, SLOW = 1000 * 1000 /* microseconds */ };

_Static_assert(TG_COUNT_LIMITS + TG_LIMIT_COUNT <= TG_METRIC_NUMBERS, "a number for each limit");

void
tg_vitals_open(struct tg_vitals *vitals, struct tg_score *score, struct tg_metrics *metrics, struct tg_metric_row *row,
               struct tg_proxy *proxy, unsigned period)
{
    const uint64_t *numbers = row->numbers;
    struct tg_proxy_counters *counters = proxy->counters;
    *vitals = (struct tg_vitals){.score = score, .log_lost = numbers[TG_COUNT_LOG_LOST], .period = period * 1000ULL};
    counters->connections = numbers[TG_COUNT_CONNECTIONS];
    counters->requests = numbers[TG_COUNT_REQUESTS];
    counters->failed = numbers[TG_COUNT_FAILED];
    counters->secured = numbers[TG_COUNT_HANDSHAKES];
    counters->resumed = numbers[TG_COUNT_RESUMED];
    counters->tls13 = numbers[TG_COUNT_TLS13];
    counters->kernel = numbers[TG_COUNT_KERNEL_TLS];
    counters->unshaken = numbers[TG_COUNT_UNSHAKEN];
    counters->sessions = numbers[TG_COUNT_SESSIONS];
    proxy->peers.opened = numbers[TG_COUNT_OPENED];
    proxy->peers.reused = numbers[TG_COUNT_REUSED];
    memcpy(counters->limits, numbers + TG_COUNT_LIMITS, sizeof counters->limits);
    memset(row->generations, 0, sizeof row->generations);
    tg_metrics_use(metrics, row);
    proxy->metrics = metrics;
    proxy->counted = row;
    proxy->slow = SLOW;
}

static uint64_t
lag(struct tg_vitals *vitals, uint64_t now)
{
    const uint64_t late = vitals->beat_due != 0 && now > vitals->beat_due ? now - vitals->beat_due : 0;
    if (++vitals->beats == STRETCH) {
        vitals->beats = 0;
        vitals->lag[1] = vitals->lag[0];
        vitals->lag[0] = 0;
    }
    vitals->lag[0] = late > vitals->lag[0] ? late : vitals->lag[0];
    vitals->beat_due = now + vitals->period;
    return vitals->lag[0] > vitals->lag[1] ? vitals->lag[0] : vitals->lag[1];
}

/* Of the current generation: what those before it free when they are taken apart is not the collector's work. */
static void
count_garbage(struct tg_vitals *vitals, const struct tg_vm *vm, uint64_t *numbers)
{
    if (vm == NULL) {
        return;
    }
    if (vm->serial == vitals->serial) {
        const uint64_t made = vm->heap.made - vitals->made;
        numbers[TG_COUNT_LUA_MADE] += made;
        numbers[TG_COUNT_LUA_FREED] += made + vitals->bytes - vm->heap.bytes;
    }
    vitals->serial = vm->serial;
    vitals->made = vm->heap.made;
    vitals->bytes = vm->heap.bytes;
}

void
tg_vitals_beat(struct tg_vitals *vitals, const struct tg_host *host)
{
    const struct tg_proxy_counters *counters = host->proxy->counters;
    struct tg_score *score = vitals->score;
    uint64_t *numbers = host->proxy->counted->numbers;
    uint64_t lost = tg_log_lost();
    for (unsigned i = 0; i < host->sink_count; i++) {
        lost += tg_sink_dropped(host->sinks[i]);
    }
    score->heartbeat = tg_loop_now(host->proxy->loop);
    score->connections = counters->connections;
    score->requests = counters->requests;
    score->active = counters->active;
    score->failed = counters->failed;
    score->lua_bytes = host->current == NULL ? 0 : tg_vm_bytes(host->current);
    score->log_lost = lost;
    for (unsigned i = 0; i < TG_LIMIT_COUNT; i++) {
        score->limits[i] = counters->limits[i];
    }
    numbers[TG_COUNT_CONNECTIONS] = counters->connections;
    numbers[TG_COUNT_REQUESTS] = counters->requests;
    numbers[TG_COUNT_FAILED] = counters->failed;
    numbers[TG_COUNT_ACTIVE] = counters->active;
    numbers[TG_COUNT_LUA_BYTES] = score->lua_bytes;
    numbers[TG_COUNT_GENERATIONS] = score->generations;
    numbers[TG_COUNT_LAG_MICROS] = lag(vitals, tg_loop_micros(host->proxy->loop));
    numbers[TG_COUNT_PRESSURE] = score->pressure;
    numbers[TG_COUNT_LOG_LOST] = vitals->log_lost + lost;
    numbers[TG_COUNT_HANDSHAKES] = counters->secured;
    numbers[TG_COUNT_RESUMED] = counters->resumed;
    numbers[TG_COUNT_TLS13] = counters->tls13;
    numbers[TG_COUNT_KERNEL_TLS] = counters->kernel;
    numbers[TG_COUNT_UNSHAKEN] = counters->unshaken;
    numbers[TG_COUNT_SESSIONS] = counters->sessions;
    numbers[TG_COUNT_OPENED] = host->proxy->peers.opened;
    numbers[TG_COUNT_REUSED] = host->proxy->peers.reused;
    numbers[TG_COUNT_PEERS_OPEN] = host->proxy->peers.connections.open;
    numbers[TG_COUNT_PEERS_IDLE] = host->proxy->peers.connections.idle;
    count_garbage(vitals, host->current, numbers);
    memcpy(numbers + TG_COUNT_LIMITS, counters->limits, sizeof counters->limits);
}
