#include "process/shadow.h"

#include <stdio.h>
#include <string.h>

static const char *const names[TG_SHADOW_KINDS] = {
    [TG_SHADOW_SAME] = "same",     [TG_SHADOW_UNJUDGED] = "unjudged", [TG_SHADOW_RAISED] = "raised",
    [TG_SHADOW_ROUTE] = "route",   [TG_SHADOW_STATUS] = "status",     [TG_SHADOW_UPSTREAM] = "upstream",
    [TG_SHADOW_TARGET] = "target", [TG_SHADOW_HEADERS] = "headers",   [TG_SHADOW_RESPONSE] = "response",
};

const char *
tg_shadow_kind_name(unsigned kind)
{
    return names[kind];
}

/* What all workers have counted since the gateway runs. */
static uint64_t
sum(struct tg_metrics *metrics, unsigned kind)
{
    char key[96];
    const int n = snprintf(key, sizeof key, "tidegate_generation_shadow_total\1{verdict=\"%s\"}", names[kind]);
    const struct tg_slice name = tg_slice_of(key, (size_t)n);
    return tg_metrics_knows(metrics, name) ? (uint64_t)tg_metrics_series_sum(metrics, tg_metrics_series(metrics, name))
                                           : 0;
}

void
tg_shadow_begin(struct tg_shadow *shadow, struct tg_metrics *metrics, const struct tg_generation *generation,
                const struct tg_canary_options *options, const char *by, double now)
{
    struct tg_shadow_report *report = &shadow->now;
    *report = (struct tg_shadow_report){.began = now, .share = options->share, .watch = options->watch};
    memcpy(report->id, generation->id, sizeof report->id);
    (void)snprintf(report->by, sizeof report->by, "%s", by);
    for (unsigned i = 0; i < TG_SHADOW_KINDS; i++) {
        shadow->before[i] = sum(metrics, i);
    }
}

void
tg_shadow_example(struct tg_shadow *shadow, unsigned kind, const char *text)
{
    if (kind < TG_SHADOW_KINDS && shadow->now.examples[kind][0] == '\0') {
        (void)snprintf(shadow->now.examples[kind], TG_SHADOW_EXAMPLE, "%s", text);
    }
}

void
tg_shadow_count(struct tg_shadow *shadow, struct tg_metrics *metrics)
{
    for (unsigned i = 0; i < TG_SHADOW_KINDS; i++) {
        shadow->now.counts[i] = sum(metrics, i) - shadow->before[i];
    }
}

void
tg_shadow_end(struct tg_shadow *shadow, struct tg_metrics *metrics, const char *how, double now)
{
    tg_shadow_count(shadow, metrics);
    shadow->now.ended = now;
    (void)snprintf(shadow->now.end, sizeof shadow->now.end, "%s", how);
    const unsigned kept = shadow->past_count < TG_SHADOW_KEPT ? shadow->past_count : TG_SHADOW_KEPT - 1;
    memmove(&shadow->past[1], &shadow->past[0], kept * sizeof shadow->past[0]);
    shadow->past[0] = shadow->now;
    shadow->past_count = kept + 1;
}
