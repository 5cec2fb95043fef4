/*
 * h2_stream.h - what the rooms of HTTP/2 share: a connection and its streams, who they tell, and how a stream ends.
 *
 * Owns: nothing. Used by: h2_receive.c, h2_send.c and h2.c; the types of h2.h are here. Does not know: frames.
 */
#ifndef TG_HTTP_H2_STREAM_H
#define TG_HTTP_H2_STREAM_H

#include "http/h2_block.h"
#include "http/h2_flood.h"
#include "http/h2_head.h"
#include "http/h2_memory.h"
#include "http/h2_priority.h"
#include "http/h2_queue.h"

struct tg_h2;

enum tg_h2_role { TG_H2_SERVER, TG_H2_CLIENT };

/* RFC 9113, section 7. */
enum tg_h2_code {
    TG_H2_NO_ERROR,
    TG_H2_PROTOCOL_ERROR,
    TG_H2_INTERNAL_ERROR,
    TG_H2_FLOW_CONTROL_ERROR,
    TG_H2_SETTINGS_TIMEOUT,
    TG_H2_STREAM_CLOSED,
    TG_H2_FRAME_SIZE_ERROR,
    TG_H2_REFUSED_STREAM,
    TG_H2_CANCEL,
    TG_H2_COMPRESSION_ERROR,
    TG_H2_CONNECT_ERROR,
    TG_H2_ENHANCE_YOUR_CALM,
    TG_H2_INADEQUATE_SECURITY,
    TG_H2_HTTP_1_1_REQUIRED
};

enum {
    TG_H2_ANSWERS_MAX = 1000, /* frames that may wait because the peer does not read (h2_answers): GOAWAY */
    TG_H2_EARLY_MAX = 16,     /* priorities that are remembered for streams that are still to be opened */
    TG_H2_RESERVED = 2        /* times `streams`: those whose owners still work count, too */
};

/* What is reached is told by hooks->limited, under the name in brackets; what a fault tells of is not told again. */
struct tg_h2_limits {
    uint32_t streams; /* concurrent; twice as many whose owners still work (h2_streams): REFUSED_STREAM */
    uint32_t field;   /* bytes of one field (field) */
    uint32_t head;    /* bytes of a decoded section, 32 added a field (head); 4 times as many (h2_head): GOAWAY */
    uint32_t fields;  /* crumbs of Cookie counted (fields) */
    uint32_t window;  /* bytes of a stream */
    uint32_t connection_window; /* bytes */
    uint32_t resets;            /* more than so many in `reset_time` than requests answered (h2_resets): GOAWAY */
    uint32_t reset_time;        /* milliseconds */
    uint32_t controls;          /* frames a second that carry nothing (h2_controls): GOAWAY */
    bool extended_connect;      /* RFC 8441: SETTINGS_ENABLE_CONNECT_PROTOCOL */
    struct tg_reading reading;
};

/*
 * Embedded in its owner. Zero it before use. It must stay where it is until tg_h2_stream_close, which is called for
 * each stream once its owner's work has ended, also after `reset`: until then it counts.
 */
struct tg_h2_stream {
    struct tg_h2 *h2; /* NULL: closed; nothing but the owner's memory is left */
    int32_t id;
    void *owner;
    struct tg_message *message;  /* the owner's: where the head that comes is put (server: request, client: response) */
    struct tg_message *trailers; /* the owner's: where trailers are put; NULL: checked and dropped */
    struct tg_slice scheme;      /* server: of the request ("http", "https"); lasting */
    struct tg_slice protocol;    /* server: :protocol of an extended CONNECT, in the message's arena; empty: none */
    bool to_head;                /* client: the request's method is HEAD */

    struct tg_h2 *home; /* private from here on: the connection that counts it, also when it is closed */
    struct tg_h2_stream *next, **link;
    struct tg_h2_stream *wake_next, **wake_link;
    struct tg_h2_queue queue;
    struct tg_h2_block ending;      /* trailers that are to be sent */
    struct tg_h2_priority priority; /* server: what is asked for */
    uint32_t unconsumed;            /* bytes of data that the owner has not used yet */
    uint64_t sent;                  /* bytes of data */
    uint64_t stall_sent;            /* what they were ... */
    uint64_t stall_time;            /* ... when it began to wait for a window, milliseconds; 0: it does not */
    bool got_head;                  /* also of a response: the final one */
    bool got_end;
    bool refused;   /* nothing more of it is told */
    bool responded; /* or requested */
    bool finished;  /* nothing more will be written */
    bool trailing;  /* `ending` is to be sent */
    bool sent_end;
    bool deferred; /* the session waits until there is data */
    bool hungry;   /* TG_AGAIN was said */
    bool awaited;  /* its owner was woken since, to go on */
};

