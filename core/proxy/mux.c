#include "proxy/mux.h"

#include "base/log.h"
#include "base/mem.h"
#include "http/h2_recast.h"
#include "proxy/hints.h"
#include "proxy/inbox.h"
#include "proxy/outbox.h"

enum {
    READ_SIZE = 16 * 1024,
    READS_A_TURN = 2,   /* what they bring is still in the cache when those who wait for it look */
    SWEEP_EVERY = 1000, /* milliseconds */
    REST_AFTER = 1000,  /* milliseconds without a stream */
    SILENCE = 1000,     /* milliseconds without a byte after which a stream that is given up makes us doubt */
    STALL_TIME = 30000, /* milliseconds */
    STREAM_BLOCK = 2048,
    STREAM_ARENA_MAX = 256 * 1024,
    SPARES_MAX = 64,
    SPARE_INBOX_MAX = 4096, /* bytes that one of them may hold */
    FIELDS_MAX = 200,
    HEAD_MAX = 64 * 1024
};

struct stream {
    struct tg_pool_link link;     /* first: it is handed out as one */
    const struct tg_layer *layer; /* what its transport points to */
    struct tg_h2_stream h2;
    struct tg_mux *mux; /* NULL: the connection is gone */
    struct stream *next;
    struct stream **place;
    struct tg_task task;          /* wakes who has taken it */
    struct tg_h2_request request; /* until it is sent; its bytes and those of `block` are borrowed from who writes it */
    struct tg_h2_block block;
    struct tg_inbox inbox;
    struct tg_arena arena;
    struct tg_message response;
    struct tg_hints hints;
    struct tg_message trailers;
    uint64_t asked; /* milliseconds */
    bool reserved;  /* has room of the connection, for a request that was not made yet */
    bool has_request;
    bool requested; /* it is sent */
    bool refused;
    bool finished; /* the request is whole */
    bool has_head; /* of the response, that was not read yet */
    bool ended;    /* the response is whole */
    bool has_body; /* a byte of it has come */
    bool broken;
    char memory[STREAM_BLOCK];
};

struct tg_mux {
    struct tg_peer *peer;
    struct tg_pool_link *link;
    struct tg_h2 *h2;
    struct tg_mux *next;
    struct tg_mux **place;
    struct stream *streams;
    struct stream *spares; /* closed ones */
    unsigned spare_count;
    struct tg_task flush;
    struct tg_deadline deadline;
    struct tg_outbox outbox;
    struct tg_h2_recast recast;
    unsigned open;
    unsigned reserved;
    unsigned requests;
    uint64_t heard; /* milliseconds; when bytes came last */
    bool more;      /* there is something to read */
    bool busy;      /* the deadline is that of the next sweep */
    bool rested;    /* it was idle for so long that nothing is kept for the next streams */
    bool doubted;   /* it may be dead: until something is heard no stream begins on it */
    bool retired;   /* no stream begins on it any more */
};

static struct stream *
stream_of(struct tg_transport *transport)
{
    return (struct stream *)transport;
}

static struct tg_loop *
loop_of(const struct tg_mux *mux)
{
    return mux->peer->pool.loop;
}

static void
flush_later(struct tg_mux *mux)
{
    tg_task_queue(loop_of(mux), &mux->flush);
}

static void
wake(struct stream *stream)
{
    stream->link.transport.readable = true;
    tg_task_queue(stream->link.pool->loop, &stream->task);
}

static void
on_wake(struct tg_task *task)
{
    struct stream *stream = (struct stream *)((char *)task - offsetof(struct stream, task));
    stream->link.transport.ready(&stream->link.transport);
}

/* ------------------------------------------------------------------ requests: from a head of HTTP/1.1 to a stream */

static void
give_back(struct stream *stream)
{
    stream->mux->reserved -= stream->reserved ? 1 : 0;
    stream->reserved = false;
}

static enum tg_rc
send_head(struct stream *stream, bool end)
{
    struct tg_mux *mux = stream->mux;
    give_back(stream);
    stream->request.end = end;
    stream->h2.to_head = tg_slice_is(stream->request.method, "HEAD", 4);
    const enum tg_rc rc =
        stream->has_request ? tg_h2_request(mux->h2, &stream->h2, &stream->request, &stream->block) : TG_EINVAL;
    stream->asked = tg_loop_now(loop_of(mux));
    stream->requested = rc == TG_OK;
    stream->broken = stream->refused = rc != TG_OK;
    flush_later(mux);
    return rc == TG_OK ? TG_OK : TG_ERESET; /* who has taken it for a kept connection asks for another one */
}

