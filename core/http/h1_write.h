/*
 * h1_write.h - heads of HTTP/1.1 messages, written anew from their parsed form; never the received bytes.
 *
 * Owns: nothing; the text is made in the arena of the message. Used by: proxy/. Does not know: sockets, policy.
 * Hop-by-hop fields and those that frame the message are left out; framing and connection are written from arguments.
 */
#ifndef TG_HTTP_H1_WRITE_H
#define TG_HTTP_H1_WRITE_H

#include "http/forwarded.h"

/* How the written message frames its body and what it says of the connection. */
struct tg_h1_frame {
    uint8_t framing;     /* enum tg_framing */
    bool length_of_none; /* TG_FRAMING_NONE: say Content-Length: 0 */
    bool close;          /* say Connection: close */
    bool keep_alive;     /* say Connection: keep-alive, to HTTP/1.0 */
    uint64_t length;
    struct tg_slice upgrade; /* not empty: say Connection: Upgrade, and to what */
};

/* Which of the fields that tell of those before the peer are the word of somebody trusted. The others are removed. */
enum tg_trust {
    TG_TRUST_NONE,
    TG_TRUST_X_FORWARDED, /* X-Forwarded-For, -Proto, -Host, -Port and Via */
    TG_TRUST_FORWARDED    /* Forwarded (RFC 7239) and Via */
};

/* What the gateway adds to a forwarded request. Empty slices are left out. */
struct tg_h1_forward {
    struct tg_slice authority;
    struct tg_slice peer_ip;   /* who has connected; appended to a chain that is kept */
    struct tg_slice client_ip; /* who it is for, as far as can be believed */
    struct tg_slice proto;
    struct tg_slice forwarded_host;
    unsigned port; /* that the client reached */
    enum tg_trust trust;
};

/* Whether a field of a request does not go on as it came: it is hop-by-hop, or the gateway writes it itself. */
bool tg_h1_is_ours(const struct tg_field *field, enum tg_trust trust);
/* The lines that tell who a request has come from and through, each with its CRLF. *out is in the arena. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_h1_write_forward(const struct tg_message *message, const struct tg_h1_forward *forward,
                                             struct tg_slice *out);

/* A request head. *out is in the arena. TG_OK or TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_h1_write_request(const struct tg_message *message, struct tg_slice raw_path,
                                             struct tg_slice query, bool query_present,
                                             const struct tg_h1_forward *forward, const struct tg_h1_frame *frame,
                                             struct tg_slice *out);

/* A response head with message->status; `date` (of the form of RFC 9110, section 5.6.7) is used when it has none. */
TG_MUST_CHECK enum tg_rc tg_h1_write_response(const struct tg_message *message, const struct tg_h1_frame *frame,
                                              struct tg_slice date, struct tg_slice *out);

/* The reason phrase of a status, "Unknown" for one without. */
const char *tg_h1_reason(unsigned status);

#endif
