#include "base/yaml.h"

#include <string.h>
#include <yaml.h>

#include "base/json_text.h"

/* What is open: a mapping that waits for a key, or for its value, or a sequence. */
enum level { IN_KEY, IN_VALUE, IN_SEQUENCE };

struct writer {
    struct tg_json_text text;
    unsigned depth;
    uint8_t levels[TG_YAML_DEPTH];
    bool first[TG_YAML_DEPTH];
    struct tg_err *err;
};

static enum tg_rc
refuse(struct writer *w, const yaml_mark_t *mark, const char *what)
{
    return tg_err_set(w->err, TG_EINVAL, "%zu:%zu: %s", mark->line + 1, mark->column + 1, what);
}

static enum tg_rc
put(struct writer *w, const char *p, size_t n)
{
    const enum tg_rc rc = tg_json_put(&w->text, p, n);
    return rc == TG_ELIMIT ? tg_err_set(w->err, TG_EINVAL, "1:1: more than %d MiB", TG_YAML_MAX >> 20) : rc;
}

static enum tg_rc
put_string(struct writer *w, const char *p, size_t n)
{
    const enum tg_rc rc = tg_json_put_string(&w->text, p, n);
    return rc == TG_ELIMIT ? tg_err_set(w->err, TG_EINVAL, "1:1: more than %d MiB", TG_YAML_MAX >> 20) : rc;
}

static bool
is_one_of(const char *p, size_t n, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strlen(*words) == n && memcmp(*words, p, n) == 0) {
            return true;
        }
    }
    return false;
}

static size_t
skip_digits(const char *p, size_t n, size_t i)
{
    while (i < n && p[i] >= '0' && p[i] <= '9') {
        i++;
    }
    return i;
}

/* A decimal number that JSON writes the same way. 0o17, .5, .inf and the like remain strings, and are told apart by the
 * schema. */
static bool
is_number(const char *p, size_t n)
{
    size_t i = n > 0 && p[0] == '-' ? 1 : 0;
    const size_t digits = i;
    i = skip_digits(p, n, i);
    if (i == digits || (p[digits] == '0' && i > digits + 1)) {
        return false;
    }
    if (i < n && p[i] == '.') {
        const size_t fraction = i + 1;
        i = skip_digits(p, n, fraction);
        if (i == fraction) {
            return false;
        }
    }
    if (i < n && (p[i] == 'e' || p[i] == 'E')) {
        i++;
        i += i < n && (p[i] == '-' || p[i] == '+') ? 1 : 0;
        const size_t exponent = i;
        i = skip_digits(p, n, i);
        if (i == exponent) {
            return false;
        }
    }
    return i == n;
}

static enum tg_rc
put_plain(struct writer *w, const char *p, size_t n)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    if (is_one_of(p, n, nulls)) {
        return put(w, "null", 4);
    }
    if (is_one_of(p, n, trues)) {
        return put(w, "true", 4);
    }
    if (is_one_of(p, n, falses)) {
        return put(w, "false", 5);
    }
    return is_number(p, n) ? put(w, p, n) : put_string(w, p, n);
}

/* What stands between this and what came before. */
static enum tg_rc
begin_item(struct writer *w)
{
    if (w->depth == 0) {
        return TG_OK;
    }
    uint8_t *level = &w->levels[w->depth - 1];
    bool *first = &w->first[w->depth - 1];
    if (*level == IN_VALUE) {
        *level = IN_KEY;
        return put(w, ":", 1);
    }
    if (*level == IN_KEY) {
        *level = IN_VALUE;
    }
    if (*first) {
        *first = false;
        return TG_OK;
    }
    return put(w, ",", 1);
}

static enum tg_rc
put_scalar(struct writer *w, const yaml_event_t *event)
{
    const char *p = (const char *)event->data.scalar.value;
    const size_t n = event->data.scalar.length;
    const bool is_key = w->depth > 0 && w->levels[w->depth - 1] == IN_KEY;
    if (event->data.scalar.anchor != NULL) {
        return refuse(w, &event->start_mark, "anchors are not supported");
    }
    if (event->data.scalar.tag != NULL) {
        return refuse(w, &event->start_mark, "tags are not supported");
    }
    const enum tg_rc rc = begin_item(w);
    if (rc != TG_OK) {
        return rc;
    }
    return is_key || event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE ? put_string(w, p, n) : put_plain(w, p, n);
}

static enum tg_rc
open_level(struct writer *w, const yaml_event_t *event, bool tagged, enum level level)
{
    if (tagged) {
        return refuse(w, &event->start_mark, "anchors and tags are not supported");
    }
    if (w->depth > 0 && w->levels[w->depth - 1] == IN_KEY) {
        return refuse(w, &event->start_mark, "a key must be a string");
    }
    if (w->depth == TG_YAML_DEPTH) {
        return refuse(w, &event->start_mark, "deeper than 32 levels");
    }
    const enum tg_rc rc = begin_item(w);
    if (rc != TG_OK) {
        return rc;
    }
    w->levels[w->depth] = (uint8_t)level;
    w->first[w->depth] = true;
    w->depth++;
    return put(w, level == IN_SEQUENCE ? "[" : "{", 1);
}

static enum tg_rc
take_event(struct writer *w, const yaml_event_t *event, unsigned *documents)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return ++*documents > 1 ? refuse(w, &event->start_mark, "a second document") : TG_OK;
    case YAML_ALIAS_EVENT:
        return refuse(w, &event->start_mark, "aliases are not supported");
    case YAML_SCALAR_EVENT:
        return put_scalar(w, event);
    case YAML_SEQUENCE_START_EVENT:
        return open_level(w, event, event->data.sequence_start.anchor != NULL || event->data.sequence_start.tag != NULL,
                          IN_SEQUENCE);
    case YAML_MAPPING_START_EVENT:
        return open_level(w, event, event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL,
                          IN_KEY);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        w->depth--;
        return put(w, event->type == YAML_SEQUENCE_END_EVENT ? "]" : "}", 1);
    default:
        return TG_OK;
    }
}

enum tg_rc
tg_yaml_to_json(const char *p, size_t n, struct tg_slice *json, struct tg_err *err)
{
    struct writer w = {.text = {.max = TG_YAML_MAX}, .err = err};
    yaml_parser_t parser;
    unsigned documents = 0;
    bool ended = false;
    enum tg_rc rc = TG_OK;
    if (yaml_parser_initialize(&parser) == 0) {
        return TG_ENOMEM;
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)p, n);
    while (rc == TG_OK && !ended) {
        yaml_event_t event;
        if (yaml_parser_parse(&parser, &event) == 0) {
            const yaml_mark_t *mark = &parser.problem_mark;
            rc = parser.error == YAML_MEMORY_ERROR
                     ? TG_ENOMEM
                     : refuse(&w, mark, parser.problem == NULL ? "malformed" : parser.problem);
            break;
        }
        ended = event.type == YAML_STREAM_END_EVENT;
        rc = take_event(&w, &event, &documents);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (rc == TG_OK && documents == 0) {
        rc = put(&w, "{}", 2);
    }
    if (rc != TG_OK) {
        tg_json_text_clear(&w.text, 0);
        return rc;
    }
    *json = tg_slice_of(w.text.p, w.text.n);
    return TG_OK;
}