/* The head comes with one write, perhaps with the begin of the body behind it. */
static enum tg_rc
take_head(struct stream *stream, struct iovec *v, size_t *taken)
{
    struct tg_mux *mux = stream->mux;
    stream->request.scheme = mux->peer->tls != NULL ? TG_SLICE("https") : TG_SLICE("http");
    tg_h2_block_init(&stream->block, &stream->arena);
    const enum tg_rc rc = tg_h2_recast_request(&mux->recast, tg_slice_of(v->iov_base, v->iov_len), &stream->request,
                                               &stream->block, taken);
    stream->has_request = rc == TG_OK;
    stream->broken = stream->refused = rc != TG_OK; /* nothing of it was sent */
    return rc == TG_OK ? TG_OK : TG_ERESET;
}

static enum tg_rc
stream_write(struct tg_transport *transport, struct iovec *v, int count, size_t *sent)
{
    struct stream *stream = stream_of(transport);
    struct iovec rest[8];
    size_t taken = 0;
    size_t more = 0;
    enum tg_rc rc = stream->broken || stream->mux == NULL || stream->finished || count > 8 ? TG_ERESET : TG_OK;
    if (rc == TG_OK && !stream->has_request) {
        rc = take_head(stream, &v[0], &taken);
    }
    if (rc != TG_OK) {
        return rc;
    }
    memcpy(rest, v, (size_t)count * sizeof *v);
    rest[0].iov_base = (char *)rest[0].iov_base + taken;
    rest[0].iov_len -= taken;
    const unsigned first = rest[0].iov_len == 0 ? 1 : 0;
    *sent = taken;
    if ((int)first == count) {
        return taken > 0 ? TG_OK : TG_AGAIN;
    }
    if (!stream->requested && (rc = send_head(stream, false)) != TG_OK) {
        return rc;
    }
    rc = tg_h2_write(&stream->h2, rest + first, count - (int)first, &more);
    flush_later(stream->mux);
    if (rc == TG_AGAIN) {
        transport->writable = false;
        return taken > 0 ? TG_OK : TG_AGAIN;
    }
    *sent += rc == TG_OK ? more : 0;
    return rc == TG_OK ? TG_OK : TG_ERESET;
}

void
tg_mux_finish(struct tg_pool_link *link)
{
    struct stream *stream = (struct stream *)link;
    if (!link->single || stream->finished || stream->broken || stream->mux == NULL) {
        return;
    }
    stream->finished = true;
    const enum tg_rc rc = stream->requested ? tg_h2_finish(&stream->h2, NULL) : send_head(stream, true);
    if (rc != TG_OK) {
        stream->broken = true;
        wake(stream);
    }
    flush_later(stream->mux);
}

/* ------------------------------------------------------------------ responses: from a stream to HTTP/1.1 */

static enum tg_rc
nothing_there(const struct stream *stream)
{
    return stream->ended ? TG_ECLOSED : stream->broken ? TG_ERESET : TG_AGAIN;
}

enum tg_rc
tg_mux_read_head(struct tg_pool_link *link, char *p, size_t room, struct tg_message *message, bool to_head, size_t *n)
{
    struct stream *stream = (struct stream *)link;
    const struct tg_message *hint = tg_hints_take(&stream->hints);
    if (hint != NULL) {
        return tg_h2_recast_response(hint, p, room, message, to_head, n);
    }
    if (stream->hints.interim > TG_INTERIM_MAX) {
        return TG_EPROTOCOL;
    }
    if (!stream->has_head) {
        const enum tg_rc rc = nothing_there(stream);
        link->transport.readable = rc != TG_AGAIN;
        return rc;
    }
    stream->has_head = false;
    return tg_h2_recast_response(&stream->response, p, room, message, to_head, n);
}

static enum tg_rc
stream_look(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    const struct stream *stream = stream_of(transport);
    if (tg_inbox_size(&stream->inbox) > 0) {
        *got = tg_inbox_look(&stream->inbox, p, n);
        return TG_OK;
    }
    return nothing_there(stream);
}

static void
consume(struct stream *stream, size_t n)
{
    tg_inbox_drop(&stream->inbox, n);
    if (n > 0 && stream->mux != NULL && !stream->broken) {
        tg_h2_consumed(&stream->h2, n);
        if (tg_h2_wants_output(stream->mux->h2)) {
            flush_later(stream->mux);
        }
    }
}

static enum tg_rc
stream_read(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    const enum tg_rc rc = stream_look(transport, p, n, got);
    if (rc == TG_AGAIN) {
        transport->readable = false;
    } else if (rc == TG_OK) {
        consume(stream_of(transport), *got);
    }
    return rc;
}

