/*
 * h2.h - one HTTP/2 connection: frames to heads, data and ends, and back (RFC 9113), on libnghttp2.
 *
 * Owns: the session, what is to be sent, and for each stream the data that waits for its window. Used by: proxy/. Does
 * not know: sockets, clocks (the time is handed in), exchanges.
 *
 * Hooks are called from tg_h2_feed, tg_h2_output, tg_h2_sweep and tg_h2_free only, never from inside another function.
 * A hook may call any function but these four. An answer is sent when tg_h2_output is called next: call it after each
 * tg_h2_feed, and whenever tg_h2_wants_output tells.
 *
 * An idle connection that rests (tg_h2_rest) holds 27 KiB, of which 16 are the buffer that nghttp2 makes frames in;
 * full tables of HPACK add 6 for ours and at most 23 for the peer's. Until it rests it may hold 128 more.
 */
#ifndef TG_HTTP_H2_H
#define TG_HTTP_H2_H

#include "http/h2_stream.h"

enum { TG_H2_OUTPUT_MIN = 2048 }; /* bytes of room that tg_h2_output needs to make progress */

/* NULL: memory is short. `limits` is copied, `hooks` must outlive it. */
struct tg_h2 *tg_h2_new(enum tg_h2_role role, const struct tg_h2_limits *limits, const struct tg_h2_hooks *hooks,
                        void *arg);
/* Streams that are open get `reset` first; none counts any more. NULL is allowed. */
void tg_h2_free(struct tg_h2 *h2);

/*
 * TG_OK. TG_EPROTOCOL: the connection is broken: send what tg_h2_output still gives (a GOAWAY), then close. TG_ENOMEM:
 * close. An error that shows only once its GOAWAY is out is told by tg_h2_is_over.
 */
TG_MUST_CHECK enum tg_rc tg_h2_feed(struct tg_h2 *h2, const char *p, size_t n, uint64_t now_ms);
/* Fills `out` with frames of as many streams as fit: returns the number of bytes, 0: nothing to send now. */
size_t tg_h2_output(struct tg_h2 *h2, char *out, size_t capacity);
/* Whether it has stopped before the end, so that a stream whose owner was woken comes first: call it again in the next
 * turn. */
static inline bool
tg_h2_is_paused(const struct tg_h2 *h2)
{
    return h2->paused;
}
bool tg_h2_wants_output(const struct tg_h2 *h2);
/* Nothing is open and GOAWAY was sent or received, or the connection is broken and all is sent: close. */
bool tg_h2_is_over(const struct tg_h2 *h2);
/* Those that count. */
unsigned tg_h2_open_streams(const struct tg_h2 *h2);
/* Client: how many streams may be opened now; 0 also until the peer has told how many it allows. */
unsigned tg_h2_room(const struct tg_h2 *h2);
/* Asks the peer for a sign of life. */
void tg_h2_ping(struct tg_h2 *h2);

/*
 * Server: the response head (:status is added), also a 1xx but 101; `end`: there is no body. `block` NULL: no fields.
 * TG_OK, TG_ENOMEM, TG_EINVAL (a second one, or no status), TG_ERESET.
 */
TG_MUST_CHECK enum tg_rc tg_h2_respond(struct tg_h2_stream *stream, unsigned status, const struct tg_h2_block *block,
                                       bool end);

/*
 * Server: what the Priority field of the response says goes before what the client has said (RFC 9218, section 8),
 * until the client says another thing.
 */
void tg_h2_prioritize(struct tg_h2_stream *stream, struct tg_slice value);

struct tg_h2_request {
    struct tg_slice method;
    struct tg_slice scheme;
    struct tg_slice authority;
    struct tg_slice path;     /* with the query */
    struct tg_slice protocol; /* of an extended CONNECT; empty: none */
    bool end;                 /* there is no body */
};

/*
 * Client: opens the stream, whose `message`, `owner` and `to_head` are set. TG_OK. TG_ELIMIT: the peer allows no more
 * streams now. TG_ECLOSED: this connection takes none any more. TG_EINVAL: the peer has no extended CONNECT. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_h2_request(struct tg_h2 *h2, struct tg_h2_stream *stream,
                                       const struct tg_h2_request *request, const struct tg_h2_block *block);
/*
 * Takes bytes of the body, copies: TG_OK, *taken > 0. TG_AGAIN: at most 64 KiB wait for the window; `writable` tells
 * when. TG_EINVAL: there is no head yet, or the body has ended. TG_ERESET, TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_h2_write(struct tg_h2_stream *stream, const struct iovec *v, int count, size_t *taken);
/* The body is whole; `trailers` NULL: none; their bytes must last until all is sent. Results as of tg_h2_write. */
TG_MUST_CHECK enum tg_rc tg_h2_finish(struct tg_h2_stream *stream, const struct tg_h2_block *trailers);
/* The owner has used `n` bytes of data: the peer may send as many more. */
void tg_h2_consumed(struct tg_h2_stream *stream, size_t n);
/*
 * The owner lets go: it counts no more, no hook is called for it, and it may be freed. RST_STREAM with `code`, but no
 * frame when both sides have ended, and NO_ERROR when only the request of an answered one has not.
 */
void tg_h2_stream_close(struct tg_h2_stream *stream, uint32_t code);
/* First a GOAWAY with the highest id (RFC 9113, section 6.8), `last` true: with the last that is served. */
void tg_h2_goaway(struct tg_h2 *h2, bool last, uint32_t code);
/* To be called when no stream has been open for a while: gives back the memory that was kept for the next ones. */
void tg_h2_rest(struct tg_h2 *h2);
/* To be called about once a second: streams that have waited for a window for longer than `ms` are reset (h2_stall). */
void tg_h2_sweep(struct tg_h2 *h2, uint64_t now_ms, uint64_t ms);

#endif
