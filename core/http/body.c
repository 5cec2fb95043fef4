#include "http/body.h"

enum {
    SIZE,
    GAP,
    NAME_START,
    NAME,
    NAME_GAP,
    VALUE_START,
    VALUE,
    QUOTED,
    ESCAPE,
    QUOTED_END,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER
};

static const struct tg_h1_fault bad_chunk = {400, "malformed chunk", TG_LIMIT_NONE};
static const struct tg_h1_fault long_extension = {400, "chunk extensions too long", TG_LIMIT_CHUNK_EXTENSIONS};
static const struct tg_h1_fault long_trailers = {400, "trailer section too large", TG_LIMIT_TRAILERS};

void
tg_body_init(struct tg_body *body, enum tg_framing framing, uint64_t length)
{
    *body = (struct tg_body){.framing = (uint8_t)framing, .left = framing == TG_FRAMING_LENGTH ? length : 0};
    body->done = framing == TG_FRAMING_NONE || (framing == TG_FRAMING_LENGTH && length == 0);
}

void
tg_body_fini(struct tg_body *body)
{
    tg_mem_free(body->trailer);
    body->trailer = NULL;
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

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* RFC 9110, section 5.6.4: what may stand in a quoted string, or behind its backslash. */
static bool
is_quotable(char c)
{
    return ((unsigned char)c >= 0x20 || c == '\t') && c != 0x7f;
}

/* Behind a name or a value: the line's end, blanks that another extension must follow, or that extension. */
static int
behind(char c)
{
    return c == '\r' ? SIZE_LF : c == ';' ? NAME_START : is_blank(c) ? GAP : -1;
}

/* RFC 9112, section 7.1.1: *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ). -1: not that. */
static int
next_state(int state, char c)
{
    const bool token = tg_token_byte[(unsigned char)c] != 0;
    switch (state) {
    case GAP:
        return c == ';' ? NAME_START : is_blank(c) ? GAP : -1;
    case NAME_START:
        return token ? NAME : is_blank(c) ? NAME_START : -1;
    case NAME:
        return token ? NAME : c == '=' ? VALUE_START : is_blank(c) ? NAME_GAP : behind(c);
    case NAME_GAP:
        return c == '=' ? VALUE_START : c == ';' ? NAME_START : is_blank(c) ? NAME_GAP : -1;
    case VALUE_START:
        return token ? VALUE : c == '"' ? QUOTED : is_blank(c) ? VALUE_START : -1;
    case VALUE:
        return token ? VALUE : behind(c);
    case QUOTED:
        return c == '"' ? QUOTED_END : c == '\\' ? ESCAPE : is_quotable(c) ? QUOTED : -1;
    case ESCAPE:
        return is_quotable(c) ? QUOTED : -1;
    default:
        return behind(c);
    }
}

static const struct tg_h1_fault *
count_extension(struct tg_body *body)
{
    body->extensions++;
    body->line++;
    return body->line > TG_CHUNK_EXTENSION_MAX || body->extensions > TG_CHUNK_EXTENSIONS_MAX ? &long_extension : NULL;
}

static const struct tg_h1_fault *
take_size_byte(struct tg_body *body, char c)
{
    const int digit = hex_digit(c);
    if (digit >= 0) {
        if (++body->digits > 16 || body->left >> 60 != 0) {
            return &bad_chunk;
        }
        body->left = body->left << 4 | (uint64_t)digit;
        return NULL;
    }
    const int next = body->digits == 0 ? -1 : behind(c);
    if (next < 0) {
        return &bad_chunk;
    }
    body->state = (uint8_t)next;
    return next == SIZE_LF ? NULL : count_extension(body);
}

/* A byte of a chunk's size line. */
static const struct tg_h1_fault *
take_line_byte(struct tg_body *body, char c)
{
    if (body->state == SIZE) {
        return take_size_byte(body, c);
    }
    if (body->state != SIZE_LF) {
        const int next = next_state(body->state, c);
        if (next < 0) {
            return &bad_chunk;
        }
        body->state = (uint8_t)next;
        return next == SIZE_LF ? NULL : count_extension(body);
    }
    if (c != '\n') {
        return &bad_chunk;
    }
    body->state = body->left == 0 ? TRAILER : DATA;
    body->digits = 0;
    body->line = 0;
    return NULL;
}

/* Collects the trailer section, which is checked when it is whole, and then dropped. */
static enum tg_rc
take_trailer(struct tg_body *body, const char *p, size_t n, size_t *used, const struct tg_h1_fault **fault)
{
    const struct tg_h1_limits limits = {TG_TRAILERS_MAX, TG_TRAILERS_MAX, TG_TRAILERS_MAX, TG_TRAILER_FIELDS_MAX};
    if (body->trailer_len == 0 && n >= 2 && p[0] == '\r' && p[1] == '\n') {
        *used = 2;
        body->done = true;
        return TG_OK;
    }
    if (body->trailer == NULL && (body->trailer = tg_mem_alloc(TG_TRAILERS_MAX)) == NULL) {
        return TG_ENOMEM;
    }
    const size_t old = body->trailer_len;
    const size_t room = TG_TRAILERS_MAX - old;
    const size_t more = n < room ? n : room;
    memcpy(body->trailer + old, p, more);
    body->trailer_len = (uint16_t)(old + more);
    size_t length = 0;
    if (body->trailer_len >= 2 && memcmp(body->trailer, "\r\n", 2) == 0) {
        length = 2;
    } else {
        /* Searched from the start each time: it is at most 4 KiB, and comes in one piece. */
        struct tg_h1_scan scan = {.lines = 1};
        enum tg_rc rc = tg_h1_scan(&scan, body->trailer, body->trailer_len, &limits, true, fault);
        if (rc == TG_AGAIN) {
            *used = more;
            *fault = &long_trailers;
            return more < n || body->trailer_len == TG_TRAILERS_MAX ? TG_EPROTOCOL : TG_OK;
        }
        if (rc != TG_OK) {
            *fault = (*fault)->limit == TG_LIMIT_NONE ? *fault : &long_trailers;
            return rc;
        }
        length = scan.pos;
    }
    *used = length - old;
    const enum tg_rc rc = tg_h1_check_trailers(body->trailer, length, fault);
    body->done = rc == TG_OK;
    return rc;
}

static enum tg_rc
decode_chunked(struct tg_body *body, char *p, size_t n, struct tg_slice *data, size_t *used,
               const struct tg_h1_fault **fault)
{
    char *out = NULL; /* where the next piece goes */
    char *first = p;
    size_t i = 0;
    while (i < n && !body->done) {
        if (body->state == DATA) {
            const size_t piece = body->left < n - i ? (size_t)body->left : n - i;
            if (out == NULL) {
                first = p + i;
                out = first;
            } else {
                memmove(out, p + i, piece);
            }
            out += piece;
            i += piece;
            body->left -= piece;
            body->state = body->left == 0 ? DATA_CR : DATA;
        } else if (body->state == DATA_CR || body->state == DATA_LF) {
            if (p[i++] != (body->state == DATA_CR ? '\r' : '\n')) {
                *fault = &bad_chunk;
                return TG_EPROTOCOL;
            }
            body->state = body->state == DATA_CR ? DATA_LF : SIZE;
        } else if (body->state == TRAILER) {
            size_t more = 0;
            enum tg_rc rc = take_trailer(body, p + i, n - i, &more, fault);
            if (rc != TG_OK) {
                return rc;
            }
            i += more;
        } else {
            *fault = take_line_byte(body, p[i++]);
            if (*fault != NULL) {
                return TG_EPROTOCOL;
            }
        }
    }
    *used = i;
    *data = tg_slice_of(first, out == NULL ? 0 : (size_t)(out - first));
    body->total += data->n;
    return TG_OK;
}

enum tg_rc
tg_body_decode(struct tg_body *body, char *p, size_t n, struct tg_slice *data, size_t *used,
               const struct tg_h1_fault **fault)
{
    if (body->framing == TG_FRAMING_CHUNKED) {
        return decode_chunked(body, p, n, data, used, fault);
    }
    size_t piece = n;
    if (body->framing != TG_FRAMING_CLOSE) {
        piece = body->left < n ? (size_t)body->left : n;
        body->left -= piece;
        body->done = body->left == 0;
    }
    *data = tg_slice_of(p, piece);
    *used = piece;
    body->total += piece;
    return TG_OK;
}

enum tg_rc
tg_body_end(struct tg_body *body)
{
    if (body->framing == TG_FRAMING_CLOSE) {
        body->done = true;
    }
    return body->done ? TG_OK : TG_EPROTOCOL;
}

size_t
tg_body_chunk_line(char *out, size_t size)
{
    static const char hex[] = "0123456789abcdef";
    unsigned shift = 60;
    while (shift > 0 && (size >> shift) == 0) {
        shift -= 4;
    }
    size_t n = 0;
    for (;; shift -= 4) {
        out[n++] = hex[(size >> shift) & 15];
        if (shift == 0) {
            break;
        }
    }
    out[n++] = '\r';
    out[n++] = '\n';
    return n;
}
