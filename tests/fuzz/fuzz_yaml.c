/*
 * fuzz_yaml.c - a YAML text through tg_yaml_to_json.
 *
 * Oracles: what is accepted is one well-formed JSON value of a bounded depth, without control bytes; what is refused
 * names a line and a column.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/yaml.h"
#include "fuzz.h"

struct text {
    const char *p;
    const char *end;
};

static bool is_value(struct text *t, unsigned depth);

static bool
take(struct text *t, char c)
{
    if (t->p == t->end || *t->p != c) {
        return false;
    }
    t->p++;
    return true;
}

static bool
is_string(struct text *t)
{
    if (!take(t, '"')) {
        return false;
    }
    while (t->p < t->end && *t->p != '"') {
        MUST((unsigned char)*t->p >= 0x20);
        t->p += *t->p == '\\' ? 2 : 1;
    }
    return take(t, '"');
}

static bool
is_list(struct text *t, char last, bool named, unsigned depth)
{
    if (take(t, last)) {
        return true;
    }
    do {
        if (named && (!is_string(t) || !take(t, ':'))) {
            return false;
        }
        if (!is_value(t, depth)) {
            return false;
        }
    } while (take(t, ','));
    return take(t, last);
}

static bool
is_value(struct text *t, unsigned depth)
{
    static const char *const words[] = {"null", "true", "false"};
    MUST(depth <= TG_YAML_DEPTH);
    if (take(t, '[')) {
        return is_list(t, ']', false, depth + 1);
    }
    if (take(t, '{')) {
        return is_list(t, '}', true, depth + 1);
    }
    if (t->p < t->end && *t->p == '"') {
        return is_string(t);
    }
    for (unsigned i = 0; i < 3; i++) {
        const size_t n = strlen(words[i]);
        if ((size_t)(t->end - t->p) >= n && memcmp(t->p, words[i], n) == 0) {
            t->p += n;
            return true;
        }
    }
    const char *begin = t->p;
    while (t->p < t->end && strchr("-+.eE0123456789", *t->p) != NULL && *t->p != '\0') {
        t->p++;
    }
    return t->p > begin;
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tg_slice json = {NULL, 0};
    struct tg_err err = {0};
    const enum tg_rc rc = tg_yaml_to_json((const char *)bytes, n, &json, &err);
    if (rc == TG_OK) {
        struct text text = {json.p, json.p + json.n};
        MUST(is_value(&text, 0) && text.p == text.end);
        tg_mem_free((char *)(uintptr_t)json.p);
    } else {
        size_t line = 0;
        size_t column = 0;
        MUST(rc == TG_EINVAL && sscanf(err.text, "%zu:%zu: ", &line, &column) == 2 && line > 0);
    }
    return 0;
}
