/*
 * What the core does itself with each exchange. The border's contracts are in abi_steps.h.
 */
#include "vm/steps.h"

#include <sys/random.h>

#include "proxy/downstream.h"
#include "vm/ids.h"

enum {
    STEPS = 8,
    LINES = 16,
    ROUTES_FIRST = 16,
    WORD = 64,
    MADE = TG_AGAIN + 255 /* tg_abi_trace_join: there was none */
};

enum kind { CORRELATE, TRACE };

struct step {
    enum kind kind;
    struct tg_field field; /* of CORRELATE: the one that carries the id, without a value */
    char *name;            /* its name */
    bool keep;
    int version;
    double from; /* of TRACE: the share of a trace from which on it is recorded */
    bool follows;
};

struct tg_steps {
    struct step opening[STEPS];
    unsigned count;
    uint64_t except[TG_LISTENERS_MAX / WORD + 1]; /* bits: listeners without an opening */
    struct tg_field traceparent;
    struct tg_field tracestate;
    const struct tg_abi_ending **endings; /* by route; 0: of none */
    uint32_t ending_count;
};

struct line {
    struct tg_abi_line *line;
    uint32_t sink;
    uint32_t status;
    double sample;
    double seconds;
};

struct tg_abi_ending {
    struct line lines[LINES];
    unsigned count;
    bool failures;
};

/* ------------------------------------------------------------------ once a generation */

static struct tg_field
known_field(const char *name, size_t n)
{
    struct tg_field field = tg_field_of(tg_slice_of(name, n), tg_slice_of("", 0));
    field.flags |= TG_FIELD_SET;
    return field;
}

/* Of the generation that is being built; NULL when memory is short. */
static struct tg_steps *
steps_of(struct tg_vm *vm)
{
    if (vm->steps == NULL && (vm->steps = tg_mem_new(struct tg_steps)) != NULL) {
        vm->steps->traceparent = known_field("traceparent", 11);
        vm->steps->tracestate = known_field("tracestate", 10);
    }
    return vm->steps;
}

void
tg_steps_free(struct tg_steps *steps)
{
    if (steps == NULL) {
        return;
    }
    for (unsigned i = 0; i < steps->count; i++) {
        tg_mem_free(steps->opening[i].name);
    }
    tg_mem_free((void *)steps->endings);
    tg_mem_free(steps);
}

/* Of the generation that is being built; NULL: memory is short, or there is no worker to do them. */
static struct tg_steps *
of_building(void)
{
    return tg_host == NULL ? NULL : steps_of(tg_host->building);
}

int
tg_abi_open_correlate(const char *name, size_t name_len, int keep, int version)
{
    struct tg_steps *steps = of_building();
    if (name_len > UINT16_MAX || !tg_is_token(name, name_len)) {
        return TG_EINVAL;
    }
    char *copy = steps == NULL ? NULL : tg_mem_text(name, name_len);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    const struct tg_field field = known_field(copy, name_len);
    const bool own = (field.flags & (TG_FIELD_FRAMING | TG_FIELD_HOP)) != 0;
    if (own || steps->count == STEPS) {
        tg_mem_free(copy);
        return own ? TG_EINVAL : TG_ELIMIT;
    }
    steps->opening[steps->count++] =
        (struct step){.kind = CORRELATE, .field = field, .name = copy, .keep = keep != 0, .version = version};
    return TG_OK;
}

int
tg_abi_open_trace(double ratio, int follows)
{
    struct tg_steps *steps = of_building();
    if (steps == NULL) {
        return TG_ENOMEM;
    }
    for (unsigned i = 0; i < steps->count; i++) {
        if (steps->opening[i].kind == TRACE) {
            return TG_ELIMIT;
        }
    }
    if (steps->count == STEPS) {
        return TG_ELIMIT;
    }
    /* No share is 2: of a ratio of 0 none is recorded. */
    steps->opening[steps->count++] =
        (struct step){.kind = TRACE, .from = ratio > 0 ? 1 - ratio : 2, .follows = follows != 0};
    return TG_OK;
}

void
tg_abi_open_except(uint32_t listener)
{
    struct tg_steps *steps = of_building();
    if (steps != NULL && listener <= TG_LISTENERS_MAX) {
        steps->except[listener / WORD] |= UINT64_C(1) << listener % WORD;
    }
}

struct tg_abi_ending *
tg_abi_ending_new(void)
{
    return tg_mem_new(struct tg_abi_ending);
}

void
tg_abi_ending_free(struct tg_abi_ending *ending)
{
    tg_mem_free(ending);
}

int
tg_abi_ending_line(struct tg_abi_ending *ending, struct tg_abi_line *line, uint32_t sink, double sample,
                   uint32_t status, double seconds)
{
    if (ending->count == LINES) {
        return TG_ELIMIT;
    }
    ending->lines[ending->count++] =
        (struct line){.line = line, .sink = sink, .status = status, .sample = sample, .seconds = seconds};
    return TG_OK;
}

void
tg_abi_ending_failures(struct tg_abi_ending *ending)
{
    ending->failures = true;
}

