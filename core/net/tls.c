#include "net/tls.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

enum {
    RECORD = 16384, /* bytes of plain text in a record (RFC 8446, section 5.1) */
    RECORD_ROOM =
        4096 /* what more of the send buffer one takes, and an alert behind it, with all that is kept of them */
};

static const struct tg_layer tls_layer;

struct tg_tls *
tg_tls_of(const struct tg_transport *transport)
{
    return transport->layer != NULL && *transport->layer == &tls_layer ? (struct tg_tls *)(uintptr_t)transport->layer
                                                                       : NULL;
}

/* ------------------------------------------------------------------ OpenSSL's side: the socket as its BIO */

/*
 * A BIO of our own, since OpenSSL's asks the kernel again after each short read, and raises SIGPIPE, which only whoever
 * ignores it can afford: see kernel_bio.
 */
static int
bio_result(BIO *bio, enum tg_rc rc, size_t n, int retry)
{
    BIO_clear_retry_flags(bio);
    if (rc == TG_OK) {
        return (int)n;
    }
    if (rc == TG_AGAIN) {
        BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
    }
    return rc == TG_ECLOSED ? 0 : -1;
}

static int
bio_read(BIO *bio, char *p, int n)
{
    size_t got = 0;
    const enum tg_rc rc = tg_transport_read_socket(BIO_get_data(bio), p, (size_t)n, &got);
    return bio_result(bio, rc, got, BIO_FLAGS_READ);
}

static int
bio_write(BIO *bio, const char *p, int n)
{
    size_t sent = 0;
    struct iovec v = {(void *)(uintptr_t)p, (size_t)n};
    const enum tg_rc rc = tg_transport_write_socket(BIO_get_data(bio), &v, 1, &sent);
    return bio_result(bio, rc, sent, BIO_FLAGS_WRITE);
}

static long
bio_control(BIO *bio, int command, long number, void *arg)
{
    (void)number;
    (void)arg;
    if (command == BIO_CTRL_EOF) {
        return ((const struct tg_transport *)BIO_get_data(bio))->ended ? 1 : 0;
    }
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *
bio_method(void)
{
    static BIO_METHOD *method; /* made once a process, never freed */
    if (method == NULL) {
        method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "transport");
        if (method != NULL && (BIO_meth_set_read(method, bio_read) != 1 || BIO_meth_set_write(method, bio_write) != 1 ||
                               BIO_meth_set_ctrl(method, bio_control) != 1)) {
            BIO_meth_free(method);
            method = NULL;
        }
    }
    return method;
}

/*
 * Only a BIO of OpenSSL's own hands the keys to the kernel. What it writes is what the handshake and alerts say: for
 * data OpenSSL would keep a pointer into the writer's memory while a write has to wait, and who is told TG_AGAIN may
 * give that memory back and say something else (see send_held). So data goes to the socket past it. NULL: not here.
 */
static BIO *
kernel_bio(const struct tg_transport *transport)
{
    static const char ulp[] = "tls";
    if (transport->fd < 0 || setsockopt(transport->fd, IPPROTO_TCP, TCP_ULP, ulp, sizeof ulp) < 0) {
        return NULL;
    }
    return BIO_new_socket(transport->fd, BIO_NOCLOSE);
}

bool
tg_tls_kernel(int *why)
{
    static const char ulp[] = "tls";
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool refused = fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, sizeof ulp) < 0;
    *why = errno;
    if (fd >= 0) {
        close(fd);
    }
    return !refused || *why == ENOTCONN; /* it is for connections alone */
}

/* The handshake is done, and with it is said whether the kernel has the keys: not for each cipher and length of record.
 */
static void
settle_writer(struct tg_tls *tls)
{
    BIO *bio = SSL_get_rbio(tls->ssl);
    if (SSL_get_wbio(tls->ssl) == bio) {
        return;
    }
    tls->kernel = BIO_get_ktls_send(SSL_get_wbio(tls->ssl));
    if (!tls->kernel && BIO_up_ref(bio) == 1) {
        SSL_set0_wbio(tls->ssl, bio);
    }
}

/* ------------------------------------------------------------------ the layer */

/* What a call of OpenSSL that returned <= 0 means. */
static enum tg_rc
judge(struct tg_tls *tls)
{
    const BIO *bio = SSL_want_write(tls->ssl) ? SSL_get_wbio(tls->ssl) : SSL_get_rbio(tls->ssl);
    if ((SSL_want_read(tls->ssl) || SSL_want_write(tls->ssl)) && BIO_should_retry(bio)) {
        return TG_AGAIN;
    }
    if (SSL_want_client_hello_cb(tls->ssl) || SSL_want_retry_verify(tls->ssl)) {
        return TG_AGAIN;
    }
    if (!tls->broken && (SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN) != 0) {
        ERR_clear_error();
        return TG_ECLOSED;
    }
    tls->broken = true;
    tls->transport->failed = true;
    ERR_clear_error();
    return TG_ERESET;
}

static bool
is_usable(const struct tg_tls *tls)
{
    return tls->connected && !tls->broken;
}

