#include "proxy/upstream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "http/h1_parse.h"
#include "proxy/hints.h"
#include "proxy/mux.h"

enum {
    OWN_MAX = 1024, /* connections to a listener of our own: a route that calls itself ends here */
    STAGGER = 250   /* milliseconds between two addresses (RFC 8305, section 5) */
};

static const struct tg_h1_fault too_many_interim = {502, "too many interim responses", TG_LIMIT_INTERIM_RESPONSES};
static const struct tg_h1_fault unwanted_switch = {502, "101 that nobody asked for", TG_LIMIT_NONE};

static void start_connecting(struct tg_upstream *upstream);
static bool connect_next(struct tg_upstream *upstream);
static void finish_connecting(struct tg_upstream *upstream);
static void on_ready(struct tg_transport *transport);

/* ------------------------------------------------------------------ one connection for many */

static void
leave_queue(struct tg_upstream *upstream)
{
    struct tg_peer *peer = upstream->peer;
    struct tg_upstream **p = &peer->queue;
    while (*p != upstream) {
        p = &(*p)->next_queued;
    }
    *p = upstream->next_queued;
    if (peer->queue_last == &upstream->next_queued) {
        peer->queue_last = p;
    }
    upstream->next_queued = NULL;
}

/* A connection has come back, or has gone: whoever waits longest has it. */
static void
on_room(struct tg_task *task)
{
    struct tg_peer *peer = (struct tg_peer *)((char *)task - offsetof(struct tg_peer, settle));
    const unsigned most = peer->pool.limits.connections;
    while (peer->queue != NULL) {
        struct tg_upstream *upstream = peer->queue;
        upstream->link = tg_pool_take(&peer->pool, on_ready, upstream);
        if (upstream->link == NULL && most != 0 && peer->pool.open >= most) {
            return;
        }
        leave_queue(upstream);
        upstream->reused = upstream->link != NULL;
        upstream->state = upstream->reused ? TG_UPSTREAM_OPEN : TG_UPSTREAM_CLOSED;
        if (!upstream->reused) {
            start_connecting(upstream);
        }
        if (upstream->state != TG_UPSTREAM_CONNECTING) {
            upstream->changed(upstream);
        }
    }
}

/* At its limit, a peer's connections are given to those that wait in the order in which they came. */
static bool
is_full(const struct tg_peer *peer)
{
    const unsigned most = peer->pool.limits.connections;
    return most != 0 && !peer->http2 && (peer->queue != NULL || (peer->pool.idle == NULL && peer->pool.open >= most));
}

static void
wait_in_queue(struct tg_upstream *upstream, tg_task_cb settle)
{
    struct tg_peer *peer = upstream->peer;
    upstream->state = TG_UPSTREAM_WAITING;
    peer->settle.run = settle;
    *peer->queue_last = upstream;
    peer->queue_last = &upstream->next_queued;
}

/* The connection that others wait for was made, or was not, or a stream has ended: they go on, one after the other. */
static void
on_settle(struct tg_task *task)
{
    struct tg_peer *peer = (struct tg_peer *)((char *)task - offsetof(struct tg_peer, settle));
    while (peer->queue != NULL) {
        struct tg_upstream *upstream = peer->queue;
        upstream->link = tg_mux_take(peer, on_ready, upstream);
        if (upstream->link == NULL && peer->connecting != NULL) {
            return;
        }
        leave_queue(upstream);
        upstream->state = TG_UPSTREAM_CLOSED;
        if (upstream->link != NULL) {
            upstream->reused = true;
            upstream->state = TG_UPSTREAM_OPEN;
            upstream->changed(upstream);
            continue;
        }
        start_connecting(upstream);
        if (upstream->state == TG_UPSTREAM_CLOSED) {
            upstream->changed(upstream);
        }
    }
}

static void
stop_being_waited_for(struct tg_upstream *upstream)
{
    struct tg_peer *peer = upstream->peer;
    if (peer->connecting == upstream) {
        peer->settle.run = on_settle;
        peer->connecting = NULL;
        tg_task_queue(upstream->peers->loop, &peer->settle);
    }
}

