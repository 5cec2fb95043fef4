#include "http/forwarded.h"

static struct tg_slice
trim(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }
    while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    return tg_slice_of(p, (size_t)(end - p));
}

/* "192.0.2.1:80", "[2001:db8::1]:80", "[2001:db8::1]" without brackets and port; a bare IPv6 address as it stands. */
static struct tg_slice
node_of(struct tg_slice text)
{
    if (text.n > 0 && text.p[0] == '[') {
        const char *close = memchr(text.p, ']', text.n);
        return close == NULL ? tg_slice_of(NULL, 0) : tg_slice_of(text.p + 1, (size_t)(close - text.p) - 1);
    }
    const char *colon = memchr(text.p, ':', text.n);
    if (colon != NULL && memchr(colon + 1, ':', (size_t)(text.p + text.n - colon) - 1) == NULL) {
        text.n = (size_t)(colon - text.p);
    }
    return text;
}

static bool
add(struct tg_forwarded *out, struct tg_slice node)
{
    if (node.n == 0 || out->count == TG_FORWARDED_MAX) {
        return false;
    }
    out->nodes[out->count++] = node;
    return true;
}

void
tg_forwarded_for(struct tg_forwarded *out, const struct tg_message *message)
{
    out->count = 0;
    out->proto = tg_slice_of(NULL, 0);
    for (unsigned i = message->count; i-- > 0;) {
        const struct tg_field *field = &message->fields[i];
        if (field->id != TG_FIELD_X_FORWARDED_FOR) {
            continue;
        }
        const char *end = field->value + field->value_len;
        for (;;) {
            const char *first = end;
            while (first > field->value && first[-1] != ',') {
                first--;
            }
            const struct tg_slice text = trim(first, end);
            if (text.n == 0 || !add(out, node_of(text))) {
                return;
            }
            if (first == field->value) {
                break;
            }
            end = first - 1;
        }
    }
}

/* One "name=value" at *p; moves *p behind it. The value is a token or a quoted string without escapes in it. */
static bool
take_pair(const char **p, const char *end, struct tg_slice *name, struct tg_slice *value)
{
    const char *at = *p;
    while (at < end && tg_token_byte[(unsigned char)*at] != 0) {
        at++;
    }
    *name = tg_slice_of(*p, (size_t)(at - *p));
    if (name->n == 0 || at == end || *at++ != '=') {
        return false;
    }
    if (at < end && *at == '"') {
        const char *close = memchr(at + 1, '"', (size_t)(end - at) - 1);
        if (close == NULL || memchr(at + 1, '\\', (size_t)(close - at) - 1) != NULL) {
            return false;
        }
        *value = tg_slice_of(at + 1, (size_t)(close - at) - 1);
        *p = close + 1;
        return true;
    }
    const char *first = at;
    while (at < end && tg_token_byte[(unsigned char)*at] != 0) {
        at++;
    }
    *value = tg_slice_of(first, (size_t)(at - first));
    *p = at;
    return value->n > 0;
}

static const char *
skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }
    return p;
}

/* One element, up to its comma. False: malformed, or it does not say whom it is for. */
static bool
take_element(const char **p, const char *end, struct tg_slice *node, struct tg_slice *proto)
{
    struct tg_slice name;
    struct tg_slice value;
    *node = *proto = tg_slice_of(NULL, 0);
    *p = skip_blanks(*p, end);
    while (*p < end && **p != ',') {
        if (!take_pair(p, end, &name, &value)) {
            return false;
        }
        if (tg_slice_is_text(name, "for", 3)) {
            *node = node_of(value);
        } else if (tg_slice_is_text(name, "proto", 5)) {
            *proto = value;
        }
        *p = skip_blanks(*p, end);
        if (*p < end && **p == ';') {
            *p = skip_blanks(*p + 1, end);
        } else if (*p < end && **p != ',') {
            return false;
        }
    }
    return node->n > 0;
}

/* The elements come left to right; the last TG_FORWARDED_MAX of them are kept, and a bad one forgets those before it.
 */
void
tg_forwarded_parse(struct tg_forwarded *out, const struct tg_message *message)
{
    struct tg_slice ring[TG_FORWARDED_MAX];
    size_t seen = 0;
    out->count = 0;
    out->proto = tg_slice_of(NULL, 0);
    for (unsigned i = 0; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        const char *p = field->value;
        const char *end = p + field->value_len;
        while (field->id == TG_FIELD_FORWARDED && p < end) {
            struct tg_slice node;
            if (take_element(&p, end, &node, &out->proto)) {
                ring[seen++ % TG_FORWARDED_MAX] = node;
            } else {
                seen = 0;
                out->proto = tg_slice_of(NULL, 0);
                const char *comma = memchr(p, ',', (size_t)(end - p));
                p = comma == NULL ? end : comma;
            }
            p += p < end ? 1 : 0;
        }
    }
    for (size_t k = 0; k < seen && k < TG_FORWARDED_MAX; k++) {
        out->nodes[out->count++] = ring[(seen - 1 - k) % TG_FORWARDED_MAX];
    }
}

static char *
put(char *p, const char *text, size_t n)
{
    memcpy(p, text, n);
    return p + n;
}

#define PUT(p, literal) put((p), (literal), sizeof(literal) - 1)

char *
tg_forwarded_write(char *p, struct tg_slice client, struct tg_slice host, struct tg_slice proto)
{
    const bool ipv6 = memchr(client.p, ':', client.n) != NULL;
    p = ipv6 ? PUT(p, "for=\"[") : PUT(p, "for=");
    p = put(p, client.p, client.n);
    p = ipv6 ? PUT(p, "]\"") : p;
    if (host.n > 0) { /* may have a colon, which no token has */
        p = PUT(p, ";host=\"");
        p = put(p, host.p, host.n);
        *p++ = '"';
    }
    p = PUT(p, ";proto=");
    return put(p, proto.p, proto.n);
}