int
tg_abi_ending_of(uint32_t route, const struct tg_abi_ending *ending)
{
    if (tg_host == NULL) { /* where there is no worker, no exchange ends */
        return TG_OK;
    }
    struct tg_steps *steps = of_building();
    if (steps == NULL) {
        return TG_ENOMEM;
    }
    if (route >= steps->ending_count) {
        uint32_t count = steps->ending_count == 0 ? ROUTES_FIRST : steps->ending_count;
        while (count <= route) {
            count *= 2;
        }
        const struct tg_abi_ending **list = tg_mem_resize((void *)steps->endings, count * sizeof *list);
        if (list == NULL) {
            return TG_ENOMEM;
        }
        memset((void *)(list + steps->ending_count), 0, (count - steps->ending_count) * sizeof *list);
        steps->endings = list;
        steps->ending_count = count;
    }
    steps->endings[route] = ending;
    return TG_OK;
}

int
tg_abi_name(int kind, uint32_t number, const char *p, size_t n)
{
    if (tg_host == NULL) { /* nor is it told of */
        return TG_OK;
    }
    struct tg_vm *vm = tg_host->running != NULL ? tg_host->running->vm : tg_host->building;
    if (vm->names == NULL && (vm->names = tg_names_new()) == NULL) {
        return TG_ENOMEM;
    }
    return tg_names_set(vm->names, kind, number, tg_slice_of(p, n));
}

/* ------------------------------------------------------------------ a request begins */

/* There is none of this name yet. */
static enum tg_rc
push(struct tg_exchange *x, const struct tg_field *as, struct tg_slice value)
{
    struct tg_field field = *as;
    field.value = value.p;
    field.value_len = (uint32_t)value.n;
    return tg_message_push(&x->request, &field);
}

static enum tg_rc
correlate(struct tg_exchange *x, const struct step *step)
{
    struct tg_abi_exchange *abi = &x->abi;
    const struct tg_field *field = &step->field;
    /* What is there may not be fit to be kept; and of HTTP/2 the original must be kept before a change. */
    if (x->request.version_major == 2 || tg_message_find_same(&x->request, field, &(unsigned){0}) != NULL) {
        return (enum tg_rc)tg_abi_correlate(abi, field->name, field->name_len, step->keep, step->version);
    }
    const enum tg_rc rc = (enum tg_rc)tg_abi_id(abi, step->version);
    return rc == TG_OK ? push(x, field, abi->id) : rc;
}

/* As tg_abi_trace_join. */
static int
join_trace(const struct tg_steps *steps, struct tg_exchange *x)
{
    if (x->request.version_major == 2 ||
        tg_message_find_same(&x->request, &steps->traceparent, &(unsigned){0}) != NULL) {
        const int flags = tg_abi_trace_join(&x->abi);
        x->abi.traceparent = flags >= 0 && flags != MADE ? tg_abi_vm.out.p : NULL;
        return flags;
    }
    char *made = tg_arena_alloc(&x->arena, TG_TRACEPARENT_LEN);
    if (made == NULL) {
        return TG_ENOMEM;
    }
    tg_abi_vm.number = tg_ids_traceparent(made);
    tg_message_drop(&x->request, &steps->tracestate);
    const enum tg_rc rc = push(x, &steps->traceparent, tg_slice_of(made, TG_TRACEPARENT_LEN));
    x->abi.traceparent = made;
    return rc == TG_OK ? MADE : (int)rc;
}

/* The request goes upstream within a trace that nobody records; or Lua decides about it. */
static void
join(const struct tg_steps *steps, struct tg_exchange *x, const struct step *step)
{
    const int flags = join_trace(steps, x);
    const bool asks = flags == MADE ? tg_abi_vm.number >= step->from : flags < 0 || flags % 2 == 1 || !step->follows;
    x->abi.asks = asks;
    x->abi.joined = asks && flags == MADE;
}

enum tg_rc
tg_steps_open(const struct tg_steps *steps, struct tg_exchange *x)
{
    enum tg_rc rc = TG_OK;
    const unsigned listener = x->abi.listener;
    if (listener <= TG_LISTENERS_MAX && (steps->except[listener / WORD] >> listener % WORD & 1) != 0) {
        return TG_OK;
    }
    for (unsigned i = 0; i < steps->count && rc == TG_OK; i++) {
        const struct step *step = &steps->opening[i];
        if (step->kind == TRACE) {
            join(steps, x, step);
        } else {
            rc = correlate(x, step);
        }
    }
    return rc;
}

/* ------------------------------------------------------------------ an exchange is over */

/* From 0 to 1. Which lines are written is no secret. */
static double
chance(void)
{
    static uint64_t state;
    while (state == 0) {
        if (getrandom(&state, sizeof state, 0) != (ssize_t)sizeof state) {
            state = 0;
        }
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53;
}

static bool
is_wanted(const struct line *line, const struct tg_abi_exchange *x)
{
    return line->sample >= 1 || x->status >= line->status || x->status == 0 || x->duration >= line->seconds ||
           chance() < line->sample;
}

void
tg_steps_end(const struct tg_steps *steps, struct tg_exchange *x)
{
    struct tg_abi_exchange *abi = &x->abi;
    const struct tg_abi_ending *ending = abi->route < steps->ending_count ? steps->endings[abi->route] : NULL;
    if (ending == NULL) {
        return;
    }
    for (unsigned i = 0; i < ending->count; i++) {
        const struct line *line = &ending->lines[i];
        if (is_wanted(line, abi)) {
            (void)tg_abi_line_write(line->line, abi, line->sink); /* what has no room is counted by the sink */
        }
    }
    if (ending->failures && (abi->status >= 500 || (abi->status == 0 && abi->aborted == 0))) {
        abi->wants |= TG_WANT_LOG;
    }
}
