#include "net/tls_client.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include "base/mem.h"

enum { MARK = 32 /* bytes: a hash of the options */, NAME_MAX_BYTES = 255 };

struct tg_tls_client {
    SSL_CTX *context;
    unsigned char mark[MARK];
    char name[NAME_MAX_BYTES + 1];
    unsigned char pins[TG_TLS_PINS_MAX][TG_TLS_PIN];
    unsigned pin_count;
    bool verify;
};

static bool
mark_of(const struct tg_tls_client_options *options, unsigned char out[MARK])
{
    const struct tg_slice parts[] = {options->ca, options->certificate, options->key, options->name, options->pins};
    const unsigned char flags[] = {options->verify, options->tls12, options->http2, options->kernel};
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool ok = digest != NULL && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(digest, flags, sizeof flags) == 1;
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0] && ok; i++) {
        ok = EVP_DigestUpdate(digest, &parts[i].n, sizeof parts[i].n) == 1 &&
             EVP_DigestUpdate(digest, parts[i].p, parts[i].n) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(digest, out, NULL) == 1;
    EVP_MD_CTX_free(digest);
    return ok;
}

/* Keeps the newest session: those of TLS 1.3 are for one use (RFC 8446, section C.4). */
static int
on_session(SSL *ssl, SSL_SESSION *session)
{
    const struct tg_tls *tls = SSL_get_app_data(ssl);
    if (tls == NULL) {
        return 0; /* one without a transport, which comes once */
    }
    struct tg_tls_memory *memory = tls->owner;
    tg_tls_memory_clear(memory);
    memory->session = session;
    return 1; /* it is ours now */
}

void
tg_tls_memory_clear(struct tg_tls_memory *memory)
{
    SSL_SESSION_free(memory->session);
    memory->session = NULL;
}

