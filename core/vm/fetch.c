#include "vm/fetch.h"

#include <errno.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "http/body.h"

enum { FIELDS_MAX = 200, HEAD_MAX = 64 * 1024 };

struct link {
    int fd;
    SSL *ssl; /* NULL: in plain text */
    long long deadline;
};

static long long
now_milliseconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum tg_rc
wait_for(const struct link *link, short events)
{
    for (;;) {
        struct pollfd one = {.fd = link->fd, .events = events};
        const long long left = link->deadline - now_milliseconds();
        const int ready = left <= 0 ? 0 : poll(&one, 1, (int)left);
        if (ready >= 0 || errno != EINTR) {
            return ready > 0 ? TG_OK : ready == 0 ? TG_ETIMEOUT : TG_ESYSTEM;
        }
    }
}

/* ------------------------------------------------------------------ connecting */

/* In a thread of the C library, since there is no other way to give up; what it still writes to is never freed. */
static struct addrinfo *
resolve(const struct tg_fetch *fetch, const struct link *link, struct tg_err *err)
{
    static struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV};
    static struct gaicb query;
    struct gaicb *list[] = {&query};
    const struct gaicb *pending[] = {&query};
    query = (struct gaicb){.ar_name = fetch->host, .ar_service = fetch->port, .ar_request = &hints};
    int rc = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
    while (rc == 0 && (rc = gai_error(&query)) == EAI_INPROGRESS) {
        const long long left = link->deadline - now_milliseconds();
        const struct timespec wait = {left / 1000, left % 1000 * 1000000};
        if (left <= 0) {
            (void)tg_err_set(err, TG_ETIMEOUT, "its name is not resolved in time");
            return NULL;
        }
        (void)gai_suspend(pending, 1, &wait);
        rc = 0;
    }
    if (rc != 0) {
        (void)tg_err_set(err, TG_EDNS, "its name cannot be resolved: %s", gai_strerror(rc));
        return NULL;
    }
    return query.ar_result;
}

static enum tg_rc
connect_one(struct link *link, const struct addrinfo *address, struct tg_err *err)
{
    int problem = 0;
    socklen_t n = sizeof problem;
    link->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link->fd < 0) {
        return tg_err_errno(err, "socket");
    }
    enum tg_rc rc = connect(link->fd, address->ai_addr, address->ai_addrlen) == 0 ? TG_OK
                    : errno == EINPROGRESS                                        ? wait_for(link, POLLOUT)
                                                                                  : TG_ESYSTEM;
    if (rc == TG_OK && getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &problem, &n) == 0 && problem != 0) {
        errno = problem;
        rc = TG_ESYSTEM;
    }
    if (rc != TG_OK) {
        (void)tg_err_set(err, rc, "%s", rc == TG_ETIMEOUT ? "it does not answer in time" : strerror(errno));
        close(link->fd);
        link->fd = -1;
    }
    return rc;
}

static enum tg_rc
connect_any(const struct tg_fetch *fetch, struct link *link, struct tg_err *err)
{
    struct addrinfo *found = resolve(fetch, link, err);
    enum tg_rc rc = TG_EDNS;
    for (const struct addrinfo *one = found; one != NULL && rc != TG_OK; one = one->ai_next) {
        rc = connect_one(link, one, err);
    }
    freeaddrinfo(found);
    return rc;
}

/* ------------------------------------------------------------------ bytes */

/* What OpenSSL waits for after a call that gave `n`. */
static enum tg_rc
wait_for_tls(struct link *link, int n, struct tg_err *err)
{
    const int why = SSL_get_error(link->ssl, n);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
        const enum tg_rc rc = wait_for(link, why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT);
        return rc == TG_OK ? TG_OK : tg_err_set(err, rc, "it does not answer in time");
    }
    const long verdict = SSL_get_verify_result(link->ssl);
    if (verdict != X509_V_OK) {
        return tg_err_set(err, TG_ETLS, "its certificate is refused: %s", X509_verify_cert_error_string(verdict));
    }
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return tg_err_set(err, TG_ETLS, "TLS fails: %s", reason == NULL ? "the connection ends" : reason);
}

static enum tg_rc
handshake(const struct tg_fetch *fetch, const struct tg_tls_client *client, struct link *link, struct tg_err *err)
{
    enum tg_rc rc = TG_OK;
    link->ssl = tg_tls_client_ssl(client, fetch->host);
    if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1) {
        return tg_err_set(err, TG_ENOMEM, "TLS cannot be set up");
    }
    for (int n = 0; rc == TG_OK && (n = SSL_connect(link->ssl)) != 1;) {
        rc = wait_for_tls(link, n, err);
    }
    return rc;
}

static enum tg_rc
send_all(struct link *link, struct tg_slice bytes, struct tg_err *err)
{
    enum tg_rc rc = TG_OK;
    while (bytes.n > 0 && rc == TG_OK) {
        const ssize_t sent = link->ssl != NULL ? SSL_write(link->ssl, bytes.p, (int)bytes.n)
                                               : send(link->fd, bytes.p, bytes.n, MSG_NOSIGNAL);
        if (sent > 0) {
            bytes = tg_slice_of(bytes.p + sent, bytes.n - (size_t)sent);
        } else if (link->ssl != NULL) {
            rc = wait_for_tls(link, (int)sent, err);
        } else if (errno != EAGAIN || wait_for(link, POLLOUT) != TG_OK) {
            rc = tg_err_set(err, TG_ERESET, "the connection breaks");
        }
    }
    return rc;
}

