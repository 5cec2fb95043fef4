#include "proxy/downstream.h"

#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "net/proxy_protocol.h"

enum {
    LINGER_BYTES = 64 * 1024,
    LINGER_TIME = 2000,
    PART_EVERY = 100,        /* milliseconds between two looks whether a close loses nothing, or a tick of the loop */
    LAST_REQUEST_TIME = 1000 /* milliseconds that an idle connection is kept in a drain */
};

static uint32_t
now_of(const struct tg_downstream *down)
{
    return (uint32_t)tg_loop_now(down->proxy->loop);
}

static void
start_exchange(struct tg_downstream *down)
{
    struct tg_proxy *proxy = down->proxy;
    down->exchange = proxy->hooks->begin(down);
    if (down->exchange == NULL) {
        tg_downstream_close(down, false);
        return;
    }
    proxy->hooks->drive(down->exchange);
}

static void
linger_on(struct tg_downstream *down)
{
    struct tg_buffer *buffer = tg_buffer_take(&down->proxy->buffers);
    enum tg_rc rc = TG_ENOMEM;
    size_t got = 0;
    while (buffer != NULL && down->lingered < LINGER_BYTES &&
           (rc = tg_transport_read(&down->transport, buffer->data, TG_BUFFER_WINDOW, &got)) == TG_OK) {
        down->lingered += (uint32_t)got;
    }
    if (buffer != NULL) {
        tg_buffer_give(&down->proxy->buffers, buffer);
    }
    if (rc != TG_AGAIN && down->part_by == 0) { /* who parts is looked at by the clock, whatever the client sends */
        tg_downstream_close(down, false);
    }
}

static bool
is_trusted(const struct tg_downstream *down, const struct tg_address *address)
{
    const struct tg_cidr_list *trusted = tg_downstream_config(down)->trusted;
    return trusted != NULL && tg_cidr_list_match(trusted, address);
}

/* Trusted peers speak for many clients, and are not limited as one. False: the client has too many already. */
static bool
count_client(struct tg_downstream *down, const struct tg_address *address)
{
    const unsigned max = tg_downstream_config(down)->client_connections;
    unsigned open = 0;
    if (max == 0 || is_trusted(down, address)) {
        return true;
    }
    down->counted = tg_client_enter(&down->proxy->clients, address, &open);
    if (open > max) {
        tg_proxy_limited(down->proxy, TG_LIMIT_CLIENT_CONNECTIONS);
        return false;
    }
    return true;
}

static void
set_client(struct tg_downstream *down, const struct tg_address *address)
{
    if (address->len <= sizeof down->client) {
        memcpy(&down->client, &address->sa, address->len);
    }
}

/* What went wrong is no client's business: it is closed without an answer. */
static void
refuse_announcement(struct tg_downstream *down, const char *why)
{
    char client[TG_ADDRESS_TEXT];
    unsigned port;
    (void)tg_downstream_client(&down->client, client, &port);
    tg_log(TG_LOG_INFO, "client %s:%u: PROXY protocol: %s", client, port, why);
    tg_downstream_close(down, false);
}

static void
open_for_requests(struct tg_downstream *down)
{
    const struct tg_tls *tls = tg_tls_of(&down->transport);
    down->mode = TG_DOWNSTREAM_OPEN;
    if (tls != NULL && tg_slice_is_text(tg_tls_alpn(tls), "h2", 2)) {
        down->proxy->hooks->session_begin(down, (struct tg_slice){0});
        return;
    }
    if (down->transport.readable) {
        start_exchange(down);
    }
}

static void
end_handshake(struct tg_downstream *down)
{
    down->proxy->handshakes--;
    down->mode = TG_DOWNSTREAM_OPEN; /* whatever comes of it: no handshake is counted any more */
    tg_deadline_set(down->proxy->loop, &down->deadline, tg_downstream_config(down)->header_timeout);
}

/* What the client did wrong is told by the alert that OpenSSL has sent. */
static void
shake_hands(struct tg_downstream *down)
{
    const char *why = "";
    char client[TG_ADDRESS_TEXT];
    unsigned port;
    const enum tg_rc rc = tg_tls_handshake(tg_tls_of(&down->transport), &why);
    if (rc == TG_AGAIN) {
        return;
    }
    if (rc != TG_OK) {
        (void)tg_downstream_client(&down->client, client, &port);
        tg_log(TG_LOG_INFO, "client %s:%u: TLS handshake: %s", client, port, why);
        tg_downstream_close(down, false);
        return;
    }
    const SSL *ssl = tg_tls_of(&down->transport)->ssl;
    down->proxy->counters->secured++;
    down->proxy->counters->resumed += SSL_session_reused(ssl) != 0;
    down->proxy->counters->tls13 += SSL_version(ssl) >= TLS1_3_VERSION;
    down->proxy->counters->kernel += tg_tls_of(&down->transport)->kernel;
    end_handshake(down);
    open_for_requests(down);
}