static void
closed(struct tg_upstream *upstream, enum tg_rc rc)
{
    upstream->state = TG_UPSTREAM_CLOSED;
    upstream->rc = rc;
    stop_being_waited_for(upstream);
}

/* What was agreed on decides whether it is shared. A peer that has no HTTP/2 is not asked for it again. */
static void
opened(struct tg_upstream *upstream)
{
    struct tg_peer *peer = upstream->peer;
    const struct tg_tls *tls = tg_tls_of(&upstream->link->transport);
    upstream->state = TG_UPSTREAM_OPEN;
    if (peer->http2 && tls != NULL && !tg_slice_is_text(tg_tls_alpn(tls), "h2", 2)) {
        tg_log(TG_LOG_INFO, "upstream %s:%u does not speak HTTP/2", peer->host, peer->port);
        peer->http2 = false;
    }
    if (peer->http2) {
        upstream->link = tg_mux_open(peer, upstream->link, on_ready, upstream);
        if (upstream->link == NULL) {
            closed(upstream, TG_ENOMEM);
        }
    }
    stop_being_waited_for(upstream);
    upstream->changed(upstream);
}

/* ------------------------------------------------------------------ connecting */

static void
on_resolved(struct tg_peer_wait *wait, enum tg_rc rc)
{
    struct tg_upstream *upstream = (struct tg_upstream *)((char *)wait - offsetof(struct tg_upstream, wait));
    if (rc == TG_OK) {
        start_connecting(upstream);
        if (upstream->state == TG_UPSTREAM_CONNECTING) {
            return;
        }
    } else {
        closed(upstream, rc);
    }
    upstream->changed(upstream);
}

void
tg_upstream_init(struct tg_upstream *upstream, struct tg_peers *peers, tg_upstream_cb changed)
{
    *upstream = (struct tg_upstream){.peers = peers, .changed = changed, .wait = {.resolved = on_resolved}};
}

/* A peer that says the wrong thing is not asked at another address: one that is wrongly trusted must not be found. */
static void
refuse_peer(struct tg_upstream *upstream, const char *why)
{
    tg_log(TG_LOG_WARN, "upstream %s:%u: TLS: %s", upstream->peer->host, upstream->peer->port, why);
    tg_tls_memory_clear(&upstream->peer->session);
    tg_pool_link_close(upstream->link);
    upstream->link = NULL;
    closed(upstream, TG_ETLS);
    upstream->changed(upstream);
}

static void
shake_hands(struct tg_upstream *upstream)
{
    const char *why = "";
    struct tg_tls *tls = tg_tls_of(&upstream->link->transport);
    enum tg_rc rc = tg_tls_handshake(tls, &why);
    if (rc == TG_OK && (rc = tg_tls_client_judge(upstream->peer->tls, tls)) != TG_OK) {
        why = "its key is not one of those that are pinned";
    }
    if (rc == TG_AGAIN) {
        return;
    }
    if (rc != TG_OK) {
        refuse_peer(upstream, why);
        return;
    }
    opened(upstream);
}

static void
begin_tls(struct tg_upstream *upstream)
{
    struct tg_peer *peer = upstream->peer;
    upstream->state = TG_UPSTREAM_HANDSHAKE;
    if (tg_tls_client_open(peer->tls, &upstream->link->transport, peer->host, &peer->session) != TG_OK) {
        refuse_peer(upstream, "memory is short");
        return;
    }
    shake_hands(upstream);
}

/* What the kernel says of a connection attempt: 0 or errno. */
static int
socket_error(const struct tg_pool_link *link)
{
    int error = 0;
    socklen_t length = sizeof error;
    (void)getsockopt(link->transport.fd, SOL_SOCKET, SO_ERROR, &error, &length);
    return error;
}

/* Of two addresses the first that answers is taken. */
static void
on_racer_ready(struct tg_transport *transport)
{
    struct tg_pool_link *racer = (struct tg_pool_link *)transport;
    struct tg_upstream *upstream = racer->owner;
    if (socket_error(racer) != 0) {
        tg_pool_link_close(racer);
        upstream->racer = NULL;
    } else if (transport->writable) {
        tg_pool_link_close(upstream->link);
        upstream->link = racer;
        upstream->racer = NULL;
        transport->ready = on_ready;
        finish_connecting(upstream);
    }
}

