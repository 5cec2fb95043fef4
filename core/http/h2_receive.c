#include "http/h2_receive.h"

#include "http/body.h"

enum { SECTION_STOP = 4 }; /* times limits.head: a section so large is not even decompressed on */

static void
begin_section(struct tg_h2 *h2, struct tg_h2_stream *stream, enum tg_h2_section section)
{
    static const struct tg_h1_fault nobody = {0};
    const struct tg_h2_limits *limits = &h2->limits;
    const bool trailers = section == TG_H2_TRAILERS;
    h2->reading = stream;
    h2->head = (struct tg_h2_head){.stop = (uint64_t)limits->head * SECTION_STOP,
                                   .section = (uint8_t)section,
                                   .extended_connect = limits->extended_connect};
    if (stream == NULL) {
        h2->head.fault = &nobody; /* it is counted all the same */
        return;
    }
    h2->head.limits = (struct tg_h1_limits){.line = limits->field,
                                            .field = limits->field,
                                            .head = trailers ? TG_TRAILERS_MAX : limits->head,
                                            .fields = trailers ? TG_TRAILER_FIELDS_MAX : limits->fields};
    h2->head.message = trailers ? stream->trailers : stream->message;
    h2->head.underscores = h2->role == TG_H2_SERVER ? limits->reading.underscores : TG_UNDERSCORES_ALLOW;
    h2->head.to_head = stream->to_head;
    if (section == TG_H2_RESPONSE) {
        tg_message_init(stream->message, stream->message->arena);
    }
}

static int
begin_request(struct tg_h2 *h2, int32_t id)
{
    int rv = 0;
    struct tg_h2_stream *stream = NULL;
    if (h2->count >= h2->limits.streams * TG_H2_RESERVED) {
        h2->hooks->limited(h2->arg, TG_LIMIT_H2_STREAMS);
        rv = tg_h2_stream_count_reset(h2);
    } else {
        stream = h2->hooks->begin(h2->arg);
    }
    if (stream == NULL) {
        (void)tg_h2_stream_settle(h2,
                                  nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, id, TG_H2_REFUSED_STREAM));
        return rv != 0 ? rv : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    stream->id = id;
    stream->message->reading = h2->limits.reading;
    tg_h2_stream_count_in(h2, stream);
    (void)nghttp2_session_set_stream_user_data(h2->session, id, stream);
    begin_section(h2, stream, TG_H2_REQUEST);
    return 0;
}

static int
on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct tg_h2 *h2 = arg;
    (void)session;
    begin_section(h2, NULL, TG_H2_TRAILERS);
    if (h2->role == TG_H2_SERVER && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        return begin_request(h2, frame->hd.stream_id);
    }
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, frame->hd.stream_id);
    if (stream != NULL && !stream->refused) {
        begin_section(h2, stream, stream->got_head ? TG_H2_TRAILERS : TG_H2_RESPONSE);
    }
    return 0;
}

static int
on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
          uint8_t flags, void *arg)
{
    struct tg_h2 *h2 = arg;
    const nghttp2_vec n = nghttp2_rcbuf_get_buf(name);
    const nghttp2_vec v = nghttp2_rcbuf_get_buf(value);
    (void)session;
    (void)frame;
    (void)flags;
    const enum tg_rc rc =
        tg_h2_head_field(&h2->head, tg_slice_of((const char *)n.base, n.len), tg_slice_of((const char *)v.base, v.len),
                         nghttp2_rcbuf_is_static(name) != 0, nghttp2_rcbuf_is_static(value) != 0);
    if (rc == TG_OK) {
        return 0;
    }
    if (rc == TG_ELIMIT) {
        return tg_h2_stream_breach(h2, TG_LIMIT_H2_HEAD);
    }
    tg_h2_stream_fail(h2, h2->reading, rc == TG_ENOMEM ? TG_H2_INTERNAL_ERROR : TG_H2_PROTOCOL_ERROR);
    const int rv = rc == TG_ENOMEM ? 0 : tg_h2_stream_count_reset(h2);
    return rv != 0 ? rv : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* nghttp2 would only leave such a field out. */
static int
on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                  uint8_t flags, void *arg)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)value;
    (void)flags;
    (void)arg;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void
