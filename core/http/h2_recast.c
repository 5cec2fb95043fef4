#include "http/h2_recast.h"

#include "base/map.h"

enum { VERSION = 9 /* " HTTP/1.1" */ };

/* What is before the next line end, *line: empty at the end of the head. False: there is no line end. */
static bool
next_line(struct tg_slice *text, struct tg_slice *line)
{
    const char *end = memchr(text->p, '\r', text->n);
    if (end == NULL || end + 2 > text->p + text->n) {
        return false;
    }
    *line = tg_slice_of(text->p, (size_t)(end - text->p));
    *text = tg_slice_of(end + 2, text->n - line->n - 2);
    return true;
}

static enum tg_rc
read_request_line(struct tg_slice line, struct tg_h2_request *request)
{
    const char *space = memchr(line.p, ' ', line.n);
    const char *last = line.n > VERSION ? line.p + line.n - VERSION : line.p;
    if (space == NULL || last <= space + 1 || *last != ' ') {
        return TG_EINVAL;
    }
    request->method = tg_slice_of(line.p, (size_t)(space - line.p));
    request->path = tg_slice_of(space + 1, (size_t)(last - space - 1));
    return TG_OK;
}

/* RFC 9113, section 8.2.2; and TE, which is ours. */
static bool
is_left_out(struct tg_slice name)
{
    switch (name.n) {
    case 2:
        return tg_slice_is_text(name, "te", 2);
    case 7:
        return tg_slice_is_text(name, "upgrade", 7);
    case 10:
        return tg_slice_is_text(name, "connection", 10) || tg_slice_is_text(name, "keep-alive", 10);
    case 16:
        return tg_slice_is_text(name, "proxy-connection", 16);
    case 17:
        return tg_slice_is_text(name, "transfer-encoding", 17);
    default:
        return false;
    }
}

/* Of its length and its end, where names differ. Two names that pass for one only cost what they could save. */
static uint32_t
name_hash(struct tg_slice name)
{
    uint64_t word = 0;
    const size_t n = name.n < sizeof word ? name.n : sizeof word;
    memcpy(&word, name.p + name.n - n, n);
    return (uint32_t)(((tg_lower8(word) ^ name.n) * 0x9e3779b97f4a7c15ULL) >> 32);
}

/* Whether it was another one last time, or was not there. */
static bool
is_new(struct tg_h2_recast *recast, uint32_t name, struct tg_slice value)
{
    const struct tg_h2_recast_place now = {.name = name, .value = (uint32_t)tg_hash(0, value.p, value.n)};
    struct tg_h2_recast_place *set = recast->last[now.name % TG_H2_RECAST_SETS];
    const unsigned way = set[0].name == now.name ? 0 : 1;
    const bool same = set[way].name == now.name && set[way].value == now.value;
    set[1] = way == 1 ? set[0] : set[1];
    set[0] = now;
    return !same;
}

/* The name as it is remembered, from now on if there is a place for it; NULL: it is not. */
static const struct tg_h2_recast_name *
remember_name(struct tg_h2_recast *recast, uint32_t hash, struct tg_slice name)
{
    struct tg_h2_recast_name *place = &recast->names[hash % TG_H2_RECAST_NAMES];
    if (name.n > TG_H2_RECAST_NAME_MAX || (place->n != 0 && place->n != name.n)) {
        return NULL;
    }
    if (place->n == 0) {
        for (size_t i = 0; i < name.n; i++) {
            place->text[i] = tg_lower(name.p[i]);
        }
        place->n = (uint8_t)name.n;
    }
    return tg_slice_same_text(place->text, name.p, name.n) ? place : NULL;
}

static void
remember_line(struct tg_h2_recast_line *place, struct tg_slice line, size_t name, ptrdiff_t name_place)
{
    place->n = 0;
    if (line.n <= TG_H2_RECAST_LINE_MAX) {
        memcpy(place->text, line.p, line.n);
        place->n = (uint8_t)line.n;
        place->name = (uint8_t)name;
        place->place = (uint8_t)name_place;
    }
}

static enum tg_rc
put_field(struct tg_h2_recast *recast, struct tg_h2_block *block, struct tg_slice line, size_t name_len,
          struct tg_h2_recast_line *place)
{
    const struct tg_slice name = tg_slice_of(line.p, name_len);
    const struct tg_slice value = tg_slice_of(line.p + name_len + 2, line.n - name_len - 2);
    const uint32_t hash = name_hash(name);
    const struct tg_h2_recast_name *known = remember_name(recast, hash, name);
    const unsigned indexed = is_new(recast, hash, value) ? 0 : TG_H2_FIELD_INDEXED;
    if (known == NULL) {
        return tg_h2_block_put(block, name, value, indexed);
    }
    if (place != NULL) {
        remember_line(place, line, name_len, known - recast->names);
    }
    return tg_h2_block_put(block, tg_slice_of(known->text, known->n), value, indexed | TG_H2_FIELD_KNOWN);
}

