/*
 * fuzz_chunked.c - a chunked body, cut where the first byte says.
 *
 * Oracles: where it is cut changes nothing; a slow decoder that shares no code with ours, written from RFC 9112
 * (section 7.1) and the limits of body.h, says the same of every input; what was decoded, encoded again, decodes to
 * itself.
 */
#include <stdbool.h>
#include <strings.h>

#include "fuzz.h"
#include "http/body.h"

enum { INPUT_MAX = 16 * 1024 };

struct outcome {
    enum tg_rc rc;
    bool done;
    size_t used; /* when it is done */
    size_t n;
    char data[2 * INPUT_MAX];
};

/* Each piece stands in memory of its own size, so that a byte read or written beyond it is seen. */
static void
decode(const char *p, size_t n, const size_t steps[2], struct outcome *out)
{
    struct tg_body body;
    const struct tg_h1_fault *fault = NULL;
    size_t at = 0;
    out->rc = TG_OK;
    out->n = 0;
    tg_body_init(&body, TG_FRAMING_CHUNKED, 0);
    for (unsigned turn = 0; at < n && !body.done && out->rc == TG_OK; turn++) {
        const size_t step = steps[turn % 2];
        const size_t size = step < n - at ? step : n - at;
        struct tg_slice data = {0};
        size_t used = 0;
        char *piece = malloc(size);
        MUST(piece != NULL);
        memcpy(piece, p + at, size);
        out->rc = tg_body_decode(&body, piece, size, &data, &used, &fault);
        if (out->rc == TG_OK) {
            MUST(used <= size && (used == size || body.done));
            MUST(data.n <= used && (data.n == 0 || (data.p >= piece && data.p + data.n <= piece + size)));
            memcpy(out->data + out->n, data.p, data.n);
            out->n += data.n;
            MUST(body.total == out->n);
            at += used;
        } else {
            MUST(out->rc == TG_EPROTOCOL && fault != NULL && !body.done);
        }
        free(piece);
    }
    out->done = out->rc == TG_OK && body.done;
    out->used = at;
    MUST(out->rc != TG_OK || (tg_body_end(&body) == TG_OK) == out->done);
    tg_body_fini(&body);
}

/* ------------------------------------------------------------------ the reference */

/* Bytes that are there but stop too early are no error: more may come. */
enum verdict { WHOLE, MORE, BROKEN };

struct text {
    const char *p;
    const char *end;
};

static bool
is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static bool
is_control(char c)
{
    return (unsigned char)c < 32 || (unsigned char)c == 127;
}

/* CR LF at the place; what stands there instead is an error also when only half of it has come. */
static enum verdict
read_line_end(struct text *in)
{
    for (const char *want = "\r\n"; *want != '\0'; want++) {
        if (in->p == in->end) {
            return MORE;
        }
        if (*in->p++ != *want) {
            return BROKEN;
        }
    }
    return WHOLE;
}

/* Skips bytes of a set that the caller may refuse to be none; MORE: the text ends within. */
static enum verdict
skip(struct text *in, bool (*is_in)(char c), bool needed)
{
    const char *first = in->p;
    while (in->p < in->end && is_in(*in->p)) {
        in->p++;
    }
    return in->p == in->end ? MORE : needed && in->p == first ? BROKEN : WHOLE;
}

static bool
is_blank(char c)
{
    return is_one_of(c, " \t");
}

