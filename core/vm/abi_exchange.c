/*
 * The border: the messages of the running exchange. Contracts are in abi.h.
 */
#include <stdio.h>
#include <sys/random.h>

#include "http/edits.h"
#include "http/trace_context.h"
#include "proxy/request.h"
#include "vm/coroutine.h"

/* A head that came as a field section has no text to be parsed again: its fields are kept before the first edit. */
static struct tg_message *
keep_original(struct tg_exchange *x)
{
    struct tg_message *message = tg_arena_alloc(&x->arena, sizeof *message);
    struct tg_field *fields = tg_arena_alloc(&x->arena, (x->request.count + 1) * sizeof *fields);
    if (message == NULL || fields == NULL) {
        return &x->request;
    }
    *message = x->request;
    memcpy(fields, x->request.fields, x->request.count * sizeof *fields);
    message->fields = fields;
    message->capacity = x->request.count + 1;
    x->original = message;
    return message;
}

/* What the client sent is parsed again when somebody asks: a copy for each request would be for nothing. */
static struct tg_message *
original_of(struct tg_exchange *x)
{
    const struct tg_h1_fault *fault = NULL;
    if (x->original == NULL && x->request.version_major == 2) {
        return keep_original(x);
    }
    if (x->original == NULL) {
        struct tg_message *message = tg_arena_alloc(&x->arena, sizeof *message);
        if (message == NULL) {
            return &x->request;
        }
        tg_message_init(message, &x->arena);
        message->reading.underscores = TG_UNDERSCORES_ALLOW;
        if (tg_h1_parse_request(message, x->in + x->scan.start, x->scan.pos - x->scan.start, &fault) != TG_OK) {
            return &x->request; /* memory is short: it was parsed before */
        }
        x->original = message;
    }
    return x->original;
}

static struct tg_message *
message_of(struct tg_abi_exchange *x, int side)
{
    if (side == TG_SIDE_ORIGINAL) {
        return original_of(tg_exchange_of(x));
    }
    if (side == TG_SIDE_TRAILERS) {
        const enum tg_rc rc = tg_exchange_keep_trailers(tg_exchange_of(x));
        (void)rc; /* without memory they are not there, and the exchange ends by it */
        return &tg_exchange_of(x)->trailers;
    }
    return side == TG_SIDE_REQUEST ? &tg_exchange_of(x)->request : &tg_exchange_of(x)->response;
}

/* The message, which is about to change. */
static struct tg_message *
edited(struct tg_abi_exchange *abi, int side)
{
    struct tg_exchange *x = tg_exchange_of(abi);
    if (side == TG_SIDE_REQUEST && x->request.version_major == 2) {
        (void)original_of(x);
    }
    return message_of(abi, side);
}

static void
put_out(const char *p, size_t n)
{
    tg_abi_vm.out = tg_slice_of(p, n);
}

/* RFC 9110, section 5.3: several lines of one name are one list. */
static int
join_fields(struct tg_message *message, const struct tg_field *first, unsigned from)
{
    size_t size = first->value_len;
    unsigned next = from;
    const struct tg_field *field;
    while ((field = tg_message_find_same(message, first, &next)) != NULL) {
        size += 2 + field->value_len;
    }
    char *joined = tg_arena_alloc(message->arena, size);
    if (joined == NULL) {
        return TG_ENOMEM;
    }
    memcpy(joined, first->value, first->value_len);
    char *p = joined + first->value_len;
    next = from;
    while ((field = tg_message_find_same(message, first, &next)) != NULL) {
        memcpy(p, ", ", 2);
        memcpy(p + 2, field->value, field->value_len);
        p += 2 + field->value_len;
    }
    put_out(joined, size);
    return TG_OK;
}

int
tg_abi_field_get(struct tg_abi_exchange *x, int side, const char *name, size_t name_len)
{
    struct tg_message *message = message_of(x, side);
    unsigned next = 0;
    const struct tg_field *field = tg_message_find(message, name, name_len, &next);
    if (field == NULL) {
        return TG_ENONE;
    }
    unsigned more = next;
    if (tg_message_find_same(message, field, &more) != NULL) {
        return join_fields(message, field, next);
    }
    put_out(field->value, field->value_len);
    return TG_OK;
}

int
tg_abi_field_nth(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, uint32_t nth)
{
    const struct tg_message *message = message_of(x, side);
    unsigned next = 0;
    const struct tg_field *field;
    while ((field = tg_message_find(message, name, name_len, &next)) != NULL) {
        if (nth-- == 0) {
            put_out(field->value, field->value_len);
            return TG_OK;
        }
    }
    return TG_ENONE;
}

int
tg_abi_field_at(struct tg_abi_exchange *x, int side, uint32_t index, struct tg_slice *name)
{
    const struct tg_message *message = message_of(x, side);
    if (index >= message->count) {
        return TG_ENONE;
    }
    const struct tg_field *field = &message->fields[index];
    *name = tg_slice_of(field->name, field->name_len);
    put_out(field->value, field->value_len);
    return TG_OK;
}

