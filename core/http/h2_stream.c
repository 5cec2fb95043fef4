#include "http/h2_stream.h"

enum tg_rc
tg_h2_stream_settle(struct tg_h2 *h2, int rv)
{
    if (tg_h2_stream_is_dead(h2)) {
        return TG_ENOMEM;
    }
    return rv < 0 ? TG_ERESET : TG_OK;
}

struct tg_h2_stream *
tg_h2_stream_find(const struct tg_h2 *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

void
tg_h2_stream_count_in(struct tg_h2 *h2, struct tg_h2_stream *stream)
{
    stream->h2 = stream->home = h2;
    stream->link = &h2->streams;
    stream->next = h2->streams;
    if (stream->next != NULL) {
        stream->next->link = &stream->next;
    }
    h2->streams = stream;
    h2->count++;
}

void
tg_h2_stream_count_out(struct tg_h2_stream *stream)
{
    *stream->link = stream->next;
    if (stream->next != NULL) {
        stream->next->link = stream->link;
    }
    stream->home->count--;
    stream->home = NULL;
}

void
tg_h2_stream_wake(struct tg_h2 *h2, struct tg_h2_stream *stream)
{
    if (stream->wake_link == NULL) {
        stream->wake_link = &h2->wake;
        stream->wake_next = h2->wake;
        if (stream->wake_next != NULL) {
            stream->wake_next->wake_link = &stream->wake_next;
        }
        h2->wake = stream;
    }
}

void
tg_h2_stream_unwake(struct tg_h2_stream *stream)
{
    if (stream->wake_link != NULL) {
        *stream->wake_link = stream->wake_next;
        if (stream->wake_next != NULL) {
            stream->wake_next->wake_link = stream->wake_link;
        }
        stream->wake_link = NULL;
    }
}

void
tg_h2_stream_unread(struct tg_h2 *h2, const struct tg_h2_stream *stream)
{
    static const struct tg_h1_fault nobody = {0};
    if (h2->reading == stream) {
        h2->reading = NULL;
        h2->head.message = NULL;
        h2->head.fault = &nobody; /* it is counted all the same */
    }
}

void
tg_h2_stream_detach(struct tg_h2_stream *stream)
{
    struct tg_h2 *h2 = stream->h2;
    if (!tg_h2_stream_is_dead(h2)) { /* data that nobody has used takes nothing of the connection's window */
        (void)nghttp2_session_set_stream_user_data(h2->session, stream->id, NULL);
        if (stream->unconsumed > 0) {
            (void)tg_h2_stream_settle(h2, nghttp2_session_consume_connection(h2->session, stream->unconsumed));
        }
    }
    stream->unconsumed = 0;
    tg_h2_queue_fini(&stream->queue);
    tg_h2_stream_unwake(stream);
    tg_h2_stream_unread(h2, stream);
    stream->h2 = NULL;
}

void
tg_h2_stream_fail(struct tg_h2 *h2, struct tg_h2_stream *stream, uint32_t code)
{
    (void)tg_h2_stream_settle(h2, nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, code));
    tg_h2_stream_detach(stream);
    h2->hooks->reset(stream, code);
}

int
tg_h2_stream_breach(struct tg_h2 *h2, enum tg_limit limit)
{
    if (limit == TG_LIMIT_NONE) {
        return 0;
    }
    if (!h2->broken) {
        h2->broken = true;
        h2->hooks->limited(h2->arg, limit);
        (void)tg_h2_stream_settle(h2, nghttp2_session_terminate_session(h2->session, TG_H2_ENHANCE_YOUR_CALM));
    }
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

int
tg_h2_stream_count_reset(struct tg_h2 *h2)
{
    return tg_h2_stream_breach(h2, tg_h2_flood_reset(&h2->flood, h2->now));
}
