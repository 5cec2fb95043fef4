/*
 * relay.h - one direction of a body: reads, decodes its framing, frames it anew, writes.
 *
 * Owns: one buffer while bytes flow. Used by: exchange.c, once for the request and once for the response.
 * It alone decides when to stop reading: nothing is read while something is unwritten, so that an exchange holds at
 * most one buffer a direction, whatever the body and however slow its reader. A policy may stand between both halves:
 * it pulls what was read and puts what is to be written. Does not know: heads' meaning, deadlines.
 */
#ifndef TG_PROXY_RELAY_H
#define TG_PROXY_RELAY_H

#include "base/buffer.h"
#include "http/body.h"
#include "http/ws_frame.h"
#include "net/transport.h"

enum tg_relay_result {
    TG_RELAY_DONE,        /* all is written */
    TG_RELAY_WAIT_FROM,   /* for the source to be readable */
    TG_RELAY_WAIT_TO,     /* for the destination to be writable */
    TG_RELAY_WAIT_POLICY, /* for the policy that reads or writes the body */
    TG_RELAY_YIELD,       /* others want their turn: call again in the next */
    TG_RELAY_FROM_FAILED, /* the source broke or ended too early */
    TG_RELAY_TO_FAILED,   /* the destination broke */
    TG_RELAY_TOO_LARGE,   /* the body is over `limit` */
    TG_RELAY_MALFORMED,   /* the framing is broken; *fault says how */
    TG_RELAY_NO_MEMORY
};

/* What has gone through, for another attempt; as long as it is not more than `max` bytes. */
struct tg_relay_copy {
    char *p;
    size_t n;
    size_t capacity;
    size_t max;
    bool lost; /* there was more, or memory is short */
};

struct tg_relay {
    struct tg_buffer_pool *pool;
    struct tg_transport *from; /* NULL: all is in `raw` */
    struct tg_transport *to;
    struct tg_body *body; /* of the source */
    struct tg_buffer *buffer;
    char *raw; /* read, not decoded yet; in the buffer, or borrowed */
    size_t raw_len;
    uint64_t limit; /* bytes of data; UINT64_MAX: none */
    struct iovec out[5];
    unsigned out_first;
    unsigned out_end;
    bool chunked;  /* how the destination is framed */
    bool data_out; /* data of the body is among `out` */
    bool ended;    /* the last chunk is among `out`, or not needed */
    bool progress; /* bytes moved in the last call */
    bool started;  /* a byte was written */
    bool bulk;     /* both sides keep up: read as much as the buffer holds */
    char chunk_line[18];
    struct tg_buffer *made; /* what was put and is not written yet */
    size_t made_len;
    uint64_t put;               /* bytes of data so far */
    struct tg_relay_copy *copy; /* NULL: none is kept */
    struct tg_ws_track *track;  /* sees what tg_relay_step moves; NULL: nobody does */
};

/* `raw` bytes of the body are there already, perhaps in `buffer`, which the relay then owns. */
void tg_relay_source(struct tg_relay *relay, char *raw, size_t raw_len, struct tg_buffer *buffer);
/* What is written begins with `head`. */
void tg_relay_begin(struct tg_relay *relay, struct tg_slice head);
/* Both. */
void tg_relay_start(struct tg_relay *relay, struct tg_slice head, char *raw, size_t raw_len, struct tg_buffer *buffer);
/* Moves what can be moved without waiting. After an end or a failure only tg_relay_fini may be called. */
TG_MUST_CHECK enum tg_relay_result tg_relay_step(struct tg_relay *relay, const struct tg_h1_fault **fault);

/* The next piece of the body, valid until the next call: DONE; without bytes it is the end. Or as tg_relay_step. */
TG_MUST_CHECK enum tg_relay_result tg_relay_pull(struct tg_relay *relay, struct tg_slice *data,
                                                 const struct tg_h1_fault **fault);
/* Takes a copy of `data`, or of its first bytes. TG_OK: *taken > 0. TG_AGAIN: flush first. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_relay_put(struct tg_relay *relay, struct tg_slice data, size_t *taken);
/* Nothing more is put. */
void tg_relay_finish(struct tg_relay *relay);
/* Writes what was put: TG_RELAY_DONE, WAIT_TO or TO_FAILED. */
TG_MUST_CHECK enum tg_relay_result tg_relay_flush(struct tg_relay *relay);

/* Frees it. */
void tg_relay_copy_fini(struct tg_relay_copy *copy);

/* Gives the buffers back. */
void tg_relay_fini(struct tg_relay *relay);

#endif
