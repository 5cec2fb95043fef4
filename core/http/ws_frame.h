/*
 * ws_frame.h - the frames of WebSocket (RFC 6455): bytes into pieces of messages and control frames, and heads of
 * frames.
 *
 * Owns: what it has read of a frame's head, of a control frame and of a character. Used by: proxy/messages.c, and
 * proxy/tunnel.c, which only wants to know where frames end.
 * Knows no socket, no clock and no extension but that permessage-deflate marks a message by its first reserved bit
 * (RFC 7692). It does not keep messages: whoever reads them does, up to `message_max`.
 */
#ifndef TG_HTTP_WS_FRAME_H
#define TG_HTTP_WS_FRAME_H

#include "base/rc.h"
#include "base/slice.h"

enum tg_ws_opcode {
    TG_WS_CONTINUATION = 0,
    TG_WS_TEXT = 1,
    TG_WS_BINARY = 2,
    TG_WS_CLOSE = 8,
    TG_WS_PING = 9,
    TG_WS_PONG = 10
};

/* Why a connection is closed: those that the gateway itself gives. */
enum tg_ws_code {
    TG_WS_NORMAL = 1000,
    TG_WS_GOING_AWAY = 1001,
    TG_WS_PROTOCOL_ERROR = 1002,
    TG_WS_NO_CODE = 1005, /* never sent: a close frame without a code */
    TG_WS_BAD_TEXT = 1007,
    TG_WS_TOO_BIG = 1009,
    TG_WS_INTERNAL_ERROR = 1011
};

enum { TG_WS_HEAD_MAX = 14, TG_WS_CONTROL_MAX = 125, TG_WS_REASON_MAX = TG_WS_CONTROL_MAX - 2 };

/* UTF-8 that may be cut anywhere (RFC 3629). Zeroed it is at the begin of a text. */
struct tg_ws_utf8 {
    uint8_t left; /* bytes that the character still needs, */
    uint8_t low;  /* and the least */
    uint8_t high; /* and greatest that the next may be */
};

struct tg_ws_reader {
    bool masked;          /* the sender is a client: each frame must be masked; else none may */
    bool deflate;         /* permessage-deflate was agreed on */
    uint64_t message_max; /* bytes; a frame that would pass it is refused at its head */
    uint64_t got;         /* bytes of the message, in frames whose heads were read */
    uint64_t left;        /* bytes of the payload that is read */
    uint8_t head[TG_WS_HEAD_MAX];
    uint8_t head_len;
    uint8_t opcode;   /* of the frame that is read */
    uint8_t message;  /* opcode of the message that is read; 0: none */
    uint8_t mask_at;  /* which byte of the mask is next */
    uint8_t held_len; /* bytes of `held` */
    bool in_payload;
    bool final;
    bool compressed; /* the message is */
    bool closed;     /* a close frame was read: what follows it is nothing */
    uint16_t code;   /* of a close frame; after an error, what the connection is to be closed with */
    const char *why; /* after an error, for a log */
    struct tg_ws_utf8 text;
    char mask[4];
    char held[TG_WS_CONTROL_MAX]; /* payload of a control frame */
};

/* What was read: a piece of a message, or a control frame as a whole. */
struct tg_ws_piece {
    uint8_t opcode;       /* TEXT, BINARY: of the message, not of its frame; CLOSE, PING, PONG */
    bool compressed;      /* the message is */
    bool end;             /* the message is whole; always true of a control frame */
    struct tg_slice data; /* unmasked; within what was read, or within the reader; of CLOSE: the reason */
};

/* Where the frames of one direction begin and end, whatever is in them. */
struct tg_ws_track {
    uint64_t left; /* bytes of the frame behind the length in its head */
    uint8_t head[10];
    uint8_t head_len;
    bool masked;     /* the sender is a client */
    bool in_message; /* more fragments come */
    bool closed;     /* a close frame is whole: what follows it is nothing */
    bool broken;     /* these were no frames; nothing more is looked at */
};

enum tg_ws_stop {
    TG_WS_NO_STOP,
    TG_WS_STOP_MESSAGE, /* where a frame ends and no message goes on */
    TG_WS_STOP_FRAME    /* where a frame ends */
};

void tg_ws_reader_init(struct tg_ws_reader *reader, bool masked, bool deflate, uint64_t message_max);

/*
 * Reads from `n` bytes at p, which it unmasks in place; *used of them are done with. TG_OK: *piece is what came.
 * TG_AGAIN: all are used, and more are needed. TG_EPROTOCOL: reader->code and reader->why say what is wrong, and
 * nothing more can be read. TG_ECLOSED: a close frame has been read before.
 */
TG_MUST_CHECK enum tg_rc tg_ws_read(struct tg_ws_reader *reader, char *p, size_t n, size_t *used,
                                    struct tg_ws_piece *piece);

void tg_ws_track_init(struct tg_ws_track *track, bool masked);
/* tg_ws_track for what reaches beyond the frame that goes on. */
size_t tg_ws_track_heads(struct tg_ws_track *track, const char *p, size_t n, enum tg_ws_stop stop);

/*
 * Follows `n` bytes at p, of which it reads the heads of frames alone. Returns how many: all, or those up to the first
 * place where `stop` says so.
 */
static inline size_t
tg_ws_track(struct tg_ws_track *track, const char *p, size_t n, enum tg_ws_stop stop)
{
    if (n < track->left) {
        track->left -= n;
        return n;
    }
    return tg_ws_track_heads(track, p, n, stop);
}

/* Whether the next byte begins a frame. */
static inline bool
tg_ws_track_is_between(const struct tg_ws_track *track)
{
    return track->left == 0 && track->head_len == 0 && !track->broken;
}

/* Writes the head of an unfragmented frame; returns its length. `mask` NULL: towards a client. */
size_t tg_ws_write_head(char out[TG_WS_HEAD_MAX], enum tg_ws_opcode opcode, bool compressed, uint64_t length,
                        const char mask[4]);
/* Masks or unmasks in place; `at` is how many bytes of the payload came before. */
void tg_ws_mask(char *p, size_t n, const char mask[4], size_t at);

/* Whether an endpoint may send this code (RFC 6455, section 7.4, and what was registered since). */
bool tg_ws_is_code(unsigned code);

/* Goes on with a text. False: it is no UTF-8. It is whole when `left` is 0. */
TG_MUST_CHECK bool tg_ws_utf8(struct tg_ws_utf8 *text, const char *p, size_t n);

#endif
