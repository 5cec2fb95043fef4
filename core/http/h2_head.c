#include "http/h2_head.h"

#define FAULT(name, code, words, which) static const struct tg_h1_fault name = {(code), (words), (which)}

FAULT(path_too_long, 414, "request target too long", TG_LIMIT_REQUEST_LINE);
FAULT(field_too_long, 431, "header field too long", TG_LIMIT_FIELD);
FAULT(head_too_large, 431, "header section too large", TG_LIMIT_HEAD);
FAULT(too_many_fields, 431, "too many header fields", TG_LIMIT_FIELDS);
FAULT(response_too_large, 502, "response head too large", TG_LIMIT_RESPONSE_HEAD);
FAULT(long_trailers, 400, "trailer section too large", TG_LIMIT_TRAILERS);
FAULT(bad_target_byte, 400, "illegal byte in the request target", TG_LIMIT_NONE);
FAULT(bad_expect, 417, "expectation not supported", TG_LIMIT_NONE);

enum { METHOD = 1, SCHEME = 2, AUTHORITY = 4, PATH = 8, PROTOCOL = 16, STATUS = 32 };
enum { OVERHEAD = 32 };

/* A limit of one kind for requests, where a client is told which; one for all of a response, one for trailers. */
static enum tg_rc
refuse(struct tg_h2_head *head, const struct tg_h1_fault *fault)
{
    if (fault->limit != TG_LIMIT_NONE && head->section != TG_H2_REQUEST) {
        fault = head->section == TG_H2_RESPONSE ? &response_too_large : &long_trailers;
    }
    head->fault = fault;
    return TG_OK;
}

static const struct tg_h1_fault *
over_limit(const struct tg_h2_head *head, size_t n)
{
    return head->size > head->limits.head       ? &head_too_large
           : head->fields > head->limits.fields ? &too_many_fields
           : n > head->limits.field             ? &field_too_long
                                                : NULL;
}

static enum tg_rc
keep(const struct tg_h2_head *head, struct tg_slice value, bool lasts, struct tg_slice *out)
{
    const char *p = lasts ? value.p : tg_arena_copy(head->message->arena, value.p, value.n);
    *out = tg_slice_of(p, value.n);
    return p == NULL ? TG_ENOMEM : TG_OK;
}

static enum tg_rc
note_method(struct tg_h2_head *head, struct tg_slice value, bool lasts)
{
    if (!tg_is_token(value.p, value.n)) {
        return TG_EPROTOCOL;
    }
    const unsigned id = tg_method_id(value);
    if (id != 0) {
        value.p = tg_method_name(id);
        lasts = true;
    }
    return keep(head, value, lasts, &head->message->method);
}

static enum tg_rc
note_scheme(struct tg_h2_head *head, struct tg_slice value)
{
    if (tg_slice_is(value, "https", 5)) {
        head->scheme = TG_SLICE("https");
    } else if (tg_slice_is(value, "http", 4)) {
        head->scheme = TG_SLICE("http");
    } else {
        return TG_EPROTOCOL;
    }
    return TG_OK;
}

/* Without userinfo (RFC 9113, section 8.3.1); whether it names a host, http/target.h tells. */
static bool
is_authority(struct tg_slice value)
{
    return value.n > 0 && tg_h1_target_length(value.p, value.n) == value.n && memchr(value.p, '@', value.n) == NULL;
}

/* Rules and plugins look at Host: what HTTP/1.1 would have sent stands there (RFC 9113, section 8.3.1). */
static enum tg_rc
note_authority(struct tg_h2_head *head, struct tg_slice value, bool lasts)
{
    struct tg_message *message = head->message;
    if (!is_authority(value)) {
        return TG_EPROTOCOL;
    }
    enum tg_rc rc = keep(head, value, lasts, &message->host);
    if (rc != TG_OK) {
        return rc;
    }
    const struct tg_field field = {.name = "host",
                                   .value = message->host.p,
                                   .value_len = (uint32_t)value.n,
                                   .name_len = 4,
                                   .id = TG_FIELD_HOST,
                                   .flags = tg_field_flags_of(TG_FIELD_HOST),
                                   .hash = tg_field_hash("host", 4)};
    return tg_message_push(message, &field);
}

