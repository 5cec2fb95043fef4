#include "http/h1_parse.h"

#define FAULT(name, code, words) static const struct tg_h1_fault name = {(code), (words), TG_LIMIT_NONE}
#define LIMIT(name, code, words, which) static const struct tg_h1_fault name = {(code), (words), (which)}

FAULT(bare_lf, 400, "a line must end in CRLF");
LIMIT(line_too_long, 414, "request line too long", TG_LIMIT_REQUEST_LINE);
LIMIT(field_too_long, 431, "header field too long", TG_LIMIT_FIELD);
LIMIT(head_too_large, 431, "header section too large", TG_LIMIT_HEAD);
LIMIT(too_many_fields, 431, "too many header fields", TG_LIMIT_FIELDS);
FAULT(bad_request_line, 400, "malformed request line");
FAULT(bad_method, 400, "malformed method");
FAULT(bad_version, 505, "HTTP version not supported");
FAULT(bad_target_byte, 400, "illegal byte in the request target");
FAULT(bad_status_line, 502, "malformed status line");
FAULT(bad_name, 400, "malformed field name");
FAULT(bad_value, 400, "illegal byte in a field value");
FAULT(folded, 400, "obsolete line folding");
FAULT(bad_length, 400, "malformed Content-Length");
FAULT(two_lengths, 400, "more than one Content-Length");
FAULT(two_codings, 400, "more than one Transfer-Encoding");
FAULT(bad_coding, 400, "malformed Transfer-Encoding");
FAULT(other_coding, 501, "transfer coding not implemented");
FAULT(coding_in_10, 400, "Transfer-Encoding in HTTP/1.0");
FAULT(length_and_coding, 400, "Content-Length with Transfer-Encoding");
FAULT(no_host, 400, "missing Host");
FAULT(two_hosts, 400, "more than one Host");
FAULT(bad_expect, 417, "expectation not supported");
FAULT(bad_connection, 400, "Connection names a field that it may not remove");
FAULT(underscore, 400, "underscore in a field name");
FAULT(bad_trailer, 400, "field not allowed in trailers");

static enum tg_rc
refuse(const struct tg_h1_fault **fault, const struct tg_h1_fault *why)
{
    *fault = why;
    return TG_EPROTOCOL;
}

/* Limits hold for a line that has not ended yet, too. */
static enum tg_rc
check_line(const struct tg_h1_scan *scan, size_t length, const struct tg_h1_limits *limits, bool request,
           const struct tg_h1_fault **fault)
{
    if (scan->lines == 0) {
        if (length > limits->line) {
            return refuse(fault, request ? &line_too_long : &bad_status_line);
        }
    } else if (length > limits->field) {
        return refuse(fault, &field_too_long);
    }
    return TG_OK;
}

enum tg_rc
tg_h1_scan(struct tg_h1_scan *scan, const char *p, size_t n, const struct tg_h1_limits *limits, bool request,
           const struct tg_h1_fault **fault)
{
    while (scan->pos < n) {
        const char *lf = memchr(p + scan->pos, '\n', n - scan->pos);
        const size_t end = lf == NULL ? n : (size_t)(lf - p);
        if ((lf == NULL ? n : end + 1) > limits->head) {
            return refuse(fault, scan->lines == 0 && request ? &line_too_long : &head_too_large);
        }
        enum tg_rc rc = check_line(scan, end - scan->line, limits, request, fault);
        if (rc != TG_OK) {
            return rc;
        }
        if (lf == NULL) {
            scan->pos = (uint32_t)n;
            return TG_AGAIN;
        }
        if (end == scan->line || p[end - 1] != '\r') {
            return refuse(fault, &bare_lf);
        }
        const bool empty = end - 1 == scan->line;
        scan->pos = (uint32_t)end + 1;
        if (empty && scan->lines == 0) {
            if (scan->start != 0 || !request) {
                return refuse(fault, request ? &bad_request_line : &bad_status_line);
            }
            scan->start = scan->pos;
        } else if (empty) {
            return TG_OK;
        } else if (scan->lines++ > limits->fields) {
            return refuse(fault, &too_many_fields);
        }
        scan->line = scan->pos;
    }
    return TG_AGAIN;
}

