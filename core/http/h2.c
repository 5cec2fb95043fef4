#include "http/h2.h"

#include "http/h2_receive.h"
#include "http/h2_send.h"

enum {
    PREFACE = 24,
    CONTINUATION_READS = 100, /* nghttp2 counts how often it reads of a header, up to 9 times each; h2_flood is first */
    SECTION_MAX = 256 * 1024, /* bytes of a field section that we send */
    STALL_PROGRESS = 8 * 1024, /* bytes that end a stall: less is dribbling */
    ENCODER_TABLE = 1024       /* bytes: 6 KiB of memory when it is full, where the 4096 that a peer may allow are 23 */
};

static int
make_session(struct tg_h2 *h2, const nghttp2_session_callbacks *callbacks, nghttp2_option *option)
{
    nghttp2_mem memory = tg_h2_memory_of(&h2->memory);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, TG_H2_ANSWERS_MAX);
    nghttp2_option_set_max_continuations(option, CONTINUATION_READS);
    nghttp2_option_set_max_send_header_block_length(option, SECTION_MAX);
    nghttp2_option_set_max_deflate_dynamic_table_size(option, ENCODER_TABLE);
    nghttp2_option_set_builtin_recv_extension_type(option, NGHTTP2_PRIORITY_UPDATE);
    return h2->role == TG_H2_SERVER ? nghttp2_session_server_new3(&h2->session, callbacks, h2, option, &memory)
                                    : nghttp2_session_client_new3(&h2->session, callbacks, h2, option, &memory);
}

/* The first frames of the connection. */
static int
say_settings(struct tg_h2 *h2)
{
    const struct tg_h2_limits *limits = &h2->limits;
    nghttp2_settings_entry entries[5] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits->window},
                                         {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits->head},
                                         {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    size_t n = 3;
    if (h2->role == TG_H2_CLIENT) {
        entries[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    } else {
        entries[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits->streams};
        if (limits->extended_connect) {
            entries[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
        }
    }
    const int rv = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, entries, n);
    return rv != 0 ? rv
                   : nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
                                                           (int32_t)limits->connection_window);
}

struct tg_h2 *
tg_h2_new(enum tg_h2_role role, const struct tg_h2_limits *limits, const struct tg_h2_hooks *hooks, void *arg)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    struct tg_h2 *h2 = tg_mem_new(struct tg_h2);
    int rv = NGHTTP2_ERR_NOMEM;
    if (h2 != NULL && nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0) {
        h2->role = role;
        h2->limits = *limits;
        h2->hooks = hooks;
        h2->arg = arg;
        h2->flood = (struct tg_h2_flood){.resets = limits->resets,
                                         .reset_time = limits->reset_time,
                                         .controls = limits->controls,
                                         .preface = role == TG_H2_SERVER ? PREFACE : 0};
        tg_h2_receive_set(callbacks);
        tg_h2_send_set(callbacks);
        rv = make_session(h2, callbacks, option);
        rv = rv == 0 ? say_settings(h2) : rv;
    }
    nghttp2_session_callbacks_del(callbacks); /* the session has copies */
    nghttp2_option_del(option);
    if (rv != 0) {
        tg_h2_free(h2);
        return NULL;
    }
    return h2;
}

void
tg_h2_free(struct tg_h2 *h2)
{
    if (h2 == NULL) {
        return;
    }
    while (h2->streams != NULL) {
        struct tg_h2_stream *stream = h2->streams;
        const bool open = stream->h2 != NULL;
        if (open) {
            tg_h2_stream_detach(stream);
        }
        tg_h2_stream_count_out(stream);
        if (open) {
            h2->hooks->reset(stream, TG_H2_CANCEL);
        }
    }
    if (!tg_h2_stream_is_dead(h2)) {
        nghttp2_session_del(h2->session);
    }
    tg_h2_memory_fini(&h2->memory);
    tg_mem_free(h2);
}