/* A person with a browser has left out the s: that is told, in the only words that are understood. */
static void
refuse_plain_text(struct tg_downstream *down)
{
    static const char answer[] =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
        "Content-Length: 80\r\nConnection: close\r\n\r\n"
        "{\"title\":\"Bad Request\",\"status\":400,\"detail\":\"this port speaks TLS: use https\"}\n";
    struct iovec v = {(void *)(uintptr_t)answer, sizeof answer - 1};
    size_t sent = 0;
    end_handshake(down);
    down->proxy->counters->unshaken++;
    const enum tg_rc rc = tg_transport_write(&down->transport, &v, 1, &sent);
    (void)rc; /* who does not take it gets none */
    tg_downstream_linger(down);
}

/* The first byte tells who is there: 22 is a record of a handshake (RFC 8446, section 5.1), and no method's. */
static void
answer_knock(struct tg_downstream *down)
{
    const struct tg_downstream_config *config = tg_downstream_config(down);
    char byte = 0;
    size_t n = 0;
    const enum tg_rc rc = tg_transport_look(&down->transport, &byte, 1, &n);
    if (rc == TG_AGAIN) {
        return;
    }
    if (rc != TG_OK || config->tls == NULL) {
        tg_downstream_close(down, false);
    } else if (byte == 22) {
        if (tg_tls_server_open(config->tls, &down->transport) != TG_OK) {
            tg_downstream_close(down, false);
            return;
        }
        down->tls = tg_tls_server_ref(config->tls);
        shake_hands(down);
    } else if (config->plain_text != 0) {
        end_handshake(down);
        open_for_requests(down);
    } else {
        refuse_plain_text(down);
    }
}

/* False: there are too many. */
static bool
await_handshake(struct tg_downstream *down)
{
    const struct tg_downstream_config *config = tg_downstream_config(down);
    if (down->proxy->handshakes >= config->handshakes) {
        tg_proxy_limited(down->proxy, TG_LIMIT_HANDSHAKES);
        return false;
    }
    down->mode = TG_DOWNSTREAM_HANDSHAKE;
    down->proxy->handshakes++;
    tg_deadline_set(down->proxy->loop, &down->deadline, config->handshake_timeout);
    return true;
}

static void
go_on_with_handshake(struct tg_downstream *down)
{
    if (tg_tls_of(&down->transport) == NULL) {
        answer_knock(down);
    } else {
        shake_hands(down);
    }
}

/* The header is looked at until it is whole, so that what follows it stays in the socket. */
static void
read_announcement(struct tg_downstream *down)
{
    char bytes[TG_PROXY_PROTOCOL_MAX];
    struct tg_proxy_protocol header;
    const char *why = "";
    size_t n = 0;
    enum tg_rc rc = tg_transport_look(&down->transport, bytes, sizeof bytes, &n);
    if (rc == TG_OK) {
        rc = tg_proxy_protocol_parse(&header, bytes, n, &why);
    }
    if (rc == TG_AGAIN && !down->transport.ended) {
        return;
    }
    if (rc == TG_OK) {
        rc = tg_transport_read(&down->transport, bytes, header.length, &n);
    }
    if (rc != TG_OK || n != header.length) {
        refuse_announcement(down, rc == TG_EPROTOCOL ? why : "the connection ended within its header");
        return;
    }
    if (header.kind == TG_PROXY_PROTOCOL_ADDRESSES) {
        set_client(down, &header.source);
        if (!count_client(down, &header.source)) {
            tg_downstream_close(down, false);
            return;
        }
    }
    if (tg_downstream_config(down)->tls == NULL) {
        open_for_requests(down);
    } else if (await_handshake(down)) {
        answer_knock(down);
    } else {
        tg_downstream_close(down, false);
    }
}

static void
on_ready(struct tg_transport *transport)
{
    struct tg_downstream *down = (struct tg_downstream *)transport;
    if (down->mode == TG_DOWNSTREAM_ANNOUNCED) {
        read_announcement(down);
    } else if (down->mode == TG_DOWNSTREAM_HANDSHAKE) {
        go_on_with_handshake(down);
    } else if (down->mode == TG_DOWNSTREAM_LINGER) {
        linger_on(down);
    } else if (down->mode == TG_DOWNSTREAM_SESSION) {
        down->proxy->hooks->session_ready(down);
    } else if (down->exchange != NULL) {
        down->proxy->hooks->drive(down->exchange);
    } else if (transport->readable) {
        start_exchange(down);
    }
}

