#include "base/limit.h"

static const char *const names[TG_LIMIT_COUNT] = {
    [TG_LIMIT_NONE] = "none",
    [TG_LIMIT_REQUEST_LINE] = "request_line",
    [TG_LIMIT_FIELD] = "field",
    [TG_LIMIT_HEAD] = "head",
    [TG_LIMIT_FIELDS] = "fields",
    [TG_LIMIT_BODY] = "body_limit",
    [TG_LIMIT_CHUNK_EXTENSIONS] = "chunk_extensions",
    [TG_LIMIT_TRAILERS] = "trailers",
    [TG_LIMIT_HANDSHAKES] = "handshakes",
    [TG_LIMIT_HANDSHAKE_TIMEOUT] = "handshake_timeout",
    [TG_LIMIT_HEADER_TIMEOUT] = "header_timeout",
    [TG_LIMIT_BODY_TIMEOUT] = "body_timeout",
    [TG_LIMIT_BODY_RATE] = "body_rate",
    [TG_LIMIT_SEND_TIMEOUT] = "send_timeout",
    [TG_LIMIT_KEEPALIVE_TIMEOUT] = "keepalive_timeout",
    [TG_LIMIT_KEEPALIVE_REQUESTS] = "keepalive_requests",
    [TG_LIMIT_TIMEOUT] = "timeout",
    [TG_LIMIT_CONNECT_TIMEOUT] = "connect_timeout",
    [TG_LIMIT_FIRST_BYTE_TIMEOUT] = "first_byte_timeout",
    [TG_LIMIT_IDLE_TIMEOUT] = "idle_timeout",
    [TG_LIMIT_TUNNEL_TIMEOUT] = "tunnel_timeout",
    [TG_LIMIT_MESSAGE] = "message",
    [TG_LIMIT_RESPONSE_HEAD] = "response_head",
    [TG_LIMIT_INTERIM_RESPONSES] = "interim_responses",
    [TG_LIMIT_CONNECTIONS] = "connections",
    [TG_LIMIT_CLIENT_CONNECTIONS] = "client_connections",
    [TG_LIMIT_DESCRIPTORS] = "descriptors",
    [TG_LIMIT_MEMORY] = "memory",
    [TG_LIMIT_LUA_MEMORY] = "lua_memory",
    [TG_LIMIT_H2_STREAMS] = "h2_streams",
    [TG_LIMIT_H2_RESETS] = "h2_resets",
    [TG_LIMIT_H2_CONTROLS] = "h2_controls",
    [TG_LIMIT_H2_ANSWERS] = "h2_answers",
    [TG_LIMIT_H2_CONTINUATIONS] = "h2_continuations",
    [TG_LIMIT_H2_HEAD] = "h2_head",
    [TG_LIMIT_H2_STALL] = "h2_stall",
};

const char *
tg_limit_name(enum tg_limit limit)
{
    return names[limit];
}