static void
stream_shutdown(struct tg_transport *transport)
{
    tg_mux_finish((struct tg_pool_link *)transport);
}

static unsigned
idle_time(const struct tg_mux *mux)
{
    const unsigned idle = mux->peer->pool.limits.idle_timeout;
    return mux->rested || idle <= REST_AFTER ? idle : REST_AFTER;
}

/* How long the connection waits for what comes next; no frame of the peer puts off a sweep. */
static void
set_deadline(struct tg_mux *mux)
{
    const bool busy = mux->open > 0;
    if (!(busy && mux->busy)) {
        tg_deadline_set(loop_of(mux), &mux->deadline, busy ? SWEEP_EVERY : idle_time(mux));
    }
    mux->busy = busy;
}

/* Its peer may have vanished without a word: the next request would wait as long for nothing. */
static void
doubt(struct tg_mux *mux, const struct stream *stream)
{
    if (stream->requested && !stream->ended && !stream->broken && mux->heard <= stream->asked &&
        tg_loop_now(loop_of(mux)) - stream->asked >= SILENCE && !mux->doubted) {
        mux->doubted = true;
        tg_h2_ping(mux->h2);
    }
}

/* As many connections stay idle as the pool may keep. */
static void
become_idle(struct tg_mux *mux)
{
    unsigned idle = 0;
    for (const struct tg_mux *other = mux->peer->muxes; other != NULL; other = other->next) {
        idle += other->open == 0 && !other->retired ? 1 : 0;
    }
    mux->retired = mux->retired || idle > mux->peer->pool.limits.idle_max;
    set_deadline(mux);
}

static void
stream_close(struct tg_transport *transport, bool reset)
{
    struct stream *stream = stream_of(transport);
    struct tg_mux *mux = stream->mux;
    (void)reset;
    if (mux != NULL) {
        tg_task_remove(loop_of(mux), &stream->task);
        give_back(stream);
        doubt(mux, stream);
        if (stream->requested) {
            tg_h2_stream_close(&stream->h2, TG_H2_CANCEL);
        }
        *stream->place = stream->next;
        if (stream->next != NULL) {
            stream->next->place = stream->place;
        }
        if (--mux->open == 0) {
            become_idle(mux);
        }
        flush_later(mux);
    } else {
        tg_task_remove(stream->link.pool->loop, &stream->task);
    }
    tg_arena_fini(&stream->arena);
}

static void
stream_free(struct stream *stream)
{
    tg_inbox_fini(&stream->inbox);
    tg_mem_free(stream);
}

static void
drop_spares(struct tg_mux *mux)
{
    while (mux->spares != NULL) {
        struct stream *stream = mux->spares;
        mux->spares = stream->next;
        stream_free(stream);
    }
    mux->spare_count = 0;
}

/* The next one takes its place: many come and go at a time. */
static void
on_gone(struct tg_pool_link *link)
{
    struct stream *stream = (struct stream *)link;
    struct tg_mux *mux = stream->mux;
    if (mux == NULL || mux->spare_count == SPARES_MAX || stream->inbox.capacity > SPARE_INBOX_MAX) {
        stream_free(stream);
        return;
    }
    stream->next = mux->spares;
    mux->spares = stream;
    mux->spare_count++;
}

static const struct tg_layer stream_layer = {.read = stream_read,
                                             .write = stream_write,
                                             .look = stream_look,
                                             .shutdown = stream_shutdown,
                                             .close = stream_close};

bool
tg_mux_is_refused(const struct tg_pool_link *link)
{
    return link != NULL && link->single && ((const struct stream *)link)->refused;
}

bool
tg_mux_is_bodyless(const struct tg_pool_link *link)
{
    const struct stream *stream = (const struct stream *)link;
    return link != NULL && link->single && stream->ended && !stream->has_body;
}

const struct tg_message *
tg_mux_trailers(const struct tg_pool_link *link)
{
    const struct stream *stream = (const struct stream *)link;
    return link != NULL && link->single && stream->ended && stream->trailers.count > 0 ? &stream->trailers : NULL;
}

/* ------------------------------------------------------------------ what the codec tells */

static void
on_head(struct tg_h2_stream *h2)
{
    struct stream *stream = h2->owner;
    if (stream->response.status >= 200) {
        stream->has_head = true;
    } else {
        tg_hints_put(&stream->hints, &stream->response);
    }
    wake(stream);
}

static void
on_data(struct tg_h2_stream *h2, const char *p, size_t n)
{
    struct stream *stream = h2->owner;
    stream->has_body = stream->has_body || n > 0;
    stream->broken = stream->broken || tg_inbox_put(&stream->inbox, p, n) != TG_OK;
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
    stream->link.transport.writable = true;
    tg_task_queue(loop_of(stream->mux), &stream->task);
}

