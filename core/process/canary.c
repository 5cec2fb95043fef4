#include "process/canary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WORDS_MAX = 512,
    FAILURES_MIN = 5,   /* fewer prove nothing */
    SAMPLES_MIN = 100,  /* requests on both sides before latencies are compared */
    LATENCY_SLACK = 10, /* milliseconds by which a percentile may always differ */
    WATCH_MAX = 86400,
    WATCH_DEFAULT = 60,
    ERRORS_DEFAULT = 100, /* 1 % */
    LATENCY_DEFAULT = 150 /* percent */
};

/* ------------------------------------------------------------------ options */

/* "5%", "0.5%" in hundredths of a percent. */
static bool
read_percent(const char *text, double scale, unsigned max, unsigned *out)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || strcmp(end, "%") != 0 || !(value >= 0) || value * scale > max) {
        return false;
    }
    *out = (unsigned)(value * scale + 0.5);
    return true;
}

/* "60s", "5m", "1h"; a number alone is seconds. */
static bool
read_time(const char *text, unsigned *out)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    const double unit = strcmp(end, "m") == 0                   ? 60
                        : strcmp(end, "h") == 0                 ? 3600
                        : strcmp(end, "s") == 0 || *end == '\0' ? 1
                                                                : 0;
    if (end == text || unit == 0 || !(value >= 1) || value * unit > WATCH_MAX) {
        return false;
    }
    *out = (unsigned)(value * unit);
    return true;
}

static bool
read_by(const char *text, char out[TG_CANARY_BY])
{
    static const char header[] = "header:";
    if (strcmp(text, "client") == 0) {
        out[0] = '\0';
        return true;
    }
    const char *name = strncmp(text, header, sizeof header - 1) == 0 ? text + sizeof header - 1 : "";
    if (*name == '\0' || strlen(name) >= TG_CANARY_BY - 8 ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != strlen(name)) {
        return false;
    }
    (void)snprintf(out, TG_CANARY_BY, "header %s", name);
    return true;
}

static bool
read_word(const char *name, const char *value, struct tg_canary_options *options)
{
    if (strcmp(name, "--canary") == 0) {
        return read_percent(value, TG_CANARY_WHOLE / 100.0, TG_CANARY_WHOLE, &options->share);
    }
    if (strcmp(name, "--shadow") == 0) {
        options->shadow = true;
        options->share = TG_CANARY_WHOLE;
        return *value == '\0' ||
               (read_percent(value, TG_CANARY_WHOLE / 100.0, TG_CANARY_WHOLE, &options->share) && options->share > 0);
    }
    if (strcmp(name, "--watch") == 0) {
        return read_time(value, &options->watch);
    }
    if (strcmp(name, "--by") == 0) {
        return read_by(value, options->by);
    }
    if (strcmp(name, "--max-errors") == 0) {
        return read_percent(value, TG_CANARY_WHOLE / 100.0, TG_CANARY_WHOLE, &options->errors);
    }
    if (strcmp(name, "--max-latency") == 0) {
        return read_percent(value, 1, 100000, &options->latency) && options->latency >= 100;
    }
    if (strcmp(name, "--least") == 0) {
        char *end = NULL;
        const unsigned long least = strtoul(value, &end, 10);
        options->least = (unsigned)least;
        return end != value && *end == '\0' && least <= 1000000000;
    }
    return false;
}

enum tg_rc
tg_canary_read(const char *words, struct tg_canary_options *options, struct tg_err *err)
{
    char text[WORDS_MAX];
    char *state = NULL;
    unsigned canaries = 0;
    (void)snprintf(text, sizeof text, "%s", words);
    options->watch = options->watch == 0 ? WATCH_DEFAULT : options->watch;
    options->errors = options->errors == 0 ? ERRORS_DEFAULT : options->errors;
    options->latency = options->latency == 0 ? LATENCY_DEFAULT : options->latency;
    for (char *word = strtok_r(text, " ", &state); word != NULL; word = strtok_r(NULL, " ", &state)) {
        char *equals = strchr(word, '=');
        if (strcmp(word, "--detach") == 0) {
            options->detach = true;
            continue;
        }
        if (equals != NULL) {
            *equals = '\0';
        }
        if (!read_word(word, equals == NULL ? "" : equals + 1, options)) {
            return tg_err_set(err, TG_EINVAL,
                              "%s %s: found no such option or value; known are --canary 5%%, --shadow 5%%, --watch "
                              "60s, --by client or "
                              "header:NAME, --max-errors 1%%, --max-latency 150%%, --least N, --detach",
                              word, equals == NULL ? "" : equals + 1);
        }
        canaries += strcmp(word, "--canary") == 0;
    }
    if (canaries > 0 && options->shadow) {
        return tg_err_set(err, TG_EINVAL, "a generation is tried as --canary or in --shadow, not both");
    }
    return TG_OK;
}

/* ------------------------------------------------------------------ judgement */

void
tg_canary_begin(struct tg_canary *canary, const struct tg_metrics *metrics, uint64_t current, uint64_t serial,
                uint64_t now)
{
    canary->current = current;
    canary->serial = serial;
    canary->since = now;
    canary->why[0] = '\0';
    tg_metrics_generation_sum(metrics, current, &canary->before);
}

