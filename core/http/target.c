#include "http/target.h"

#define FAULT(name, code, words) static const struct tg_h1_fault name = {(code), (words)}

FAULT(bad_form, 400, "malformed request target");
FAULT(bad_escape, 400, "malformed percent-encoding");
FAULT(refused_escape, 400, "refused percent-encoding");
FAULT(above_root, 400, "path climbs above the root");
FAULT(bad_utf8, 400, "overlong UTF-8 in the path");
FAULT(bad_host, 400, "malformed Host");
FAULT(no_connect, 501, "CONNECT is not supported");

static enum tg_rc
refuse(const struct tg_h1_fault **fault, const struct tg_h1_fault *why)
{
    *fault = why;
    return TG_EPROTOCOL;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = tg_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986, section 2.3. */
static bool
is_unreserved(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' || c == '.' || c == '_' ||
           c == '~';
}

static bool
is_plain(struct tg_slice path)
{
    char before = 0;
    for (size_t i = 0; i < path.n; i++) {
        const char c = path.p[i];
        if (c == '%' || (before == '/' && (c == '/' || c == '.'))) {
            return false;
        }
        before = c;
    }
    return true;
}

/* Decodes what is unreserved and upper-cases the rest; refuses what would be read in two ways further on. */
static enum tg_rc
normalise_escapes(struct tg_slice path, char *out, size_t *out_len, const struct tg_h1_fault **fault)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++) {
        if (path.p[i] != '%') {
            out[n++] = path.p[i];
            continue;
        }
        const int high = i + 2 < path.n ? hex_digit(path.p[i + 1]) : -1;
        const int low = i + 2 < path.n ? hex_digit(path.p[i + 2]) : -1;
        if (high < 0 || low < 0) {
            return refuse(fault, &bad_escape);
        }
        const unsigned char c = (unsigned char)(high << 4 | low);
        i += 2;
        if (c < 0x20 || c == 0x7f || c == '/' || c == '\\') {
            return refuse(fault, &refused_escape);
        }
        if (is_unreserved(c)) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = hex[high];
            out[n++] = hex[low];
        }
    }
    *out_len = n;
    return TG_OK;
}

/* RFC 3986, section 5.2.4, in place; doubled slashes become one. */
static enum tg_rc
remove_dots(char *p, size_t *length, const struct tg_h1_fault **fault)
{
    const size_t end = *length;
    size_t in = 0;
    size_t out = 0;
    while (in < end) { /* p[in] is a slash */
        const char *slash = memchr(p + in + 1, '/', end - in - 1);
        const size_t next = slash == NULL ? end : (size_t)(slash - p);
        const size_t size = next - in - 1;
        const bool last = slash == NULL;
        if (size == 0 && !last) {
            in = next;
            continue;
        }
        if (size == 1 && p[in + 1] == '.') {
            if (last) {
                p[out++] = '/';
            }
        } else if (size == 2 && p[in + 1] == '.' && p[in + 2] == '.') {
            if (out == 0) {
                return refuse(fault, &above_root);
            }
            do {
                out--;
            } while (p[out] != '/');
            if (last) {
                p[out++] = '/';
            }
        } else {
            memmove(p + out, p + in, size + 1);
            out += size + 1;
        }
        in = next;
    }
    *length = out;
    return TG_OK;
}

/* RFC 3629, section 3: an overlong form would be a second spelling of an ASCII byte. */
static bool
has_overlong(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] == 0xc0 || p[i] == 0xc1) {
            return true;
        }
        if (i + 1 < n && ((p[i] == 0xe0 && p[i + 1] >= 0x80 && p[i + 1] < 0xa0) ||
                          (p[i] == 0xf0 && p[i + 1] >= 0x80 && p[i + 1] < 0x90))) {
            return true;
        }
    }
    return false;
}

enum tg_rc
tg_target_path(struct tg_slice path, struct tg_arena *arena, struct tg_slice *raw_path, struct tg_slice *decoded,
               const struct tg_h1_fault **fault)
{
    if (path.n == 0 || path.p[0] != '/') {
        return refuse(fault, &bad_form);
    }
    if (is_plain(path)) {
        *raw_path = path;
        *decoded = path;
        return TG_OK;
    }
    char *raw = tg_arena_alloc(arena, path.n);
    char *plain = tg_arena_alloc(arena, path.n);
    if (raw == NULL || plain == NULL) {
        return TG_ENOMEM;
    }
    size_t raw_len = 0;
    enum tg_rc rc = normalise_escapes(path, raw, &raw_len, fault);
    if (rc == TG_OK) {
        rc = remove_dots(raw, &raw_len, fault);
    }
    if (rc != TG_OK) {
        return rc;
    }
    size_t n = 0;
    for (size_t i = 0; i < raw_len; i++) {
        if (raw[i] == '%') {
            plain[n++] = (char)(hex_digit(raw[i + 1]) << 4 | hex_digit(raw[i + 2]));
            i += 2;
        } else {
            plain[n++] = raw[i];
        }
    }
    if (has_overlong((const unsigned char *)plain, n)) {
        return refuse(fault, &bad_utf8);
    }
    *raw_path = tg_slice_of(raw, raw_len);
    *decoded = tg_slice_of(plain, n);
    return TG_OK;
}