static enum tg_rc
note_path(struct tg_h2_head *head, struct tg_slice value, bool lasts)
{
    if (value.n == 0 || (value.p[0] != '/' && !tg_slice_is(value, "*", 1))) {
        return TG_EPROTOCOL;
    }
    if (value.n > head->limits.line) {
        return refuse(head, &path_too_long);
    }
    if (tg_h1_target_length(value.p, value.n) != value.n) {
        return refuse(head, &bad_target_byte);
    }
    return keep(head, value, lasts, &head->message->target);
}

static enum tg_rc
note_protocol(struct tg_h2_head *head, struct tg_slice value, bool lasts)
{
    if (!head->extended_connect || !tg_is_token(value.p, value.n)) {
        return TG_EPROTOCOL;
    }
    return keep(head, value, lasts, &head->protocol);
}

static enum tg_rc
note_status(struct tg_h2_head *head, struct tg_slice value)
{
    unsigned status = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9' || i == 3) {
            return TG_EPROTOCOL;
        }
        status = status * 10 + (unsigned)(value.p[i] - '0');
    }
    if (status < 100 || status > 599 || status == 101) {
        return TG_EPROTOCOL;
    }
    head->message->status = (uint16_t)status;
    return TG_OK;
}

/* RFC 9113, section 8.3: before all other fields, each once, none that is not of this kind of message. */
static enum tg_rc
pseudo(struct tg_h2_head *head, struct tg_slice name, struct tg_slice value, bool lasts)
{
    static const struct {
        struct tg_slice name;
        uint8_t bit;
        uint8_t section;
    } known[] = {{{":method", 7}, METHOD, TG_H2_REQUEST},        {{":scheme", 7}, SCHEME, TG_H2_REQUEST},
                 {{":authority", 10}, AUTHORITY, TG_H2_REQUEST}, {{":path", 5}, PATH, TG_H2_REQUEST},
                 {{":protocol", 9}, PROTOCOL, TG_H2_REQUEST},    {{":status", 7}, STATUS, TG_H2_RESPONSE}};
    unsigned bit = 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0] && bit == 0; i++) {
        if (known[i].section == head->section && tg_slice_is(known[i].name, name.p, name.n)) {
            bit = known[i].bit;
        }
    }
    if (bit == 0 || head->regular || (head->seen & bit) != 0) {
        return TG_EPROTOCOL;
    }
    head->seen |= (uint8_t)bit;
    switch (bit) {
    case METHOD:
        return note_method(head, value, lasts);
    case SCHEME:
        return note_scheme(head, value);
    case AUTHORITY:
        return note_authority(head, value, lasts);
    case PATH:
        return note_path(head, value, lasts);
    case PROTOCOL:
        return note_protocol(head, value, lasts);
    default:
        return note_status(head, value);
    }
}

/* The name in lower case (RFC 9113, section 8.2.1), the value as in HTTP/1.1; fills all of the field but its bytes. */
static bool
read_field(struct tg_slice name, struct tg_slice value, struct tg_field *field)
{
    if (name.n == 0 || name.n > UINT16_MAX || value.n > UINT32_MAX || !tg_is_value(value.p, value.n)) {
        return false;
    }
    for (size_t i = 0; i < name.n; i++) {
        const unsigned char c = (unsigned char)name.p[i];
        if (c == 0 || tg_token_byte[c] != c) {
            return false;
        }
    }
    *field = tg_field_of(name, value);
    return true;
}

/* Host beside :authority is its repetition, or the message is malformed. TG_AGAIN: the field is dropped. */
static enum tg_rc
note_host(struct tg_h2_head *head, const struct tg_field *field)
{
    const struct tg_slice authority = head->message->host;
    if (head->section != TG_H2_REQUEST) {
        return TG_OK;
    }
    if (head->host || !is_authority(tg_slice_of(field->value, field->value_len))) {
        return TG_EPROTOCOL;
    }
    head->host = true;
    if ((head->seen & AUTHORITY) == 0) {
        return TG_OK;
    }
    return tg_slice_is_text(authority, field->value, field->value_len) ? TG_AGAIN : TG_EPROTOCOL;
}

static enum tg_rc
note_length(struct tg_message *message, const struct tg_field *field)
{
    if (message->has_length || !tg_h1_parse_length(field, &message->content_length)) {
        return TG_EPROTOCOL;
    }
    message->has_length = true;
    return TG_OK;
}

