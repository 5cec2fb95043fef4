#include "process/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct text {
    char *p;
    size_t n;
    size_t size;
};

static void put(struct text *text, const char *format, ...) TG_PRINTF(2, 3);

static void
put(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text->p + text->n, text->size - text->n, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < text->size - text->n) {
        text->n += (size_t)n;
    } else {
        text->p[text->n] = '\0';
    }
}

/* A JSON string. */
static void
put_string(struct text *text, const char *value)
{
    put(text, "\"");
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            put(text, "\\%c", *p);
        } else if (*p < 0x20) {
            put(text, "\\u%04x", *p);
        } else {
            put(text, "%c", *p);
        }
    }
    put(text, "\"");
}

static void
put_time(struct text *text, double wall)
{
    char out[32];
    struct tm tm;
    const time_t seconds = (time_t)wall;
    (void)gmtime_r(&seconds, &tm);
    (void)strftime(out, sizeof out, "%Y-%m-%dT%H:%M:%SZ", &tm);
    put(text, "%s", out);
}

/* What rate limits have decided, in all workers. The names of limits have nothing in them that had to be escaped. */
static void
put_decisions(const struct tg_status *status, struct text *text, bool json)
{
    static const char family[] = "tidegate_limit_decisions_total\1{limit=\"";
    const struct tg_metrics *metrics = status->fleet->metrics;
    struct tg_slice key = tg_metrics_series_key(metrics, 0);
    const char *comma = "";
    for (uint32_t i = 0; key.n > 0; key = tg_metrics_series_key(metrics, ++i)) {
        char limit[64];
        char decision[16];
        if (strncmp(key.p, family, sizeof family - 1) != 0 ||
            sscanf(key.p + sizeof family - 1, "%63[^\"]\",decision=\"%15[a-z]", limit, decision) != 2) {
            continue;
        }
        const double count = tg_metrics_series_sum(metrics, i);
        if (json) {
            put(text, "%s{\"limit\":\"%s\",\"decision\":\"%s\",\"count\":%.0f}", comma, limit, decision, count);
            comma = ",";
        } else {
            put(text, "rate limit  %s: %s %.0f\n", limit, decision, count);
        }
    }
}

/* ------------------------------------------------------------------ for people */

/* The limits that were reached, over all workers. */
static void
put_limits(const struct tg_status *status, struct text *text)
{
    const struct tg_fleet *fleet = status->fleet;
    unsigned long long lost = 0;
    for (unsigned limit = 1; limit < TG_LIMIT_COUNT; limit++) {
        unsigned long long reached = 0;
        for (unsigned i = 0; i < fleet->count; i++) {
            reached += fleet->board->scores[i].limits[limit];
        }
        if (reached > 0) {
            put(text, "limit       %s reached %llu time%s\n", tg_limit_name((enum tg_limit)limit), reached,
                reached == 1 ? "" : "s");
        }
    }
    for (unsigned i = 0; i < fleet->count; i++) {
        lost += fleet->board->scores[i].log_lost;
    }
    if (lost > 0) {
        put(text, "log         %llu line%s lost\n", lost, lost == 1 ? "" : "s");
    }
}

static void
put_workers(const struct tg_status *status, struct text *text)
{
    for (unsigned i = 0; i < status->fleet->count; i++) {
        const struct tg_score *score = &status->fleet->board->scores[i];
        put(text,
            "worker %-4u pid %d, connections %llu open of %llu, requests %llu, failed %llu, "
            "Lua %llu KiB in %llu generation%s\n",
            i, (int)status->fleet->slots[i].pid, (unsigned long long)score->active,
            (unsigned long long)score->connections, (unsigned long long)score->requests,
            (unsigned long long)score->failed, (unsigned long long)(score->lua_bytes / 1024),
            (unsigned long long)score->generations, score->generations == 1 ? "" : "s");
    }
}

/* ------------------------------------------------------------------ trials */

static void
put_shadow(const struct tg_shadow_report *report, struct text *text)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < TG_SHADOW_KINDS; i++) {
        all += report->counts[i];
    }
    put(text, "in shadow   %s: %llu requests, %llu same", report->id, (unsigned long long)all,
        (unsigned long long)report->counts[TG_SHADOW_SAME]);
    for (unsigned i = TG_SHADOW_SAME + 1; i < TG_SHADOW_KINDS; i++) {
        if (report->counts[i] > 0) {
            put(text, ", %llu %s", (unsigned long long)report->counts[i], tg_shadow_kind_name(i));
        }
    }
    put(text, "%s%s%s\n", report->end[0] == '\0' ? "" : " (", report->end, report->end[0] == '\0' ? "" : ")");
    for (unsigned i = 0; i < TG_SHADOW_KINDS; i++) {
        if (report->examples[i][0] != '\0') {
            put(text, "  %-9s %s\n", tg_shadow_kind_name(i), report->examples[i]);
        }
    }
}

static void
put_shadow_json(const struct tg_shadow_report *report, struct text *text)
{
    put(text, "{\"id\":\"%s\",\"share\":%.4f,\"watch\":%u,\"began\":%.3f,\"by\":", report->id,
        report->share / (double)TG_CANARY_WHOLE, report->watch, report->began);
    put_string(text, report->by);
    if (report->end[0] != '\0') {
        put(text, ",\"ended\":%.3f,\"end\":", report->ended);
        put_string(text, report->end);
    }
    put(text, ",\"counts\":{");
    for (unsigned i = 0; i < TG_SHADOW_KINDS; i++) {
        put(text, "%s\"%s\":%llu", i == 0 ? "" : ",", tg_shadow_kind_name(i), (unsigned long long)report->counts[i]);
    }
    put(text, "},\"examples\":{");
    bool first = true;
    for (unsigned i = 0; i < TG_SHADOW_KINDS; i++) {
        if (report->examples[i][0] != '\0') {
            put(text, "%s\"%s\":", first ? "" : ",", tg_shadow_kind_name(i));
            put_string(text, report->examples[i]);
            first = false;
        }
    }
    put(text, "}}");
}

