#include "process/stats.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "base/mem.h"

enum { ANSWER_MAX = 15 * 1024 * 1024, NUMBER_TEXT = 512, WATCH = 5 /* seconds that workers remember all for a tail */ };

/* Series of these are told: what runtime/plugin_times.lua counts in. */
static const char *const plugin_series[] = {"tidegate_plugin_", "tidegate_route_plugin_"};

/* The first error stays. */
struct answer {
    struct tg_json_text text;
    enum tg_rc rc;
};

static void
put_bytes(struct answer *answer, const char *p, size_t n)
{
    if (answer->rc == TG_OK) {
        answer->rc = tg_json_put(&answer->text, p, n);
    }
}

static void put(struct answer *answer, const char *format, ...) TG_PRINTF(2, 3);

/* Numbers and names of ours. */
static void
put(struct answer *answer, const char *format, ...)
{
    char text[NUMBER_TEXT];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    TG_ASSERT(n >= 0 && (size_t)n < sizeof text);
    put_bytes(answer, text, (size_t)n);
}

static void
put_string(struct answer *answer, const char *p, size_t n)
{
    if (answer->rc == TG_OK) {
        answer->rc = tg_json_put_string(&answer->text, p, n);
    }
}

static void
send_answer(struct answer *answer, struct tg_control_client *client)
{
    put_bytes(answer, "}\n", 3); /* with its NUL */
    if (answer->rc == TG_OK) {
        tg_control_answer(client, true, answer->text.p);
    } else {
        tg_control_answer(client, false, answer->rc == TG_ELIMIT ? "that is too much to tell\n" : "memory is short\n");
    }
    tg_json_text_clear(&answer->text, 0);
}

/* ------------------------------------------------------------------ routes */

struct list {
    struct answer *answer;
    const char *comma;
};

/* "index JSON" */
static bool
put_about(void *arg, struct tg_slice rest)
{
    struct list *list = arg;
    const char *blank = memchr(rest.p, ' ', rest.n);
    if (blank != NULL) {
        put(list->answer, "%s", list->comma);
        put_bytes(list->answer, blank + 1, rest.n - (size_t)(blank + 1 - rest.p));
        list->comma = ",";
    }
    return true;
}

static void
put_routes(const struct tg_stats *stats, struct answer *answer)
{
    struct list list = {answer, ""};
    put(answer, "{\"routes\":[");
    tg_manifest_each(stats->current, "about", put_about, &list);
    put(answer, "]");
}

/* ------------------------------------------------------------------ counts */

static void
put_histogram(struct answer *answer, const char *name, const struct tg_abi_histogram *histogram)
{
    put(answer, ",\"%s\":{\"counts\":[", name);
    for (unsigned i = 0; i < TG_METRIC_BUCKETS; i++) {
        put(answer, "%s%llu", i == 0 ? "" : ",", (unsigned long long)histogram->counts[i]);
    }
    put(answer, "],\"seconds\":%.6f}", (double)histogram->micros / 1e6);
}

static void
put_route(struct answer *answer, const char *comma, struct tg_slice name, const struct tg_abi_route_count *sum)
{
    put(answer, "%s{\"name\":", comma);
    put_string(answer, name.p, name.n);
    put(answer, ",\"requests\":{");
    for (unsigned i = 0; i < TG_METRIC_CLASSES; i++) {
        unsigned long long requests = 0;
        for (unsigned method = 0; method < TG_METRIC_METHODS; method++) {
            requests += sum->requests[method * TG_METRIC_CLASSES + i];
        }
        put(answer, "%s\"%uxx\":%llu", i == 0 ? "" : ",", i + 1, requests);
    }
    put(answer, "},\"aborted\":%llu,\"bytes_in\":%llu,\"bytes_out\":%llu", (unsigned long long)sum->aborted,
        (unsigned long long)sum->bytes_in, (unsigned long long)sum->bytes_out);
    put_histogram(answer, "duration", &sum->duration);
    put_histogram(answer, "policy", &sum->policy);
    put_histogram(answer, "upstream", &sum->upstream);
    put(answer, "}");
}