/* The address does not answer yet: the next one is tried beside it (happy eyeballs, RFC 8305). */
static void
on_stagger(struct tg_deadline *deadline)
{
    struct tg_upstream *upstream = (struct tg_upstream *)((char *)deadline - offsetof(struct tg_upstream, stagger));
    struct tg_pool_link *slow = upstream->link;
    if (upstream->state != TG_UPSTREAM_CONNECTING || upstream->racer != NULL || !connect_next(upstream)) {
        return;
    }
    upstream->racer = slow;
    slow->transport.ready = on_racer_ready;
}

static void
stop_racing(struct tg_upstream *upstream)
{
    if (upstream->stagger.link != NULL) {
        tg_deadline_remove(&upstream->stagger);
    }
    if (upstream->racer != NULL) {
        tg_pool_link_close(upstream->racer);
        upstream->racer = NULL;
    }
}

/* The outcome of a connection attempt that the kernel went on with. */
static void
finish_connecting(struct tg_upstream *upstream)
{
    if (socket_error(upstream->link) == 0) {
        if (!upstream->link->transport.writable) {
            return; /* woken for something else */
        }
        stop_racing(upstream);
        if (upstream->peer->tls != NULL) {
            begin_tls(upstream);
            return;
        }
        opened(upstream);
        return;
    }
    tg_pool_link_close(upstream->link);
    upstream->link = upstream->racer;
    if (upstream->racer != NULL) {
        upstream->racer->transport.ready = on_ready;
        upstream->racer = NULL;
        return;
    }
    start_connecting(upstream);
    if (upstream->state != TG_UPSTREAM_CONNECTING) {
        upstream->changed(upstream);
    }
}

static void
on_ready(struct tg_transport *transport)
{
    struct tg_upstream *upstream = ((struct tg_pool_link *)transport)->owner;
    if (upstream->state == TG_UPSTREAM_CONNECTING) {
        finish_connecting(upstream);
    } else if (upstream->state == TG_UPSTREAM_HANDSHAKE) {
        shake_hands(upstream);
    } else {
        upstream->changed(upstream);
    }
}

/* A listener of this gateway: one end is for its downstream side, as if it had been accepted. */
static void
connect_to_own(struct tg_upstream *upstream)
{
    struct tg_peers *peers = upstream->peers;
    int pair[2];
    upstream->state = TG_UPSTREAM_CLOSED;
    upstream->rc = upstream->peer->in_flight > OWN_MAX ? TG_EBUSY : TG_ECONNECT;
    if (upstream->rc == TG_EBUSY || upstream->tried++ > 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        return;
    }
    upstream->link = tg_pool_link_new(&upstream->peer->pool, pair[0], on_ready, upstream);
    if (upstream->link == NULL) {
        close(pair[1]);
        upstream->rc = TG_ENOMEM;
        return;
    }
    peers->own(peers->own_arg, upstream->peer->port, pair[1]);
    upstream->state = TG_UPSTREAM_CONNECTING;
}

/* Begins to connect to the next address that can be tried, and whether there is one. */
static bool
connect_next(struct tg_upstream *upstream)
{
    struct tg_peer *peer = upstream->peer;
    while (upstream->tried < peer->count) {
        const struct tg_address *address = &peer->addresses[(peer->next + upstream->tried) % peer->count];
        upstream->tried++;
        if (peer->guarded && tg_address_is_private(address)) {
            upstream->rc = TG_EDENIED;
            continue;
        }
        const int fd = socket(address->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            continue;
        }
        if (connect(fd, (const struct sockaddr *)&address->sa, address->len) < 0 && errno != EINPROGRESS) {
            close(fd);
            continue;
        }
        struct tg_pool_link *link = tg_pool_link_new(&peer->pool, fd, on_ready, upstream);
        if (link == NULL) {
            upstream->rc = TG_ENOMEM;
            return false;
        }
        upstream->link = link;
        return true;
    }
    return false;
}

