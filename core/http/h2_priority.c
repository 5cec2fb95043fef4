#include "http/h2_priority.h"

enum kind { BOOLEAN, INTEGER, OTHER };

struct item {
    enum kind kind;
    long number; /* of a boolean, and of an integer that is no longer than RFC 9651 allows */
};

/* What is left of the text. Each function below takes what it is named after; false: that is not there. */
struct rest {
    const char *p;
    const char *end;
};

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool
take(struct rest *rest, char c)
{
    if (rest->p == rest->end || *rest->p != c) {
        return false;
    }
    rest->p++;
    return true;
}

static void
skip(struct rest *rest, const char *blanks)
{
    while (rest->p < rest->end && *rest->p != '\0' && strchr(blanks, *rest->p) != NULL) {
        rest->p++;
    }
}

static bool
key(struct rest *rest, struct tg_slice *out)
{
    const char *begin = rest->p;
    if (rest->p == rest->end || !(is_lower(*rest->p) || *rest->p == '*')) {
        return false;
    }
    while (rest->p < rest->end && *rest->p != '\0' &&
           (is_lower(*rest->p) || is_digit(*rest->p) || strchr("_-.*", *rest->p) != NULL)) {
        rest->p++;
    }
    *out = tg_slice_of(begin, (size_t)(rest->p - begin));
    return true;
}

static unsigned
digits(struct rest *rest, long *number)
{
    unsigned n = 0;
    for (*number = 0; rest->p < rest->end && is_digit(*rest->p) && n < 16; n++) {
        *number = *number * 10 + (*rest->p++ - '0');
    }
    return n;
}

static bool
number(struct rest *rest, struct item *item)
{
    long fraction;
    const bool minus = take(rest, '-');
    const unsigned n = digits(rest, &item->number);
    item->kind = INTEGER;
    item->number = minus ? -item->number : item->number;
    if (n == 0 || n > 15) {
        return false;
    }
    if (take(rest, '.')) {
        item->kind = OTHER;
        const unsigned places = digits(rest, &fraction);
        return n <= 12 && places >= 1 && places <= 3;
    }
    return true;
}

static bool
string(struct rest *rest)
{
    while (rest->p < rest->end) {
        const char c = *rest->p++;
        if (c == '"') {
            return true;
        }
        if (c < 0x20 || c > 0x7e || (c == '\\' && !take(rest, '"') && !take(rest, '\\'))) {
            return false;
        }
    }
    return false;
}

static bool
bytes(struct rest *rest)
{
    while (rest->p < rest->end) {
        const char c = *rest->p++;
        if (c == ':') {
            return true;
        }
        if (!is_digit(c) && !is_lower(tg_lower(c)) && c != '+' && c != '/' && c != '=') {
            return false;
        }
    }
    return false;
}

static bool
token(struct rest *rest)
{
    while (rest->p < rest->end && *rest->p != '\0' &&
           (is_digit(*rest->p) || is_lower(tg_lower(*rest->p)) || strchr("!#$%&'*+-.^_`|~:/", *rest->p) != NULL)) {
        rest->p++;
    }
    return true;
}

static bool
bare_item(struct rest *rest, struct item *item)
{
    *item = (struct item){.kind = OTHER};
    if (rest->p == rest->end) {
        return false;
    }
    if (*rest->p == '-' || is_digit(*rest->p)) {
        return number(rest, item);
    }
    if (take(rest, '"')) {
        return string(rest);
    }
    if (take(rest, ':')) {
        return bytes(rest);
    }
    if (take(rest, '?')) {
        *item = (struct item){BOOLEAN, rest->p < rest->end && *rest->p == '1'};
        return take(rest, '0') || take(rest, '1');
    }
    return (*rest->p == '*' || is_lower(tg_lower(*rest->p))) && token(rest);
}

static bool
parameters(struct rest *rest)
{
    while (take(rest, ';')) {
        struct tg_slice name;
        struct item item;
        skip(rest, " ");
        if (!key(rest, &name) || (take(rest, '=') && !bare_item(rest, &item))) {
            return false;
        }
    }
    return true;
}

static bool
inner_list(struct rest *rest)
{
    struct item item;
    for (;;) {
        skip(rest, " ");
        if (take(rest, ')')) {
            return true;
        }
        if (!bare_item(rest, &item) || !parameters(rest) ||
            (rest->p < rest->end && *rest->p != ' ' && *rest->p != ')')) {
            return false;
        }
    }
}

static bool
member(struct rest *rest, struct tg_h2_priority *priority)
{
    struct tg_slice name;
    struct item item = {BOOLEAN, 1};
    if (!key(rest, &name)) {
        return false;
    }
    if (take(rest, '=')) {
        const bool list = take(rest, '(');
        item = list ? (struct item){.kind = OTHER} : item;
        if (!(list ? inner_list(rest) : bare_item(rest, &item))) {
            return false;
        }
    }
    if (tg_slice_is(name, "u", 1) && item.kind == INTEGER && item.number >= 0 && item.number <= TG_H2_URGENCY_MAX) {
        priority->urgency = (uint8_t)item.number;
    } else if (tg_slice_is(name, "i", 1) && item.kind == BOOLEAN) {
        priority->incremental = item.number == 1;
    }
    return parameters(rest);
}

bool
tg_h2_priority_merge(struct tg_h2_priority *priority, struct tg_slice value)
{
    struct tg_h2_priority merged = *priority;
    if (value.n == 0) { /* it may stand nowhere */
        return true;
    }
    struct rest rest = {value.p, value.p + value.n};
    skip(&rest, " ");
    while (rest.p < rest.end) {
        if (!member(&rest, &merged)) {
            return false;
        }
        skip(&rest, " \t");
        if (rest.p == rest.end) {
            break;
        }
        if (!take(&rest, ',')) {
            return false;
        }
        skip(&rest, " \t");
        if (rest.p == rest.end) { /* nothing behind a comma */
            return false;
        }
    }
    *priority = merged;
    return true;
}