static void
on_expired(struct tg_deadline *deadline)
{
    struct tg_downstream *down = (struct tg_downstream *)((char *)deadline - offsetof(struct tg_downstream, deadline));
    if (down->exchange != NULL) {
        down->proxy->hooks->expired(down->exchange);
    } else if (down->mode == TG_DOWNSTREAM_SESSION) {
        down->proxy->hooks->session_expired(down);
    } else {
        if (down->mode == TG_DOWNSTREAM_HANDSHAKE) {
            tg_proxy_limited(down->proxy, TG_LIMIT_HANDSHAKE_TIMEOUT);
        } else if (down->mode == TG_DOWNSTREAM_OPEN && !(down->proxy->draining && down->requests > 0)) {
            tg_proxy_limited(down->proxy, down->requests == 0 ? TG_LIMIT_HEADER_TIMEOUT : TG_LIMIT_KEEPALIVE_TIMEOUT);
        }
        tg_downstream_close(down, down->part_by != 0 && (int32_t)(now_of(down) - down->part_by) >= 0);
    }
}

static void
on_task(struct tg_task *task)
{
    struct tg_downstream *down = (struct tg_downstream *)((char *)task - offsetof(struct tg_downstream, task));
    on_ready(&down->transport);
}

void
tg_proxy_limited(struct tg_proxy *proxy, enum tg_limit limit)
{
    proxy->counters->limits[limit]++;
    tg_log_debug("limit %s", tg_limit_name(limit));
}

void
tg_downstream_again(struct tg_downstream *down)
{
    tg_task_queue(down->proxy->loop, &down->task);
}

/* NULL: `fd` is closed, since memory is short or there are too many. */
static struct tg_downstream *
downstream_new(struct tg_proxy *proxy, unsigned listener, int fd)
{
    struct tg_downstream *down = NULL;
    proxy->counters->connections++;
    if (proxy->counters->active >= proxy->connections_max) {
        tg_proxy_limited(proxy, TG_LIMIT_CONNECTIONS);
    } else {
        down = tg_mem_new(struct tg_downstream);
    }
    if (down == NULL) {
        close(fd);
        return NULL;
    }
    *down = (struct tg_downstream){
        .proxy = proxy, .listener = (uint16_t)listener, .deadline = {.expired = on_expired}, .task = {.run = on_task}};
    down->mode = TG_DOWNSTREAM_OPEN;
    return down;
}

static void
enlist(struct tg_downstream *down)
{
    struct tg_proxy *proxy = down->proxy;
    down->next = proxy->connections;
    down->link = &proxy->connections;
    if (down->next != NULL) {
        down->next->link = &down->next;
    }
    proxy->connections = down;
}

struct tg_downstream *
tg_downstream_branch(struct tg_downstream *connection, size_t size)
{
    struct tg_proxy *proxy = connection->proxy;
    struct tg_downstream *down = tg_mem_zero(size);
    if (down == NULL) {
        return NULL;
    }
    *down = (struct tg_downstream){.transport = {.fd = -1, .ready = on_ready},
                                   .proxy = proxy,
                                   .listener = connection->listener,
                                   .deadline = {.expired = on_expired},
                                   .task = {.run = on_task},
                                   .mode = TG_DOWNSTREAM_OPEN,
                                   .client = connection->client,
                                   .parent = connection,
                                   .is_stream = true};
    down->exchange = proxy->hooks->begin(down);
    if (down->exchange == NULL) {
        tg_mem_free(down);
        return NULL;
    }
    enlist(down);
    return down;
}

struct tg_tls *
tg_downstream_tls(const struct tg_downstream *down)
{
    const struct tg_downstream *connection = down->is_stream ? down->parent : down;
    return connection != NULL ? tg_tls_of(&connection->transport) : NULL;
}

static bool
begin(struct tg_downstream *down, int fd)
{
    struct tg_proxy *proxy = down->proxy;
    if (tg_transport_open(&down->transport, proxy->loop, fd, on_ready) != TG_OK) {
        tg_client_leave(&proxy->clients, down->counted);
        tg_mem_free(down);
        return false;
    }
    proxy->counters->active++;
    enlist(down);
    /* Until the first request comes, the time for its head runs. */
    tg_deadline_set(proxy->loop, &down->deadline, tg_downstream_config(down)->header_timeout);
    return true;
}