struct sides {
    struct tg_abi_generation_count current; /* since the trial began */
    struct tg_abi_generation_count canary;
};

static void
look(const struct tg_canary *canary, const struct tg_metrics *metrics, struct sides *sides)
{
    const struct tg_abi_generation_count *before = &canary->before;
    tg_metrics_generation_sum(metrics, canary->current, &sides->current);
    tg_metrics_generation_sum(metrics, canary->serial, &sides->canary);
    sides->current.requests -= before->requests;
    sides->current.failed -= before->failed;
    sides->current.raised -= before->raised;
    for (unsigned i = 0; i < TG_METRIC_BUCKETS; i++) {
        sides->current.duration.counts[i] -= before->duration.counts[i];
    }
}

/* Milliseconds that 95 % of the requests did not exceed; inside of a bucket they are taken for evenly spread. */
static double
percentile(const struct tg_abi_histogram *histogram)
{
    uint64_t total = 0;
    double below = 0;
    double from = 0;
    for (unsigned i = 0; i < TG_METRIC_BUCKETS; i++) {
        total += histogram->counts[i];
    }
    for (unsigned i = 0; i < TG_METRIC_BUCKETS - 1; i++) {
        const double n = (double)histogram->counts[i];
        const double to = (double)tg_metric_bounds[i] / 1000;
        if (n > 0 && below + n >= 0.95 * (double)total) {
            return from + (to - from) * (0.95 * (double)total - below) / n;
        }
        below += n;
        from = to;
    }
    return from;
}

static double
share(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : (double)part / (double)whole;
}

/* Why the canary is worse, into `why`; false: it is not. */
static bool
is_worse(struct tg_canary *canary, const struct sides *sides)
{
    const double margin = canary->options.errors / (double)TG_CANARY_WHOLE;
    const double failed = share(sides->canary.failed, sides->canary.requests);
    const double failed_before = share(sides->current.failed, sides->current.requests);
    if (sides->canary.failed >= FAILURES_MIN && failed > failed_before + margin) {
        (void)snprintf(canary->why, sizeof canary->why, "%.2f %% of its requests have failed, and %.2f %% before",
                       failed * 100, failed_before * 100);
        return true;
    }
    const double raised = share(sides->canary.raised, sides->canary.requests);
    const double raised_before = share(sides->current.raised, sides->current.requests);
    if (sides->canary.raised >= FAILURES_MIN && raised > raised_before + margin) {
        (void)snprintf(canary->why, sizeof canary->why,
                       "its plugins have raised in %.2f %% of its requests, and in %.2f %% before", raised * 100,
                       raised_before * 100);
        return true;
    }
    const double slow = percentile(&sides->canary.duration);
    const double slow_before = percentile(&sides->current.duration);
    if (sides->canary.requests >= SAMPLES_MIN && sides->current.requests >= SAMPLES_MIN &&
        slow > slow_before * canary->options.latency / 100 + LATENCY_SLACK) {
        (void)snprintf(canary->why, sizeof canary->why, "95 %% of its requests take up to %.1f ms, and %.1f ms before",
                       slow, slow_before);
        return true;
    }
    return false;
}

enum tg_canary_verdict
tg_canary_judge(struct tg_canary *canary, const struct tg_metrics *metrics, uint64_t now)
{
    struct sides sides;
    look(canary, metrics, &sides);
    if (is_worse(canary, &sides)) {
        return TG_CANARY_ROLL_BACK;
    }
    if (now < canary->since + canary->options.watch * 1000ULL) {
        return TG_CANARY_GOES_ON;
    }
    if (sides.canary.requests < canary->options.least) {
        (void)snprintf(canary->why, sizeof canary->why, "only %llu requests came in %u s, expected at least %u",
                       (unsigned long long)sides.canary.requests, canary->options.watch, canary->options.least);
        return TG_CANARY_ROLL_BACK;
    }
    (void)snprintf(canary->why, sizeof canary->why, "%llu requests in %u s, %llu failed",
                   (unsigned long long)sides.canary.requests, canary->options.watch,
                   (unsigned long long)sides.canary.failed);
    return TG_CANARY_PROMOTE;
}

static size_t
put_side(const struct tg_abi_generation_count *side, char *out, size_t size)
{
    const int n = snprintf(out, size, "{\"requests\":%llu,\"failed\":%llu,\"raised\":%llu,\"p95\":%.6f}",
                           (unsigned long long)side->requests, (unsigned long long)side->failed,
                           (unsigned long long)side->raised, percentile(&side->duration) / 1000);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

void
tg_canary_json(const struct tg_canary *canary, const struct tg_metrics *metrics, const char *id, uint64_t now,
               char *out, size_t size)
{
    struct sides sides;
    char current[160];
    char trial[160];
    look(canary, metrics, &sides);
    (void)put_side(&sides.current, current, sizeof current);
    (void)put_side(&sides.canary, trial, sizeof trial);
    const uint64_t end = canary->since + canary->options.watch * 1000ULL;
    (void)snprintf(out, size, "{\"id\":\"%s\",\"share\":%.4f,\"watch\":%u,\"left\":%.1f,\"current\":%s,\"canary\":%s}",
                   id, canary->options.share / (double)TG_CANARY_WHOLE, canary->options.watch,
                   end > now ? (double)(end - now) / 1000 : 0, current, trial);
}