/* One field line at `p`; returns the byte after its CRLF, or NULL with *fault. */
static const char *
parse_field(const char *p, const char *end, struct tg_field *field, const struct tg_h1_fault **fault)
{
    const char *name = p;
    if (p >= end) {
        *fault = &bad_name;
        return NULL;
    }
    if (*p == ' ' || *p == '\t') {
        *fault = &folded;
        return NULL;
    }
    while (p < end && tg_token_byte[(unsigned char)*p] != 0) {
        p++;
    }
    if (p == name || p >= end || *p != ':' || p - name > UINT16_MAX) {
        *fault = &bad_name;
        return NULL;
    }
    const size_t name_len = (size_t)(p - name);
    p++;
    while (p < end && (*p == ' ' || *p == '\t')) {
        p++;
    }
    const char *value = p;
    p += tg_value_length(p, (size_t)(end - p));
    if (end - p < 2 || p[0] != '\r' || p[1] != '\n') {
        *fault = &bad_value;
        return NULL;
    }
    const char *last = p;
    while (last > value && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }
    *field = tg_field_of(tg_slice_of(name, name_len), tg_slice_of(value, (size_t)(last - value)));
    return p + 2;
}

/* 18 digits fit into 64 bits with room to spare. */
bool
tg_h1_parse_length(const struct tg_field *field, uint64_t *out)
{
    const char *p = field->value;
    const char *end = p + field->value_len;
    uint64_t value = 0;
    if (p == end) {
        return false;
    }
    while (p < end && *p == '0') {
        p++;
    }
    if (end - p > 18) {
        return false;
    }
    for (; p < end; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(*p - '0');
    }
    *out = value;
    return true;
}

static bool
field_has(const struct tg_field *field, const char *text)
{
    return tg_slice_is_text(tg_slice_of(field->value, field->value_len), text, strlen(text));
}

/* A list of registered codings (RFC 9112, section 7), of which only the last may be chunked. */
static bool
is_known_coding(const struct tg_field *field)
{
    static const char *const others[] = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "identity"};
    const char *p = field->value;
    const char *end = p + field->value_len;
    bool known = p < end && end[-1] != ',';
    while (known && p < end) {
        const struct tg_slice member = tg_next_member(&p, end);
        known = p == end && tg_slice_is_text(member, "chunked", 7);
        for (size_t i = 0; i < sizeof others / sizeof others[0] && !known; i++) {
            known = tg_slice_is_text(member, others[i], strlen(others[i]));
        }
    }
    return known;
}

static enum tg_rc
note_coding(struct tg_message *message, const struct tg_field *field, const struct tg_h1_fault **fault)
{
    if (message->framing == TG_FRAMING_CHUNKED) {
        return refuse(fault, &two_codings);
    }
    if (message->version_minor == 0) {
        return refuse(fault, &coding_in_10);
    }
    if (!field_has(field, "chunked")) {
        return refuse(fault, is_known_coding(field) ? &other_coding : &bad_coding);
    }
    if (message->framing == TG_FRAMING_LENGTH) {
        return refuse(fault, &length_and_coding);
    }
    message->framing = TG_FRAMING_CHUNKED;
    return TG_OK;
}

static enum tg_rc
note_length(struct tg_message *message, const struct tg_field *field, const struct tg_h1_fault **fault)
{
    if (message->framing == TG_FRAMING_CHUNKED) {
        return refuse(fault, &length_and_coding);
    }
    if (message->framing == TG_FRAMING_LENGTH) {
        return refuse(fault, &two_lengths);
    }
    if (!tg_h1_parse_length(field, &message->content_length)) {
        return refuse(fault, &bad_length);
    }
    message->framing = TG_FRAMING_LENGTH;
    message->has_length = true;
    return TG_OK;
}

/* RFC 9112, section 9.3: close wins over keep-alive. */
static void
note_connection(struct tg_message *message, const struct tg_field *field)
{
    const char *p = field->value;
    const char *end = p + field->value_len;
    while (p < end) {
        const struct tg_slice option = tg_next_member(&p, end);
        if (tg_slice_is_text(option, "close", 5)) {
            message->keep_alive = false;
            message->close = true;
            return;
        }
        if (message->version_minor == 0 && !message->close && tg_slice_is_text(option, "keep-alive", 10)) {
            message->keep_alive = true;
        }
        message->upgrade |= message->version_minor == 1 && tg_slice_is_text(option, "upgrade", 7);
    }
}

