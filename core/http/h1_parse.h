/*
 * h1_parse.h - heads of HTTP/1.1 requests and responses, strictly: one interpretation or none (RFC 9112).
 *
 * Owns: nothing. Used by: proxy/. Does not know: sockets, time, bodies. What is ambiguous is refused, never repaired.
 * A head is first searched for its end while bytes arrive (tg_h1_scan), then parsed at once.
 */
#ifndef TG_HTTP_H1_PARSE_H
#define TG_HTTP_H1_PARSE_H

#include "base/limit.h"
#include "http/message.h"

/* Why a message was refused. Static; `status` is what a client gets for a bad request (a bad response is a 502). */
struct tg_h1_fault {
    uint16_t status;
    const char *text;
    enum tg_limit limit; /* NONE: it is malformed */
};

struct tg_h1_limits {
    uint32_t line;   /* bytes of the request line; 414 */
    uint32_t field;  /* bytes of one field line; 431 */
    uint32_t head;   /* bytes in all; 431 */
    uint32_t fields; /* number of field lines; 431 */
};

/* Progress of the search; zero it to begin. */
struct tg_h1_scan {
    uint32_t pos;   /* bytes searched; after TG_OK the length of the head with its empty line */
    uint32_t line;  /* where the current line begins */
    uint32_t lines; /* complete lines */
    uint32_t start; /* where the first line begins: one empty line may come before it (RFC 9112, section 2.2) */
};

/*
 * Searches `n` bytes at `p` (the same ones as before and more) for the end of the head.
 * TG_OK: found. TG_AGAIN: more is needed. TG_EPROTOCOL: *fault says why, nothing of this connection may be read again.
 */
TG_MUST_CHECK enum tg_rc tg_h1_scan(struct tg_h1_scan *scan, const char *p, size_t n, const struct tg_h1_limits *limits,
                                    bool request, const struct tg_h1_fault **fault);

/*
 * Parses a whole request head (from scan.start to scan.pos) into an initialised message, as its `reading` says; slices
 * point into `p`.
 * TG_OK, TG_ENOMEM, or TG_EPROTOCOL with *fault.
 */
TG_MUST_CHECK enum tg_rc tg_h1_parse_request(struct tg_message *message, const char *p, size_t n,
                                             const struct tg_h1_fault **fault);

/* As above for a response; `to_head` tells that it answers a HEAD request and so has no body. */
TG_MUST_CHECK enum tg_rc tg_h1_parse_response(struct tg_message *message, const char *p, size_t n, bool to_head,
                                              const struct tg_h1_fault **fault);

/* Field lines of a trailer section (RFC 9112, section 7.1.2), up to and with the empty line. Nothing is kept. */
TG_MUST_CHECK enum tg_rc tg_h1_check_trailers(const char *p, size_t n, const struct tg_h1_fault **fault);

/* What HTTP/2 reads in the same way. */

/* Bytes from `p` on that may stand in a request target. */
size_t tg_h1_target_length(const char *p, size_t n);
/* The value of Content-Length (RFC 9110, section 8.6): digits only, at most 18 behind zeros. */
bool tg_h1_parse_length(const struct tg_field *field, uint64_t *out);
/*
 * A name with an underscore is read as one with a dash by CGI-like upstreams: it would be a second, unchecked spelling.
 * Proxy would set a variable of CGI programs (httpoxy). TG_AGAIN: the field is dropped. TG_EPROTOCOL with *fault.
 */
TG_MUST_CHECK enum tg_rc tg_h1_judge_name(struct tg_field *field, unsigned underscores,
                                          const struct tg_h1_fault **fault);

#endif