/* Tries the next address. The state is CONNECTING afterwards, or CLOSED with the reason in rc. */
static void
start_connecting(struct tg_upstream *upstream)
{
    struct tg_peer *peer = upstream->peer;
    if (peer->own) {
        connect_to_own(upstream);
        return;
    }
    if (peer->http2 && peer->connecting == NULL) {
        peer->connecting = upstream;
    }
    upstream->rc = TG_ECONNECT;
    if (!connect_next(upstream)) {
        upstream->state = TG_UPSTREAM_CLOSED;
        stop_being_waited_for(upstream);
        return;
    }
    upstream->state = TG_UPSTREAM_CONNECTING;
    if (upstream->tried < peer->count) {
        upstream->stagger.expired = on_stagger;
        tg_deadline_set(upstream->peers->loop, &upstream->stagger, STAGGER);
    }
}

enum tg_rc
tg_upstream_open(struct tg_upstream *upstream, struct tg_peer *peer, bool fresh)
{
    TG_ASSERT(upstream->state == TG_UPSTREAM_CLOSED && upstream->peer == NULL);
    upstream->peer = peer;
    upstream->tried = 0;
    upstream->rc = TG_OK;
    peer->in_flight++;
    tg_peer_refresh(upstream->peers, peer);
    if (peer->http2 && !fresh) {
        upstream->link = tg_mux_take(peer, on_ready, upstream);
        if (upstream->link == NULL && peer->connecting != NULL) {
            wait_in_queue(upstream, on_settle);
            return TG_AGAIN;
        }
    } else if (is_full(peer)) {
        wait_in_queue(upstream, on_room);
        return TG_AGAIN;
    } else {
        upstream->link = fresh ? NULL : tg_pool_take(&peer->pool, on_ready, upstream);
    }
    upstream->reused = upstream->link != NULL;
    if (upstream->reused) {
        upstream->state = TG_UPSTREAM_OPEN;
        upstream->peers->reused++;
        return TG_OK;
    }
    upstream->peers->opened++;
    enum tg_rc rc = tg_peer_resolve(upstream->peers, peer, &upstream->wait);
    if (rc == TG_AGAIN) {
        if (peer->http2 && peer->connecting == NULL) {
            peer->connecting = upstream;
        }
        upstream->state = TG_UPSTREAM_RESOLVING;
        return TG_AGAIN;
    }
    if (rc != TG_OK) {
        upstream->rc = rc;
        return rc;
    }
    start_connecting(upstream);
    return upstream->state == TG_UPSTREAM_CONNECTING ? TG_AGAIN : upstream->rc;
}

static void
let_go(struct tg_upstream *upstream, bool reusable)
{
    if (upstream->peer == NULL) {
        return;
    }
    tg_peer_wait_cancel(&upstream->wait);
    if (upstream->state == TG_UPSTREAM_WAITING) {
        leave_queue(upstream);
    }
    stop_being_waited_for(upstream);
    stop_racing(upstream);
    if (upstream->link != NULL) {
        if (reusable && upstream->state == TG_UPSTREAM_OPEN) {
            tg_pool_give(upstream->link);
        } else {
            tg_pool_link_close(upstream->link);
        }
    }
    upstream->link = NULL;
    if (upstream->peer->queue != NULL && !upstream->peer->http2) {
        tg_task_queue(upstream->peers->loop, &upstream->peer->settle);
    }
    upstream->peer->in_flight--;
    upstream->peer = NULL;
    upstream->state = TG_UPSTREAM_CLOSED;
}

void
tg_upstream_release(struct tg_upstream *upstream, bool reusable)
{
    let_go(upstream, reusable);
    tg_attempt_end(&upstream->peers->news, &upstream->attempt);
}

void
tg_upstream_drop(struct tg_upstream *upstream)
{
    let_go(upstream, false);
}

enum tg_rc
tg_upstream_next_head(struct tg_upstream_head *head, struct tg_buffer *buffer, const struct tg_h1_fault **fault)
{
    if (++head->interim > TG_INTERIM_MAX) {
        *fault = &too_many_interim;
        return TG_EPROTOCOL;
    }
    head->filled -= head->scan.pos;
    memmove(buffer->data, buffer->data + head->scan.pos, head->filled);
    head->scan = (struct tg_h1_scan){0};
    return TG_OK;
}