static enum tg_rc
note_field(struct tg_message *message, const struct tg_field *field, bool request, const struct tg_h1_fault **fault)
{
    switch (field->id) {
    case TG_FIELD_CONTENT_LENGTH:
        return note_length(message, field, fault);
    case TG_FIELD_TRANSFER_ENCODING:
        return note_coding(message, field, fault);
    case TG_FIELD_CONNECTION:
        note_connection(message, field);
        return TG_OK;
    case TG_FIELD_HOST:
        if (request && message->host.p != NULL) {
            return refuse(fault, &two_hosts);
        }
        message->host = tg_slice_of(field->value, field->value_len);
        return TG_OK;
    case TG_FIELD_EXPECT:
        if (request && !field_has(field, "100-continue")) {
            return refuse(fault, &bad_expect);
        }
        message->expect_continue = request && message->version_minor == 1;
        return TG_OK;
    case TG_FIELD_DATE:
        message->has_date = true;
        return TG_OK;
    default:
        return TG_OK;
    }
}

enum tg_rc
tg_h1_judge_name(struct tg_field *field, unsigned underscores, const struct tg_h1_fault **fault)
{
    if (field->id == TG_FIELD_PROXY) {
        return TG_AGAIN;
    }
    if (memchr(field->name, '_', field->name_len) == NULL) {
        return TG_OK;
    }
    if (underscores == TG_UNDERSCORES_REJECT) {
        return refuse(fault, &underscore);
    }
    field->flags |= TG_FIELD_UNDERSCORE;
    return underscores == TG_UNDERSCORES_DROP ? TG_AGAIN : TG_OK;
}

static enum tg_rc
parse_fields(struct tg_message *message, const char *p, const char *end, bool request, const struct tg_h1_fault **fault)
{
    bool connection = false;
    while (end - p != 2) { /* the empty line, which the scan has found */
        struct tg_field field;
        p = parse_field(p, end, &field, fault);
        if (p == NULL) {
            return TG_EPROTOCOL;
        }
        enum tg_rc rc = request ? tg_h1_judge_name(&field, message->reading.underscores, fault) : TG_OK;
        if (rc == TG_AGAIN) {
            continue;
        }
        if (rc == TG_OK && field.id != TG_FIELD_OTHER) {
            rc = note_field(message, &field, request, fault);
        }
        if (rc == TG_OK) {
            rc = tg_message_push(message, &field);
        }
        if (rc != TG_OK) {
            return rc == TG_ELIMIT ? refuse(fault, &too_many_fields) : rc;
        }
        connection |= field.id == TG_FIELD_CONNECTION;
    }
    if (connection && tg_message_apply_connection(message) != TG_OK) {
        return refuse(fault, &bad_connection);
    }
    return TG_OK;
}

/* SECURITY: printable ASCII without the bytes that some parser somewhere reads as the end or as an escape. */
static bool
is_target_byte(unsigned char c)
{
    static const unsigned char refused[256] = {
        ['"'] = 1, ['<'] = 1, ['>'] = 1, ['\\'] = 1, ['^'] = 1, ['{'] = 1, ['}'] = 1, ['`'] = 1, ['#'] = 1};
    return c > 0x20 && c < 0x7f && refused[c] == 0;
}

/* " HTTP/1.x\r\n" at `p`. 1.0 and 1.1 only; another well-formed version is 505, anything else 400. */
static enum tg_rc
parse_request_version(struct tg_message *message, const char *p, const char *line_end, const struct tg_h1_fault **fault)
{
    if (line_end - p != 9 || memcmp(p, " HTTP/", 6) != 0 || p[7] != '.' || p[6] < '0' || p[6] > '9' || p[8] < '0' ||
        p[8] > '9') {
        return refuse(fault, &bad_request_line);
    }
    if (p[6] != '1' || p[8] > '1') {
        return refuse(fault, &bad_version);
    }
    message->version_minor = (uint8_t)(p[8] - '0');
    message->keep_alive = message->version_minor == 1;
    return TG_OK;
}

