#include "http/h2_send.h"

enum {
    FRAME_HEADER = 9,
    DATA_MAX = 16384, /* bytes of a frame: what every peer takes */
    DATA_LEAST = 1024 /* bytes that the end of an output buffer is worth filling with */
};

static ssize_t
data_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t connection_window, int32_t stream_window,
            uint32_t frame_max, void *arg)
{
    const struct tg_h2 *h2 = arg;
    const size_t room = h2->room > FRAME_HEADER + DATA_LEAST ? h2->room - FRAME_HEADER : DATA_LEAST;
    (void)session;
    (void)type;
    (void)id;
    (void)connection_window; /* nghttp2 keeps to both */
    (void)stream_window;
    const size_t max = frame_max < DATA_MAX ? frame_max : DATA_MAX;
    return (ssize_t)(room < max ? room : max);
}

/* Promises bytes: send_data takes them. */
static ssize_t
read_data(nghttp2_session *session, int32_t id, uint8_t *p, size_t n, uint32_t *flags, nghttp2_data_source *source,
          void *arg)
{
    struct tg_h2 *h2 = arg;
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, id); /* not from the source: that may be gone by now */
    (void)p;
    (void)source;
    if (stream == NULL) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    const uint32_t used = stream->queue.used;
    if (used == 0 && stream->awaited && !stream->finished) {
        /* Its owner has not had the turn for which it was woken: what is less urgent shall not go in between. */
        stream->awaited = false;
        h2->paused = true;
        return NGHTTP2_ERR_PAUSE;
    }
    if (used == 0 && !stream->finished) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (used > 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    if (!stream->finished || used > n) {
        return (ssize_t)(used < n ? used : n);
    }
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->trailing) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (tg_h2_stream_settle(h2, nghttp2_submit_trailer(session, id, stream->ending.fields, stream->ending.count)) !=
            TG_OK) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)used;
}

static int
send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t n, nghttp2_data_source *source,
          void *arg)
{
    struct tg_h2 *h2 = arg;
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, frame->hd.stream_id);
    (void)session;
    (void)source;
    if (stream == NULL) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (h2->room < FRAME_HEADER + n) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    memcpy(h2->out, header, FRAME_HEADER);
    tg_h2_queue_take(&stream->queue, h2->out + FRAME_HEADER, n);
    h2->out += FRAME_HEADER + n;
    h2->room -= FRAME_HEADER + n;
    stream->sent += n;
    if (stream->hungry && stream->queue.used <= TG_H2_QUEUE_MAX / 2) {
        stream->hungry = false;
        stream->awaited = true;
        tg_h2_stream_wake(h2, stream);
    }
    return 0;
}

static int
on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct tg_h2 *h2 = arg;
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, frame->hd.stream_id);
    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        tg_h2_flood_sent(&h2->flood, frame->hd.length);
        break;
    case NGHTTP2_HEADERS:
        break;
    case NGHTTP2_RST_STREAM:
        if (stream != NULL) { /* nghttp2's own, of which nothing else has told us */
            (void)tg_h2_stream_count_reset(h2);
        }
        return 0;
    case NGHTTP2_GOAWAY:
        h2->broken |= frame->goaway.error_code != TG_H2_NO_ERROR;
        return 0;
    default:
        return 0;
    }
    if (stream != NULL && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
        stream->sent_end = true;
        if (h2->role == TG_H2_SERVER) {
            tg_h2_flood_answered(&h2->flood);
        }
        tg_h2_stream_wake(h2, stream);
    }
    return 0;
}

/* A head that is too large, or that the compressor could not take; a request that came after the peer's GOAWAY. */
static int
on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
    struct tg_h2 *h2 = arg;
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, frame->hd.stream_id);
    (void)session;
    if (frame->hd.type == NGHTTP2_HEADERS && stream != NULL && h2->role == TG_H2_SERVER &&
        error != NGHTTP2_ERR_STREAM_CLOSING && error != NGHTTP2_ERR_STREAM_CLOSED) {
        tg_h2_stream_fail(h2, stream, TG_H2_INTERNAL_ERROR);
    }
    if (frame->hd.type == NGHTTP2_HEADERS && stream != NULL && error == NGHTTP2_ERR_START_STREAM_NOT_ALLOWED) {
        tg_h2_stream_detach(stream);
        h2->hooks->reset(stream, TG_H2_REFUSED_STREAM);
    }
    return 0;
}

static bool
wake_owners(struct tg_h2 *h2)
{
    const bool any = h2->wake != NULL;
    struct tg_h2_stream *stream;
    while ((stream = h2->wake) != NULL) {
        tg_h2_stream_unwake(stream);
        h2->hooks->writable(stream);
    }
    return any;
}

/* Until there is nothing to send, or no room for it. */
static void
pump(struct tg_h2 *h2)
{
    while (!tg_h2_stream_is_dead(h2)) {
        const size_t n = h2->pending_n < h2->room ? h2->pending_n : h2->room;
        if (n > 0) {
            memcpy(h2->out, h2->pending, n);
            h2->out += n;
            h2->room -= n;
            h2->pending += n;
            h2->pending_n -= n;
        }
        if (h2->room == 0) {
            return;
        }
        const ssize_t more = nghttp2_session_mem_send(h2->session, &h2->pending);
        h2->memory.failed |= more < 0; /* or whatever it is that it cannot go on from */
        if (more <= 0) {
            return;
        }
        h2->pending_n = (size_t)more;
    }
}

size_t
tg_h2_send_output(struct tg_h2 *h2, char *out, size_t capacity)
{
    h2->out = out;
    h2->room = capacity;
    h2->paused = false;
    do {
        pump(h2);
    } while (wake_owners(h2) && h2->room > 0 && !h2->paused);
    return (size_t)(h2->out - out);
}

nghttp2_data_provider
tg_h2_send_provider(void)
{
    return (nghttp2_data_provider){.read_callback = read_data};
}

void
tg_h2_send_set(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, data_length);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
}
