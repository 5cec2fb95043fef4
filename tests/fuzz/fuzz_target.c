/*
 * fuzz_target.c - a request target, and on a second line a Host, through the head parser into their normal form.
 *
 * Oracles: a normal form is its own normal form; no form of the path holds a dot segment, NUL or another control byte,
 * nor what a lenient reader would take for one, nor an empty segment unless those are kept; whatever way a path is
 * spelt, also with parameters, what rules look at is the same, so that a rule which denies it denies every spelling.
 */
#include <arpa/inet.h>
#include <stdbool.h>

#include "fuzz.h"
#include "http/target.h"

enum { TEXT_MAX = 2000, SPELT_MAX = 16 * TEXT_MAX };

static const struct tg_h1_limits limits = {8192, 8192, 32768, 100};
static char block[64 * 1024];
static uint32_t dice;

/* Cheap, and the same for the same input. */
static unsigned
roll(unsigned sides)
{
    dice = dice * 1664525U + 1013904223U;
    return (dice >> 16) % sides;
}

static bool
is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~", c) != NULL);
}

/* What may stand in a path without being encoded, but for the slash (RFC 3986, section 3.3). */
static bool
is_plain(unsigned char c)
{
    return is_unreserved(c) || (c != '\0' && strchr("!$&'()*+,;=:@", c) != NULL);
}

static bool
same(struct tg_slice a, struct tg_slice b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

/* ------------------------------------------------------------------ what must hold of one form */

/* The code point that a reader would find at `p` who minds neither overlong forms nor the end of Unicode; or 0x80. */
static unsigned
read_leniently(const unsigned char *p, size_t n)
{
    size_t length = 2;
    while (length < 6 && (p[0] & (0x80U >> length)) != 0) {
        length++;
    }
    if (p[0] < 0xc0 || p[0] >= 0xfe || length > n) {
        return 0x80;
    }
    unsigned point = p[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0x80;
        }
        point = point << 6 | (p[i] & 0x3fU);
    }
    return point;
}

static void
check_path(struct tg_slice path, bool keep_slashes)
{
    MUST(path.n > 0 && path.p[0] == '/');
    size_t segment = 0;
    for (size_t i = 1; i <= path.n; i++) {
        if (i < path.n && path.p[i] != '/') {
            const unsigned char c = (unsigned char)path.p[i];
            MUST(c >= 0x20 && c != 0x7f && c != '\\');
            MUST(read_leniently((const unsigned char *)path.p + i, path.n - i) >= 0x80);
            continue;
        }
        const size_t n = i - segment - 1;
        MUST(n > 0 || i == path.n || keep_slashes);
        MUST(n != 1 || path.p[segment + 1] != '.');
        MUST(n != 2 || memcmp(path.p + segment + 1, "..", 2) != 0);
        segment = i;
    }
}

static int
hex_value(char c)
{
    const char *digits = "0123456789ABCDEF"; /* of a normal form: no lower-case ones */
    const char *at = c == '\0' ? NULL : strchr(digits, c);
    return at == NULL ? -1 : (int)(at - digits);
}

/* One byte of the encoded form, which *i is moved behind; *encoded: it is written as an escape. */
static unsigned char
read_unit(struct tg_slice raw, size_t *i, bool *encoded)
{
    const unsigned char c = (unsigned char)raw.p[(*i)++];
    MUST(c > 0x20 && c < 0x7f && strchr("\"#<>?\\^`{}", c) == NULL);
    *encoded = c == '%';
    if (!*encoded) {
        return c;
    }
    MUST(*i + 1 < raw.n && hex_value(raw.p[*i]) >= 0 && hex_value(raw.p[*i + 1]) >= 0);
    const int byte = hex_value(raw.p[*i]) * 16 + hex_value(raw.p[*i + 1]);
    *i += 2;
    return (unsigned char)byte;
}

/* Nothing is encoded that needs not be; decoded, without parameters, but for slashes, it is the other form. */
static void
check_encoding(struct tg_slice raw, struct tg_slice path, uint8_t doubts)
{
    static char decoded[TEXT_MAX];
    size_t n = 0;
    bool parameter = false;
    bool slash = false;
    for (size_t i = 0; i < raw.n;) {
        const size_t at = i;
        bool encoded = false;
        const unsigned char c = read_unit(raw, &i, &encoded);
        MUST(!encoded || !is_unreserved(c));
        const bool kept = encoded && (c == '/' || c == '\\');
        slash = slash || kept;
        parameter = encoded ? parameter : c == ';' || (parameter && c != '/');
        if (kept && !parameter) {
            memcpy(decoded + n, raw.p + at, 3);
            n += 3;
        } else if (!parameter) {
            decoded[n++] = (char)c;
        }
    }
    MUST(same(path, tg_slice_of(decoded, n)));
    /* A segment that is gone may have held one, too: an upstream that decodes first sees other segments. */
    MUST(!slash || (doubts & TG_DOUBT_ENCODED_SLASH) != 0);
}