static bool
is_counted(const struct tg_abi_route_count *sum)
{
    for (unsigned i = 0; i < TG_METRIC_BUCKETS; i++) {
        if (sum->duration.counts[i] > 0) {
            return true;
        }
    }
    return false;
}

static bool
is_of_plugins(struct tg_slice key)
{
    for (size_t i = 0; i < sizeof plugin_series / sizeof plugin_series[0]; i++) {
        const size_t n = strlen(plugin_series[i]);
        if (key.n > n && memcmp(key.p, plugin_series[i], n) == 0) {
            return true;
        }
    }
    return false;
}

/* The key of a series is its metric, a byte 1, and its labels as Prometheus has them. */
static void
put_series(const struct tg_metrics *metrics, struct answer *answer)
{
    struct tg_slice key;
    const char *comma = "";
    put(answer, "],\"series\":[");
    for (uint32_t i = 0; (key = tg_metrics_series_key(metrics, i)).n > 0; i++) {
        const char *labels = memchr(key.p, '\1', key.n);
        if (labels != NULL && is_of_plugins(key)) {
            put(answer, "%s{\"metric\":", comma);
            put_string(answer, key.p, (size_t)(labels - key.p));
            put(answer, ",\"labels\":");
            put_string(answer, labels + 1, (size_t)(key.p + key.n - labels) - 1);
            put(answer, ",\"value\":%.17g}", tg_metrics_series_sum(metrics, i));
            comma = ",";
        }
    }
}

static void
put_counts(const struct tg_stats *stats, struct answer *answer)
{
    struct tg_abi_route_count sum;
    struct tg_slice name;
    const char *comma = "";
    put(answer, "{\"at\":%.3f,\"bounds\":[", stats->now);
    for (unsigned i = 0; i < TG_METRIC_BUCKETS - 1; i++) {
        put(answer, "%s%g", i == 0 ? "" : ",", (double)tg_metric_bounds[i] / 1e6);
    }
    put(answer, "],\"routes\":[");
    for (uint32_t i = 0; (name = tg_metrics_route_name(stats->metrics, i)).n > 0; i++) {
        tg_metrics_route_sum(stats->metrics, i, &sum);
        if (is_counted(&sum)) {
            put_route(answer, comma, name, &sum);
            comma = ",";
        }
    }
    put_series(stats->metrics, answer);
    put(answer, "]");
}

/* ------------------------------------------------------------------ upstreams */

struct upstreams {
    const struct tg_upstreams *of;
    const char *only; /* empty: all */
    struct list list;
    struct list peers;
    unsigned found;
};

static const char *
breaker_of(const struct tg_abi_cell *cell)
{
    static const char *const states[] = {"closed", "open", "half-open", "half-open"};
    return states[cell->breaker & 3];
}

static const char *
state_of(const struct tg_upstreams *upstreams, const struct tg_abi_cell *cell)
{
    return (cell->flags & TG_CELL_DOWN) != 0                     ? "down"
           : (cell->flags & TG_CELL_DRAIN) != 0                  ? "drained"
           : (cell->flags & TG_CELL_UNHEALTHY) != 0              ? "unhealthy"
           : cell->ejected_until > (double)upstreams->now / 1000 ? "ejected"
           : (cell->breaker & 3) != TG_BREAKER_CLOSED            ? "broken"
                                                                 : "up";
}

static void
put_peer(void *arg, const char *key, struct tg_abi_cell *cell)
{
    struct upstreams *upstreams = arg;
    struct answer *answer = upstreams->list.answer;
    const char *colon = strchr(key + 2, ':');
    const char *name = colon == NULL ? key : colon + 1;
    put(answer, "%s{\"name\":", upstreams->peers.comma);
    put_string(answer, name, strlen(name));
    put(answer, ",\"state\":\"%s\",\"breaker\":\"%s\",\"in_flight\":%u,\"latency\":%.6f", state_of(upstreams->of, cell),
        breaker_of(cell), cell->in_flight, (double)cell->latency);
    put(answer, ",\"requests\":%llu,\"failures\":%llu}", (unsigned long long)cell->requests,
        (unsigned long long)cell->failures);
    upstreams->peers.comma = ",";
}