int
tg_abi_original(struct tg_abi_exchange *x, struct tg_slice *target)
{
    const struct tg_message *message = original_of(tg_exchange_of(x));
    put_out(message->method.p, message->method.n);
    *target = message->target;
    return TG_OK;
}

int
tg_abi_field_set(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, const char *value,
                 size_t value_len)
{
    return tg_message_set(edited(x, side), tg_slice_of(name, name_len), tg_slice_of(value, value_len));
}

int
tg_abi_field_add(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, const char *value,
                 size_t value_len)
{
    return tg_message_add(edited(x, side), tg_slice_of(name, name_len), tg_slice_of(value, value_len));
}

int
tg_abi_field_remove(struct tg_abi_exchange *x, int side, const char *name, size_t name_len)
{
    return tg_message_remove(edited(x, side), name, name_len);
}

struct tg_abi_edits *
tg_abi_edits_new(uint32_t fields, size_t text)
{
    return (struct tg_abi_edits *)tg_edits_new(fields, text);
}

void
tg_abi_edits_free(struct tg_abi_edits *edits)
{
    tg_edits_free((struct tg_edits *)edits);
}

int
tg_abi_edits_add(struct tg_abi_edits *edits, int kind, const char *name, size_t name_len, const char *value,
                 size_t value_len)
{
    return tg_edits_add((struct tg_edits *)edits, (enum tg_abi_edit)kind, tg_slice_of(name, name_len),
                        tg_slice_of(value, value_len));
}

int
tg_abi_edits_apply(const struct tg_abi_edits *edits, struct tg_abi_exchange *x, int side)
{
    const struct tg_edits *list = (const struct tg_edits *)edits;
    if (tg_edits_take_id(list) && x->id.n == 0 && tg_abi_id(x, 0) != TG_OK) {
        return TG_ENOMEM;
    }
    return tg_edits_apply(list, x->id, edited(x, side));
}

int
tg_abi_method_name(uint32_t method_id)
{
    const char *name = tg_method_name(method_id);
    if (name == NULL) {
        return TG_ENONE;
    }
    put_out(name, strlen(name));
    return TG_OK;
}

static int
copy_into(struct tg_abi_exchange *x, struct tg_slice *slot, const char *p, size_t n)
{
    const char *copy = tg_arena_copy(&tg_exchange_of(x)->arena, p, n);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    *slot = tg_slice_of(copy, n);
    return TG_OK;
}

int
tg_abi_set_id(struct tg_abi_exchange *x, const char *p, size_t n)
{
    return tg_is_token(p, n) ? copy_into(x, &x->id, p, n) : TG_EINVAL;
}

int
tg_abi_set_consumer(struct tg_abi_exchange *x, const char *p, size_t n)
{
    if (n == 0) {
        x->consumer = tg_slice_of(p == NULL ? NULL : "", 0);
        return TG_OK;
    }
    return copy_into(x, &x->consumer, p, n);
}

int
tg_abi_set_recorded(struct tg_abi_exchange *x, const char *trace, const char *span)
{
    char *copy = tg_arena_alloc(&tg_exchange_of(x)->arena, TG_TRACEPARENT_LEN);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    memcpy(copy + TG_TRACEPARENT_TRACE, trace, 32);
    memcpy(copy + TG_TRACEPARENT_PARENT, span, 16);
    x->recorded = copy;
    return TG_OK;
}

int
tg_abi_set_method(struct tg_abi_exchange *x, const char *p, size_t n)
{
    if (!tg_is_token(p, n) || tg_slice_is(tg_slice_of(p, n), "CONNECT", 7)) {
        return TG_EINVAL;
    }
    const int rc = copy_into(x, &x->method, p, n);
    if (rc == TG_OK) {
        edited(x, TG_SIDE_REQUEST)->method = x->method;
        x->method_id = (uint16_t)tg_method_id(x->method);
        tg_exchange_of(x)->to_head = tg_slice_is(x->method, "HEAD", 4);
    }
    return rc;
}

static bool
is_target_text(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)p[i];
        if (c <= 0x20 || c >= 0x7f || c == '#' || c == '"' || c == '<' || c == '>' || c == '\\') {
            return false;
        }
    }
    return true;
}

int
tg_abi_set_path(struct tg_abi_exchange *x, const char *p, size_t n)
{
    struct tg_slice copy;
    struct tg_target target;
    const struct tg_h1_fault *fault = NULL;
    if (!is_target_text(p, n) || memchr(p, '?', n) != NULL) {
        return TG_EINVAL;
    }
    int rc = copy_into(x, &copy, p, n);
    if (rc == TG_OK) {
        rc = tg_target_path(&target, copy, tg_exchange_of(x)->request.reading.keep_slashes, &tg_exchange_of(x)->arena,
                            &fault);
    }
    if (rc != TG_OK) {
        return rc == TG_ENOMEM ? rc : TG_EINVAL;
    }
    x->raw_path = target.raw_path;
    x->path = target.path;
    x->path_doubts = 0; /* the operator's own word */
    return TG_OK;
}