message_end(struct tg_h2 *h2, int32_t id)
{
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, id);
    if (stream == NULL) {
        return;
    }
    stream->got_end = true;
    if (h2->role == TG_H2_CLIENT) {
        tg_h2_flood_answered(&h2->flood);
    }
    if (!stream->refused) {
        h2->hooks->end(stream);
    }
}

static int
refuse(struct tg_h2 *h2, struct tg_h2_stream *stream, bool end)
{
    const struct tg_h1_fault *fault = h2->head.fault;
    if (h2->head.section == TG_H2_REQUEST) {
        stream->got_head = true;
        stream->got_end = end;
        stream->refused = true;
        h2->hooks->refused(stream, fault);
        return 0;
    }
    if (fault->limit != TG_LIMIT_NONE) {
        h2->hooks->limited(h2->arg, fault->limit);
    }
    tg_h2_stream_fail(h2, stream, fault->limit != TG_LIMIT_NONE ? TG_H2_ENHANCE_YOUR_CALM : TG_H2_PROTOCOL_ERROR);
    return tg_h2_stream_count_reset(h2);
}

/* What the client has said of a stream before it opened it; NULL: nothing that is remembered. */
static struct tg_h2_early *
early_of(struct tg_h2 *h2, int32_t id)
{
    for (unsigned i = 0; h2->priorities && i < TG_H2_EARLY_MAX; i++) {
        if (h2->early[i].id == id) {
            return &h2->early[i];
        }
    }
    return NULL;
}

/*
 * Who says nothing of priorities gets all streams in turn: one after the other, as RFC 9218 has it, one that never ends
 * would keep all others waiting.
 */
static void
begin_priority(struct tg_h2 *h2, struct tg_h2_stream *stream)
{
    const nghttp2_extpri in_turn = {.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1};
    const struct tg_h2_early *early = early_of(h2, stream->id);
    stream->priority = (struct tg_h2_priority){.urgency = TG_H2_URGENCY_DEFAULT};
    if (h2->head.priority) {
        unsigned from = 0;
        const struct tg_field *field;
        while ((field = tg_message_find(stream->message, "priority", 8, &from)) != NULL) {
            (void)tg_h2_priority_merge(&stream->priority, tg_slice_of(field->value, field->value_len));
        }
    } else if (early != NULL) {
        stream->priority = early->priority;
    } else if (!h2->priorities) {
        stream->priority.incremental = true;
        (void)tg_h2_stream_settle(h2,
                                  nghttp2_session_change_extpri_stream_priority(h2->session, stream->id, &in_turn, 0));
    }
}

/* nghttp2 keeps to what it says, but for stream 0, of which RFC 9218, section 7.1 wants a connection error. */
static int
update_priority(struct tg_h2 *h2, const nghttp2_ext_priority_update *update)
{
    struct tg_h2_priority priority = {.urgency = TG_H2_URGENCY_DEFAULT};
    if (update->stream_id == 0) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    h2->priorities = true;
    if (!tg_h2_priority_merge(&priority, tg_slice_of((const char *)update->field_value, update->field_value_len))) {
        return 0;
    }
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, update->stream_id);
    if (stream != NULL) {
        stream->priority = priority;
    } else if (update->stream_id > nghttp2_session_get_last_proc_stream_id(h2->session)) {
        struct tg_h2_early *early = early_of(h2, update->stream_id);
        early = early != NULL ? early : &h2->early[h2->early_next++ % TG_H2_EARLY_MAX];
        *early = (struct tg_h2_early){update->stream_id, priority};
    }
    return 0;
}

static int
section_end(struct tg_h2 *h2, int32_t id, bool end)
{
    struct tg_h2_stream *stream = h2->reading;
    if (stream == NULL) {
        return 0;
    }
    const enum tg_rc rc = tg_h2_head_end(&h2->head, end);
    h2->reading = NULL;
    if (rc != TG_OK) {
        tg_h2_stream_fail(h2, stream, rc == TG_ENOMEM ? TG_H2_INTERNAL_ERROR : TG_H2_PROTOCOL_ERROR);
        return rc == TG_ENOMEM ? 0 : tg_h2_stream_count_reset(h2);
    }
    if (h2->head.fault != NULL) {
        return refuse(h2, stream, end);
    }
    if (h2->head.section != TG_H2_TRAILERS) {
        stream->scheme = h2->head.scheme;
        stream->protocol = h2->head.protocol;
        stream->got_head = h2->role == TG_H2_SERVER || stream->message->status >= 200;
        if (h2->role == TG_H2_SERVER) {
            begin_priority(h2, stream);
        }
        h2->hooks->head(stream);
    }
    if (end) {
        message_end(h2, id);
    }
    return 0;
}