static void
check_host(struct tg_slice authority, struct tg_slice host)
{
    MUST(host.n > 0 && host.n <= authority.n && memcmp(authority.p, host.p, host.n) == 0);
    MUST(host.p[host.n - 1] != '.');
    size_t rest = host.n;
    if (host.p[0] == '[') {
        char text[INET6_ADDRSTRLEN] = "";
        struct in6_addr address;
        MUST(host.n - 2 < sizeof text && host.p[host.n - 1] == ']');
        memcpy(text, host.p + 1, host.n - 2);
        MUST(inet_pton(AF_INET6, text, &address) == 1);
    } else {
        rest += rest < authority.n && authority.p[rest] == '.';
        for (size_t i = 0; i < host.n; i++) {
            const unsigned char c = (unsigned char)host.p[i];
            MUST((c < 'A' || c > 'Z') && c != ':' && c != '@' && is_plain(c));
        }
    }
    MUST(rest == authority.n || authority.p[rest] == ':');
    unsigned long port = 0;
    for (size_t i = rest + 1; i < authority.n; i++) {
        MUST(authority.p[i] >= '0' && authority.p[i] <= '9');
        port = port * 10 + (unsigned long)(authority.p[i] - '0');
        MUST(port <= 65535);
    }
}

/* ------------------------------------------------------------------ other spellings of it */

struct text {
    char p[SPELT_MAX];
    size_t n;
};

static void
put(struct text *out, const char *p, size_t n)
{
    MUST(out->n + n <= sizeof out->p);
    memcpy(out->p + out->n, p, n);
    out->n += n;
}

static void
put_encoded(struct text *out, unsigned char c)
{
    static const char *const digits[] = {"0123456789abcdef", "0123456789ABCDEF"};
    const char text[3] = {'%', digits[roll(2)][c >> 4], digits[roll(2)][c & 15]};
    put(out, text, sizeof text);
}

static void
put_slash(struct text *out, bool keep_slashes)
{
    static const char *const slashes[] = {"/",  "/",   "/",    "/./",       "/%2e/",      "/x/../", "/a/b/../.%2E/",
                                          "//", "///", "/.//", "/x//%2E./", "/y/../%2e//"};
    const char *slash = slashes[roll(keep_slashes ? 7 : sizeof slashes / sizeof slashes[0])];
    put(out, slash, strlen(slash));
}

/*
 * Spells the normal form anew. A reserved byte has two spellings, which are two forms to an upstream (RFC 3986, section
 * 2.2) but one to rules, and so are parameters: with `loosely` those are changed as well.
 */
static void
spell(struct tg_slice raw, bool keep_slashes, bool loosely, struct text *out)
{
    bool parameter = false;
    out->n = 0;
    for (size_t i = 0; i < raw.n;) {
        bool encoded = false;
        const unsigned char c = read_unit(raw, &i, &encoded);
        const bool slash = c == '/' && !encoded;
        parameter = encoded ? parameter : c == ';' || (parameter && c != '/');
        if (loosely && !parameter && slash && out->n > 0 && out->p[out->n - 1] != '/' && roll(4) == 0) {
            put(out, ";v=..", 5);
        }
        if (slash) {
            put_slash(out, keep_slashes);
        } else if (parameter && loosely && roll(2) == 0) {
            put(out, ";", 1);
        } else if (is_unreserved(c) || (loosely && !parameter && c != ';' && is_plain(c))) {
            if (roll(3) == 0) {
                put_encoded(out, c);
            } else {
                put(out, (const char *)&c, 1);
            }
        } else if (encoded) {
            put_encoded(out, c);
        } else {
            put(out, (const char *)&c, 1);
        }
    }
}

