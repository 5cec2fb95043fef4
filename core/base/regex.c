#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/regex.h"

#include <pcre2.h>

#include "base/mem.h"

enum { JIT_STACK_MIN = 32 * 1024, JIT_STACK_MAX = 256 * 1024 };

struct tg_regex {
    pcre2_code *code;
    PCRE2_SPTR names;
    uint32_t groups;
    uint32_t name_count;
    uint32_t name_size;
    uint32_t lookbehind;
    bool matches_nothing;
};

/* What all matches of the process share: nothing is allocated for one. */
static struct {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} shared;

static bool
prepare(void)
{
    if (shared.stack != NULL) {
        return true;
    }
    shared.data = shared.data != NULL ? shared.data : pcre2_match_data_create(TG_REGEX_GROUPS_MAX + 1, NULL);
    shared.context = shared.context != NULL ? shared.context : pcre2_match_context_create(NULL);
    if (shared.data == NULL || shared.context == NULL) {
        return false;
    }
    shared.stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    if (shared.stack == NULL) {
        return false;
    }
    pcre2_jit_stack_assign(shared.context, NULL, shared.stack);
    (void)pcre2_set_match_limit(shared.context, TG_REGEX_MATCH_LIMIT);
    (void)pcre2_set_depth_limit(shared.context, TG_REGEX_DEPTH_LIMIT);
    (void)pcre2_set_heap_limit(shared.context, TG_REGEX_HEAP_LIMIT);
    return true;
}

static enum tg_rc
read_flags(struct tg_slice flags, uint32_t *options, struct tg_err *err)
{
    static const struct {
        char letter;
        uint32_t option;
    } known[] = {
        {'i', PCRE2_CASELESS}, {'m', PCRE2_MULTILINE}, {'s', PCRE2_DOTALL},
        {'x', PCRE2_EXTENDED}, {'a', PCRE2_ANCHORED},  {'u', PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF},
    };
    *options = 0;
    for (size_t i = 0; i < flags.n; i++) {
        size_t k = 0;
        while (k < sizeof known / sizeof known[0] && known[k].letter != flags.p[i]) {
            k++;
        }
        if (k == sizeof known / sizeof known[0]) {
            return tg_err_set(err, TG_EINVAL, "unknown flag; known are i, m, s, x, u and a");
        }
        *options |= known[k].option;
    }
    return TG_OK;
}

enum tg_rc
tg_regex_new(struct tg_slice pattern, struct tg_slice flags, struct tg_regex **out, struct tg_err *err)
{
    int code = 0;
    size_t at = 0;
    uint32_t options = 0;
    enum tg_rc rc = read_flags(flags, &options, err);
    if (rc != TG_OK) {
        return rc;
    }
    if (pattern.n > TG_REGEX_PATTERN_MAX) {
        return tg_err_set(err, TG_EINVAL, "longer than %d bytes", TG_REGEX_PATTERN_MAX);
    }
    struct tg_regex *regex = prepare() ? tg_mem_new(struct tg_regex) : NULL;
    if (regex == NULL) {
        return TG_ENOMEM;
    }
    regex->code = pcre2_compile((PCRE2_SPTR)(pattern.n == 0 ? "" : pattern.p), pattern.n, options, &code, &at, NULL);
    if (regex->code == NULL) {
        char text[128] = "";
        (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        tg_mem_free(regex);
        return tg_err_set(err, TG_EINVAL, "at byte %zu: %s", at + 1, text);
    }
    uint32_t empty = 0;
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_CAPTURECOUNT, &regex->groups);
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_NAMECOUNT, &regex->name_count);
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_NAMEENTRYSIZE, &regex->name_size);
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_NAMETABLE, &regex->names);
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_MAXLOOKBEHIND, &regex->lookbehind);
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_MATCHEMPTY, &empty);
    regex->matches_nothing = empty != 0;
    if (regex->groups > TG_REGEX_GROUPS_MAX) {
        tg_regex_free(regex);
        return tg_err_set(err, TG_EINVAL, "more than %d groups", TG_REGEX_GROUPS_MAX);
    }
    /* Without machine code it is slower, and within the same limits. */
    (void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    *out = regex;
    return TG_OK;
}

void
tg_regex_free(struct tg_regex *regex)
{
    if (regex != NULL) {
        pcre2_code_free(regex->code);
        tg_mem_free(regex);
    }
}

unsigned
tg_regex_groups(const struct tg_regex *regex)
{
    return regex->groups;
}

unsigned
tg_regex_lookbehind(const struct tg_regex *regex)
{
    return regex->lookbehind;
}

bool
tg_regex_matches_nothing(const struct tg_regex *regex)
{
    return regex->matches_nothing;
}

struct tg_slice
tg_regex_name(const struct tg_regex *regex, unsigned group)
{
    for (uint32_t i = 0; i < regex->name_count; i++) {
        const unsigned char *entry = regex->names + (size_t)i * regex->name_size;
        if ((unsigned)(entry[0] << 8 | entry[1]) == group) {
            return tg_slice_of((const char *)entry + 2, strlen((const char *)entry + 2));
        }
    }
    return tg_slice_of(NULL, 0);
}

enum tg_rc
tg_regex_match(struct tg_regex *regex, struct tg_slice subject, size_t start, unsigned options)
{
    uint32_t how = 0;
    if (start > subject.n) {
        return TG_EINVAL;
    }
    how |= (options & TG_REGEX_PARTIAL) != 0 ? PCRE2_PARTIAL_HARD : 0;
    how |= (options & TG_REGEX_NOT_EMPTY) != 0 ? PCRE2_NOTEMPTY_ATSTART : 0;
    const int rc = pcre2_match(regex->code, (PCRE2_SPTR)(subject.n == 0 ? "" : subject.p), subject.n, start, how,
                               shared.data, shared.context);
    if (rc > 0) {
        size_t *offsets = pcre2_get_ovector_pointer(shared.data);
        for (uint32_t i = 2 * (uint32_t)rc; i < 2 * (regex->groups + 1); i++) {
            offsets[i] = PCRE2_UNSET; /* groups behind the last that took part */
        }
        return TG_OK;
    }
    return rc == PCRE2_ERROR_NOMATCH                                       ? TG_ENONE
           : rc == PCRE2_ERROR_PARTIAL                                     ? TG_AGAIN
           : rc == PCRE2_ERROR_BADOFFSET || rc == PCRE2_ERROR_BADUTFOFFSET ? TG_EINVAL
           : rc == PCRE2_ERROR_NOMEMORY                                    ? TG_ENOMEM
                                                                           : TG_ELIMIT;
}

const size_t *
tg_regex_offsets(void)
{
    return pcre2_get_ovector_pointer(shared.data);
}
