#include "http/h1_write.h"

struct reason {
    uint16_t status;
    const char *text;
};

static const struct reason reasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {207, "Multi-Status"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

const char *
tg_h1_reason(unsigned status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status) {
            return reasons[i].text;
        }
    }
    return "Unknown";
}

/* The caller has computed an upper bound of the length; these only move on. */
static char *
put(char *p, const char *text, size_t n)
{
    memcpy(p, text, n);
    return p + n;
}

#define PUT(p, literal) put((p), (literal), sizeof(literal) - 1)

static char *
put_number(char *p, uint64_t value)
{
    char digits[20];
    size_t n = sizeof digits;
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    return put(p, digits + n, sizeof digits - n);
}

static size_t
fields_size(const struct tg_message *message)
{
    size_t size = 0;
    for (unsigned i = 0; i < message->count; i++) {
        size += message->fields[i].name_len + message->fields[i].value_len + 4;
    }
    return size;
}

static char *
put_field(char *p, const struct tg_field *field)
{
    p = put(p, field->name, field->name_len);
    p = PUT(p, ": ");
    p = put(p, field->value, field->value_len);
    return PUT(p, "\r\n");
}

bool
tg_h1_is_ours(const struct tg_field *field, enum tg_trust trust)
{
    if ((field->flags & TG_FIELD_HOP) != 0) {
        return true;
    }
    if ((field->flags & TG_FIELD_SET) != 0) {
        return false; /* a plugin's word is the operator's */
    }
    switch (field->id) {
    case TG_FIELD_HOST:
    case TG_FIELD_X_FORWARDED_FOR: /* continued */
    case TG_FIELD_X_REAL_IP:
    case TG_FIELD_FORWARDED: /* continued */
        return true;
    case TG_FIELD_X_FORWARDED_PROTO:
    case TG_FIELD_X_FORWARDED_HOST:
    case TG_FIELD_X_FORWARDED_PORT:
        return trust != TG_TRUST_X_FORWARDED;
    case TG_FIELD_VIA:
        return trust == TG_TRUST_NONE;
    default:
        return false;
    }
}

static char *
put_line(char *p, const char *name, size_t n, struct tg_slice value)
{
    p = put(p, name, n);
    p = put(p, value.p, value.n);
    return PUT(p, "\r\n");
}

#define PUT_LINE(p, name, value) put_line((p), name ": ", sizeof(name ": ") - 1, (value))

_Static_assert(TG_FIELD_COUNT <= 32, "a set of ids has 32 bits");

/* Which fields go out that the gateway has not written: bits by their id. */
static uint32_t
kept_fields(const struct tg_message *message, enum tg_trust trust)
{
    const uint32_t trusted =
        trust != TG_TRUST_X_FORWARDED
            ? 0
            : 1U << TG_FIELD_X_FORWARDED_PROTO | 1U << TG_FIELD_X_FORWARDED_HOST | 1U << TG_FIELD_X_FORWARDED_PORT;
    uint32_t kept = 0;
    for (unsigned i = 0; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        kept |= ((field->flags & TG_FIELD_SET) != 0 ? UINT32_MAX : trusted) & 1U << field->id;
    }
    return kept;
}

/* The values of a chain that is kept, each with a comma behind it. */
static char *
put_chain(char *p, const struct tg_message *message, enum tg_field_id id)
{
    for (unsigned i = 0; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        if (field->id == id && field->value_len > 0) {
            p = put(p, field->value, field->value_len);
            p = PUT(p, ", ");
        }
    }
    return p;
}

static char *
put_clients(char *p, const struct tg_message *message, const struct tg_h1_forward *forward, uint32_t kept)
{
    const bool x_trusted = forward->trust == TG_TRUST_X_FORWARDED;
    const bool trusted = forward->trust == TG_TRUST_FORWARDED;
    if ((kept & 1U << TG_FIELD_X_FORWARDED_FOR) == 0) {
        p = PUT(p, "X-Forwarded-For: ");
        p = x_trusted ? put_chain(p, message, TG_FIELD_X_FORWARDED_FOR) : p;
        p = put(p, x_trusted ? forward->peer_ip.p : forward->client_ip.p,
                x_trusted ? forward->peer_ip.n : forward->client_ip.n);
        p = PUT(p, "\r\n");
    }
    if ((kept & 1U << TG_FIELD_X_REAL_IP) == 0) {
        p = PUT_LINE(p, "X-Real-IP", forward->client_ip);
    }
    if ((kept & 1U << TG_FIELD_FORWARDED) == 0) {
        p = PUT(p, "Forwarded: ");
        p = trusted ? put_chain(p, message, TG_FIELD_FORWARDED) : p;
        p = tg_forwarded_write(p, trusted ? forward->peer_ip : forward->client_ip, forward->forwarded_host,
                               forward->proto);
        p = PUT(p, "\r\n");
    }
    return p;
}