static enum tg_rc
put_line(struct tg_h2_recast *recast, struct tg_h2_request *request, struct tg_h2_block *block, struct tg_slice line,
         struct tg_h2_recast_line *place)
{
    const char *colon = memchr(line.p, ':', line.n);
    if (colon == NULL || colon == line.p || colon + 2 > line.p + line.n) {
        return TG_EINVAL;
    }
    const struct tg_slice name = tg_slice_of(line.p, (size_t)(colon - line.p));
    if (tg_slice_is_text(name, "host", 4)) {
        request->authority = tg_slice_of(colon + 2, line.n - name.n - 2);
        return TG_OK;
    }
    return is_left_out(name) ? TG_OK : put_field(recast, block, line, name.n, place);
}

/* The same line as in the request before. */
static bool
is_same(const struct tg_h2_recast_line *place, struct tg_slice text)
{
    return place->n > 0 && place->n + 2U <= text.n && text.p[place->n] == '\r' &&
           memcmp(text.p, place->text, place->n) == 0;
}

static enum tg_rc
put_same(const struct tg_h2_recast *recast, struct tg_h2_block *block, const struct tg_h2_recast_line *place,
         struct tg_slice *text)
{
    const struct tg_h2_recast_name *name = &recast->names[place->place];
    const struct tg_slice value = tg_slice_of(text->p + place->name + 2, place->n - place->name - 2U);
    *text = tg_slice_of(text->p + place->n + 2, text->n - place->n - 2);
    return tg_h2_block_put(block, tg_slice_of(name->text, name->n), value, TG_H2_FIELD_INDEXED | TG_H2_FIELD_KNOWN);
}

enum tg_rc
tg_h2_recast_request(struct tg_h2_recast *recast, struct tg_slice text, struct tg_h2_request *request,
                     struct tg_h2_block *block, size_t *used)
{
    struct tg_slice line;
    const char *begin = text.p;
    enum tg_rc rc = next_line(&text, &line) ? read_request_line(line, request) : TG_EINVAL;
    for (unsigned i = 0; rc == TG_OK; i++) {
        struct tg_h2_recast_line *place = i < TG_H2_RECAST_LINES ? &recast->lines[i] : NULL;
        if (place != NULL && is_same(place, text)) {
            rc = put_same(recast, block, place, &text);
            continue;
        }
        if (!next_line(&text, &line)) {
            return TG_EINVAL;
        }
        if (line.n == 0) {
            *used = (size_t)(text.p - begin);
            /* RFC 9110, section 10.1.4: we take trailers. gRPC asks for it by name. */
            return tg_h2_block_put(block, TG_SLICE("te"), TG_SLICE("trailers"),
                                   TG_H2_FIELD_INDEXED | TG_H2_FIELD_KNOWN);
        }
        rc = put_line(recast, request, block, line, place);
    }
    return rc;
}

/* The body has no framing of its own: without a length it ends with the stream. */
static void
settle_framing(struct tg_message *message, bool to_head)
{
    message->keep_alive = true;
    if (to_head || message->status == 204 || message->status == 304) {
        message->framing = TG_FRAMING_NONE;
    } else if (message->has_length) {
        message->framing = TG_FRAMING_LENGTH;
    } else {
        message->framing = TG_FRAMING_CLOSE;
        message->keep_alive = false;
    }
}

enum tg_rc
tg_h2_recast_response(const struct tg_message *response, char *p, size_t room, struct tg_message *message, bool to_head,
                      size_t *used)
{
    const char *begin = p;
    const char *end = p + room;
    tg_message_init(message, message->arena);
    for (unsigned i = 0; i < response->count; i++) {
        struct tg_field field = response->fields[i];
        if ((size_t)(end - p) < (size_t)field.name_len + field.value_len) {
            return TG_ELIMIT;
        }
        field.name = memcpy(p, field.name, field.name_len);
        field.value = memcpy(p + field.name_len, field.value, field.value_len);
        p += field.name_len + field.value_len;
        const enum tg_rc rc = tg_message_push(message, &field);
        if (rc != TG_OK) {
            return rc;
        }
    }
    message->version_minor = 1;
    message->status = response->status;
    message->has_date = response->has_date;
    message->has_length = response->has_length;
    message->content_length = response->content_length;
    settle_framing(message, to_head);
    *used = (size_t)(p - begin);
    return TG_OK;
}
