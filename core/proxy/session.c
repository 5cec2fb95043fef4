#include "proxy/session.h"

#include "base/log.h"
#include "base/mem.h"
#include "proxy/inbox.h"
#include "proxy/outbox.h"

enum {
    READ_SIZE = 16 * 1024,
    TRAILERS_MAX = 64 * 1024,
    READS_A_TURN = 16,        /* before others get their turn */
    SWEEP_EVERY = 1000,       /* milliseconds */
    REST_AFTER = 1000,        /* milliseconds without a stream */
    STALL_TIME = 30000,       /* milliseconds that a stream may wait for its window (SECURITY 1.2) */
    LAST_REQUEST_TIME = 1000, /* milliseconds in which a client that was told to go may still ask */
    LAST_WORDS_TIME = 2000    /* milliseconds that a connection has to take what ends it */
};

struct tg_session {
    struct tg_downstream *connection;
    struct tg_h2 *h2;
    struct tg_task flush;
    struct stream *streams;
    struct tg_outbox outbox;
    bool busy;    /* the deadline is that of the next sweep */
    bool rested;  /* it was idle for so long that nothing is kept for the next streams */
    bool leaving; /* the client knows that it ends: the deadline is that of the last request */
    bool broken;  /* what is there goes out, then it is closed */
};

struct stream {
    struct tg_downstream down;    /* first: the transport's events lead here */
    const struct tg_layer *layer; /* what its transport points to */
    struct tg_h2_stream h2;
    struct tg_session *session; /* NULL: the connection is gone */
    struct stream *next;
    struct stream **link; /* in the session's list */
    struct tg_inbox inbox;
    struct tg_arena trailers; /* their bytes, which outlive the exchange */
    bool ended;               /* the client has sent all */
    bool broken;              /* it was reset */
    bool finished;            /* we have said all, */
    bool sent;                /* and it has gone out */
};

static struct stream *
stream_of(struct tg_transport *transport)
{
    return (struct stream *)transport;
}

static void
wake(struct stream *stream)
{
    stream->down.transport.readable = true;
    tg_downstream_again(&stream->down);
}

static void
flush_later(struct tg_session *session)
{
    tg_task_queue(session->connection->proxy->loop, &session->flush);
}

static unsigned
idle_time(const struct tg_session *session)
{
    const unsigned idle = tg_downstream_config(session->connection)->keepalive_timeout;
    return session->rested || idle <= REST_AFTER ? idle : REST_AFTER;
}

/* While there are streams they are swept at a pace that no frame of the client can put off. */
static void
set_deadline(struct tg_session *session)
{
    struct tg_downstream *connection = session->connection;
    const bool busy = tg_h2_open_streams(session->h2) > 0;
    if (!session->broken && !session->leaving && !(busy && session->busy)) {
        tg_deadline_set(connection->proxy->loop, &connection->deadline, busy ? SWEEP_EVERY : idle_time(session));
    }
    session->busy = busy;
}

/* Nothing is kept for the next streams any more. False: it was told so before, and has been idle for too long. */
static bool
rest(struct tg_session *session)
{
    struct tg_downstream *connection = session->connection;
    const unsigned idle = tg_downstream_config(connection)->keepalive_timeout;
    if (session->rested || idle <= REST_AFTER) {
        return false;
    }
    session->rested = true;
    tg_h2_rest(session->h2);
    tg_deadline_set(connection->proxy->loop, &connection->deadline, idle - REST_AFTER);
    return true;
}

/* ------------------------------------------------------------------ a stream as a transport */

static enum tg_rc
stream_look(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    struct stream *stream = stream_of(transport);
    if (stream->broken) {
        return TG_ERESET;
    }
    if (tg_inbox_size(&stream->inbox) == 0) {
        return stream->ended ? TG_ECLOSED : TG_AGAIN;
    }
    *got = tg_inbox_look(&stream->inbox, p, n);
    return TG_OK;
}