static void tls_shutdown(struct tg_transport *transport);

/*
 * The other side asks for new keys of ours (RFC 8446, section 4.6.3), which the kernel does not take: nothing more may
 * be said under the old ones but that this is the end.
 */
static bool
must_end(struct tg_tls *tls)
{
    if (!tls->kernel || SSL_get_key_update_type(tls->ssl) == SSL_KEY_UPDATE_NONE) {
        return false;
    }
    tg_log_debug("TLS: the peer asks for new keys, which the kernel cannot be given");
    tls_shutdown(tls->transport);
    tls->broken = true;
    tls->transport->failed = true;
    return true;
}

static enum tg_rc
tls_read(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    struct tg_tls *tls = tg_tls_of(transport);
    if (tls->shut && (tls->held > 0 || tls->owing)) {
        tls_shutdown(transport); /* nobody writes any more who would send it */
    }
    if (!transport->readable && !transport->unsure) {
        return TG_AGAIN;
    }
    if (!is_usable(tls)) {
        return TG_ERESET;
    }
    ERR_clear_error();
    const bool read = SSL_read_ex(tls->ssl, p, n, got) == 1;
    if (must_end(tls)) {
        return TG_ERESET;
    }
    if (read) {
        /* What OpenSSL has taken from the socket already, no event will tell of. */
        transport->readable = transport->readable || SSL_has_pending(tls->ssl) == 1;
        transport->unsure = true;
        return TG_OK;
    }
    const enum tg_rc rc = judge(tls);
    if (rc == TG_AGAIN && !SSL_want_write(tls->ssl)) { /* else it could not answer, and has not asked the socket */
        transport->readable = false;
        transport->unsure = false;
    }
    return rc;
}

static enum tg_rc
tls_look(struct tg_transport *transport, char *p, size_t n, size_t *got)
{
    struct tg_tls *tls = tg_tls_of(transport);
    if (!is_usable(tls)) {
        return TG_ERESET;
    }
    /* Tickets and the like may have come meanwhile: they are read away here, and are nothing to look at. */
    transport->readable = true;
    ERR_clear_error();
    const bool there = SSL_peek_ex(tls->ssl, p, n, got) == 1;
    if (must_end(tls)) {
        return TG_ERESET;
    }
    if (there) {
        return TG_OK;
    }
    const enum tg_rc rc = judge(tls);
    if (rc == TG_AGAIN) {
        transport->readable = false;
    }
    return rc;
}

static enum tg_rc
write_plain(struct tg_tls *tls, const char *p, size_t n, size_t *sent)
{
    ERR_clear_error();
    if (SSL_write_ex(tls->ssl, p, n, sent) == 1) {
        return TG_OK;
    }
    return judge(tls);
}

/*
 * Bytes that OpenSSL has encrypted and could not send go out before all others. *same: `p` begins with the very bytes,
 * which count as sent then. Who was told TG_AGAIN may have something else to say by now: an answer in place of a 100.
 */
static enum tg_rc
send_held(struct tg_tls *tls, const char *p, size_t n, bool *same)
{
    static const char nothing[RECORD];
    size_t sent = 0;
    *same = n >= tls->held && tg_hash(0, p, tls->held) == tls->held_hash;
    const enum tg_rc rc = write_plain(tls, nothing, tls->held, &sent);
    if (rc == TG_OK) {
        TG_ASSERT(sent == tls->held);
        tls->held = 0;
    }
    return rc;
}

static enum tg_rc
write_bytes(struct tg_tls *tls, const char *p, size_t n, size_t *sent)
{
    const size_t most = n < tls->record ? n : tls->record;
    if (tls->held > 0) {
        const size_t held = tls->held;
        bool same = false;
        const enum tg_rc rc = send_held(tls, p, n, &same);
        if (rc != TG_OK || same) {
            *sent = held;
            return rc;
        }
    }
    const enum tg_rc rc = write_plain(tls, p, most, sent);
    if (rc == TG_AGAIN) {
        tls->held = most;
        tls->held_hash = tg_hash(0, p, most);
    }
    return rc;
}

static enum tg_rc
tls_write(struct tg_transport *transport, struct iovec *v, int count, size_t *sent)
{
    struct tg_tls *tls = tg_tls_of(transport);
    if (!is_usable(tls) || tls->shut) {
        return TG_ERESET;
    }
    if (tls->kernel) {
        return tg_transport_write_socket(transport, v, count, sent);
    }
    if (count == 1 || v[0].iov_len >= RECORD) {
        return write_bytes(tls, v[0].iov_base, v[0].iov_len, sent);
    }
    char gathered[RECORD];
    size_t n = 0;
    for (int i = 0; i < count && n < sizeof gathered; i++) {
        const size_t piece = v[i].iov_len < sizeof gathered - n ? v[i].iov_len : sizeof gathered - n;
        memcpy(gathered + n, v[i].iov_base, piece);
        n += piece;
    }
    return write_bytes(tls, gathered, n, sent);
}