/* RFC 9110, sections 7.8 and 15.2.2: to what was asked for, and without a body of its own. */
static bool
is_agreed(const struct tg_upstream_head *head, const struct tg_message *message)
{
    const struct tg_field *to = tg_message_find_id(message, TG_FIELD_UPGRADE);
    return head->upgrade.n > 0 && message->upgrade && to != NULL && !message->has_length &&
           tg_message_find_id(message, TG_FIELD_TRANSFER_ENCODING) == NULL &&
           tg_slice_is_text(head->upgrade, to->value, to->value_len);
}

/* Parses what is complete. TG_AGAIN: an interim answer was consumed, or bytes are missing. */
static enum tg_rc
parse_head(struct tg_upstream_head *head, struct tg_buffer *buffer, struct tg_message *message, bool to_head,
           const struct tg_h1_fault **fault)
{
    static const struct tg_h1_limits limits = {8192, 32 * 1024, TG_BUFFER_WINDOW, 200};
    for (;;) {
        enum tg_rc rc = tg_h1_scan(&head->scan, buffer->data, head->filled, &limits, false, fault);
        if (rc != TG_OK) {
            return rc;
        }
        tg_message_init(message, message->arena);
        rc = tg_h1_parse_response(message, buffer->data, head->scan.pos, to_head, fault);
        if (rc != TG_OK || message->status >= 200 || (message->status == 103 && head->hints)) {
            return rc;
        }
        if (message->status == 101) {
            *fault = &unwanted_switch;
            return is_agreed(head, message) ? TG_OK : TG_EPROTOCOL;
        }
        rc = tg_upstream_next_head(head, buffer, fault);
        if (rc != TG_OK) {
            return rc;
        }
    }
}

/* Of a stream of HTTP/2; what is there of the body goes on with the head in one write. */
static enum tg_rc
read_stream_head(struct tg_pool_link *link, struct tg_upstream_head *head, struct tg_buffer *buffer,
                 struct tg_message *message, bool to_head)
{
    size_t n = 0;
    enum tg_rc rc;
    do {
        rc = tg_mux_read_head(link, buffer->data, TG_BUFFER_WINDOW, message, to_head, &n);
    } while (rc == TG_OK && message->status == 103 && !head->hints);
    if (rc == TG_OK && message->status == 103) {
        head->filled = n;
        head->scan.pos = (uint32_t)n;
    } else if (rc == TG_OK) {
        size_t body = 0;
        rc = n == TG_BUFFER_WINDOW ? TG_AGAIN
                                   : tg_transport_read(&link->transport, buffer->data + n, TG_BUFFER_WINDOW - n, &body);
        head->filled = n + (rc == TG_OK ? body : 0);
        head->scan.pos = (uint32_t)n;
        rc = TG_OK; /* how the body ends is told again to who reads it */
    }
    return rc;
}

enum tg_rc
tg_upstream_read_head(struct tg_upstream *upstream, struct tg_upstream_head *head, struct tg_buffer *buffer,
                      struct tg_message *message, bool to_head, const struct tg_h1_fault **fault)
{
    static const struct tg_h1_fault too_large = {502, "response head too large", TG_LIMIT_RESPONSE_HEAD};
    if (upstream->link->single) {
        const enum tg_rc rc = read_stream_head(upstream->link, head, buffer, message, to_head);
        *fault = rc == TG_EPROTOCOL ? &too_many_interim : &too_large;
        return rc == TG_ELIMIT ? TG_EPROTOCOL : rc;
    }
    for (;;) {
        size_t got = 0;
        enum tg_rc rc = TG_AGAIN;
        if (head->filled > head->scan.pos) { /* behind an interim answer there may be more already */
            rc = parse_head(head, buffer, message, to_head, fault);
        }
        if (rc != TG_AGAIN) {
            return rc;
        }
        if (head->filled == TG_BUFFER_WINDOW) {
            *fault = &too_large;
            return TG_EPROTOCOL;
        }
        rc = tg_transport_read(&upstream->link->transport, buffer->data + head->filled, TG_BUFFER_WINDOW - head->filled,
                               &got);
        if (rc != TG_OK) {
            return rc;
        }
        head->filled += got;
    }
}
