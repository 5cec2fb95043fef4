/*
 * frames.h - frames of WebSocket on their way into a connection.
 *
 * Owns: each of them, until it is written. Used by: messages.c, which bounds them: it reads nothing for a direction
 * while one of it waits, and lets policies wait that send more.
 */
#ifndef TG_PROXY_FRAMES_H
#define TG_PROXY_FRAMES_H

#include "http/ws_frame.h"
#include "net/transport.h"

struct tg_frame;

struct tg_frames {
    struct tg_frame *first;
    struct tg_frame **last;
    size_t waiting; /* bytes, of heads and payloads */
};

void tg_frames_init(struct tg_frames *frames);
/* Those that wait are forgotten. */
void tg_frames_drop(struct tg_frames *frames);

/*
 * Appends a frame. Its payload piece->data is copied, or begins at `heap`, which is then taken over, also on failure.
 * `masks`: with a mask of its own. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_frames_push(struct tg_frames *frames, const struct tg_ws_piece *piece, char *heap,
                                        bool masks);
/* Writes them. TG_OK: all of them. TG_AGAIN: nobody reads. TG_ERESET: it broke. *moved is set when a byte was written.
 */
TG_MUST_CHECK enum tg_rc tg_frames_flush(struct tg_frames *frames, struct tg_transport *to, bool *moved);

static inline bool
tg_frames_are_out(const struct tg_frames *frames)
{
    return frames->first == NULL;
}

#endif