/* RFC 9113, section 8.2.2. TG_AGAIN: the field is dropped. */
static enum tg_rc
note_field(struct tg_h2_head *head, const struct tg_field *field)
{
    struct tg_message *message = head->message;
    const bool request = head->section == TG_H2_REQUEST;
    switch (field->id) {
    case TG_FIELD_CONNECTION:
    case TG_FIELD_KEEP_ALIVE:
    case TG_FIELD_PROXY_CONNECTION:
    case TG_FIELD_TRANSFER_ENCODING:
    case TG_FIELD_UPGRADE:
        return TG_EPROTOCOL;
    case TG_FIELD_TE:
        return tg_slice_is_text(TG_SLICE("trailers"), field->value, field->value_len) ? TG_OK : TG_EPROTOCOL;
    case TG_FIELD_CONTENT_LENGTH:
        return note_length(message, field);
    case TG_FIELD_HOST:
        return note_host(head, field);
    case TG_FIELD_EXPECT:
        if (request && !tg_slice_is_text(TG_SLICE("100-continue"), field->value, field->value_len)) {
            return refuse(head, &bad_expect);
        }
        message->expect_continue = request;
        return TG_OK;
    case TG_FIELD_DATE:
        message->has_date = true;
        return TG_OK;
    case TG_FIELD_COOKIE:
        head->crumbs++;
        return TG_OK;
    default:
        return TG_OK;
    }
}

static enum tg_rc
push(struct tg_h2_head *head, struct tg_field *field, bool name_lasts, bool value_lasts)
{
    const size_t name_len = name_lasts ? 0 : field->name_len;
    const size_t value_len = value_lasts ? 0 : field->value_len;
    if (name_len + value_len > 0) {
        char *copy = tg_arena_alloc(head->message->arena, name_len + value_len);
        if (copy == NULL) {
            return TG_ENOMEM;
        }
        if (name_len > 0) {
            field->name = memcpy(copy, field->name, name_len);
        }
        if (value_len > 0) {
            field->value = memcpy(copy + name_len, field->value, value_len);
        }
    }
    if (field->value_len == 0) {
        field->value = "";
    }
    enum tg_rc rc = tg_message_push(head->message, field);
    return rc == TG_ELIMIT ? refuse(head, &too_many_fields) : rc;
}

enum tg_rc
tg_h2_head_field(struct tg_h2_head *head, struct tg_slice name, struct tg_slice value, bool name_lasts,
                 bool value_lasts)
{
    struct tg_field field;
    const bool is_pseudo = name.n > 0 && name.p[0] == ':';
    head->size += name.n + value.n + OVERHEAD;
    head->fields += is_pseudo ? 0 : 1;
    if (head->size > head->stop) {
        return TG_ELIMIT;
    }
    if (head->fault != NULL) {
        return TG_OK;
    }
    if (is_pseudo) {
        const struct tg_h1_fault *fault = head->size > head->limits.head ? &head_too_large : NULL;
        return fault != NULL ? refuse(head, fault) : pseudo(head, name, value, value_lasts);
    }
    head->regular = true;
    const struct tg_h1_fault *over = over_limit(head, name.n + value.n);
    if (over != NULL) {
        return refuse(head, over);
    }
    if (!read_field(name, value, &field)) {
        return TG_EPROTOCOL;
    }
    enum tg_rc rc = TG_OK;
    if (head->section == TG_H2_TRAILERS) {
        /* RFC 9110, section 6.5.1: nothing that frames, routes or authenticates. */
        const uint8_t bad = TG_FIELD_FRAMING | TG_FIELD_HOP | TG_FIELD_PROTECTED;
        rc = (field.flags & bad) != 0 || field.id == TG_FIELD_SET_COOKIE ? TG_EPROTOCOL : TG_OK;
    }
    if (rc == TG_OK && head->section != TG_H2_RESPONSE) {
        rc = tg_h1_judge_name(&field, head->underscores, &head->fault);
        if (rc == TG_EPROTOCOL) {
            return TG_OK;
        }
    }
    if (rc == TG_OK && field.id != TG_FIELD_OTHER && head->message != NULL) {
        rc = note_field(head, &field);
    }
    if (rc != TG_OK || head->message == NULL || head->fault != NULL) {
        return rc == TG_AGAIN ? TG_OK : rc;
    }
    head->priority |= field.name_len == 8 && memcmp(field.name, "priority", 8) == 0;
    return push(head, &field, name_lasts, value_lasts);
}