int
tg_abi_set_query(struct tg_abi_exchange *x, const char *p, size_t n)
{
    if (!is_target_text(p, n)) {
        return TG_EINVAL;
    }
    x->query_present = n > 0;
    return copy_into(x, &x->query, p, n);
}

int
tg_abi_set_host(struct tg_abi_exchange *x, const char *p, size_t n)
{
    struct tg_slice copy;
    const struct tg_h1_fault *fault = NULL;
    int rc = copy_into(x, &copy, p, n);
    if (rc == TG_OK) {
        rc = tg_target_host(copy, &tg_exchange_of(x)->arena, &x->authority, &x->host, &fault);
    }
    return rc == TG_EPROTOCOL ? TG_EINVAL : rc;
}

int
tg_abi_set_upstream_host(struct tg_abi_exchange *x, const char *p, size_t n)
{
    return tg_is_value(p, n) && n > 0 ? copy_into(x, &x->upstream_host, p, n) : TG_EINVAL;
}

/* A member of the Upgrade field, which is a list of protocols (RFC 9110, section 7.8). */
static struct tg_slice
find_protocol(const struct tg_field *field, const char *name, size_t n)
{
    const char *p = field->value;
    const char *end = p + field->value_len;
    while (p < end) {
        const struct tg_slice member = tg_next_member(&p, end);
        if (tg_slice_is_text(member, name, n)) {
            return member;
        }
    }
    return tg_slice_of(NULL, 0);
}

int
tg_abi_allow_upgrade(struct tg_abi_exchange *x, const char *name, size_t n, uint32_t timeout)
{
    struct tg_exchange *exchange = tg_exchange_of(x);
    const struct tg_message *request = &exchange->request;
    const struct tg_field *field = tg_message_find_id(request, TG_FIELD_UPGRADE);
    /* A body in front of the other protocol's bytes would be read as such by an upstream that does not switch. */
    if (field == NULL || !request->upgrade || request->framing != TG_FRAMING_NONE || exchange->upgrade.n > 0 ||
        !tg_slice_is(request->method, "GET", 3)) {
        return TG_ENONE;
    }
    exchange->upgrade = find_protocol(field, name, n);
    exchange->tunnel_timeout = timeout;
    return exchange->upgrade.n > 0 ? TG_OK : TG_ENONE;
}

int
tg_abi_set_status(struct tg_abi_exchange *x, int status)
{
    if (status < 200 || status > 599) {
        return TG_EINVAL;
    }
    tg_exchange_of(x)->response.status = (uint16_t)status;
    tg_exchange_of(x)->response.reason.n = 0;
    x->status = (uint16_t)status;
    return TG_OK;
}

int
tg_abi_client_ip(struct tg_abi_exchange *x)
{
    tg_abi_vm.out = tg_exchange_client(tg_exchange_of(x));
    return TG_OK;
}

double
tg_abi_client_uid(struct tg_abi_exchange *x)
{
    struct ucred credentials;
    socklen_t size = sizeof credentials;
    const struct tg_downstream *down = tg_exchange_of(x)->down;
    while (down != NULL && down->is_stream) {
        down = down->parent;
    }
    if (down == NULL || getsockopt(down->transport.fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) {
        return -1;
    }
    return credentials.uid == (uid_t)-1 ? -1 : (double)credentials.uid;
}

/* Sixteen bits of an address, without leading zeros. */
static char *
put_group(char *p, unsigned group)
{
    bool began = false;
    for (int shift = 12; shift >= 0; shift -= 4) {
        const unsigned digit = group >> shift & 15;
        began = began || digit != 0 || shift == 0;
        if (began) {
            *p++ = "0123456789abcdef"[digit];
        }
    }
    return p;
}

int
tg_abi_client_network(struct tg_abi_exchange *x)
{
    static char text[TG_ADDRESS_TEXT];
    const struct in6_addr *ip = &tg_exchange_of(x)->client.sin6_addr;
    if (tg_exchange_of(x)->client.sin6_family != AF_INET6 || IN6_IS_ADDR_V4MAPPED(ip)) {
        return tg_abi_client_ip(x);
    }
    const unsigned char *b = ip->s6_addr;
    char *p = text;
    for (unsigned i = 0; i < 8; i += 2) {
        p = put_group(p, (unsigned)b[i] << 8 | b[i + 1]);
        *p++ = ':';
    }
    memcpy(p, ":/64", 4);
    put_out(text, (size_t)(p + 4 - text));
    return TG_OK;
}

int
tg_abi_respond(struct tg_abi_exchange *x, int status, const char *body, size_t body_len)
{
    struct tg_exchange *exchange = tg_exchange_of(x);
    if (status < 200 || status > 599) {
        return TG_EINVAL;
    }
    if (exchange->state >= TG_STATE_RELAY) {
        return TG_ESTALE;
    }
    tg_exchange_respond(exchange, (unsigned)status);
    x->source = TG_SOURCE_LUA;
    const enum tg_rc rc = tg_exchange_make(exchange, &exchange->answer, tg_slice_of(body, body_len));
    if (rc == TG_OK) {
        x->verdict = TG_VERDICT_RESPOND;
    }
    return rc;
}