/* What nghttp2 cannot go on from. */
static enum tg_rc
broken(struct tg_h2 *h2, int rv)
{
    if (tg_h2_stream_is_dead(h2)) {
        return TG_ENOMEM;
    }
    if (rv == NGHTTP2_ERR_FLOODED) {
        (void)tg_h2_stream_breach(h2, TG_LIMIT_H2_ANSWERS);
    } else if (!h2->broken) {
        h2->broken = true;
        (void)tg_h2_stream_settle(h2, nghttp2_session_terminate_session(h2->session, TG_H2_PROTOCOL_ERROR));
    }
    return TG_EPROTOCOL;
}

enum tg_rc
tg_h2_feed(struct tg_h2 *h2, const char *p, size_t n, uint64_t now_ms)
{
    enum tg_limit limit = TG_LIMIT_NONE;
    if (h2->broken || tg_h2_stream_is_dead(h2)) {
        return tg_h2_stream_is_dead(h2) ? TG_ENOMEM : TG_EPROTOCOL;
    }
    h2->now = now_ms;
    const size_t good = tg_h2_flood_scan(&h2->flood, p, n, now_ms, &limit);
    const ssize_t used = nghttp2_session_mem_recv(h2->session, (const uint8_t *)p, good);
    if (used < 0 || tg_h2_stream_is_dead(h2)) {
        return broken(h2, (int)used);
    }
    return tg_h2_stream_breach(h2, limit) == 0 ? TG_OK : TG_EPROTOCOL;
}

size_t
tg_h2_output(struct tg_h2 *h2, char *out, size_t capacity)
{
    return tg_h2_send_output(h2, out, capacity);
}

bool
tg_h2_wants_output(const struct tg_h2 *h2)
{
    return !tg_h2_stream_is_dead(h2) && (h2->pending_n > 0 || nghttp2_session_want_write(h2->session) != 0);
}

bool
tg_h2_is_over(const struct tg_h2 *h2)
{
    return tg_h2_stream_is_dead(h2) ||
           (!tg_h2_wants_output(h2) && nghttp2_session_want_read(h2->session) == 0 && (h2->broken || h2->count == 0));
}

unsigned
tg_h2_open_streams(const struct tg_h2 *h2)
{
    return h2->count;
}

/* The fields of a block with room for pseudo-header fields before them. */
static nghttp2_nv *
fields_of(const struct tg_h2_block *block, nghttp2_nv *none, size_t *count)
{
    *count = block == NULL ? 0 : block->count;
    return *count == 0 ? none + TG_H2_PSEUDO_MAX : block->fields;
}

enum tg_rc
tg_h2_respond(struct tg_h2_stream *stream, unsigned status, const struct tg_h2_block *block, bool end)
{
    struct tg_h2 *h2 = stream->h2;
    const bool interim = status < 200;
    if (h2 == NULL || tg_h2_stream_is_dead(h2)) {
        return TG_ERESET;
    }
    if (h2->role != TG_H2_SERVER || stream->responded || status < 100 || status > 599 || status == 101 ||
        (interim && end)) {
        return TG_EINVAL;
    }
    size_t count;
    nghttp2_nv none[TG_H2_PSEUDO_MAX];
    nghttp2_nv *first = fields_of(block, none, &count);
    const char digits[3] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
    tg_h2_block_pseudo(&first, &count, TG_SLICE(":status"), tg_slice_of(digits, sizeof digits));
    if (interim) {
        return tg_h2_stream_settle(
            h2, nghttp2_submit_headers(h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, first, count, NULL));
    }
    if (!stream->got_head) { /* it comes too late: its owner goes, and with it the message */
        tg_h2_stream_unread(h2, stream);
        stream->refused = true;
    }
    const nghttp2_data_provider provider = tg_h2_send_provider();
    const enum tg_rc rc =
        tg_h2_stream_settle(h2, nghttp2_submit_response(h2->session, stream->id, first, count, end ? NULL : &provider));
    stream->responded = rc == TG_OK;
    stream->finished = end;
    return rc;
}

void
tg_h2_prioritize(struct tg_h2_stream *stream, struct tg_slice value)
{
    struct tg_h2 *h2 = stream->h2;
    if (h2 == NULL || tg_h2_stream_is_dead(h2) || !tg_h2_priority_merge(&stream->priority, value)) {
        return;
    }
    const nghttp2_extpri merged = {.urgency = stream->priority.urgency, .inc = stream->priority.incremental};
    (void)tg_h2_stream_settle(h2, nghttp2_session_change_extpri_stream_priority(h2->session, stream->id, &merged, 0));
}