static void
on_reset(struct tg_h2_stream *h2, uint32_t code)
{
    struct stream *stream = h2->owner;
    tg_log_debug("upstream %s:%u: stream reset with code %u", stream->mux->peer->host, stream->mux->peer->port, code);
    stream->broken = true;
    stream->refused = code == TG_H2_REFUSED_STREAM;
    wake(stream);
}

static void
on_limited(void *arg, enum tg_limit limit)
{
    const struct tg_mux *mux = arg;
    tg_log(TG_LOG_WARN, "upstream %s:%u: limit %s", mux->peer->host, mux->peer->port, tg_limit_name(limit));
}

static const struct tg_h2_hooks hooks = {
    .head = on_head, .data = on_data, .end = on_end, .writable = on_writable, .reset = on_reset, .limited = on_limited};

/* ------------------------------------------------------------------ the connection */

/* Those who wait may go on: there is room, or there will be none. */
static void
settle(struct tg_mux *mux)
{
    struct tg_peer *peer = mux->peer;
    if (peer->connecting == mux) {
        peer->connecting = NULL;
    }
    if (peer->queue != NULL) {
        tg_task_queue(loop_of(mux), &peer->settle);
    }
}

static void
mux_close(struct tg_mux *mux)
{
    struct tg_loop *loop = loop_of(mux);
    settle(mux);
    *mux->place = mux->next;
    if (mux->next != NULL) {
        mux->next->place = mux->place;
    }
    tg_deadline_remove(&mux->deadline);
    tg_task_remove(loop, &mux->flush);
    tg_h2_free(mux->h2);
    drop_spares(mux);
    for (struct stream *stream = mux->streams; stream != NULL; stream = stream->next) {
        stream->broken = true;
        stream->refused = stream->refused || !stream->requested;
        stream->mux = NULL;
        wake(stream);
    }
    tg_outbox_fini(&mux->outbox);
    tg_pool_link_close(mux->link);
    tg_mem_free(mux);
}

static bool
has_room(const struct tg_mux *mux)
{
    const struct tg_pool *pool = &mux->peer->pool;
    return !mux->retired && !mux->doubted && mux->reserved < tg_h2_room(mux->h2) && mux->link->epoch == pool->epoch &&
           (pool->limits.requests == 0 || mux->requests < pool->limits.requests);
}

/* False: the connection has ended. */
static bool
receive(struct tg_mux *mux)
{
    struct tg_transport *transport = &mux->link->transport;
    char input[READ_SIZE];
    enum tg_rc rc = TG_OK;
    for (unsigned i = 0; i < READS_A_TURN && rc == TG_OK; i++) {
        size_t got = 0;
        rc = tg_transport_read(transport, input, sizeof input, &got);
        if (rc == TG_OK) {
            mux->heard = tg_loop_now(loop_of(mux));
            mux->doubted = false;
            rc = tg_h2_feed(mux->h2, input, got, mux->heard);
        }
    }
    if (rc != TG_OK && rc != TG_AGAIN) {
        mux_close(mux);
        return false;
    }
    mux->more = rc == TG_OK;
    set_deadline(mux);
    flush_later(mux);
    return true;
}

static void
on_ready(struct tg_transport *transport)
{
    (void)receive(((struct tg_pool_link *)transport)->owner);
}

static void
on_flush(struct tg_task *task)
{
    struct tg_mux *mux = (struct tg_mux *)((char *)task - offsetof(struct tg_mux, flush));
    if (mux->more && !receive(mux)) { /* others had their turn */
        return;
    }
    const enum tg_rc rc = tg_outbox_flush(&mux->outbox, mux->h2, &mux->link->transport);
    if (rc == TG_EBUSY) {
        flush_later(mux);
    } else if ((rc != TG_OK && rc != TG_AGAIN) || tg_h2_is_over(mux->h2) || (mux->retired && mux->open == 0)) {
        mux_close(mux);
        return;
    }
    if (has_room(mux)) {
        settle(mux);
    }
}

/* Nothing is kept for the next streams any more. False: it was told so before, and has been idle for too long. */
static bool
rest(struct tg_mux *mux)
{
    const unsigned idle = mux->peer->pool.limits.idle_timeout;
    if (mux->rested || idle <= REST_AFTER) {
        return false;
    }
    mux->rested = true;
    drop_spares(mux);
    tg_h2_rest(mux->h2);
    tg_deadline_set(loop_of(mux), &mux->deadline, idle - REST_AFTER);
    return true;
}