static enum tg_rc
stream_read(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    struct stream *stream = stream_of(transport);
    enum tg_rc rc = stream_look(transport, p, n, got);
    if (stream->finished && rc != TG_ERESET) {
        /* Nobody reads on: it lingers until what was said has gone out. */
        return stream->sent ? TG_ECLOSED : TG_AGAIN;
    }
    if (rc == TG_AGAIN) {
        transport->readable = false;
    } else if (rc == TG_OK) {
        tg_inbox_drop(&stream->inbox, *got);
        tg_h2_consumed(&stream->h2, *got);
        if (tg_h2_wants_output(stream->session->h2)) {
            flush_later(stream->session);
        }
    }
    return rc;
}

static enum tg_rc
stream_write(struct tg_transport *transport, struct iovec *v, int count, size_t *sent)
{
    struct stream *stream = stream_of(transport);
    if (stream->broken || stream->finished) {
        return TG_ERESET;
    }
    const enum tg_rc rc = tg_h2_write(&stream->h2, v, count, sent);
    if (rc == TG_AGAIN) {
        transport->writable = false;
    } else if (rc == TG_OK) {
        flush_later(stream->session);
    }
    return rc;
}

static void
finish(struct stream *stream, const struct tg_h2_block *trailers)
{
    if (stream->broken || stream->finished) {
        return;
    }
    stream->finished = true;
    if (tg_h2_finish(&stream->h2, trailers) != TG_OK) {
        stream->sent = true;
    }
    flush_later(stream->session);
}

static void
stream_shutdown(struct tg_transport *transport)
{
    finish(stream_of(transport), NULL);
}

static void
stream_close(struct tg_transport *transport, bool reset)
{
    struct stream *stream = stream_of(transport);
    if (stream->session != NULL) {
        const bool whole = stream->finished && stream->sent && !reset;
        tg_h2_stream_close(&stream->h2, whole ? TG_H2_NO_ERROR : TG_H2_INTERNAL_ERROR);
        flush_later(stream->session);
        *stream->link = stream->next;
        if (stream->next != NULL) {
            stream->next->link = stream->link;
        }
        if (tg_h2_open_streams(stream->session->h2) == 0) {
            set_deadline(stream->session);
        }
    }
    tg_inbox_fini(&stream->inbox);
    tg_arena_fini(&stream->trailers);
}

static const struct tg_layer stream_layer = {.read = stream_read,
                                             .write = stream_write,
                                             .look = stream_look,
                                             .shutdown = stream_shutdown,
                                             .close = stream_close};

/* ------------------------------------------------------------------ what the codec tells */

static struct tg_h2_stream *
on_begin(void *arg)
{
    struct tg_session *session = arg;
    struct tg_downstream *connection = session->connection;
    struct stream *stream = (struct stream *)tg_downstream_branch(connection, sizeof *stream);
    if (stream == NULL) {
        return NULL;
    }
    struct tg_exchange *x = stream->down.exchange;
    stream->session = session;
    stream->next = session->streams;
    stream->link = &session->streams;
    if (stream->next != NULL) {
        stream->next->link = &stream->next;
    }
    session->streams = stream;
    stream->layer = &stream_layer;
    stream->down.transport.layer = &stream->layer;
    stream->h2.owner = stream;
    stream->h2.message = &x->request;
    x->start = tg_loop_micros(x->proxy->loop);
    connection->requests++;
    session->rested = false;
    tg_deadline_set(x->proxy->loop, &stream->down.deadline, tg_downstream_config(connection)->header_timeout);
    return &stream->h2;
}

static void
on_head(struct tg_h2_stream *h2)
{
    struct stream *stream = h2->owner;
    if (stream->down.exchange != NULL) {
        stream->down.exchange->head_whole = true;
        stream->down.exchange->extended = h2->protocol;
    }
    wake(stream);
}