static bool
takes_requests(const struct tg_h2 *h2)
{
    return !h2->broken && !tg_h2_stream_is_dead(h2) && nghttp2_session_check_request_allowed(h2->session) != 0;
}

/* Also by a peer that has told of no limit yet. */
static unsigned
count_room(const struct tg_h2 *h2)
{
    const uint32_t told = nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    const unsigned max = told < h2->limits.streams ? told : h2->limits.streams;
    const unsigned counted = h2->limits.streams * TG_H2_RESERVED;
    const unsigned room = h2->outgoing < max ? max - h2->outgoing : 0;
    const unsigned uncounted = h2->count < counted ? counted - h2->count : 0;
    return room < uncounted ? room : uncounted;
}

unsigned
tg_h2_room(const struct tg_h2 *h2)
{
    return h2->greeted && takes_requests(h2) ? count_room(h2) : 0;
}

void
tg_h2_ping(struct tg_h2 *h2)
{
    if (!tg_h2_stream_is_dead(h2) && !h2->broken) {
        (void)tg_h2_stream_settle(h2, nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL));
    }
}

static enum tg_rc
may_request(const struct tg_h2 *h2, const struct tg_h2_request *request)
{
    if (!takes_requests(h2)) {
        return TG_ECLOSED;
    }
    if (count_room(h2) == 0) {
        return TG_ELIMIT;
    }
    const bool extended =
        nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
    return h2->role != TG_H2_CLIENT || (request->protocol.n > 0 && !extended) ? TG_EINVAL : TG_OK;
}

enum tg_rc
tg_h2_request(struct tg_h2 *h2, struct tg_h2_stream *stream, const struct tg_h2_request *request,
              const struct tg_h2_block *block)
{
    enum tg_rc rc = may_request(h2, request);
    if (rc != TG_OK) {
        return rc;
    }
    size_t count;
    nghttp2_nv none[TG_H2_PSEUDO_MAX];
    nghttp2_nv *first = fields_of(block, none, &count);
    if (request->protocol.n > 0) {
        tg_h2_block_pseudo(&first, &count, TG_SLICE(":protocol"), request->protocol);
    }
    tg_h2_block_pseudo(&first, &count, TG_SLICE(":path"), request->path);
    tg_h2_block_pseudo(&first, &count, TG_SLICE(":authority"), request->authority);
    tg_h2_block_pseudo(&first, &count, TG_SLICE(":scheme"), request->scheme);
    tg_h2_block_pseudo(&first, &count, TG_SLICE(":method"), request->method);
    const nghttp2_data_provider provider = tg_h2_send_provider();
    const int32_t id = nghttp2_submit_request(h2->session, NULL, first, count, request->end ? NULL : &provider, stream);
    if (id < 0) {
        return tg_h2_stream_settle(h2, id) == TG_ENOMEM ? TG_ENOMEM : TG_ECLOSED;
    }
    stream->id = id;
    stream->responded = true;
    stream->finished = request->end;
    tg_h2_stream_count_in(h2, stream);
    h2->outgoing++;
    return TG_OK;
}

/* There is something for a session that has found nothing. */
static enum tg_rc
resume(struct tg_h2_stream *stream)
{
    if (!stream->deferred) {
        return TG_OK;
    }
    stream->deferred = false;
    return tg_h2_stream_settle(stream->h2, nghttp2_session_resume_data(stream->h2->session, stream->id));
}

enum tg_rc
tg_h2_write(struct tg_h2_stream *stream, const struct iovec *v, int count, size_t *taken)
{
    *taken = 0;
    if (stream->h2 == NULL || tg_h2_stream_is_dead(stream->h2)) {
        return TG_ERESET;
    }
    if (!stream->responded || stream->finished) {
        return TG_EINVAL;
    }
    if (stream->queue.used == TG_H2_QUEUE_MAX) {
        stream->hungry = true;
        return TG_AGAIN;
    }
    const enum tg_rc rc = tg_h2_queue_put(&stream->queue, v, count, taken);
    return rc == TG_OK && *taken > 0 ? resume(stream) : rc;
}