static char *
put_forward(char *p, const struct tg_message *message, const struct tg_h1_forward *forward)
{
    const uint32_t kept = kept_fields(message, forward->trust);
    p = put_clients(p, message, forward, kept);
    if ((kept & 1U << TG_FIELD_X_FORWARDED_PROTO) == 0) {
        p = PUT_LINE(p, "X-Forwarded-Proto", forward->proto);
    }
    if (forward->forwarded_host.n > 0 && (kept & 1U << TG_FIELD_X_FORWARDED_HOST) == 0) {
        p = PUT_LINE(p, "X-Forwarded-Host", forward->forwarded_host);
    }
    if ((kept & 1U << TG_FIELD_X_FORWARDED_PORT) == 0) {
        p = PUT(p, "X-Forwarded-Port: ");
        p = put_number(p, forward->port);
        p = PUT(p, "\r\n");
    }
    return message->version_major == 2 ? PUT(p, "Via: 2.0 tidegate\r\n") : PUT(p, "Via: 1.1 tidegate\r\n");
}

static char *
put_frame(char *p, const struct tg_h1_frame *frame)
{
    if (frame->framing == TG_FRAMING_LENGTH || (frame->framing == TG_FRAMING_NONE && frame->length_of_none)) {
        p = PUT(p, "Content-Length: ");
        p = put_number(p, frame->framing == TG_FRAMING_LENGTH ? frame->length : 0);
        p = PUT(p, "\r\n");
    } else if (frame->framing == TG_FRAMING_CHUNKED) {
        p = PUT(p, "Transfer-Encoding: chunked\r\n");
    }
    if (frame->upgrade.n > 0) {
        p = PUT(p, "Connection: Upgrade\r\n");
        p = PUT_LINE(p, "Upgrade", frame->upgrade);
    } else if (frame->close) {
        p = PUT(p, "Connection: close\r\n");
    } else if (frame->keep_alive) {
        p = PUT(p, "Connection: keep-alive\r\n");
    }
    return PUT(p, "\r\n");
}

enum { FIXED_ROOM = 768 }; /* all that is written beside fields, the target and the authority */

static size_t
forward_size(const struct tg_message *message, const struct tg_h1_forward *forward)
{
    return fields_size(message) + 2 * forward->forwarded_host.n + forward->proto.n + FIXED_ROOM;
}

enum tg_rc
tg_h1_write_forward(const struct tg_message *message, const struct tg_h1_forward *forward, struct tg_slice *out)
{
    const size_t size = forward_size(message, forward);
    char *start = tg_arena_alloc(message->arena, size);
    if (start == NULL) {
        return TG_ENOMEM;
    }
    const char *p = put_forward(start, message, forward);
    TG_ASSERT((size_t)(p - start) <= size);
    *out = tg_slice_of(start, (size_t)(p - start));
    return TG_OK;
}

enum tg_rc
tg_h1_write_request(const struct tg_message *message, struct tg_slice raw_path, struct tg_slice query,
                    bool query_present, const struct tg_h1_forward *forward, const struct tg_h1_frame *frame,
                    struct tg_slice *out)
{
    const size_t size = message->method.n + raw_path.n + query.n + fields_size(message) + forward->authority.n +
                        forward_size(message, forward) + frame->upgrade.n;
    char *start = tg_arena_alloc(message->arena, size);
    if (start == NULL) {
        return TG_ENOMEM;
    }
    char *p = put(start, message->method.p, message->method.n);
    *p++ = ' ';
    p = put(p, raw_path.p, raw_path.n);
    if (query_present) {
        *p++ = '?';
        p = put(p, query.p, query.n);
    }
    p = PUT(p, " HTTP/1.1\r\n");
    p = PUT_LINE(p, "Host", forward->authority);
    for (unsigned i = 0; i < message->count; i++) {
        if (!tg_h1_is_ours(&message->fields[i], forward->trust)) {
            p = put_field(p, &message->fields[i]);
        }
    }
    p = put_forward(p, message, forward);
    p = put_frame(p, frame);
    TG_ASSERT((size_t)(p - start) <= size);
    *out = tg_slice_of(start, (size_t)(p - start));
    return TG_OK;
}

enum tg_rc
tg_h1_write_response(const struct tg_message *message, const struct tg_h1_frame *frame, struct tg_slice date,
                     struct tg_slice *out)
{
    const size_t size = fields_size(message) + message->reason.n + frame->upgrade.n + FIXED_ROOM;
    char *start = tg_arena_alloc(message->arena, size);
    if (start == NULL) {
        return TG_ENOMEM;
    }
    char *p = PUT(start, "HTTP/1.1 ");
    p = put_number(p, message->status);
    *p++ = ' ';
    if (message->reason.n > 0) {
        p = put(p, message->reason.p, message->reason.n);
    } else {
        const char *reason = tg_h1_reason(message->status);
        p = put(p, reason, strlen(reason));
    }
    p = PUT(p, "\r\n");
    bool has_date = false;
    for (unsigned i = 0; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        if ((field->flags & TG_FIELD_HOP) == 0) {
            has_date |= field->id == TG_FIELD_DATE;
            p = put_field(p, field);
        }
    }
    if (!has_date) { /* RFC 9110, section 6.6.1 */
        p = PUT_LINE(p, "Date", date);
    }
    p = put_frame(p, frame);
    TG_ASSERT((size_t)(p - start) <= size);
    *out = tg_slice_of(start, (size_t)(p - start));
    return TG_OK;
}