static void
on_refused(struct tg_h2_stream *h2, const struct tg_h1_fault *fault)
{
    struct stream *stream = h2->owner;
    if (stream->down.exchange != NULL) {
        stream->down.exchange->head_fault = fault;
    }
    wake(stream);
}

static void
on_data(struct tg_h2_stream *h2, const char *p, size_t n)
{
    struct stream *stream = h2->owner;
    if (stream->finished) {
        tg_h2_consumed(h2, n);
        return;
    }
    stream->broken = stream->broken || tg_inbox_put(&stream->inbox, p, n) != TG_OK; /* its exchange ends it */
    wake(stream);
}

static void
on_end(struct tg_h2_stream *h2)
{
    struct stream *stream = h2->owner;
    stream->ended = true;
    wake(stream);
}

static void
on_writable(struct tg_h2_stream *h2)
{
    struct stream *stream = h2->owner;
    stream->sent = stream->finished;
    stream->down.transport.writable = true;
    tg_downstream_again(&stream->down);
}

static void
on_reset(struct tg_h2_stream *h2, uint32_t code)
{
    struct stream *stream = h2->owner;
    tg_log_debug("stream reset with code %u", code);
    stream->broken = true;
    stream->down.transport.failed = true;
    wake(stream);
}

static void
on_limited(void *arg, enum tg_limit limit)
{
    struct tg_session *session = arg;
    tg_proxy_limited(session->connection->proxy, limit);
}

static const struct tg_h2_hooks hooks = {.begin = on_begin,
                                         .head = on_head,
                                         .refused = on_refused,
                                         .data = on_data,
                                         .end = on_end,
                                         .writable = on_writable,
                                         .reset = on_reset,
                                         .limited = on_limited};

/* ------------------------------------------------------------------ the connection */

/* Nothing is left to be done on it: closes it, politely. */
static void
end_session(struct tg_session *session)
{
    struct tg_downstream *connection = session->connection;
    tg_session_free(connection);
    tg_downstream_linger(connection);
}

static void
on_flush(struct tg_task *task)
{
    struct tg_session *session = (struct tg_session *)((char *)task - offsetof(struct tg_session, flush));
    const enum tg_rc rc = tg_outbox_flush(&session->outbox, session->h2, &session->connection->transport);
    if (rc == TG_EBUSY) {
        flush_later(session);
    } else if (rc != TG_OK && rc != TG_AGAIN) {
        tg_downstream_close(session->connection, false);
    } else if (rc == TG_OK && (session->broken || tg_h2_is_over(session->h2))) {
        end_session(session);
    }
}

/* Nothing more is read. Who does not take what is there has a time for it, too. */
static void
give_up(struct tg_session *session)
{
    struct tg_downstream *connection = session->connection;
    if (!session->broken) {
        session->broken = true;
        tg_deadline_set(connection->proxy->loop, &connection->deadline, LAST_WORDS_TIME);
    }
}

/* TG_OK: go on. Otherwise nothing more is read. */
static enum tg_rc
feed(struct tg_session *session, const char *p, size_t n)
{
    const enum tg_rc rc = tg_h2_feed(session->h2, p, n, tg_loop_now(session->connection->proxy->loop));
    if (rc != TG_OK) {
        tg_log_debug("HTTP/2: the connection is broken: %s", tg_rc_name(rc));
        give_up(session);
    }
    return rc;
}

void
tg_session_ready(struct tg_downstream *connection)
{
    struct tg_session *session = connection->session;
    char input[READ_SIZE];
    enum tg_rc rc = TG_OK;
    for (unsigned i = 0; i < READS_A_TURN && !session->broken; i++) {
        size_t got = 0;
        rc = tg_transport_read(&connection->transport, input, sizeof input, &got);
        if (rc == TG_OK) {
            rc = feed(session, input, got);
        }
        if (rc != TG_OK) {
            break;
        }
    }
    if (rc == TG_ECLOSED || rc == TG_ERESET) {
        tg_downstream_close(connection, false);
        return;
    }
    if (rc == TG_OK && !session->broken) {
        tg_downstream_again(connection);
    }
    set_deadline(session);
    flush_later(session);
}