struct tg_h2_hooks {
    /*
     * Server: a request begins. The stream with `message` (initialised, in an arena that takes twice limits->head and
     * the array of fields), or NULL: REFUSED_STREAM.
     */
    struct tg_h2_stream *(*begin)(void *arg);
    /*
     * The head is whole and judged: message->method, target (:path), host (:authority, else Host), fields, framing,
     * content_length. The fields have a Host in either case. Framing is that of HTTP/1.1: chunked where no length is
     * told. Client: also for each 1xx, and `message` is initialised anew for each head.
     */
    void (*head)(struct tg_h2_stream *stream);
    /*
     * Server: the request is over a limit, or malformed in a way that a client should be told of by a status (431, 414,
     * 417, 400): nothing more of the stream is read; it is to be answered. What RFC 9113 calls malformed is a stream
     * error, and comes as `reset`. A response that is over a limit comes as `reset`, too.
     */
    void (*refused)(struct tg_h2_stream *stream, const struct tg_h1_fault *fault);
    /* Bytes of the body, valid during the call only. The peer may send as many more after tg_h2_consumed. */
    void (*data)(struct tg_h2_stream *stream, const char *p, size_t n);
    /* The message is whole (trailers, if any, are in stream->trailers). */
    void (*end)(struct tg_h2_stream *stream);
    /* There is room again for what the owner wants to write (after tg_h2_write said TG_AGAIN), or all is sent. */
    void (*writable)(struct tg_h2_stream *stream);
    /* The stream was reset, by the peer or for an error of it, or the connection has ended under it: h2 is NULL now. */
    void (*reset)(struct tg_h2_stream *stream, uint32_t code);
    void (*limited)(void *arg, enum tg_limit limit);
};

/* Private from here on. */

struct tg_h2 {
    nghttp2_session *session;
    struct tg_h2_memory memory; /* the session's */
    enum tg_h2_role role;
    struct tg_h2_limits limits;
    const struct tg_h2_hooks *hooks; /* borrowed */
    void *arg;
    uint64_t now; /* milliseconds, of the last feed or sweep */

    struct tg_h2_stream *streams; /* all that count */
    unsigned count;
    unsigned outgoing; /* client: streams that the peer counts */
    struct tg_h2_stream *wake;
    struct tg_h2_flood flood;

    struct tg_h2_head head;       /* of the section that is being read ... */
    struct tg_h2_stream *reading; /* ... for this stream; NULL: for none */

    char *out; /* of tg_h2_output */
    size_t room;
    const uint8_t *pending; /* the rest of a frame; the session's until it is asked for another */
    size_t pending_n;
    struct tg_h2_early {
        int32_t id; /* of the stream; 0: none */
        struct tg_h2_priority priority;
    } early[TG_H2_EARLY_MAX];
    unsigned early_next;
    bool greeted;    /* the peer's SETTINGS have come */
    bool paused;     /* output has ended early, for a stream whose owner was woken */
    bool priorities; /* the peer has sent PRIORITY_UPDATE */
    bool broken;     /* a GOAWAY with an error is sent or to be sent; nothing more is read */
};

/* Memory was short inside the session: nothing of it may be used any more. */
static inline bool
tg_h2_stream_is_dead(const struct tg_h2 *h2)
{
    return h2->memory.failed;
}

/* Of a call of the session: TG_OK, TG_ENOMEM: the connection is lost, TG_ERESET: the stream is not there any more. */
enum tg_rc tg_h2_stream_settle(struct tg_h2 *h2, int rv);
/* The session's stream of this id; NULL: it has no owner. */
struct tg_h2_stream *tg_h2_stream_find(const struct tg_h2 *h2, int32_t id);
void tg_h2_stream_count_in(struct tg_h2 *h2, struct tg_h2_stream *stream);
void tg_h2_stream_count_out(struct tg_h2_stream *stream);
/* `writable` is called before tg_h2_output returns. */
void tg_h2_stream_wake(struct tg_h2 *h2, struct tg_h2_stream *stream);
void tg_h2_stream_unwake(struct tg_h2_stream *stream);
/* The head that comes for the stream, if one does, is put nowhere any more: its message may go. */
void tg_h2_stream_unread(struct tg_h2 *h2, const struct tg_h2_stream *stream);
/* The session does not know the stream any more; it counts still. */
void tg_h2_stream_detach(struct tg_h2_stream *stream);
/* RST_STREAM and `reset`. */
void tg_h2_stream_fail(struct tg_h2 *h2, struct tg_h2_stream *stream, uint32_t code);
/* 0, or the limit is reached and nothing more of the connection is read: what a callback of the session returns then.
 */
int tg_h2_stream_breach(struct tg_h2 *h2, enum tg_limit limit);
/* A reset by the peer, or one that the peer has made us do (CVE-2025-8671). As above. */
int tg_h2_stream_count_reset(struct tg_h2 *h2);

#endif
