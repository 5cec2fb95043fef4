#include "base/json_items.h"

enum tg_rc
tg_json_items_init(struct tg_json_items *items, struct tg_slice path)
{
    *items = (struct tg_json_items){.segments = path.n == 0 ? 0 : 1};
    if (path.n >= sizeof items->path) {
        return TG_EINVAL;
    }
    for (size_t i = 0; i < path.n; i++) {
        const bool ends = path.p[i] == '.';
        if (!ends) {
            items->path[i] = path.p[i]; /* else it is the NUL that is there */
        }
        items->segments += ends;
    }
    return TG_OK;
}

static const char *
segment(const struct tg_json_items *items, unsigned n)
{
    const char *p = items->path;
    while (n-- > 0) {
        p += strlen(p) + 1;
    }
    return p;
}

static bool
in_object(const struct tg_json_items *items)
{
    return items->depth > 0 && (items->objects >> (items->depth - 1) & 1) != 0;
}

/* A name is over: whether its value is on the path. */
static void
end_name(struct tg_json_items *items)
{
    items->is_name = false;
    if (items->target == 0 && items->depth == items->matched + 1 && items->matched < items->segments) {
        const char *wanted = segment(items, items->matched);
        items->candidate = tg_slice_is(tg_slice_of(items->name, items->name_n), wanted, strlen(wanted));
    }
}

static void
take_in_string(struct tg_json_items *items, char c)
{
    if (items->escaped) {
        items->escaped = false;
    } else if (c == '\\') {
        items->escaped = true;
    } else if (c == '"') {
        items->in_string = false;
        if (items->is_name) {
            end_name(items);
        }
        return;
    }
    if (items->is_name && items->name_n < sizeof items->name) {
        items->name[items->name_n++] = c;
    }
}

static enum tg_rc
open_level(struct tg_json_items *items, bool object)
{
    if (items->depth == TG_JSON_ITEMS_DEPTH) {
        return TG_EPROTOCOL;
    }
    const bool on_path = items->candidate || (items->depth == 0 && items->segments == 0);
    const uint64_t bit = (uint64_t)1 << items->depth;
    items->objects = object ? items->objects | bit : items->objects & ~bit;
    items->depth++;
    items->wants_name = object;
    if (items->candidate) {
        items->matched++;
        items->candidate = false;
    }
    if (on_path && !object && items->target == 0 && items->matched == items->segments) {
        items->target = items->depth;
    }
    return TG_OK;
}

static enum tg_rc
close_level(struct tg_json_items *items, bool object)
{
    if (items->depth == 0 || in_object(items) != object) {
        return TG_EPROTOCOL;
    }
    items->done = items->depth == items->target;
    items->matched -= items->matched > 0 && items->depth == items->matched + 1 ? 1 : 0;
    items->depth--;
    items->wants_name = false;
    return TG_OK;
}

static enum tg_rc
take_outside(struct tg_json_items *items, char c)
{
    switch (c) {
    case '"':
        items->in_string = true;
        items->is_name = items->wants_name;
        items->name_n = 0;
        items->candidate = items->candidate && items->is_name;
        return TG_OK;
    case '{':
    case '[':
        return open_level(items, c == '{');
    case '}':
    case ']':
        return close_level(items, c == '}');
    case ',':
        items->wants_name = in_object(items);
        items->candidate = false;
        return TG_OK;
    case ':':
        items->wants_name = false;
        return TG_OK;
    default:
        return TG_OK;
    }
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

enum tg_rc
tg_json_items_take(struct tg_json_items *items, struct tg_slice piece, size_t *used, struct tg_slice *item)
{
    size_t from = 0;
    size_t i = 0;
    enum tg_rc rc = items->done ? TG_ENONE : TG_AGAIN;
    for (; rc == TG_AGAIN && i < piece.n; i++) {
        const char c = piece.p[i];
        const bool at_top = items->target != 0 && items->depth == items->target && !items->in_string;
        if (at_top && !items->in_item && !is_blank(c) && c != ']' && c != ',') {
            items->in_item = true;
            from = i;
        }
        if (at_top && c == ',') {
            rc = items->in_item ? TG_OK : TG_EPROTOCOL;
        }
        if (items->in_string) {
            take_in_string(items, c);
        } else if (take_outside(items, c) != TG_OK) {
            rc = TG_EPROTOCOL;
        } else if (items->done) {
            rc = TG_ENONE;
        }
    }
    const size_t to = rc == TG_AGAIN ? i : i > 0 ? i - 1 : 0;
    *item = items->in_item && rc != TG_EPROTOCOL ? tg_slice_of(piece.p + from, to - from) : tg_slice_of(piece.p, 0);
    items->in_item = items->in_item && rc != TG_OK;
    *used = i;
    return rc;
}