static void
check_spelling(const struct tg_target *target, bool keep_slashes, bool loosely, struct tg_arena *arena)
{
    static struct text spelt;
    const struct tg_h1_fault *fault = NULL;
    struct tg_target again = {0};
    spell(target->raw_path, keep_slashes, loosely, &spelt);
    MUST(tg_target_path(&again, tg_slice_of(spelt.p, spelt.n), keep_slashes, arena, &fault) == TG_OK);
    MUST(same(again.path, target->path));
    MUST(loosely || (same(again.raw_path, target->raw_path) && (again.doubts & ~target->doubts) == 0));
}

static void
check_host_spellings(const struct tg_target *target, struct tg_arena *arena)
{
    static const char capitals[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    char text[512];
    struct tg_slice authority;
    struct tg_slice host;
    const struct tg_h1_fault *fault = NULL;
    MUST(tg_target_host(target->authority, arena, &authority, &host, &fault) == TG_OK);
    MUST(same(authority, target->authority) && same(host, target->host));
    if (target->host.n >= 255) {
        return;
    }
    for (size_t i = 0; i < target->host.n; i++) {
        const char c = target->host.p[i];
        text[i] = c;
        if (c >= 'a' && c <= 'z' && roll(2) == 0) {
            text[i] = capitals[c - 'a'];
        }
    }
    size_t n = target->host.n;
    if (text[0] != '[' && roll(2) == 0) {
        text[n++] = '.';
    }
    MUST(tg_target_host(tg_slice_of(text, n), arena, &authority, &host, &fault) == TG_OK);
    MUST(same(host, target->host));
}

/* ------------------------------------------------------------------ the target */

static void
check_target(const struct tg_target *target, bool keep_slashes, struct tg_arena *arena)
{
    struct tg_target again = {0};
    const struct tg_h1_fault *fault = NULL;
    check_host(target->authority, target->host);
    check_host_spellings(target, arena);
    if (target->asterisk) {
        MUST(target->raw_path.n == 1 && target->raw_path.p[0] == '*');
        return;
    }
    check_path(target->path, keep_slashes);
    check_path(target->raw_path, keep_slashes);
    check_encoding(target->raw_path, target->path, target->doubts);
    MUST(target->query_present || target->query.n == 0);
    MUST(tg_target_path(&again, target->raw_path, keep_slashes, arena, &fault) == TG_OK);
    MUST(same(again.raw_path, target->raw_path) && same(again.path, target->path) &&
         (again.doubts & ~target->doubts) == 0);
    check_spelling(target, keep_slashes, false, arena);
    check_spelling(target, keep_slashes, true, arena);
}

/* The head of a request for the first line of the input; the second, if there is one, is the Host. */
static size_t
make_head(const char *p, size_t n, char *out)
{
    const char *line = memchr(p, '\n', n);
    const char *end = n > 0 && p[n - 1] == '\n' ? p + n - 1 : p + n; /* editors end a file so */
    const struct tg_slice target = tg_slice_of(p, (size_t)((line == NULL ? end : line) - p));
    const struct tg_slice host =
        line == NULL || line >= end ? TG_SLICE("h") : tg_slice_of(line + 1, (size_t)(end - line - 1));
    const struct tg_slice parts[] = {p[0] == '*' ? TG_SLICE("OPTIONS ") : TG_SLICE("GET "), target,
                                     TG_SLICE(" HTTP/1.1\r\nHost: "), host, TG_SLICE("\r\n\r\n")};
    size_t length = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        memcpy(out + length, parts[i].p, parts[i].n);
        length += parts[i].n;
    }
    return length;
}

static void
check_head(const char *head, size_t n, bool keep_slashes)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_message message;
    struct tg_target target;
    struct tg_arena arena;
    tg_arena_init(&arena, block, sizeof block, 1U << 20);
    tg_message_init(&message, &arena);
    message.reading.keep_slashes = keep_slashes;
    if (tg_h1_parse_request(&message, head, n, &fault) == TG_OK) {
        const enum tg_rc rc = tg_target_parse(&target, &message, &arena, &fault);
        MUST(rc == TG_OK || (rc == TG_EPROTOCOL && fault != NULL));
        if (rc == TG_OK) {
            check_target(&target, keep_slashes, &arena);
        }
    }
    tg_arena_fini(&arena);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static char head[TEXT_MAX + 64];
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    if (n == 0 || n > TEXT_MAX) {
        return 0;
    }
    dice = tg_field_hash((const char *)bytes, n);
    const size_t length = make_head((const char *)bytes, n, head);
    if (tg_h1_scan(&scan, head, length, &limits, true, &fault) == TG_OK && scan.pos == length) {
        check_head(head, length, false);
        check_head(head, length, true);
    }
    return 0;
}