void
tg_downstream_accept(struct tg_proxy *proxy, unsigned listener, int fd, const struct tg_address *client)
{
    struct tg_downstream *down = downstream_new(proxy, listener, fd);
    if (down == NULL) {
        return;
    }
    set_client(down, client);
    const bool announced = tg_downstream_config(down)->proxy_protocol != 0;
    down->mode = announced ? TG_DOWNSTREAM_ANNOUNCED : TG_DOWNSTREAM_OPEN;
    if (announced ? !is_trusted(down, client) : !count_client(down, client)) {
        tg_client_leave(&proxy->clients, down->counted);
        close(fd);
        tg_mem_free(down);
        return;
    }
    if (begin(down, fd) && !announced && tg_downstream_config(down)->tls != NULL && !await_handshake(down)) {
        tg_downstream_close(down, false);
    }
}

void
tg_downstream_adopt(struct tg_proxy *proxy, unsigned listener, int fd)
{
    struct tg_downstream *down = downstream_new(proxy, listener, fd);
    if (down != NULL) {
        down->client.sin6_family = AF_INET6;
        (void)begin(down, fd);
    }
}

/* Meanwhile what comes is read, as when it lingers: bytes that nobody has read make a reset of the close. */
static void
part(struct tg_downstream *down)
{
    if (down->part_by == 0) {
        const uint32_t by = now_of(down) + tg_downstream_config(down)->send_timeout;
        down->part_by = by != 0 ? by : 1;
    }
    down->exchange = NULL;
    down->mode = TG_DOWNSTREAM_LINGER;
    tg_deadline_set(down->proxy->loop, &down->deadline, PART_EVERY);
}

void
tg_downstream_close(struct tg_downstream *down, bool reset)
{
    if (down->session != NULL) {
        down->proxy->hooks->session_free(down);
    }
    if (!reset && tg_transport_holds(&down->transport)) {
        part(down);
        return;
    }
    *down->link = down->next;
    if (down->next != NULL) {
        down->next->link = down->link;
    }
    down->proxy->counters->active -= down->is_stream ? 0 : 1;
    tg_client_leave(&down->proxy->clients, down->counted);
    if (down->mode == TG_DOWNSTREAM_HANDSHAKE) {
        down->proxy->handshakes--;
        down->proxy->counters->unshaken++;
    }
    tg_deadline_remove(&down->deadline);
    tg_task_remove(down->proxy->loop, &down->task);
    if (reset) {
        tg_transport_reset(&down->transport);
    } else {
        tg_transport_close(&down->transport);
    }
    tg_tls_server_unref(down->tls);
    tg_mem_free(down);
}

void
tg_downstream_linger(struct tg_downstream *down)
{
    down->exchange = NULL;
    down->mode = TG_DOWNSTREAM_LINGER;
    tg_transport_shutdown(&down->transport);
    /* A stream lingers until its answer has gone out. */
    tg_deadline_set(down->proxy->loop, &down->deadline,
                    down->is_stream ? tg_downstream_config(down)->send_timeout : LINGER_TIME);
    tg_downstream_again(down);
}

/*
 * In a drain, also when the answer began before it and promised to keep the connection, the next request is told to be
 * the last. To close at once would lose it when it is on its way: of clients that ask without a pause, nearly all were
 * hit.
 */
static void
wait_for_request(struct tg_downstream *down)
{
    const uint64_t idle = tg_downstream_config(down)->keepalive_timeout;
    const bool last = down->proxy->draining && idle > LAST_REQUEST_TIME;
    tg_deadline_set(down->proxy->loop, &down->deadline, last ? LAST_REQUEST_TIME : idle);
}

void
tg_downstream_done(struct tg_downstream *down, struct tg_exchange *exchange)
{
    down->exchange = exchange;
    if (exchange != NULL) {
        tg_downstream_again(down);
        return;
    }
    wait_for_request(down);
    if (down->transport.readable) {
        tg_downstream_again(down);
    }
}

void
tg_proxy_drain(struct tg_proxy *proxy)
{
    proxy->draining = true;
    for (struct tg_downstream *down = proxy->connections; down != NULL; down = down->next) {
        if (down->mode == TG_DOWNSTREAM_SESSION) {
            proxy->hooks->session_drain(down);
        } else if (down->exchange == NULL && down->mode == TG_DOWNSTREAM_OPEN && down->requests > 0) {
            wait_for_request(down);
        }
    }
}

size_t
tg_downstream_client(const struct sockaddr_in6 *client, char out[TG_ADDRESS_TEXT], unsigned *port)
{
    struct tg_address address = {.len = sizeof *client};
    memcpy(&address.sa, client, sizeof *client);
    *port = tg_address_port(&address);
    return tg_address_text(&address, out);
}