/* RFC 3986, section 3.2.2: reg-name or IPv6 literal; returns the length of the host, 0 when it is none. */
static size_t
host_length(struct tg_slice text)
{
    size_t i = 0;
    if (text.n > 0 && text.p[0] == '[') {
        for (i = 1; i < text.n && text.p[i] != ']'; i++) {
            if (hex_digit(text.p[i]) < 0 && text.p[i] != ':' && text.p[i] != '.') {
                return 0;
            }
        }
        return i < text.n && i > 2 ? i + 1 : 0;
    }
    for (; i < text.n && text.p[i] != ':'; i++) {
        const unsigned char c = (unsigned char)text.p[i];
        /* Percent-encoding in a host name would be a second spelling of it: refused, though the grammar has it. */
        if (!is_unreserved(c) && (c == '\0' || strchr("!$&'()*+,;=", c) == NULL)) {
            return 0;
        }
    }
    return i;
}

enum tg_rc
tg_target_host(struct tg_slice text, struct tg_arena *arena, struct tg_slice *authority, struct tg_slice *host,
               const struct tg_h1_fault **fault)
{
    size_t n = host_length(text);
    if (n == 0 || n > 255) {
        return refuse(fault, &bad_host);
    }
    unsigned port = 0;
    for (size_t i = n + 1; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || (port = port * 10 + (unsigned)(text.p[i] - '0')) > 65535) {
            return refuse(fault, &bad_host);
        }
    }
    const char *p = text.p;
    for (size_t i = 0; i < n; i++) {
        if (p[i] >= 'A' && p[i] <= 'Z') {
            char *copy = tg_arena_alloc(arena, text.n);
            if (copy == NULL) {
                return TG_ENOMEM;
            }
            for (size_t k = 0; k < text.n; k++) {
                copy[k] = tg_lower(text.p[k]);
            }
            p = copy;
            break;
        }
    }
    if (n > 1 && p[n - 1] == '.') {
        n--;
    }
    if (p[n - 1] == '.') {
        return refuse(fault, &bad_host);
    }
    *authority = tg_slice_of(p, text.n);
    *host = tg_slice_of(p, n);
    return TG_OK;
}

/* RFC 9112, section 3.2.2: the target's host wins over the Host field. */
static enum tg_rc
split_absolute(struct tg_slice *rest, struct tg_slice *authority, const struct tg_h1_fault **fault)
{
    size_t scheme = 0;
    if (rest->n > 7 && tg_slice_same_text(rest->p, "http://", 7)) {
        scheme = 7;
    } else if (rest->n > 8 && tg_slice_same_text(rest->p, "https://", 8)) {
        scheme = 8;
    } else {
        return refuse(fault, &bad_form);
    }
    size_t i = scheme;
    while (i < rest->n && rest->p[i] != '/' && rest->p[i] != '?') {
        i++;
    }
    *authority = tg_slice_of(rest->p + scheme, i - scheme);
    *rest = i < rest->n ? tg_slice_of(rest->p + i, rest->n - i) : TG_SLICE("/");
    return TG_OK;
}

enum tg_rc
tg_target_parse(struct tg_target *out, const struct tg_message *message, struct tg_arena *arena,
                const struct tg_h1_fault **fault)
{
    struct tg_slice rest = message->target;
    struct tg_slice authority = message->host;
    *out = (struct tg_target){0};
    if (tg_slice_is(message->method, "CONNECT", 7)) {
        return refuse(fault, &no_connect);
    }
    if (tg_slice_is(rest, "*", 1)) {
        if (!tg_slice_is(message->method, "OPTIONS", 7)) {
            return refuse(fault, &bad_form);
        }
        out->asterisk = true;
    } else if (rest.p[0] != '/') {
        enum tg_rc rc = split_absolute(&rest, &authority, fault);
        if (rc != TG_OK) {
            return rc;
        }
    }
    enum tg_rc rc = TG_OK;
    if (authority.p != NULL) {
        rc = tg_target_host(authority, arena, &out->authority, &out->host, fault);
    }
    if (rc != TG_OK || out->asterisk) {
        out->raw_path = out->path = rest;
        return rc;
    }
    struct tg_slice path = rest;
    const char *question = memchr(rest.p, '?', rest.n);
    if (question != NULL) {
        path.n = (size_t)(question - rest.p);
        out->query = tg_slice_of(question + 1, rest.n - path.n - 1);
        out->query_present = true;
    }
    if (path.n == 0) {
        path = TG_SLICE("/");
    }
    return tg_target_path(path, arena, &out->raw_path, &out->path, fault);
}