/* Sends close_notify once nothing is held any more; what still comes can be read. */
static void
tls_shutdown(struct tg_transport *transport)
{
    struct tg_tls *tls = tg_tls_of(transport);
    bool same;
    tls->shut = true;
    if (!is_usable(tls) || (tls->held > 0 && send_held(tls, "", 0, &same) != TG_OK)) {
        return;
    }
    ERR_clear_error();
    tls->owing = SSL_shutdown(tls->ssl) < 0 && SSL_want_write(tls->ssl);
    ERR_clear_error();
}

/*
 * The kernel forgets with a socket what it has encrypted and the send buffer had no room for: up to a record, and the
 * end. It tries once more when the socket is closed, so it is enough that there is room for both.
 */
static bool
tls_holds(const struct tg_transport *transport)
{
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t n = sizeof memory;
    if (!tg_tls_of(transport)->kernel || getsockopt(transport->fd, SOL_SOCKET, SO_MEMINFO, memory, &n) < 0) {
        return false;
    }
    const uint32_t queued = memory[SK_MEMINFO_WMEM_QUEUED];
    return queued > 0 && queued + RECORD + RECORD_ROOM > memory[SK_MEMINFO_SNDBUF];
}

static void
tls_close(struct tg_transport *transport, bool reset)
{
    struct tg_tls *tls = tg_tls_of(transport);
    if (!reset && (!tls->shut || tls->held > 0 || tls->owing)) {
        tls_shutdown(transport);
    }
    SSL_free(tls->ssl);
    tg_mem_free(tls);
}

static const struct tg_layer tls_layer = {.read = tls_read,
                                          .write = tls_write,
                                          .look = tls_look,
                                          .shutdown = tls_shutdown,
                                          .holds = tls_holds,
                                          .close = tls_close};

enum tg_rc
tg_tls_open(struct tg_transport *transport, SSL_CTX *context, bool server, void *owner)
{
    BIO_METHOD *method = bio_method();
    struct tg_tls *tls = tg_mem_new(struct tg_tls);
    SSL *ssl = tls != NULL && method != NULL ? SSL_new(context) : NULL;
    BIO *bio = ssl != NULL ? BIO_new(method) : NULL;
    if (bio == NULL) {
        ERR_clear_error();
        SSL_free(ssl);
        tg_mem_free(tls);
        return TG_ENOMEM;
    }
    BIO_set_data(bio, transport);
    BIO_set_init(bio, 1);
    BIO *writer = (SSL_CTX_get_options(context) & SSL_OP_ENABLE_KTLS) != 0 ? kernel_bio(transport) : NULL;
    SSL_set_bio(ssl, bio, writer != NULL ? writer : bio);
    if (server) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set_connect_state(ssl);
    }
    *tls = (struct tg_tls){.layer = &tls_layer, .ssl = ssl, .transport = transport, .owner = owner};
    SSL_set_app_data(ssl, tls);
    transport->layer = &tls->layer;
    transport->readable = true;
    return TG_OK;
}

/* RFC 6066, section 4: the client may have asked for shorter ones. */
static size_t
record_size(const struct tg_tls *tls)
{
    const SSL_SESSION *session = SSL_get0_session(tls->ssl);
    const unsigned mode = session != NULL ? SSL_SESSION_get_max_fragment_length(session) : 0;
    return mode >= TLSEXT_max_fragment_length_512 && mode <= TLSEXT_max_fragment_length_4096 ? (size_t)256 << mode
                                                                                             : (size_t)RECORD;
}

/* The reason of the last error; a fatal alert of the other side is one as well. */
static const char *
reason(void)
{
    const unsigned long error = ERR_peek_last_error();
    const char *text = error != 0 ? ERR_reason_error_string(error) : NULL;
    return text != NULL ? text : "the connection ended";
}

enum tg_rc
tg_tls_handshake(struct tg_tls *tls, const char **why)
{
    ERR_clear_error();
    const int done = SSL_do_handshake(tls->ssl);
    if (done == 1) {
        tls->connected = true;
        tls->record = record_size(tls);
        settle_writer(tls);
        tls->transport->readable = true; /* data may have come with its last flight */
        return TG_OK;
    }
    *why = reason();
    const unsigned long error = ERR_peek_error();
    const bool verify =
        SSL_get_verify_result(tls->ssl) != X509_V_OK && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED;
    const bool protocol =
        error != 0 && ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) != SSL_R_UNEXPECTED_EOF_WHILE_READING;
    if (verify) {
        *why = X509_verify_cert_error_string(SSL_get_verify_result(tls->ssl));
    }
    const enum tg_rc rc = judge(tls);
    if (rc == TG_AGAIN) {
        /* While it waits for the client only: the socket has been asked until it had no more. */
        return TG_AGAIN;
    }
    return verify ? TG_EDENIED : protocol ? TG_EPROTOCOL : rc;
}

struct tg_slice
tg_tls_alpn(const struct tg_tls *tls)
{
    const unsigned char *p = NULL;
    unsigned n = 0;
    SSL_get0_alpn_selected(tls->ssl, &p, &n);
    return tg_slice_of((const char *)p, n);
}
