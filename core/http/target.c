#include "http/target.h"

#include <arpa/inet.h>

#include "base/utf8.h"

#define FAULT(name, code, words) static const struct tg_h1_fault name = {(code), (words), TG_LIMIT_NONE}

FAULT(bad_form, 400, "malformed request target");
FAULT(bad_escape, 400, "malformed percent-encoding");
FAULT(refused_escape, 400, "refused percent-encoding");
FAULT(above_root, 400, "path climbs above the root");
FAULT(bad_utf8, 400, "overlong UTF-8 in the path");
FAULT(bad_parameter, 400, "dot segment with parameters");
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

/* Nothing in it has another spelling: it is its own normal form. */
static bool
is_plain(struct tg_slice path)
{
    char before = 0;
    for (size_t i = 0; i < path.n; i++) {
        const char c = path.p[i];
        if (c == '%' || c == ';' || (before == '/' && (c == '/' || c == '.'))) {
            return false;
        }
        before = c;
    }
    return true;
}

/* The byte that "%xy" at p[i] stands for; -1: no escape. */
static int
unescape(const char *p, size_t n, size_t i)
{
    const int high = i + 2 < n ? hex_digit(p[i + 1]) : -1;
    const int low = i + 2 < n ? hex_digit(p[i + 2]) : -1;
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Decodes what is unreserved and upper-cases the rest; refuses what would be read in two ways further on. */
static enum tg_rc
normalise_escapes(struct tg_target *out, struct tg_slice path, char *to, size_t *length,
                  const struct tg_h1_fault **fault)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < path.n; i++) {
        if (path.p[i] != '%') {
            to[n++] = path.p[i];
            continue;
        }
        const int c = unescape(path.p, path.n, i);
        i += 2;
        if (c < 0) {
            return refuse(fault, &bad_escape);
        }
        if (c < 0x20 || c == 0x7f) {
            return refuse(fault, &refused_escape);
        }
        if (is_unreserved((unsigned char)c)) {
            to[n++] = (char)c;
            continue;
        }
        if (c == '/' || c == '\\') {
            out->doubts |= TG_DOUBT_ENCODED_SLASH;
        }
        to[n++] = '%';
        to[n++] = hex[c >> 4];
        to[n++] = hex[c & 15];
    }
    *length = n;
    return TG_OK;
}

/* 1 for ".", 2 for "..", 0 for any other segment. */
static unsigned
dots_of(const char *segment, size_t n)
{
    return n == 1 && segment[0] == '.' ? 1 : n == 2 && segment[0] == '.' && segment[1] == '.' ? 2 : 0;
}

/* RFC 3986, section 5.2.4, in place; doubled slashes become one unless they are kept. */
static enum tg_rc
remove_dots(char *p, size_t *length, bool keep_slashes, const struct tg_h1_fault **fault)
{
    const size_t end = *length;
    size_t in = 0;
    size_t out = 0;
    while (in < end) { /* p[in] is a slash */
        const char *slash = memchr(p + in + 1, '/', end - in - 1);
        const size_t next = slash == NULL ? end : (size_t)(slash - p);
        const size_t size = next - in - 1;
        const bool last = slash == NULL;
        const char *parameter = memchr(p + in + 1, ';', size);
        const unsigned dots = dots_of(p + in + 1, size);
        const size_t named = parameter == NULL ? size : (size_t)(parameter - p) - in - 1;
        /* Without its parameters, "/;x/a" would be "//a" to rules and "/a" to an upstream. */
        if (parameter != NULL && (dots_of(p + in + 1, named) != 0 || (named == 0 && !last))) {
            return refuse(fault, &bad_parameter);
        }
        if (size == 0 && !last && !keep_slashes) {
            in = next;
            continue;
        }
        if (dots == 2) {
            if (out == 0) {
                return refuse(fault, &above_root);
            }
            do {
                out--;
            } while (p[out] != '/');
        } else if (dots == 0) {
            memmove(p + out, p + in, size + 1);
            out += size + 1;
        }
        if (dots != 0 && last) {
            p[out++] = '/';
        }
        in = next;
    }
    *length = out;
    return TG_OK;
}