/* What the client has sent before it could know is served: the last stream is named only later (RFC 9113, 6.8). */
void
tg_session_drain(struct tg_downstream *connection)
{
    struct tg_session *session = connection->session;
    if (!session->broken) {
        session->leaving = true;
        tg_h2_goaway(session->h2, false, TG_H2_NO_ERROR);
        tg_deadline_set(connection->proxy->loop, &connection->deadline, LAST_REQUEST_TIME);
        flush_later(session);
    }
}

void
tg_session_begin(struct tg_downstream *connection, struct tg_slice bytes)
{
    const struct tg_downstream_config *config = tg_downstream_config(connection);
    struct tg_session *session = tg_mem_new(struct tg_session);
    const struct tg_h2_limits limits = {.streams = config->streams,
                                        .field = config->limits.field,
                                        .head = config->limits.head,
                                        .fields = config->limits.fields,
                                        .window = 65535,
                                        .connection_window = 1024 * 1024,
                                        .resets = config->resets,
                                        .reset_time = 30000,
                                        .controls = config->controls,
                                        .extended_connect = true,
                                        .reading = config->reading};
    struct tg_h2 *h2 = session != NULL ? tg_h2_new(TG_H2_SERVER, &limits, &hooks, session) : NULL;
    connection->exchange = NULL;
    if (h2 == NULL) {
        tg_mem_free(session);
        tg_downstream_close(connection, false);
        return;
    }
    *session = (struct tg_session){.connection = connection, .h2 = h2, .flush = {.run = on_flush}};
    connection->session = session;
    connection->mode = TG_DOWNSTREAM_SESSION;
    connection->proxy->counters->sessions++;
    if (connection->proxy->draining) {
        tg_session_drain(connection);
    }
    if (bytes.n > 0) {
        (void)feed(session, bytes.p, bytes.n); /* an error is remembered */
    }
    tg_session_ready(connection);
}

void
tg_session_expired(struct tg_downstream *connection)
{
    struct tg_session *session = connection->session;
    if (session->broken) {
        tg_downstream_close(connection, false);
        return;
    }
    session->busy = false;
    if (session->leaving) {
        session->leaving = false;
        tg_h2_goaway(session->h2, true, TG_H2_NO_ERROR);
        set_deadline(session);
    } else if (tg_h2_open_streams(session->h2) == 0 && rest(session)) {
        return;
    } else if (tg_h2_open_streams(session->h2) == 0) {
        tg_proxy_limited(connection->proxy, TG_LIMIT_KEEPALIVE_TIMEOUT);
        tg_h2_goaway(session->h2, true, TG_H2_NO_ERROR);
        give_up(session);
    } else {
        tg_h2_sweep(session->h2, tg_loop_now(connection->proxy->loop), STALL_TIME);
        set_deadline(session);
    }
    flush_later(session);
}

void
tg_session_free(struct tg_downstream *connection)
{
    struct tg_session *session = connection->session;
    tg_task_remove(connection->proxy->loop, &session->flush);
    tg_h2_free(session->h2);
    for (struct stream *stream = session->streams; stream != NULL; stream = stream->next) {
        stream->session = NULL;
        stream->down.parent = NULL;
        stream->down.transport.failed = true;
        stream->broken = true;
        wake(stream);
    }
    tg_outbox_fini(&session->outbox);
    tg_mem_free(session);
    connection->session = NULL;
}

/* ------------------------------------------------------------------ heads */

static enum tg_rc
add_length(struct tg_h2_block *block, uint64_t length, struct tg_arena *arena)
{
    char digits[20];
    size_t n = sizeof digits;
    do {
        digits[--n] = (char)('0' + length % 10);
        length /= 10;
    } while (length != 0);
    const char *text = tg_arena_copy(arena, digits + n, sizeof digits - n);
    return text == NULL ? TG_ENOMEM
                        : tg_h2_block_add(block, TG_SLICE("content-length"), tg_slice_of(text, sizeof digits - n));
}

