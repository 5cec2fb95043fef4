#include "proxy/count.h"

#include <stdio.h>

static uint64_t
micros(double seconds)
{
    return seconds <= 0 ? 0 : (uint64_t)(seconds * 1e6);
}

static void
count_route(struct tg_metric_route *route, const struct tg_exchange *x, uint64_t duration)
{
    const struct tg_abi_exchange *abi = &x->abi;
    struct tg_metric_line *lines = route->lines;
    const unsigned method = abi->method_id < TG_METRIC_METHODS ? abi->method_id : 0;
    if (abi->status >= 100 && abi->status < 600) {
        tg_metric_add(&lines[1 + method].numbers[abi->status / 100 - 1], 1);
    }
    if (abi->aborted != 0) {
        tg_metric_add(&lines[TG_METRIC_ABORTED_LINE].numbers[0], 1);
    }
    tg_metric_add(&lines[0].numbers[TG_METRIC_IN], abi->bytes_in);
    tg_metric_add(&lines[0].numbers[TG_METRIC_OUT], abi->bytes_out);
    tg_metric_route_time(route, TG_METRIC_DURATION, duration);
    if (x->attempt_start == 0) {
        tg_metric_route_time(route, TG_METRIC_POLICY, duration);
        return;
    }
    tg_metric_route_time(route, TG_METRIC_POLICY, x->attempt_start - x->start);
    if (abi->upstream_time >= 0) {
        tg_metric_route_time(route, TG_METRIC_UPSTREAM, micros(abi->upstream_time));
    }
}

/* A long download is not slow, nor is a tunnel. */
static uint64_t
until_head(const struct tg_exchange *x, uint64_t duration)
{
    return x->abi.upstream_time < 0 ? duration : x->attempt_start - x->start + micros(x->abi.upstream_time);
}

static void
copy(char *out, size_t size, struct tg_slice text)
{
    const size_t n = text.n < size - 1 ? text.n : size - 1;
    if (n > 0) { /* of a head that was refused nothing may be known */
        memcpy(out, text.p, n);
    }
    memset(out + n, 0, size - n);
}

static void
describe(struct tg_abi_trail *trail, const struct tg_exchange *x)
{
    const struct tg_abi_exchange *abi = &x->abi;
    char client[TG_ADDRESS_TEXT];
    unsigned port;
    *trail = (struct tg_abi_trail){
        .started = abi->started,
        .duration = abi->duration,
        .upstream_time = abi->upstream_time,
        .bytes_out = abi->bytes_out,
        .generation = abi->generation,
        .route = abi->counted,
        .error = abi->error,
        .status = abi->status,
        .attempts = (uint16_t)abi->attempt,
        .source = abi->source,
        .aborted = abi->aborted,
        .version = abi->version_major,
    };
    copy(trail->method, sizeof trail->method, abi->method);
    copy(trail->host, sizeof trail->host, abi->host);
    copy(trail->path, sizeof trail->path, abi->raw_path);
    copy(trail->client, sizeof trail->client, tg_slice_of(client, tg_downstream_client(&x->client, client, &port)));
    if (abi->attempt > 0) {
        const struct tg_peer *peer = x->proxy->peers.list[abi->peer];
        (void)snprintf(trail->peer, sizeof trail->peer, "%.58s:%u", peer->host, peer->port);
    }
}

static void
remember(struct tg_metric_row *row, const struct tg_exchange *x, bool failed, bool slow, bool watched)
{
    struct tg_abi_trail trail;
    describe(&trail, x);
    if (failed || slow) {
        trail.reason = failed ? TG_TRAIL_FAILED : TG_TRAIL_SLOW;
        tg_metric_remember(row->failed, &row->failed_next, &trail);
    }
    if (watched) {
        tg_metric_remember(row->any, &row->any_next, &trail);
    }
}

void
tg_count_expect(const struct tg_exchange *x)
{
    const struct tg_metric_row *row = x->proxy->counted;
    if (row != NULL && x->abi.counted < TG_METRIC_ROUTES) {
        const struct tg_metric_line *lines = row->routes[x->abi.counted].lines;
        __builtin_prefetch(&lines[0], 1);
        __builtin_prefetch(&lines[1], 1);
        __builtin_prefetch(&lines[1 + x->abi.method_id], 1);
    }
}

void
tg_count_exchange(struct tg_exchange *x)
{
    struct tg_proxy *proxy = x->proxy;
    struct tg_metric_row *row = proxy->counted;
    if (row == NULL || x->abi.counted == TG_METRIC_UNCOUNTED) {
        return;
    }
    const uint64_t duration = micros(x->abi.duration);
    const bool failed = x->abi.status >= 500 || (x->abi.aborted != 0 && x->abi.error != TG_ERESET);
    const bool slow = until_head(x, duration) >= proxy->slow;
    const bool watched = tg_metrics_watched(proxy->metrics) > x->abi.started;
    struct tg_abi_generation_count *generation = tg_metric_generation(row, x->abi.generation);
    count_route(&row->routes[x->abi.counted < TG_METRIC_ROUTES ? x->abi.counted : 0], x, duration);
    if (generation->serial == x->abi.generation) {
        tg_metric_add(&generation->requests, 1);
        tg_metric_add(&generation->failed, failed ? 1 : 0);
        tg_metric_time(&generation->duration, duration);
    }
    if (failed || slow || watched) {
        remember(row, x, failed, slow, watched);
    }
}