static enum tg_rc
trust(struct tg_tls_client *client, const struct tg_tls_client_options *options, struct tg_err *err)
{
    X509_STORE *store = NULL;
    SSL_CTX_set_verify(client->context, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (options->ca.n == 0) {
        return SSL_CTX_set_default_verify_paths(client->context) == 1 ? TG_OK : TG_ENOMEM;
    }
    const enum tg_rc rc = tg_certificate_store(&store, NULL, options->ca, err);
    if (rc == TG_OK) {
        SSL_CTX_set_cert_store(client->context, store);
    }
    return rc;
}

static enum tg_rc
show_ourselves(struct tg_tls_client *client, const struct tg_tls_client_options *options, struct tg_err *err)
{
    struct tg_certificate own;
    if (options->certificate.n == 0) {
        return TG_OK;
    }
    const enum tg_rc rc = tg_certificate_read(&own, options->certificate, options->key, err);
    if (rc != TG_OK) {
        return rc;
    }
    const bool ok = SSL_CTX_use_cert_and_key(client->context, own.leaf, own.key, own.chain, 1) == 1;
    tg_certificate_fini(&own);
    return ok ? TG_OK : tg_err_set(err, TG_EINVAL, "OpenSSL does not take this certificate");
}

static enum tg_rc
set_up(struct tg_tls_client *client, const struct tg_tls_client_options *options, struct tg_err *err)
{
    static const unsigned char both[] = "\x02h2\x08http/1.1";
    SSL_CTX *context = client->context;
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    (void)SSL_CTX_set_options(context, options->kernel ? SSL_OP_ENABLE_KTLS : 0);
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    if (options->http2 && SSL_CTX_set_alpn_protos(context, both, sizeof both - 1) != 0) {
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    if (SSL_CTX_set_min_proto_version(context, options->tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL") != 1) {
        return tg_err_set(err, TG_ESYSTEM, "TLS cannot be set up");
    }
    const enum tg_rc rc = trust(client, options, err);
    return rc != TG_OK ? rc : show_ourselves(client, options, err);
}

struct tg_tls_client *
tg_tls_client_new(const struct tg_tls_client_options *options, struct tg_err *err)
{
    struct tg_tls_client *client = tg_mem_new(struct tg_tls_client);
    if (client == NULL || options->name.n > NAME_MAX_BYTES || options->pins.n > sizeof client->pins ||
        options->pins.n % TG_TLS_PIN != 0) {
        tg_mem_free(client);
        (void)tg_err_set(err, TG_EINVAL, "memory is short, or a name or the pins are too long");
        return NULL;
    }
    *client = (struct tg_tls_client){.verify = options->verify, .pin_count = (unsigned)(options->pins.n / TG_TLS_PIN)};
    if (options->name.n > 0) {
        memcpy(client->name, options->name.p, options->name.n);
    }
    if (options->pins.n > 0) {
        memcpy(client->pins, options->pins.p, options->pins.n);
    }
    client->context = SSL_CTX_new(TLS_client_method());
    if (client->context == NULL || !mark_of(options, client->mark) || set_up(client, options, err) != TG_OK) {
        ERR_clear_error();
        tg_tls_client_free(client);
        return NULL;
    }
    return client;
}

void
tg_tls_client_free(struct tg_tls_client *client)
{
    if (client != NULL) {
        SSL_CTX_free(client->context);
        tg_mem_free(client);
    }
}

bool
tg_tls_client_is(const struct tg_tls_client *client, const struct tg_tls_client_options *options)
{
    unsigned char mark[MARK];
    return mark_of(options, mark) && memcmp(mark, client->mark, MARK) == 0;
}

/* RFC 6066, section 3: addresses are not sent as names; they are looked for among the addresses of the certificate. */
static bool
name_peer(const struct tg_tls_client *client, SSL *ssl, const char *host)
{
    const char *name = client->name[0] != '\0' ? client->name : host;
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1) {
        return true;
    }
    ERR_clear_error();
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, name) == 1 && X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

SSL *
tg_tls_client_ssl(const struct tg_tls_client *client, const char *host)
{
    SSL *ssl = SSL_new(client->context);
    if (ssl != NULL && !name_peer(client, ssl, host)) {
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

enum tg_rc
tg_tls_client_open(struct tg_tls_client *client, struct tg_transport *transport, const char *host,
                   struct tg_tls_memory *memory)
{
    enum tg_rc rc = tg_tls_open(transport, client->context, false, memory);
    if (rc != TG_OK) {
        return rc;
    }
    SSL *ssl = tg_tls_of(transport)->ssl;
    if (!name_peer(client, ssl, host)) {
        return TG_ENOMEM; /* the layer goes with the transport */
    }
    /* A resumed session does not show the chain among which a pin may be. */
    if (client->pin_count == 0 && memory->session != NULL && SSL_SESSION_is_resumable(memory->session) == 1) {
        (void)SSL_set_session(ssl, memory->session);
    }
    return TG_OK;
}

static bool
is_pinned(const struct tg_tls_client *client, X509 *certificate)
{
    unsigned char *der = NULL;
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    bool found = false;
    const int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
    if (length > 0 && EVP_Digest(der, (size_t)length, hash, &n, EVP_sha256(), NULL) == 1) {
        for (unsigned i = 0; i < client->pin_count && !found; i++) {
            found = memcmp(client->pins[i], hash, TG_TLS_PIN) == 0;
        }
    }
    OPENSSL_free(der);
    return found;
}

enum tg_rc
tg_tls_client_judge(const struct tg_tls_client *client, const struct tg_tls *tls)
{
    if (client->pin_count == 0) {
        return TG_OK;
    }
    /* With verification the chain that was built; without it what was sent: the leaf alone counts. */
    STACK_OF(X509) *chain = client->verify ? SSL_get0_verified_chain(tls->ssl) : NULL;
    for (int i = 0; i < sk_X509_num(chain); i++) {
        if (is_pinned(client, sk_X509_value(chain, i))) {
            return TG_OK;
        }
    }
    X509 *leaf = SSL_get0_peer_certificate(tls->ssl);
    return leaf != NULL && is_pinned(client, leaf) ? TG_OK : TG_EDENIED;
}