static void
on_expired(struct tg_deadline *deadline)
{
    struct tg_mux *mux = (struct tg_mux *)((char *)deadline - offsetof(struct tg_mux, deadline));
    mux->busy = false;
    if (mux->open == 0 && rest(mux)) {
        return;
    }
    if (mux->open == 0) {
        mux->retired = true;
        tg_h2_goaway(mux->h2, true, TG_H2_NO_ERROR);
    } else {
        tg_h2_sweep(mux->h2, tg_loop_now(loop_of(mux)), STALL_TIME);
        set_deadline(mux);
    }
    flush_later(mux);
}

/* With the inbox of the one that it was; else only that is set. */
static struct stream *
take_spare(struct tg_mux *mux)
{
    struct stream *stream = mux->spares;
    if (stream != NULL) {
        mux->spares = stream->next;
        mux->spare_count--;
        return stream;
    }
    stream = tg_mem_alloc(sizeof *stream);
    if (stream != NULL) {
        stream->inbox = (struct tg_inbox){0};
    }
    return stream;
}

static struct tg_pool_link *
add_stream(struct tg_mux *mux, tg_transport_cb ready, void *owner)
{
    struct tg_peer *peer = mux->peer;
    struct stream *stream = take_spare(mux);
    if (stream == NULL) {
        return NULL;
    }
    const struct tg_inbox inbox = {.p = stream->inbox.p, .capacity = stream->inbox.capacity};
    memset(stream, 0, offsetof(struct stream, memory));
    stream->inbox = inbox;
    stream->link = (struct tg_pool_link){.transport = {.fd = -1, .ready = ready, .writable = true},
                                         .pool = &peer->pool,
                                         .owner = owner,
                                         .requests = 1,
                                         .epoch = peer->pool.epoch,
                                         .single = true,
                                         .gone = on_gone};
    stream->layer = &stream_layer;
    stream->link.transport.layer = &stream->layer;
    stream->mux = mux;
    stream->task.run = on_wake;
    stream->h2.owner = stream;
    stream->h2.message = &stream->response;
    stream->h2.trailers = &stream->trailers;
    tg_arena_init(&stream->arena, stream->memory, sizeof stream->memory, STREAM_ARENA_MAX);
    tg_message_init(&stream->response, &stream->arena);
    tg_message_init(&stream->trailers, &stream->arena);
    stream->next = mux->streams;
    stream->place = &mux->streams;
    if (stream->next != NULL) {
        stream->next->place = &stream->next;
    }
    mux->streams = stream;
    stream->reserved = true;
    mux->rested = false;
    mux->reserved++;
    mux->requests++;
    mux->open++;
    set_deadline(mux);
    return &stream->link;
}

struct tg_pool_link *
tg_mux_open(struct tg_peer *peer, struct tg_pool_link *link, tg_transport_cb ready, void *owner)
{
    static const struct tg_h2_limits limits = {.streams = TG_MUX_STREAMS,
                                               .field = 32 * 1024,
                                               .head = HEAD_MAX,
                                               .fields = FIELDS_MAX,
                                               .window = 256 * 1024,
                                               .connection_window = 16 * 1024 * 1024,
                                               .resets = 100000,
                                               .reset_time = 30000,
                                               .controls = 10000};
    struct tg_mux *mux = tg_mem_new(struct tg_mux);
    struct tg_h2 *h2 = mux != NULL ? tg_h2_new(TG_H2_CLIENT, &limits, &hooks, mux) : NULL;
    if (h2 == NULL) {
        tg_mem_free(mux);
        tg_pool_link_close(link);
        return NULL;
    }
    *mux = (struct tg_mux){.peer = peer,
                           .link = link,
                           .h2 = h2,
                           .next = peer->muxes,
                           .place = &peer->muxes,
                           .flush = {.run = on_flush},
                           .deadline = {.expired = on_expired}};
    if (mux->next != NULL) {
        mux->next->place = &mux->next;
    }
    peer->muxes = mux;
    link->owner = mux;
    link->transport.ready = on_ready;
    struct tg_pool_link *first = add_stream(mux, ready, owner);
    if (first == NULL) {
        mux_close(mux);
        return NULL;
    }
    if (peer->connecting == owner) {
        peer->connecting = mux;
    }
    flush_later(mux);
    return first;
}

struct tg_pool_link *
tg_mux_take(struct tg_peer *peer, tg_transport_cb ready, void *owner)
{
    struct tg_mux *mux = peer->muxes;
    while (mux != NULL && !has_room(mux)) {
        mux = mux->next;
    }
    return mux != NULL ? add_stream(mux, ready, owner) : NULL;
}