static void
put_upstream(void *arg, const char *key, struct tg_abi_cell *cell)
{
    struct upstreams *upstreams = arg;
    struct answer *answer = upstreams->list.answer;
    const char *name = key + 2;
    char peers[TG_CELL_KEY_MAX + 1];
    if (upstreams->only[0] != '\0' && strcmp(upstreams->only, name) != 0) {
        return;
    }
    put(answer, "%s{\"name\":", upstreams->list.comma);
    put_string(answer, name, strlen(name));
    put(answer, ",\"breaker\":\"%s\",\"in_flight\":%u,\"limit\":%u,\"waiting\":%u,\"retries\":%llu,\"peers\":[",
        breaker_of(cell), cell->in_flight, cell->limit, cell->waiting, (unsigned long long)cell->retries);
    (void)snprintf(peers, sizeof peers, "p:%s:", name);
    upstreams->peers.comma = "";
    tg_cells_each(upstreams->of->cells, tg_cells_mark(upstreams->of->generation), peers, put_peer, upstreams);
    put(answer, "]}");
    upstreams->list.comma = ",";
    upstreams->found++;
}

/* False: there is none of this name. */
static bool
put_upstreams(const struct tg_stats *stats, const char *name, struct answer *answer)
{
    struct upstreams upstreams = {.of = &stats->upstreams, .only = name, .list = {answer, ""}};
    put(answer, "{\"upstreams\":[");
    tg_cells_each(stats->upstreams.cells, tg_cells_mark(stats->upstreams.generation), "u:", put_upstream, &upstreams);
    put(answer, "]");
    return upstreams.found > 0 || name[0] == '\0';
}

/* ------------------------------------------------------------------ exchanges */

static void
put_text(struct answer *answer, const char *name, const char *text)
{
    put(answer, ",\"%s\":", name);
    put_string(answer, text, strlen(text));
}

/* The names are those of the admin interface. */
static void
put_trail(const struct tg_metrics *metrics, struct answer *answer, unsigned row, const struct tg_abi_trail *trail)
{
    static const char *const sources[] = {"gateway", "upstream", "plugin", "gateway"};
    static const char *const reasons[] = {"any", "failed", "slow"};
    const struct tg_slice route = tg_metrics_route_name(metrics, trail->route);
    put(answer, "{\"id\":\"%u.%llu\",\"at\":%.6f,\"duration\":%.6f,\"upstream_time\":", row,
        (unsigned long long)trail->number, trail->started, trail->duration);
    if (trail->upstream_time < 0) {
        put(answer, "null");
    } else {
        put(answer, "%.6f", trail->upstream_time);
    }
    put(answer, ",\"status\":%u,\"attempts\":%u,\"source\":\"%s\",\"aborted\":%s,\"reason\":\"%s\",\"bytes_out\":%llu",
        trail->status, trail->attempts, sources[trail->source % 4], trail->aborted != 0 ? "true" : "false",
        reasons[trail->reason % 3], (unsigned long long)trail->bytes_out);
    put(answer, ",\"generation\":%llu,\"error\":", (unsigned long long)trail->generation);
    if (trail->error == 0) {
        put(answer, "null");
    } else {
        put(answer, "\"%s\"", tg_rc_name((enum tg_rc)trail->error));
    }
    put_text(answer, "method", trail->method);
    put_text(answer, "host", trail->host);
    put_text(answer, "path", trail->path);
    put_text(answer, "client", trail->client);
    put_text(answer, "peer", trail->peer);
    put(answer, ",\"route\":");
    put_string(answer, route.n > 0 ? route.p : "none", route.n > 0 ? route.n : 4);
    put(answer, "}");
}

