/*
 * h2_head.h - field sections of HTTP/2 to messages, as strictly as h1_parse.h reads them (RFC 9113, sections 8.1
 * to 8.3).
 *
 * Owns: nothing; what is kept is copied into the arena of the message. Used by: h2.c, a field at a time, in order.
 * Does not know: frames, compression. One section is read at a time: a connection needs one of these.
 */
#ifndef TG_HTTP_H2_HEAD_H
#define TG_HTTP_H2_HEAD_H

#include "http/h1_parse.h"

enum tg_h2_section { TG_H2_REQUEST, TG_H2_RESPONSE, TG_H2_TRAILERS };

/* Set what is above the line, the rest is zero to begin. */
struct tg_h2_head {
    struct tg_message *message; /* initialised; NULL: the section is judged, and nothing is kept */
    struct tg_h1_limits limits; /* `head` with 32 bytes for each field (RFC 9113, section 6.5.2); `line` of :path */
    uint64_t stop;              /* bytes counted as for `head`: a section this large is not even decompressed on */
    uint8_t section;            /* enum tg_h2_section */
    uint8_t underscores;        /* enum tg_underscores */
    bool to_head;               /* the response answers a HEAD request */
    bool extended_connect;      /* RFC 8441 is allowed */

    const struct tg_h1_fault *fault; /* not NULL: well-formed, but refused; what follows is counted and dropped */
    struct tg_slice scheme;          /* lasting */
    struct tg_slice protocol;
    bool priority; /* the request has the field (RFC 9218, section 5) */
    bool regular;  /* a field that is no pseudo-header field has come */
    bool host;     /* a Host field has come */
    uint8_t seen;  /* pseudo-header fields, a bit each */
    uint32_t crumbs;
    uint32_t fields;
    uint64_t size;
};

/*
 * The next field; `name_lasts` and `value_lasts`: the bytes need no copy. TG_OK. TG_EPROTOCOL: the section is
 * malformed. TG_ELIMIT: it is so large that the connection is not worth reading on. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_h2_head_field(struct tg_h2_head *head, struct tg_slice name, struct tg_slice value,
                                          bool name_lasts, bool value_lasts);
/* The section is whole; `end`: and the stream, too. TG_OK (look at `fault`), TG_EPROTOCOL or TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_h2_head_end(struct tg_h2_head *head, bool end);

#endif