/* RFC 9113, section 8.2.3: the crumbs become one field, in the place of the first. */
static enum tg_rc
join_crumbs(struct tg_h2_head *head)
{
    struct tg_message *message = head->message;
    struct tg_field *first = NULL;
    unsigned kept = 0;
    size_t n = 0;
    for (unsigned i = 0; i < message->count; i++) {
        n += message->fields[i].id == TG_FIELD_COOKIE ? message->fields[i].value_len + 2 : 0;
    }
    char *joined = tg_arena_alloc(message->arena, n);
    if (joined == NULL) {
        return TG_ENOMEM;
    }
    n = 0;
    for (unsigned i = 0; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        if (field->id == TG_FIELD_COOKIE && field->value_len > 0) {
            if (n > 0) {
                memcpy(joined + n, "; ", 2);
                n += 2;
            }
            memcpy(joined + n, field->value, field->value_len);
            n += field->value_len;
        }
        if (field->id != TG_FIELD_COOKIE || first == NULL) {
            struct tg_field *place = &message->fields[kept++];
            *place = *field;
            first = field->id == TG_FIELD_COOKIE ? place : first;
        }
    }
    message->count = kept;
    first->value = joined;
    first->value_len = (uint32_t)n;
    return TG_OK;
}

static enum tg_rc
check_request(const struct tg_h2_head *head)
{
    const struct tg_message *message = head->message;
    const bool connect = tg_slice_is(message->method, "CONNECT", 7);
    if ((head->seen & (METHOD | SCHEME | PATH)) != (METHOD | SCHEME | PATH) || message->host.p == NULL ||
        connect != ((head->seen & PROTOCOL) != 0)) {
        return TG_EPROTOCOL;
    }
    if (connect && ((head->seen & AUTHORITY) == 0 || message->has_length)) {
        return TG_EPROTOCOL;
    }
    const bool asterisk = tg_slice_is(message->target, "*", 1);
    return asterisk && !tg_slice_is(message->method, "OPTIONS", 7) ? TG_EPROTOCOL : TG_OK;
}

/* A length must be that of what comes, also when nothing does. */
static enum tg_rc
settle_framing(struct tg_message *message, bool bodyless, bool end)
{
    if (bodyless) {
        message->framing = TG_FRAMING_NONE;
    } else if (message->has_length) {
        message->framing = TG_FRAMING_LENGTH;
        return end && message->content_length != 0 ? TG_EPROTOCOL : TG_OK;
    } else {
        message->framing = end ? TG_FRAMING_NONE : TG_FRAMING_CHUNKED;
    }
    return TG_OK;
}

enum tg_rc
tg_h2_head_end(struct tg_h2_head *head, bool end)
{
    struct tg_message *message = head->message;
    if (message == NULL || head->fault != NULL) {
        return TG_OK;
    }
    message->version_major = 2;
    message->version_minor = 0;
    message->keep_alive = true;
    if (head->section == TG_H2_TRAILERS) {
        return TG_OK;
    }
    if (head->section == TG_H2_REQUEST) {
        if (head->host && (head->seen & AUTHORITY) == 0) {
            const struct tg_field *host = tg_message_find_id(message, TG_FIELD_HOST);
            message->host = tg_slice_of(host->value, host->value_len);
        }
        enum tg_rc rc = check_request(head);
        if (rc == TG_OK && head->crumbs > 1) {
            rc = join_crumbs(head);
        }
        return rc == TG_OK ? settle_framing(message, false, end) : rc;
    }
    const uint16_t status = message->status;
    if (status == 0 || (status < 200 && end)) {
        return TG_EPROTOCOL;
    }
    const bool bodyless = head->to_head || status < 200 || status == 204 || status == 304;
    enum tg_rc rc = settle_framing(message, bodyless, end);
    if (rc == TG_OK && end && message->framing == TG_FRAMING_NONE && !bodyless) {
        message->framing = TG_FRAMING_LENGTH; /* of 0: another protocol must be told so */
    }
    return rc;
}