size_t
tg_status_shadow(const struct tg_shadow_report *report, bool json, char *out, size_t size)
{
    struct text text = {.p = out, .size = size};
    out[0] = '\0';
    (json ? put_shadow_json : put_shadow)(report, &text);
    return text.n;
}

static void
put_trial(const struct tg_status *status, bool json, struct text *text)
{
    char canary[512];
    if (status->trial == NULL) {
        return;
    }
    if (status->canary->options.shadow) {
        tg_shadow_count(status->shadow, status->fleet->metrics);
        put(text, "%s", json ? ",\"shadow\":" : "");
        (json ? put_shadow_json : put_shadow)(&status->shadow->now, text);
        return;
    }
    tg_canary_json(status->canary, status->fleet->metrics, status->trial->id, status->upstreams.now, canary,
                   sizeof canary);
    put(text, json ? ",\"canary\":%s" : "on trial    %s\n", canary);
}

size_t
tg_status_text(const struct tg_status *status, char *out, size_t size)
{
    struct text text = {.p = out, .size = size};
    put(&text, "generation  %s\n", status->current->id);
    put(&text, "uptime      %.0f s\n", status->uptime);
    put(&text, "master      pid %d\n", (int)getpid());
    put_workers(status, &text);
    put_limits(status, &text);
    put_decisions(status, &text, false);
    text.n += tg_upstreams_show(&status->upstreams, "", out + text.n, (size - text.n) / 2);
    for (const struct tg_generation *old = status->current->next; old != NULL; old = old->next) {
        put(&text, "earlier     %s\n", old->id);
    }
    put_trial(status, false, &text);
    if (status->reload_error[0] != '\0') {
        put(&text, "the last reload was refused:\n%s\n", status->reload_error);
    }
    if (status->upgrade_error[0] != '\0') {
        put(&text, "the last upgrade failed:\n%s\n", status->upgrade_error);
    }
    return text.n;
}

/* ------------------------------------------------------------------ for programs */

static void
put_generations(const struct tg_status *status, struct text *text)
{
    put(text, "[");
    for (const struct tg_generation *one = status->current; one != NULL; one = one->next) {
        put(text, "%s{\"id\":\"%s\",\"serial\":%llu,\"live\":%s,\"committed\":%.3f,\"by\":",
            one == status->current ? "" : ",", one->id, (unsigned long long)one->serial,
            one == status->current ? "true" : "false", one->committed);
        put_string(text, one->by);
        put(text, ",\"change\":");
        put_string(text, one->change);
        put(text, "}");
    }
    put(text, "]");
}

size_t
tg_status_json(const struct tg_status *status, char *out, size_t size)
{
    struct text text = {.p = out, .size = size};
    put(&text, "{\"generation\":\"%s\",\"serial\":%llu,\"uptime\":%.3f,\"master\":{\"pid\":%d},\"workers\":[",
        status->current->id, (unsigned long long)status->current->serial, status->uptime, (int)getpid());
    for (unsigned i = 0; i < status->fleet->count; i++) {
        const struct tg_score *score = &status->fleet->board->scores[i];
        put(&text,
            "%s{\"worker\":%u,\"pid\":%d,\"connections\":%llu,\"accepted\":%llu,\"requests\":%llu,\"failed\":%llu,"
            "\"lua_bytes\":%llu,\"generations\":%llu}",
            i == 0 ? "" : ",", i, (int)status->fleet->slots[i].pid, (unsigned long long)score->active,
            (unsigned long long)score->connections, (unsigned long long)score->requests,
            (unsigned long long)score->failed, (unsigned long long)score->lua_bytes,
            (unsigned long long)score->generations);
    }
    put(&text, "],\"limits\":[");
    put_decisions(status, &text, true);
    put(&text, "],\"generations\":");
    put_generations(status, &text);
    put(&text, ",\"reload_error\":");
    put_string(&text, status->reload_error);
    put(&text, ",\"upgrade_error\":");
    put_string(&text, status->upgrade_error);
    put_trial(status, true, &text);
    put(&text, "}\n");
    return text.n;
}

size_t
tg_status_history(const struct tg_status *status, bool json, char *out, size_t size)
{
    struct text text = {.p = out, .size = size};
    const struct tg_shadow *shadow = status->shadow;
    if (json) {
        put_generations(status, &text);
        text.n -= shadow->past_count > 0; /* its bracket */
        for (unsigned i = 0; i < shadow->past_count; i++) {
            put(&text, ",{\"id\":\"%s\",\"live\":false,\"shadow\":", shadow->past[i].id);
            put_shadow_json(&shadow->past[i], &text);
            put(&text, "}");
        }
        put(&text, shadow->past_count > 0 ? "]\n" : "\n");
        return text.n;
    }
    for (const struct tg_generation *one = status->current; one != NULL; one = one->next) {
        put(&text, "%s  ", one->id);
        put_time(&text, one->committed);
        put(&text, "  %s%s%s%s%s\n", one->by, one->change[0] == '\0' ? "" : "  ", one->change,
            one == status->current ? "  (live)" : "", "");
    }
    for (unsigned i = 0; i < shadow->past_count; i++) {
        put_shadow(&shadow->past[i], &text);
    }
    return text.n;
}
