/*
 * limit.h - the names of all limits: what a counter, a log line and the documents call them.
 *
 * Owns: the table of names. Used by: whoever enforces a limit, and who shows how often one was reached.
 */
#ifndef TG_BASE_LIMIT_H
#define TG_BASE_LIMIT_H

enum tg_limit {
    TG_LIMIT_NONE, /* a fault that is no limit */
    TG_LIMIT_REQUEST_LINE,
    TG_LIMIT_FIELD,
    TG_LIMIT_HEAD,
    TG_LIMIT_FIELDS,
    TG_LIMIT_BODY,
    TG_LIMIT_CHUNK_EXTENSIONS,
    TG_LIMIT_TRAILERS,
    TG_LIMIT_HANDSHAKES,
    TG_LIMIT_HANDSHAKE_TIMEOUT,
    TG_LIMIT_HEADER_TIMEOUT,
    TG_LIMIT_BODY_TIMEOUT,
    TG_LIMIT_BODY_RATE,
    TG_LIMIT_SEND_TIMEOUT,
    TG_LIMIT_KEEPALIVE_TIMEOUT,
    TG_LIMIT_KEEPALIVE_REQUESTS,
    TG_LIMIT_TIMEOUT,
    TG_LIMIT_CONNECT_TIMEOUT,
    TG_LIMIT_FIRST_BYTE_TIMEOUT,
    TG_LIMIT_IDLE_TIMEOUT,
    TG_LIMIT_TUNNEL_TIMEOUT,
    TG_LIMIT_MESSAGE,
    TG_LIMIT_RESPONSE_HEAD,
    TG_LIMIT_INTERIM_RESPONSES,
    TG_LIMIT_CONNECTIONS,
    TG_LIMIT_CLIENT_CONNECTIONS,
    TG_LIMIT_DESCRIPTORS,
    TG_LIMIT_MEMORY,
    TG_LIMIT_LUA_MEMORY,
    TG_LIMIT_H2_STREAMS,
    TG_LIMIT_H2_RESETS,
    TG_LIMIT_H2_CONTROLS,
    TG_LIMIT_H2_ANSWERS,
    TG_LIMIT_H2_CONTINUATIONS,
    TG_LIMIT_H2_HEAD,
    TG_LIMIT_H2_STALL,
    TG_LIMIT_COUNT
};

/* Lasting; "head" and so on. */
const char *tg_limit_name(enum tg_limit limit);

#endif
