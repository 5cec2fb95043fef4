#include "net/transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
    struct tg_transport *transport = arg;
    (void)fd;
    if ((what & EV_READ) != 0) {
        transport->readable = true;
    }
    if ((what & EV_WRITE) != 0) {
        transport->writable = true;
    }
    if ((what & EV_CLOSED) != 0) {
        transport->ended = true;
        transport->readable = true;
    }
    transport->ready(transport);
}

enum tg_rc
tg_transport_open(struct tg_transport *transport, struct tg_loop *loop, int fd, tg_transport_cb ready)
{
    const int on = 1;
    *transport = (struct tg_transport){.fd = fd, .ready = ready};
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (event_assign(&transport->event, tg_loop_base(loop), fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST,
                     on_event, transport) < 0 ||
        event_add(&transport->event, NULL) < 0) {
        close(fd);
        transport->fd = -1;
        return TG_ESYSTEM;
    }
    return TG_OK;
}

static void
drop_layer(struct tg_transport *transport, bool reset)
{
    if (transport->layer != NULL) {
        (*transport->layer)->close(transport, reset);
        transport->layer = NULL;
    }
}

void
tg_transport_close(struct tg_transport *transport)
{
    drop_layer(transport, false);
    if (transport->fd < 0) {
        return;
    }
    (void)event_del(&transport->event);
    close(transport->fd);
    transport->fd = -1;
}

void
tg_transport_reset(struct tg_transport *transport)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    drop_layer(transport, true);
    if (transport->fd >= 0) {
        (void)setsockopt(transport->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    tg_transport_close(transport);
}

bool
tg_transport_holds(const struct tg_transport *transport)
{
    return transport->layer != NULL && (*transport->layer)->holds != NULL && (*transport->layer)->holds(transport);
}

void
tg_transport_shutdown(struct tg_transport *transport)
{
    if (transport->layer != NULL) {
        (*transport->layer)->shutdown(transport);
    } else if (transport->fd >= 0) {
        (void)shutdown(transport->fd, SHUT_WR);
    }
}

static enum tg_rc
failure(struct tg_transport *transport)
{
    transport->failed = true;
    return errno == ENOMEM || errno == ENOBUFS ? TG_ENOMEM : TG_ERESET;
}

enum tg_rc
tg_transport_read_socket(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    if (!transport->readable && !transport->unsure) {
        return TG_AGAIN;
    }
    ssize_t count;
    do {
        count = recv(transport->fd, p, n, 0);
    } while (count < 0 && errno == EINTR);
    if (count > 0) {
        *got = (size_t)count;
        transport->readable = (size_t)count == n || transport->ended;
        transport->unsure = true;
        return TG_OK;
    }
    if (count == 0) {
        transport->ended = true;
        return TG_ECLOSED;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        transport->readable = false;
        transport->unsure = false;
        return TG_AGAIN;
    }
    return failure(transport);
}

enum tg_rc
tg_transport_write_socket(struct tg_transport *transport, struct iovec *v, int count, size_t *sent)
{
    ssize_t done;
    do {
        if (count == 1) {
            done = send(transport->fd, v->iov_base, v->iov_len, MSG_NOSIGNAL);
        } else {
            const struct msghdr message = {.msg_iov = v, .msg_iovlen = (size_t)count};
            done = sendmsg(transport->fd, &message, MSG_NOSIGNAL);
        }
    } while (done < 0 && errno == EINTR);
    if (done > 0) {
        *sent = (size_t)done;
        return TG_OK;
    }
    if (done == 0 || errno == EAGAIN || errno == EWOULDBLOCK) {
        transport->writable = false;
        return TG_AGAIN;
    }
    return failure(transport);
}

enum tg_rc
tg_transport_read(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    return transport->layer != NULL ? (*transport->layer)->read(transport, p, n, got)
                                    : tg_transport_read_socket(transport, p, n, got);
}

enum tg_rc
tg_transport_write(struct tg_transport *transport, struct iovec *v, int count, size_t *sent)
{
    return transport->layer != NULL ? (*transport->layer)->write(transport, v, count, sent)
                                    : tg_transport_write_socket(transport, v, count, sent);
}

enum tg_rc
tg_transport_look(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    if (transport->layer != NULL) {
        return (*transport->layer)->look(transport, p, n, got);
    }
    const ssize_t count = recv(transport->fd, p, n, MSG_PEEK | MSG_DONTWAIT);
    if (count > 0) {
        *got = (size_t)count;
        return TG_OK;
    }
    if (count == 0) {
        return TG_ECLOSED;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? TG_AGAIN : TG_ERESET;
}

enum tg_rc
tg_transport_peek(struct tg_transport *transport)
{
    char byte;
    size_t got;
    return tg_transport_look(transport, &byte, 1, &got);
}