size_t
tg_h1_target_length(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && is_target_byte((unsigned char)p[i])) {
        i++;
    }
    return i;
}

enum tg_rc
tg_h1_parse_request(struct tg_message *message, const char *p, size_t n, const struct tg_h1_fault **fault)
{
    const char *end = p + n;
    const char *line_end = (const char *)memchr(p, '\n', n) - 1; /* the scan has found CRLF */
    const char *method = p;
    while (p < line_end && tg_token_byte[(unsigned char)*p] != 0) {
        p++;
    }
    if (p == method || *p != ' ') {
        return refuse(fault, &bad_method);
    }
    message->method = tg_slice_of(method, (size_t)(p - method));
    const char *target = ++p;
    p += tg_h1_target_length(p, (size_t)(line_end - p));
    if (p == target || *p != ' ') {
        return refuse(fault, p < line_end && *p != ' ' ? &bad_target_byte : &bad_request_line);
    }
    message->target = tg_slice_of(target, (size_t)(p - target));
    enum tg_rc rc = parse_request_version(message, p, line_end, fault);
    if (rc == TG_OK) {
        rc = parse_fields(message, line_end + 2, end, true, fault);
    }
    if (rc == TG_OK && message->host.p == NULL && message->version_minor == 1) {
        return refuse(fault, &no_host);
    }
    return rc;
}

/* RFC 9112, section 6.3: which framing a response has. */
static void
settle_response_framing(struct tg_message *message, bool to_head)
{
    const uint16_t status = message->status;
    if (to_head || status < 200 || status == 204 || status == 304) {
        message->framing = TG_FRAMING_NONE;
    } else if (message->framing == TG_FRAMING_NONE) {
        message->framing = TG_FRAMING_CLOSE;
        message->keep_alive = false;
    }
}

enum tg_rc
tg_h1_parse_response(struct tg_message *message, const char *p, size_t n, bool to_head,
                     const struct tg_h1_fault **fault)
{
    const char *end = p + n;
    const char *line_end = (const char *)memchr(p, '\n', n) - 1;
    if (line_end - p < 12 || memcmp(p, "HTTP/1.", 7) != 0 || (p[7] != '0' && p[7] != '1') || p[8] != ' ') {
        return refuse(fault, &bad_status_line);
    }
    message->version_minor = (uint8_t)(p[7] - '0');
    message->keep_alive = message->version_minor == 1;
    unsigned status = 0;
    for (int i = 9; i < 12; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return refuse(fault, &bad_status_line);
        }
        status = status * 10 + (unsigned)(p[i] - '0');
    }
    /* The space before an empty reason is often left out; nothing is ambiguous without it. */
    if (status < 100 || status > 599 || (line_end - p > 12 && p[12] != ' ')) {
        return refuse(fault, &bad_status_line);
    }
    message->status = (uint16_t)status;
    const size_t reason_len = line_end - p > 13 ? (size_t)(line_end - p - 13) : 0;
    message->reason = tg_slice_of(p + 13, reason_len);
    for (size_t i = 0; i < reason_len; i++) {
        const unsigned char c = (unsigned char)message->reason.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return refuse(fault, &bad_status_line);
        }
    }
    enum tg_rc rc = parse_fields(message, line_end + 2, end, false, fault);
    if (rc == TG_OK) {
        settle_response_framing(message, to_head);
    }
    return rc;
}

enum tg_rc
tg_h1_check_trailers(const char *p, size_t n, const struct tg_h1_fault **fault)
{
    const char *end = p + n;
    while (end - p != 2) { /* the empty line, which the scan has found */
        struct tg_field field;
        p = parse_field(p, end, &field, fault);
        if (p == NULL) {
            return TG_EPROTOCOL;
        }
        /* RFC 9110, section 6.5.1: nothing that frames, routes or authenticates. */
        if ((field.flags & (TG_FIELD_FRAMING | TG_FIELD_HOP | TG_FIELD_PROTECTED)) != 0 ||
            field.id == TG_FIELD_SET_COOKIE) {
            return refuse(fault, &bad_trailer);
        }
    }
    return TG_OK;
}