/* An overlong form would be a second spelling of another character: it is never let through. */
static bool
is_overlong(const unsigned char *p, size_t n)
{
    const unsigned char next = n > 1 ? p[1] : 0;
    /* Of five and six bytes, too: no UTF-8 any more, but there are readers that still take it. */
    const unsigned end = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : p[0] == 0xf8 ? 0x88 : p[0] == 0xfc ? 0x84 : 0;
    return p[0] == 0xc0 || p[0] == 0xc1 || (next >= 0x80 && next < end);
}

static enum tg_rc
check_utf8(struct tg_target *out, const struct tg_h1_fault **fault)
{
    const unsigned char *p = (const unsigned char *)out->path.p;
    for (size_t i = 0; i < out->path.n;) {
        const size_t length = p[i] < 0x80 ? 1 : tg_utf8_length(p + i, out->path.n - i);
        if (length == 0) {
            if (is_overlong(p + i, out->path.n - i)) {
                return refuse(fault, &bad_utf8);
            }
            out->doubts |= TG_DOUBT_INVALID_UTF8;
        }
        i += length == 0 ? 1 : length;
    }
    return TG_OK;
}

/* What rules look at: decoded, without parameters. An encoded slash stays encoded, or it would look like one. */
static size_t
decode_path(struct tg_slice raw, char *to)
{
    size_t n = 0;
    bool parameter = false;
    for (size_t i = 0; i < raw.n; i++) {
        parameter = raw.p[i] == ';' || (parameter && raw.p[i] != '/');
        if (parameter) {
            continue;
        }
        const int c = raw.p[i] == '%' ? unescape(raw.p, raw.n, i) : -1;
        if (c < 0 || c == '/' || c == '\\') {
            to[n++] = raw.p[i];
        } else {
            to[n++] = (char)c;
            i += 2;
        }
    }
    return n;
}

enum tg_rc
tg_target_path(struct tg_target *out, struct tg_slice path, bool keep_slashes, struct tg_arena *arena,
               const struct tg_h1_fault **fault)
{
    out->doubts = 0;
    if (path.n == 0 || path.p[0] != '/') {
        return refuse(fault, &bad_form);
    }
    if (is_plain(path)) {
        out->raw_path = path;
        out->path = path;
        return TG_OK;
    }
    char *raw = tg_arena_alloc(arena, path.n);
    char *plain = tg_arena_alloc(arena, path.n);
    if (raw == NULL || plain == NULL) {
        return TG_ENOMEM;
    }
    size_t n = 0;
    enum tg_rc rc = normalise_escapes(out, path, raw, &n, fault);
    if (rc == TG_OK) {
        rc = remove_dots(raw, &n, keep_slashes, fault);
    }
    if (rc != TG_OK) {
        return rc;
    }
    out->raw_path = tg_slice_of(raw, n);
    out->path = tg_slice_of(plain, decode_path(out->raw_path, plain));
    return check_utf8(out, fault);
}

/* RFC 3986, section 3.2.2: reg-name or IPv6 literal; returns the length of the host, 0 when it is none. */
static size_t
host_length(struct tg_slice text)
{
    size_t i = 0;
    if (text.n > 0 && text.p[0] == '[') {
        char literal[INET6_ADDRSTRLEN];
        struct in6_addr address;
        const char *close = memchr(text.p, ']', text.n);
        const size_t n = close == NULL ? 0 : (size_t)(close - text.p) - 1;
        if (n == 0 || n >= sizeof literal) {
            return 0;
        }
        memcpy(literal, text.p + 1, n);
        literal[n] = '\0';
        return memchr(literal, '\0', n) == NULL && inet_pton(AF_INET6, literal, &address) == 1 ? n + 2 : 0;
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
    if (n == 0 || n > 255 || (n < text.n && text.p[n] != ':')) {
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
        /* The target's host wins, but a Host that is none is refused all the same. */
        enum tg_rc rc =
            message->host.p == NULL ? TG_OK : tg_target_host(message->host, arena, &out->authority, &out->host, fault);
        if (rc == TG_OK) {
            rc = split_absolute(&rest, &authority, fault);
        }
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
    return tg_target_path(out, path, message->reading.keep_slashes, arena, fault);
}