/* Those with the numbers `from` to `next`, less those that were overwritten. Returns how many were. */
static uint64_t
put_trails(const struct tg_metrics *metrics, struct list *list, unsigned row, const struct tg_abi_trail *trails,
           uint64_t from, uint64_t next)
{
    struct tg_abi_trail trail;
    const uint64_t oldest = next > TG_METRIC_TRAILS ? next - TG_METRIC_TRAILS : 0;
    uint64_t missed = from < oldest ? oldest - from : 0;
    for (uint64_t number = from < oldest ? oldest : from; number < next; number++) {
        if (tg_metric_recall(trails, number, &trail) != TG_OK) {
            missed++;
            continue;
        }
        put(list->answer, "%s", list->comma);
        put_trail(metrics, list->answer, row, &trail);
        list->comma = ",";
    }
    return missed;
}

static void
put_failures(const struct tg_stats *stats, struct answer *answer)
{
    struct list list = {answer, ""};
    put(answer, "{\"trails\":[");
    for (unsigned i = 0; i < TG_METRIC_ROWS; i++) {
        const struct tg_metric_row *row = tg_metrics_row(stats->metrics, i);
        if (tg_metrics_uses(stats->metrics, i)) {
            const uint64_t next = __atomic_load_n(&row->failed_next, __ATOMIC_ACQUIRE);
            (void)put_trails(stats->metrics, &list, i, row->failed, 0, next);
        }
    }
    put(answer, "]");
}

/* What a cursor, "row:number row:number ...", says of this row; 0: nothing, its worker began after it. */
static uint64_t
number_in(const char *cursor, unsigned row)
{
    const char *p = cursor;
    while (p != NULL && *p != '\0') {
        char *end = NULL;
        const unsigned long found = strtoul(p, &end, 10);
        if (end == p || *end != ':') {
            return 0;
        }
        if (found == row) {
            return strtoull(end + 1, NULL, 10);
        }
        p = strchr(end, ' ');
        p = p == NULL ? NULL : p + 1;
    }
    return 0;
}

static void
put_tail(const struct tg_stats *stats, struct tg_control_client *client, struct answer *answer)
{
    const char *cursor = tg_control_payload(client).p; /* ends in NUL */
    uint64_t next[TG_METRIC_ROWS] = {0};
    uint64_t missed = 0;
    struct list list = {answer, ""};
    const char *blank = "";
    tg_metrics_watch(stats->metrics, stats->now + WATCH);
    put(answer, "{\"trails\":[");
    for (unsigned i = 0; i < TG_METRIC_ROWS; i++) {
        const struct tg_metric_row *row = tg_metrics_row(stats->metrics, i);
        next[i] = __atomic_load_n(&row->any_next, __ATOMIC_ACQUIRE);
        if (tg_metrics_uses(stats->metrics, i) && cursor != NULL) {
            missed += put_trails(stats->metrics, &list, i, row->any, number_in(cursor, i), next[i]);
        }
    }
    put(answer, "],\"missed\":%llu,\"cursor\":\"", (unsigned long long)missed);
    for (unsigned i = 0; i < TG_METRIC_ROWS; i++) {
        if (next[i] > 0 || i == 0) { /* never empty: then it could not be sent back */
            put(answer, "%s%u:%llu", blank, i, (unsigned long long)next[i]);
            blank = " ";
        }
    }
    put(answer, "\"");
}

bool
tg_stats_command(const struct tg_stats *stats, struct tg_control_client *client, const char *line)
{
    struct answer answer = {.text = {.max = ANSWER_MAX}};
    if (strcmp(line, "routes") == 0) {
        put_routes(stats, &answer);
    } else if (strcmp(line, "stats") == 0) {
        put_counts(stats, &answer);
    } else if (strcmp(line, "upstreams") == 0 || strncmp(line, "upstreams ", 10) == 0) {
        if (!put_upstreams(stats, line[9] == ' ' ? line + 10 : "", &answer)) {
            tg_json_text_clear(&answer.text, 0);
            tg_control_answer(client, false, "there is no such upstream\n");
            return true;
        }
    } else if (strcmp(line, "failures") == 0) {
        put_failures(stats, &answer);
    } else if (strcmp(line, "tail") == 0) {
        put_tail(stats, client, &answer);
    } else {
        return false;
    }
    send_answer(&answer, client);
    return true;
}