enum tg_rc
tg_h2_finish(struct tg_h2_stream *stream, const struct tg_h2_block *trailers)
{
    if (stream->h2 == NULL || tg_h2_stream_is_dead(stream->h2)) {
        return TG_ERESET;
    }
    if (!stream->responded || stream->finished) {
        return TG_EINVAL;
    }
    stream->finished = true;
    if (trailers != NULL && trailers->count > 0) {
        stream->trailing = true;
        stream->ending = *trailers;
    }
    return resume(stream);
}

void
tg_h2_consumed(struct tg_h2_stream *stream, size_t n)
{
    struct tg_h2 *h2 = stream->h2;
    n = n < stream->unconsumed ? n : stream->unconsumed;
    if (h2 != NULL && !tg_h2_stream_is_dead(h2) && n > 0) {
        stream->unconsumed -= (uint32_t)n;
        (void)tg_h2_stream_settle(h2, nghttp2_session_consume(h2->session, stream->id, n));
    }
}

void
tg_h2_stream_close(struct tg_h2_stream *stream, uint32_t code)
{
    struct tg_h2 *h2 = stream->h2;
    if (h2 != NULL) {
        if (!tg_h2_stream_is_dead(h2) && !(stream->sent_end && stream->got_end)) {
            const bool answered = h2->role == TG_H2_SERVER && stream->sent_end; /* RFC 9113, section 8.1 */
            (void)tg_h2_stream_settle(h2, nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id,
                                                                    answered ? TG_H2_NO_ERROR : code));
        }
        tg_h2_stream_detach(stream);
    }
    if (stream->home != NULL) {
        tg_h2_stream_count_out(stream);
    }
}

void
tg_h2_goaway(struct tg_h2 *h2, bool last, uint32_t code)
{
    if (tg_h2_stream_is_dead(h2) || h2->broken) {
        return;
    }
    int rv;
    if (code != TG_H2_NO_ERROR) {
        h2->broken = true;
        rv = nghttp2_session_terminate_session(h2->session, code);
    } else if (last || h2->role == TG_H2_CLIENT) {
        rv = nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                                   code, NULL, 0);
    } else {
        rv = nghttp2_submit_shutdown_notice(h2->session);
    }
    (void)tg_h2_stream_settle(h2, rv);
}

void
tg_h2_rest(struct tg_h2 *h2)
{
    tg_h2_memory_trim(&h2->memory);
}

/* Waits for a window, and has got next to nothing for longer than `ms`. */
static bool
is_stalled(const struct tg_h2 *h2, struct tg_h2_stream *stream, uint64_t ms)
{
    const bool waits = stream->h2 != NULL && stream->queue.used > 0 &&
                       (nghttp2_session_get_remote_window_size(h2->session) <= 0 ||
                        nghttp2_session_get_stream_remote_window_size(h2->session, stream->id) <= 0);
    if (!waits) {
        stream->stall_time = 0;
        return false;
    }
    if (stream->stall_time == 0 || stream->sent - stream->stall_sent >= STALL_PROGRESS) {
        stream->stall_time = h2->now > 0 ? h2->now : 1;
        stream->stall_sent = stream->sent;
    }
    return h2->now - stream->stall_time > ms;
}

void
tg_h2_sweep(struct tg_h2 *h2, uint64_t now_ms, uint64_t ms)
{
    h2->now = now_ms;
    struct tg_h2_stream *stream = tg_h2_stream_is_dead(h2) ? NULL : h2->streams;
    while (stream != NULL && !tg_h2_stream_is_dead(h2)) {
        if (!is_stalled(h2, stream, ms)) {
            stream = stream->next;
            continue;
        }
        h2->hooks->limited(h2->arg, TG_LIMIT_H2_STALL);
        tg_h2_stream_fail(h2, stream, TG_H2_CANCEL);
        stream = h2->streams; /* the hook may have closed any of them */
    }
}