/* Whether a reset costs the peer nothing and us the work of an answer. */
static bool
is_answered(const struct tg_h2 *h2, const struct tg_h2_stream *stream)
{
    return h2->role == TG_H2_SERVER ? stream->sent_end : stream->got_end;
}

static int
on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct tg_h2 *h2 = arg;
    const int32_t id = frame->hd.stream_id;
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        return section_end(h2, id, end);
    case NGHTTP2_DATA:
        if (end) {
            message_end(h2, id);
        }
        return 0;
    case NGHTTP2_RST_STREAM: {
        const struct tg_h2_stream *stream = tg_h2_stream_find(h2, id);
        return stream != NULL && !is_answered(h2, stream)
                   ? tg_h2_stream_count_reset(h2)
                   : tg_h2_stream_breach(h2, tg_h2_flood_control(&h2->flood, h2->now));
    }
    case NGHTTP2_SETTINGS:
        h2->greeted = true; /* an acknowledgement comes after them */
        return 0;
    case NGHTTP2_PRIORITY_UPDATE:
        return update_priority(h2, frame->ext.payload);
    default:
        return 0;
    }
}

/* A peer that does not read must not make us queue answers without end. */
static int
on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *header, void *arg)
{
    struct tg_h2 *h2 = arg;
    (void)header;
    const bool over = nghttp2_session_get_outbound_queue_size(session) > TG_H2_ANSWERS_MAX;
    return tg_h2_stream_breach(h2, over ? TG_LIMIT_H2_ANSWERS : TG_LIMIT_NONE);
}

static int
on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
    struct tg_h2 *h2 = arg;
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, id);
    (void)flags;
    if (stream == NULL || stream->refused) {
        return tg_h2_stream_settle(h2, nghttp2_session_consume_connection(session, n)) == TG_ENOMEM
                   ? NGHTTP2_ERR_CALLBACK_FAILURE
                   : 0;
    }
    stream->unconsumed += (uint32_t)n;
    h2->hooks->data(stream, (const char *)p, n);
    return 0;
}

static uint32_t
code_of(int error)
{
    switch (error) {
    case NGHTTP2_ERR_STREAM_CLOSED:
        return TG_H2_STREAM_CLOSED;
    case NGHTTP2_ERR_REFUSED_STREAM:
        return TG_H2_REFUSED_STREAM;
    case NGHTTP2_ERR_FLOW_CONTROL:
        return TG_H2_FLOW_CONTROL_ERROR;
    case NGHTTP2_ERR_HEADER_COMP:
        return TG_H2_COMPRESSION_ERROR;
    default:
        return TG_H2_PROTOCOL_ERROR;
    }
}

/* nghttp2 has found an error of the peer, and has queued RST_STREAM or will queue GOAWAY. */
static int
on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
    struct tg_h2 *h2 = arg;
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, frame->hd.stream_id);
    (void)session;
    if (error == NGHTTP2_ERR_REFUSED_STREAM || (error == NGHTTP2_ERR_PROTO && frame->hd.type == NGHTTP2_HEADERS &&
                                                stream == NULL && h2->count >= h2->limits.streams)) {
        h2->hooks->limited(h2->arg, TG_LIMIT_H2_STREAMS);
    }
    if (stream != NULL) {
        tg_h2_stream_detach(stream);
        h2->hooks->reset(stream, code_of(error));
    }
    return tg_h2_stream_count_reset(h2);
}

static int
on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct tg_h2 *h2 = arg;
    struct tg_h2_stream *stream = tg_h2_stream_find(h2, id);
    (void)session;
    h2->outgoing -= h2->role == TG_H2_CLIENT ? 1 : 0;
    if (stream != NULL && !(stream->sent_end && stream->got_end && code == TG_H2_NO_ERROR)) {
        tg_h2_stream_detach(stream);
        h2->hooks->reset(stream, code);
    }
    return 0;
}

void
tg_h2_receive_set(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}