static void
prioritize(struct stream *stream, const struct tg_message *response)
{
    unsigned from = 0;
    const struct tg_field *field;
    while ((field = tg_message_find(response, "priority", 8, &from)) != NULL) {
        tg_h2_prioritize(&stream->h2, tg_slice_of(field->value, field->value_len));
    }
}

enum tg_rc
tg_session_respond(struct tg_exchange *x, const struct tg_h1_frame *frame, struct tg_slice date, bool end)
{
    struct stream *stream = stream_of(&x->down->transport);
    struct tg_h2_block block;
    if (stream->broken) {
        return TG_ERESET;
    }
    tg_h2_block_init(&block, &x->arena);
    enum tg_rc rc = tg_h2_block_message(&block, &x->response);
    if (rc == TG_OK && tg_message_find_id(&x->response, TG_FIELD_DATE) == NULL) {
        rc = tg_h2_block_add(&block, TG_SLICE("date"), date);
    }
    if (rc == TG_OK && frame->framing == TG_FRAMING_LENGTH) {
        rc = add_length(&block, frame->length, &x->arena);
    }
    if (rc == TG_OK) {
        /* RFC 8441, section 5: a tunnel begins with 200. */
        const unsigned status = x->response.status == 101 ? 200 : x->response.status;
        rc = tg_h2_respond(&stream->h2, status, &block, end);
        stream->finished = end && rc == TG_OK;
        prioritize(stream, &x->response);
        flush_later(stream->session);
    }
    return rc;
}

/* Bytes that last until they are sent, when the exchange may be over. */
static enum tg_rc
copy_trailers(struct stream *stream, struct tg_h2_block *block, const struct tg_message *trailers)
{
    tg_arena_init(&stream->trailers, NULL, 0, TRAILERS_MAX);
    tg_h2_block_init(block, &stream->trailers);
    for (unsigned i = 0; i < trailers->count; i++) {
        const struct tg_field *field = &trailers->fields[i];
        const char *name = tg_arena_copy(&stream->trailers, field->name, field->name_len);
        const char *value = tg_arena_copy(&stream->trailers, field->value, field->value_len);
        const enum tg_rc rc = name == NULL || value == NULL ? TG_ENOMEM
                                                            : tg_h2_block_add(block, tg_slice_of(name, field->name_len),
                                                                              tg_slice_of(value, field->value_len));
        if (rc != TG_OK) {
            return rc;
        }
    }
    return TG_OK;
}

void
tg_session_finish(struct tg_exchange *x, const struct tg_message *trailers)
{
    struct tg_h2_block block;
    if (x->down == NULL || !x->down->is_stream) {
        return;
    }
    struct stream *stream = stream_of(&x->down->transport);
    if (stream->broken || stream->finished) {
        return;
    }
    if (trailers != NULL && copy_trailers(stream, &block, trailers) != TG_OK) {
        stream->broken = true; /* without them it would pass for another answer */
        tg_h2_stream_close(&stream->h2, TG_H2_INTERNAL_ERROR);
        return;
    }
    finish(stream, trailers != NULL ? &block : NULL);
}

enum tg_rc
tg_session_interim(struct tg_exchange *x, unsigned status, const struct tg_message *message)
{
    struct stream *stream = stream_of(&x->down->transport);
    struct tg_h2_block block;
    if (stream->broken) {
        return TG_ERESET;
    }
    tg_h2_block_init(&block, &x->arena);
    enum tg_rc rc = message != NULL ? tg_h2_block_message(&block, message) : TG_OK;
    if (rc == TG_OK) {
        rc = tg_h2_respond(&stream->h2, status, &block, false);
        flush_later(stream->session);
    }
    return rc;
}
