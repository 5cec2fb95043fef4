/*
 * target.h - the request target and Host in one normal form, made once, before anything routes by them.
 *
 * Owns: nothing; what must be rewritten is copied into the arena. Used by: proxy/downstream.c and the setters of Lua.
 * Rules: RFC 9112, section 3.2; RFC 3986, section 6.2.2. What has two readings is refused.
 */
#ifndef TG_HTTP_TARGET_H
#define TG_HTTP_TARGET_H

#include "http/h1_parse.h"

struct tg_target {
    struct tg_slice raw_path;  /* normal form: dot segments and doubled slashes gone, unreserved bytes decoded */
    struct tg_slice path;      /* all percent-encodings decoded */
    struct tg_slice query;     /* as received, without the question mark */
    struct tg_slice authority; /* host[:port], lower case; empty for HTTP/1.0 without Host */
    struct tg_slice host;      /* authority without port and trailing dot */
    bool query_present;
    bool asterisk; /* OPTIONS * */
};

/* Fills `out` from message->method, target and host. TG_OK, TG_ENOMEM or TG_EPROTOCOL with *fault. */
TG_MUST_CHECK enum tg_rc tg_target_parse(struct tg_target *out, const struct tg_message *message,
                                         struct tg_arena *arena, const struct tg_h1_fault **fault);

/* The path part alone, for plugins that set it; `path` begins with a slash and is encoded. Results as above. */
TG_MUST_CHECK enum tg_rc tg_target_path(struct tg_slice path, struct tg_arena *arena, struct tg_slice *raw_path,
                                        struct tg_slice *decoded, const struct tg_h1_fault **fault);

/* host[:port] in lower case; *host is without port and trailing dot. */
TG_MUST_CHECK enum tg_rc tg_target_host(struct tg_slice text, struct tg_arena *arena, struct tg_slice *authority,
                                        struct tg_slice *host, const struct tg_h1_fault **fault);

#endif