static bool
is_token(char c)
{
    return is_one_of(c, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

static enum verdict
read_quoted(struct text *in)
{
    for (in->p++; in->p < in->end; in->p++) {
        if (*in->p == '"') {
            in->p++;
            return WHOLE;
        }
        if (*in->p == '\\' && ++in->p == in->end) {
            return MORE;
        }
        if (is_control(*in->p) && *in->p != '\t') {
            return BROKEN;
        }
    }
    return MORE;
}

/* BWS "=" BWS ( token / quoted-string ), or nothing. */
static enum verdict
read_value(struct text *in)
{
    const char *before = in->p;
    enum verdict verdict = skip(in, is_blank, false);
    if (verdict != WHOLE) {
        return verdict;
    }
    if (*in->p != '=') {
        in->p = before; /* blanks of what comes next */
        return WHOLE;
    }
    in->p++;
    verdict = skip(in, is_blank, false);
    if (verdict != WHOLE) {
        return verdict;
    }
    return *in->p == '"' ? read_quoted(in) : skip(in, is_token, true);
}

/* *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ) */
static enum verdict
read_extensions(struct text *in)
{
    enum verdict verdict = WHOLE;
    while (verdict == WHOLE) {
        const char *before = in->p;
        verdict = skip(in, is_blank, false);
        if (verdict == WHOLE && *in->p != ';') {
            return in->p == before ? WHOLE : BROKEN;
        }
        if (verdict == WHOLE) {
            in->p++;
            verdict = skip(in, is_blank, false);
        }
        if (verdict == WHOLE) {
            verdict = skip(in, is_token, true);
        }
        if (verdict == WHOLE) {
            verdict = read_value(in);
        }
    }
    return verdict;
}

/* chunk-size [ chunk-ext ] CRLF */
static enum verdict
read_size(struct text *in, uint64_t *size, unsigned *extensions)
{
    unsigned digits = 0;
    *size = 0;
    while (in->p < in->end && is_one_of(*in->p, "0123456789abcdefABCDEF")) {
        const char text[2] = {*in->p++, '\0'};
        *size = *size * 16 + strtoul(text, NULL, 16);
        if (++digits > 16) {
            return BROKEN;
        }
    }
    if (in->p == in->end) {
        return MORE;
    }
    if (digits == 0 || !is_one_of(*in->p, "\r; \t")) {
        return BROKEN;
    }
    const char *first = in->p;
    const enum verdict verdict = read_extensions(in);
    const size_t length = (size_t)(in->p - first);
    *extensions += (unsigned)length;
    if (verdict == BROKEN || length > TG_CHUNK_EXTENSION_MAX || *extensions > TG_CHUNK_EXTENSIONS_MAX) {
        return BROKEN;
    }
    return verdict == MORE ? MORE : read_line_end(in);
}

static bool
is_refused_trailer(const char *name, size_t n)
{
    static const char *const refused[] = {"host",
                                          "content-length",
                                          "transfer-encoding",
                                          "connection",
                                          "keep-alive",
                                          "proxy-connection",
                                          "te",
                                          "trailer",
                                          "upgrade",
                                          "http2-settings",
                                          "expect",
                                          "proxy",
                                          "proxy-authenticate",
                                          "proxy-authorization",
                                          "authorization",
                                          "cookie",
                                          "set-cookie",
                                          "x-forwarded-for",
                                          "x-forwarded-proto",
                                          "x-forwarded-host",
                                          "x-forwarded-port",
                                          "x-real-ip",
                                          "forwarded",
                                          "via"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (strlen(refused[i]) == n && strncasecmp(refused[i], name, n) == 0) {
            return true;
        }
    }
    return false;
}

/* field-name ":" field-value, without the end of the line */
static bool
is_trailer(const char *p, size_t n)
{
    const char *colon = memchr(p, ':', n);
    if (colon == NULL || colon == p || is_refused_trailer(p, (size_t)(colon - p))) {
        return false;
    }
    for (const char *c = p; c < p + n; c++) {
        const bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
        const bool fits = c < colon ? letter || is_one_of(*c, "!#$%&'*+-.^_`|~") : !is_control(*c) || *c == '\t';
        if (c != colon && !fits) {
            return false;
        }
    }
    return true;
}

/* What a line holds is judged when the section is whole; that it is too large, or its lines end wrongly, at once. */
static enum verdict
read_trailers(struct text *in)
{
    const char *first = in->p;
    unsigned fields = 0;
    bool bad = false;
    for (;;) {
        const char *lf = memchr(in->p, '\n', (size_t)(in->end - in->p));
        if (lf == NULL) {
            return in->end - first >= TG_TRAILERS_MAX ? BROKEN : MORE;
        }
        if (lf + 1 - first > TG_TRAILERS_MAX || lf == in->p || lf[-1] != '\r') {
            return BROKEN;
        }
        const char *line = in->p;
        const size_t n = (size_t)(lf - 1 - line);
        in->p = lf + 1;
        if (n == 0) {
            return bad ? BROKEN : WHOLE;
        }
        if (++fields > TG_TRAILER_FIELDS_MAX) {
            return BROKEN;
        }
        bad = bad || !is_trailer(line, n);
    }
}

/* The data of all chunks so far is put at `out`. */
static enum verdict
read_body(struct text *in, char *out, size_t *out_len)
{
    unsigned extensions = 0;
    *out_len = 0;
    for (;;) {
        uint64_t size = 0;
        enum verdict verdict = read_size(in, &size, &extensions);
        if (verdict != WHOLE) {
            return verdict;
        }
        if (size == 0) {
            return read_trailers(in);
        }
        const size_t left = (size_t)(in->end - in->p);
        const size_t piece = size < left ? (size_t)size : left;
        memcpy(out + *out_len, in->p, piece);
        *out_len += piece;
        in->p += piece;
        if (piece < size) {
            return MORE;
        }
        verdict = read_line_end(in);
        if (verdict != WHOLE) {
            return verdict;
        }
    }
}

/* ------------------------------------------------------------------ the oracles */

static bool
has(const struct outcome *out, const char *data, size_t n)
{
    return out->n == n && memcmp(out->data, data, n) == 0;
}

/* Before it finds a fault, a decoder may have given away what came before. */
static void
check_agrees(const struct outcome *out, enum verdict verdict, const char *data, size_t n, size_t used)
{
    if (verdict == BROKEN) {
        MUST(out->rc == TG_EPROTOCOL);
        MUST(out->n <= n && memcmp(out->data, data, out->n) == 0);
    } else {
        MUST(out->rc == TG_OK);
        MUST(out->done == (verdict == WHOLE));
        MUST(has(out, data, n));
        MUST(!out->done || out->used == used);
    }
}

static void
check_round_trip(const char *data, size_t n, size_t step)
{
    static char coded[INPUT_MAX * 8];
    static struct outcome again;
    const size_t steps[2] = {step + 3, step};
    size_t length = 0;
    for (size_t at = 0; at < n;) {
        const size_t size = step < n - at ? step : n - at;
        length += tg_body_chunk_line(coded + length, size);
        memcpy(coded + length, data + at, size);
        length += size;
        memcpy(coded + length, "\r\n", 2);
        length += 2;
        at += size;
    }
    memcpy(coded + length, "0\r\n\r\n", 5);
    length += 5;
    decode(coded, length, steps, &again);
    MUST(again.done && again.used == length && has(&again, data, n));
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static char data[INPUT_MAX];
    static struct outcome out;
    if (n < 1 || n > INPUT_MAX) {
        return 0;
    }
    const char *p = (const char *)bytes + 1;
    n--;
    const size_t cuts[][2] = {{INPUT_MAX, INPUT_MAX}, {1, 1}, {(bytes[0] & 15) + 1, (bytes[0] >> 4) + 1}};
    struct text in = {p, p + n};
    size_t length = 0;
    const enum verdict verdict = read_body(&in, data, &length);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        decode(p, n, cuts[i], &out);
        check_agrees(&out, verdict, data, length, (size_t)(in.p - p));
    }
    if (verdict == WHOLE) {
        check_round_trip(data, length, cuts[2][0]);
    }
    return 0;
}
