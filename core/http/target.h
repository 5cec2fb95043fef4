/*
 * target.h - the request target and Host in one normal form, made once, before anything routes by them.
 *
 * Owns: nothing; what must be rewritten is copied into the arena. Used by: proxy/downstream.c and the setters of Lua.
 * Rules: RFC 9112, section 3.2; RFC 3986, section 6.2.2. What has two readings is refused.
 * Parameters (";x" at the end of a segment, RFC 3986, section 3.3) go upstream in raw_path, but no rule sees them: an
 * upstream that cuts them off would otherwise serve /admin;x to who may not see /admin.
 */
#ifndef TG_HTTP_TARGET_H
#define TG_HTTP_TARGET_H

#include "http/h1_parse.h"

/* What some upstreams read otherwise than others; the path is kept as it stands. */
enum tg_target_doubt {
    TG_DOUBT_ENCODED_SLASH = 1, /* %2F or %5C; both stay encoded, also in `path` */
    TG_DOUBT_INVALID_UTF8 = 2
};

struct tg_target {
    struct tg_slice raw_path;  /* normal form: dot segments and doubled slashes gone, unreserved bytes decoded */
    struct tg_slice path;      /* decoded, but for slashes; without the ;parameters of segments. What rules look at */
    struct tg_slice query;     /* as received, without the question mark */
    struct tg_slice authority; /* host[:port], lower case; empty for HTTP/1.0 without Host */
    struct tg_slice host;      /* authority without port and trailing dot */
    bool query_present;
    bool asterisk;  /* OPTIONS * */
    uint8_t doubts; /* enum tg_target_doubt: refused unless the route wants them */
};

/* Fills `out` from message->method, target and host. TG_OK, TG_ENOMEM or TG_EPROTOCOL with *fault. */
TG_MUST_CHECK enum tg_rc tg_target_parse(struct tg_target *out, const struct tg_message *message,
                                         struct tg_arena *arena, const struct tg_h1_fault **fault);

/* raw_path, path and doubts of the path part alone, which begins with a slash and is encoded. Results as above. */
TG_MUST_CHECK enum tg_rc tg_target_path(struct tg_target *out, struct tg_slice path, bool keep_slashes,
                                        struct tg_arena *arena, const struct tg_h1_fault **fault);

/* host[:port] in lower case; *host is without port and trailing dot. */
TG_MUST_CHECK enum tg_rc tg_target_host(struct tg_slice text, struct tg_arena *arena, struct tg_slice *authority,
                                        struct tg_slice *host, const struct tg_h1_fault **fault);

#endif