/* *got 0: the end. */
static enum tg_rc
receive(struct link *link, char *p, size_t n, size_t *got, struct tg_err *err)
{
    for (;;) {
        const ssize_t count = link->ssl != NULL ? SSL_read(link->ssl, p, (int)n) : recv(link->fd, p, n, 0);
        if (count >= 0 && (link->ssl == NULL || count > 0)) {
            *got = (size_t)count;
            return TG_OK;
        }
        if (link->ssl != NULL && SSL_get_error(link->ssl, (int)count) == SSL_ERROR_ZERO_RETURN) {
            *got = 0;
            return TG_OK;
        }
        enum tg_rc rc = TG_ERESET;
        if (link->ssl != NULL) {
            rc = wait_for_tls(link, (int)count, err);
        } else {
            rc = errno == EAGAIN ? wait_for(link, POLLIN) : TG_ERESET;
            (void)tg_err_set(err, rc, rc == TG_ETIMEOUT ? "it does not answer in time" : "the connection breaks");
        }
        if (rc != TG_OK) {
            return rc;
        }
    }
}

/* ------------------------------------------------------------------ the answer */

static enum tg_rc
read_head(struct tg_fetch *fetch, struct link *link, struct tg_body *framing, size_t *filled, size_t *head,
          struct tg_err *err)
{
    static const struct tg_h1_limits limits = {8192, 8192, HEAD_MAX, FIELDS_MAX};
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    struct tg_arena arena;
    struct tg_message message;
    enum tg_rc rc = TG_AGAIN;
    while (rc == TG_AGAIN) {
        size_t got = 0;
        rc = receive(link, fetch->data + *filled, TG_FETCH_MAX - *filled, &got, err);
        if (rc != TG_OK || got == 0) {
            return rc != TG_OK ? rc : tg_err_set(err, TG_ECLOSED, "it closes the connection without an answer");
        }
        *filled += got;
        rc = tg_h1_scan(&scan, fetch->data, *filled, &limits, false, &fault);
    }
    tg_arena_init(&arena, NULL, 0, HEAD_MAX * 4);
    tg_message_init(&message, &arena);
    rc = rc != TG_OK ? rc
                     : tg_h1_parse_response(&message, fetch->data + scan.start, scan.pos - scan.start, false, &fault);
    if (rc == TG_OK) {
        fetch->status = message.status;
        tg_body_init(framing, message.framing, message.content_length);
        *head = scan.pos;
    }
    tg_arena_fini(&arena);
    return rc == TG_OK ? TG_OK : tg_err_set(err, rc, "its answer is no HTTP");
}

static enum tg_rc
read_body(struct tg_fetch *fetch, struct link *link, struct tg_body *framing, size_t filled, size_t head,
          struct tg_err *err)
{
    const struct tg_h1_fault *fault = NULL;
    char *raw = fetch->data + head;
    size_t n = filled - head;
    fetch->body = tg_slice_of(raw, 0);
    while (!framing->done) {
        struct tg_slice piece = {0};
        size_t used = 0;
        const size_t room = (size_t)(fetch->data + TG_FETCH_MAX - raw);
        if (n == 0 && room == 0) {
            return tg_err_set(err, TG_ELIMIT, "its answer has more than %d bytes", TG_FETCH_MAX);
        }
        const enum tg_rc rc = n > 0 ? TG_OK : receive(link, raw, room, &n, err);
        if (rc != TG_OK) {
            return rc;
        }
        if (n == 0) {
            return tg_body_end(framing) == TG_OK ? TG_OK : tg_err_set(err, TG_EPROTOCOL, "its answer is cut");
        }
        if (tg_body_decode(framing, raw, n, &piece, &used, &fault) != TG_OK) {
            return tg_err_set(err, TG_EPROTOCOL, "its answer is no HTTP");
        }
        memmove((char *)(uintptr_t)fetch->body.p + fetch->body.n, piece.p, piece.n);
        fetch->body.n += piece.n;
        raw += used;
        n -= used;
    }
    return TG_OK;
}

static enum tg_rc
exchange(struct tg_fetch *fetch, struct link *link, struct tg_err *err)
{
    struct tg_body framing = {0};
    size_t filled = 0;
    size_t head = 0;
    enum tg_rc rc = send_all(link, fetch->request, err);
    rc = rc == TG_OK ? read_head(fetch, link, &framing, &filled, &head, err) : rc;
    rc = rc == TG_OK ? read_body(fetch, link, &framing, filled, head, err) : rc;
    tg_body_fini(&framing);
    return rc;
}

enum tg_rc
tg_fetch_run(struct tg_fetch *fetch, struct tg_err *err)
{
    struct link link = {.fd = -1, .deadline = now_milliseconds() + fetch->timeout};
    struct tg_tls_client *client = NULL;
    enum tg_rc rc = TG_ENOMEM;
    fetch->data = tg_mem_alloc(TG_FETCH_MAX);
    if (fetch->data == NULL) {
        return tg_err_set(err, rc, "memory is short");
    }
    if (fetch->tls != NULL && (client = tg_tls_client_new(fetch->tls, err)) == NULL) {
        return rc;
    }
    rc = connect_any(fetch, &link, err);
    rc = rc == TG_OK && client != NULL ? handshake(fetch, client, &link, err) : rc;
    rc = rc == TG_OK ? exchange(fetch, &link, err) : rc;
    SSL_free(link.ssl);
    ERR_clear_error();
    if (link.fd >= 0) {
        close(link.fd);
    }
    tg_tls_client_free(client);
    return rc;
}

void
tg_fetch_fini(struct tg_fetch *fetch)
{
    if (fetch->data != NULL) {
        OPENSSL_cleanse(fetch->data, TG_FETCH_MAX);
    }
    tg_mem_free(fetch->data);
    fetch->data = NULL;
}
