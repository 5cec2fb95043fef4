#include "proxy/grpc.h"

#include <stdio.h>

#include "http/h1_write.h"

enum grpc_status {
    GRPC_UNKNOWN = 2,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16
};

static bool
is_grpc(const struct tg_message *message)
{
    static const char type[] = "application/grpc";
    const struct tg_field *field = tg_message_find_id(message, TG_FIELD_CONTENT_TYPE);
    const size_t n = sizeof type - 1;
    return field != NULL && field->value_len >= n && tg_slice_same_text(type, field->value, n) &&
           (field->value_len == n || field->value[n] == '+' || field->value[n] == ';' || field->value[n] == ' ');
}

bool
tg_grpc_is_request(const struct tg_message *request)
{
    return is_grpc(request);
}

/* One to eight digits and a unit; 0: it is none. Milliseconds, at least one. */
static uint64_t
parse_timeout(const struct tg_field *field)
{
    static const struct {
        char unit;
        uint64_t nanoseconds;
    } units[] = {{'H', 3600000000000}, {'M', 60000000000}, {'S', 1000000000}, {'m', 1000000}, {'u', 1000}, {'n', 1}};
    uint64_t number = 0;
    if (field->value_len < 2 || field->value_len > 9) {
        return 0;
    }
    for (unsigned i = 0; i + 1 < field->value_len; i++) {
        if (field->value[i] < '0' || field->value[i] > '9') {
            return 0;
        }
        number = number * 10 + (unsigned)(field->value[i] - '0');
    }
    for (unsigned i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (field->value[field->value_len - 1] == units[i].unit) {
            const uint64_t milliseconds = number * units[i].nanoseconds / 1000000;
            return milliseconds == 0 ? 1 : milliseconds;
        }
    }
    return 0;
}

/* A policy has made a call of another request, as grpc-web does. */
static bool
is_made_call(const struct tg_exchange *x)
{
    return tg_slice_is(x->abi.method, "POST", 4) && is_grpc(&x->request);
}

void
tg_grpc_apply_limits(struct tg_exchange *x)
{
    unsigned from = 0;
    if (x->abi.idle_timeout < TG_GRPC_IDLE && (x->grpc || is_made_call(x))) {
        x->abi.idle_timeout = TG_GRPC_IDLE;
    }
    if (!x->grpc) {
        return;
    }
    const struct tg_field *field = tg_message_find(&x->request, "grpc-timeout", 12, &from);
    const uint64_t timeout = field != NULL ? parse_timeout(field) : 0;
    if (timeout != 0 && (x->abi.total_timeout == 0 || timeout < x->abi.total_timeout)) {
        x->abi.total_timeout = (uint32_t)timeout;
    }
    x->abi.body_limit = UINT64_MAX; /* of a stream of messages */
}

static enum grpc_status
status_of(unsigned status)
{
    switch (status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 413:
        return GRPC_RESOURCE_EXHAUSTED;
    case 429:
    case 502:
    case 503:
        return GRPC_UNAVAILABLE;
    case 408:
    case 504:
        return GRPC_DEADLINE_EXCEEDED;
    default:
        return status >= 500 ? GRPC_INTERNAL : GRPC_UNKNOWN;
    }
}

unsigned
tg_grpc_outcome(const struct tg_exchange *x)
{
    unsigned from = 0;
    const struct tg_field *field =
        is_grpc(&x->response) ? tg_message_find(&x->response, "grpc-status", 11, &from) : NULL;
    unsigned code = 0;
    if (field == NULL || field->value_len == 0 || field->value_len > 2) {
        return x->response.status;
    }
    for (size_t i = 0; i < field->value_len; i++) {
        const unsigned digit = (unsigned char)field->value[i] - (unsigned)'0';
        if (digit > 9) {
            return x->response.status;
        }
        code = code * 10 + digit;
    }
    return code == 0 || code > 16 ? x->response.status : TG_GRPC_CODES + code;
}

enum tg_rc
tg_grpc_translate_error(struct tg_exchange *x)
{
    char number[4];
    struct tg_message *response = &x->response;
    const unsigned status = response->status;
    const char *reason = tg_h1_reason(status);
    if (status < 400 || is_grpc(response)) {
        return TG_OK;
    }
    (void)snprintf(number, sizeof number, "%d", (int)status_of(status));
    enum tg_rc rc = tg_exchange_make(x, &x->answer, TG_SLICE(""));
    if (rc == TG_OK) {
        rc = tg_message_set(response, TG_SLICE("Content-Type"), TG_SLICE("application/grpc"));
    }
    if (rc == TG_OK) {
        rc = tg_message_set(response, TG_SLICE("grpc-status"), tg_slice_of(number, strlen(number)));
    }
    if (rc == TG_OK) {
        rc = tg_message_set(response, TG_SLICE("grpc-message"), tg_slice_of(reason, strlen(reason)));
    }
    response->status = 200;
    response->framing = TG_FRAMING_NONE;
    response->has_length = false;
    x->flow[TG_SIDE_RESPONSE].writes = false;
    return rc;
}
