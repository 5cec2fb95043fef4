#include "net/tls_server.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <time.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

enum { GROUP = 32 /* bytes: SSL_MAX_SID_CTX_LENGTH */, VERIFY_DEPTH = 8, NAME_MAX_BYTES = 255 };

/* What is stapled with a certificate. */
struct status {
    struct tg_slice response; /* empty: none, or a fetched one */
    double until;             /* seconds since 1970 */
    bool fetched;
    unsigned char id[TG_OCSP_ID];
};

/* What was not read yet: the chain, and behind it the key. */
struct unread {
    char *text;
    size_t chain;
    size_t n;
};

struct site {
    struct unread unread[TG_TLS_SITE_CERTIFICATES];
    struct tg_certificate certificates[TG_TLS_SITE_CERTIFICATES];
    struct status statuses[TG_TLS_SITE_CERTIFICATES];
    unsigned count;
    enum tg_tls_client_auth auth;
    X509_STORE *clients;
    STACK_OF(X509_NAME) * authorities;
    unsigned char group[GROUP]; /* whose sessions are one another's */
};

struct tg_tls_server {
    unsigned holders;
    struct tg_tls_server_options options;
    SSL_CTX *context;
    struct site *sites;
    unsigned count;
    unsigned capacity;
    struct tg_map *names; /* to the number of the site, from 1 on */
};

static struct tg_tls_server *
server_of(SSL *ssl)
{
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

/* A name, or "*" in place of its first label (RFC 6125, section 6.4.3). 0: none. */
static unsigned
find_site(const struct tg_tls_server *server, const char *name, size_t n)
{
    char wild[NAME_MAX_BYTES + 1];
    unsigned number = tg_map_find(server->names, name, n);
    const char *dot = number == 0 ? memchr(name, '.', n) : NULL;
    if (dot != NULL && dot > name) {
        const size_t rest = n - (size_t)(dot - name);
        wild[0] = '*';
        memcpy(wild + 1, dot, rest);
        number = tg_map_find(server->names, wild, rest + 1);
    }
    return number;
}

/* ------------------------------------------------------------------ tickets */

static bool
derive(const struct tg_ticket_key *key, const struct site *site, const char *what, unsigned char out[GROUP])
{
    unsigned char text[GROUP + 8] = {0};
    unsigned n = 0;
    memcpy(text, site->group, GROUP);
    memcpy(text + GROUP, what, strnlen(what, 7));
    return HMAC(EVP_sha256(), key->secret, TG_TICKET_SECRET, text, sizeof text, out, &n) != NULL && n == GROUP;
}

/* Keys are those of the site: a ticket of another one is a ticket that nobody knows. */
static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
    const struct tg_tls_server *server = server_of(ssl);
    const struct tg_tls *tls = SSL_get_app_data(ssl);
    const struct site *site = &server->sites[tls->site];
    struct tg_ticket_key key;
    unsigned char secrets[2][GROUP];
    bool old = false;
    if (tg_tickets_find(server->options.keys, seal != 0 ? NULL : name, &key, &old) != TG_OK) {
        return 0;
    }
    if (seal != 0) {
        memcpy(name, key.name, TG_TICKET_NAME);
        if (RAND_bytes(iv, EVP_MAX_IV_LENGTH) != 1) {
            return -1;
        }
    }
    const bool derived = derive(&key, site, "cipher", secrets[0]) && derive(&key, site, "mac", secrets[1]);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, secrets[1], GROUP),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t) "SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    const bool ok = derived && EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, secrets[0], iv, seal) == 1 &&
                    EVP_MAC_CTX_set_params(mac, params) == 1;
    OPENSSL_cleanse(&key, sizeof key);
    OPENSSL_cleanse(secrets, sizeof secrets);
    return !ok ? -1 : old ? 2 : 1;
}

/* ------------------------------------------------------------------ the handshake */

/* The name in the extension server_name (RFC 6066, section 3), in lower case; false: it is malformed. None: n = 0. */
static bool
read_name(SSL *ssl, char out[NAME_MAX_BYTES + 1], size_t *n)
{
    const unsigned char *p = NULL;
    size_t left = 0;
    *n = 0;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &left) != 1) {
        return true;
    }
    /* list length, type host_name, name length, name */
    if (left < 5 || (size_t)(p[0] << 8 | p[1]) != left - 2 || p[2] != TLSEXT_NAMETYPE_host_name ||
        (size_t)(p[3] << 8 | p[4]) != left - 5 || left - 5 == 0 || left - 5 > NAME_MAX_BYTES) {
        return false;
    }
    *n = left - 5;
    for (size_t i = 0; i < *n; i++) {
        const unsigned char c = p[5 + i];
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
        if (c <= ' ' || c >= 127) {
            return false;
        }
    }
    *n -= *n > 1 && out[*n - 1] == '.' ? 1 : 0;
    return true;
}

static void
forget_text(struct unread *unread)
{
    if (unread->text != NULL) {
        OPENSSL_cleanse(unread->text, unread->n);
        tg_mem_free(unread->text);
        *unread = (struct unread){0};
    }
}

static enum tg_rc
read_certificate(struct site *site, unsigned i, struct tg_err *err)
{
    struct unread *unread = &site->unread[i];
    if (unread->text == NULL) {
        return TG_OK;
    }
    const struct tg_slice chain = tg_slice_of(unread->text, unread->chain);
    const struct tg_slice key = tg_slice_of(unread->text + unread->chain, unread->n - unread->chain);
    const enum tg_rc rc = tg_certificate_read(&site->certificates[i], chain, key, err);
    if (rc != TG_OK) {
        return rc;
    }
    forget_text(unread);
    return tg_ocsp_id(site->certificates[i].leaf, site->statuses[i].id) ? TG_OK : TG_ENOMEM;
}

static bool
use_certificates(SSL *ssl, struct site *site)
{
    struct tg_err err = {0};
    SSL_certs_clear(ssl);
    for (unsigned i = 0; i < site->count; i++) {
        if (read_certificate(site, i, &err) != TG_OK) {
            tg_log(TG_LOG_ERROR, "a certificate cannot be used: %s", err.text);
            return false;
        }
    }
    for (unsigned i = 0; i < site->count; i++) {
        const struct tg_certificate *certificate = &site->certificates[i];
        if (SSL_use_cert_and_key(ssl, certificate->leaf, certificate->key, certificate->chain, 1) != 1) {
            return false;
        }
    }
    return true;
}

static bool
use_clients(SSL *ssl, const struct site *site)
{
    if (site->auth == TG_TLS_CLIENT_NONE) {
        return true;
    }
    const int must = site->auth == TG_TLS_CLIENT_REQUIRED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
    SSL_set_verify(ssl, SSL_VERIFY_PEER | must, NULL);
    SSL_set_verify_depth(ssl, VERIFY_DEPTH);
    /* A resumed session would not show its certificate again. */
    (void)SSL_set_options(ssl, SSL_OP_NO_TICKET);
    STACK_OF(X509_NAME) *names = sk_X509_NAME_deep_copy(site->authorities, X509_NAME_dup, X509_NAME_free);
    SSL_set_client_CA_list(ssl, names);
    return names != NULL && SSL_set_num_tickets(ssl, 0) == 1 && SSL_set1_verify_cert_store(ssl, site->clients) == 1;
}

static int
on_hello(SSL *ssl, int *alert, void *arg)
{
    struct tg_tls_server *server = arg;
    struct tg_tls *tls = SSL_get_app_data(ssl);
    char name[NAME_MAX_BYTES + 1];
    size_t n = 0;
    if (!read_name(ssl, name, &n)) {
        *alert = SSL_AD_ILLEGAL_PARAMETER;
        return SSL_CLIENT_HELLO_ERROR;
    }
    const unsigned number = n > 0 ? find_site(server, name, n) : 0;
    if (number == 0 && server->options.strict_sni) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    tls->site = number > 0 ? number - 1 : 0;
    struct site *site = &server->sites[tls->site];
    /* Those of the first site every connection has by itself. */
    if ((tls->site > 0 && !use_certificates(ssl, site)) || !use_clients(ssl, site) ||
        SSL_set_session_id_context(ssl, site->group, GROUP) != 1) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* OpenSSL keeps the name for who asks only when it is told that the name was understood. */
static int
on_name(SSL *ssl, int *alert, void *arg)
{
    (void)alert;
    (void)arg;
    return SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) != NULL ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int
on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, unsigned n, void *arg)
{
    static const unsigned char both[] = "\x02h2\x08http/1.1";
    static const unsigned char old[] = "\x08http/1.1";
    const struct tg_tls_server *server = arg;
    const bool http2 = server->options.http2;
    unsigned char *chosen = NULL;
    (void)ssl;
    const unsigned char *offer = http2 ? both : old;
    const unsigned offered = http2 ? sizeof both - 1 : sizeof old - 1;
    if (SSL_select_next_proto(&chosen, out_n, offer, offered, in, n) != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301, section 3.2; and no other protocol's bytes get in */
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* One that does not hold any more is worse than none. */
static bool
find_response(const struct tg_tls_server *server, const struct status *status, struct tg_slice *response)
{
    if (status->fetched) {
        return server->options.response != NULL &&
               server->options.response(server->options.response_arg, status->id, response);
    }
    *response = status->response;
    return response->n > 0 && (double)time(NULL) < status->until;
}

/* The response for the certificate that was chosen. */
static int
on_status(SSL *ssl, void *arg)
{
    const struct tg_tls_server *server = arg;
    const struct tg_tls *tls = SSL_get_app_data(ssl);
    const struct site *site = &server->sites[tls->site];
    const X509 *chosen = SSL_get_certificate(ssl);
    for (unsigned i = 0; i < site->count; i++) {
        struct tg_slice response;
        if (chosen == NULL || X509_cmp(site->certificates[i].leaf, chosen) != 0 ||
            !find_response(server, &site->statuses[i], &response)) {
            continue;
        }
        unsigned char *copy = OPENSSL_memdup(response.p, response.n);
        if (copy == NULL) {
            break;
        }
        (void)SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)response.n);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* ------------------------------------------------------------------ setting up */

static bool
set_up(struct tg_tls_server *server)
{
    static const char ciphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL";
    /* Without the groups of finite fields, which are OpenSSL's default as well: a client that asks for the largest
     * costs us some hundred times what it pays (CVE-2002-20001). */
    static const char groups[] = "X25519:P-256:P-384:P-521";
    SSL_CTX *context = server->context;
    (void)SSL_CTX_set_app_data(context, server);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                           SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    (void)SSL_CTX_set_options(context, server->options.kernel ? SSL_OP_ENABLE_KTLS : 0);
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_client_hello_cb(context, on_hello, server);
    (void)SSL_CTX_set_tlsext_servername_callback(context, on_name);
    SSL_CTX_set_alpn_select_cb(context, on_alpn, server);
    (void)SSL_CTX_set_tlsext_status_cb(context, on_status);
    (void)SSL_CTX_set_tlsext_status_arg(context, server);
    if (server->options.tickets && server->options.keys != NULL) {
        (void)SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket);
        (void)SSL_CTX_set_num_tickets(context, 1);
    } else {
        (void)SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
        (void)SSL_CTX_set_num_tickets(context, 0);
    }
    return SSL_CTX_set_min_proto_version(context, server->options.tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, ciphers) == 1 && SSL_CTX_set1_groups_list(context, groups) == 1;
}

struct tg_tls_server *
tg_tls_server_new(const struct tg_tls_server_options *options)
{
    struct tg_tls_server *server = tg_mem_new(struct tg_tls_server);
    if (server == NULL) {
        return NULL;
    }
    *server = (struct tg_tls_server){.holders = 1, .options = *options};
    server->context = SSL_CTX_new(TLS_server_method());
    server->names = tg_map_new();
    if (server->context == NULL || server->names == NULL || !set_up(server)) {
        ERR_clear_error();
        tg_tls_server_unref(server);
        return NULL;
    }
    return server;
}

struct tg_tls_server *
tg_tls_server_ref(struct tg_tls_server *server)
{
    server->holders++;
    return server;
}

void
tg_tls_server_unref(struct tg_tls_server *server)
{
    if (server == NULL || --server->holders > 0) {
        return;
    }
    for (unsigned i = 0; i < server->count; i++) {
        struct site *site = &server->sites[i];
        for (unsigned k = 0; k < site->count; k++) {
            forget_text(&site->unread[k]);
            tg_certificate_fini(&site->certificates[k]);
            tg_mem_free((void *)(uintptr_t)site->statuses[k].response.p);
        }
        X509_STORE_free(site->clients);
        sk_X509_NAME_pop_free(site->authorities, X509_NAME_free);
    }
    tg_mem_free(server->sites);
    tg_map_free(server->names);
    SSL_CTX_free(server->context);
    tg_mem_free(server);
}

static void
mark_group(const struct tg_tls_server *server, struct site *site, struct tg_slice client_ca)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    const unsigned marks[] = {server->options.ordinal, server->count, (unsigned)site->auth};
    const bool ok = digest != NULL && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
                    EVP_DigestUpdate(digest, marks, sizeof marks) == 1 &&
                    EVP_DigestUpdate(digest, client_ca.p, client_ca.n) == 1 &&
                    EVP_DigestFinal_ex(digest, site->group, NULL) == 1;
    if (!ok) {
        (void)RAND_bytes(site->group, GROUP); /* no session is resumed across a reload */
    }
    EVP_MD_CTX_free(digest);
}

enum tg_rc
tg_tls_server_site(struct tg_tls_server *server, enum tg_tls_client_auth auth, struct tg_slice client_ca,
                   struct tg_slice client_crl, struct tg_err *err)
{
    struct site site = {.auth = auth};
    if (server->count == TG_TLS_SITES_MAX) {
        return tg_err_set(err, TG_ELIMIT, "there are more than %d sites", TG_TLS_SITES_MAX);
    }
    if (server->count == server->capacity) {
        const unsigned capacity = server->capacity == 0 ? 4 : server->capacity * 2;
        struct site *sites = tg_mem_resize(server->sites, capacity * sizeof site);
        if (sites == NULL) {
            return tg_err_set(err, TG_ENOMEM, "memory is short");
        }
        server->sites = sites;
        server->capacity = capacity;
    }
    if (auth != TG_TLS_CLIENT_NONE) {
        enum tg_rc rc = tg_certificate_store(&site.clients, &site.authorities, client_ca, err);
        if (rc == TG_OK && client_crl.n > 0) {
            rc = tg_certificate_revocations(site.clients, client_crl, err);
        }
        if (rc != TG_OK) {
            X509_STORE_free(site.clients);
            sk_X509_NAME_pop_free(site.authorities, X509_NAME_free);
            return rc;
        }
    }
    mark_group(server, &site, client_ca);
    server->sites[server->count++] = site;
    return TG_OK;
}

/* TG_EBUSY: an earlier site has it. Short of memory, the name gets the first site's certificate. */
static void
take_names(struct tg_tls_server *server, struct tg_slice names)
{
    const char *end = names.p + names.n;
    for (const char *p = names.p; p != NULL && p < end;) {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        const size_t n = (size_t)((line != NULL ? line : end) - p);
        (void)(tg_map_add(server->names, p, n, server->count) == TG_OK);
        p += n + 1;
    }
}

static enum tg_rc
take_ocsp(struct status *out, struct tg_slice ocsp, struct tg_err *err)
{
    if (ocsp.n == 0) {
        return TG_OK;
    }
    if (tg_ocsp_until(ocsp, &out->until) != TG_OK) {
        return tg_err_set(err, TG_EINVAL, "this is no successful OCSP response (DER) that says until when it holds");
    }
    char *copy = tg_mem_alloc(ocsp.n);
    if (copy == NULL) {
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    memcpy(copy, ocsp.p, ocsp.n);
    out->response = tg_slice_of(copy, ocsp.n);
    return TG_OK;
}

static enum tg_rc
take_text(struct unread *out, const struct tg_tls_server_certificate *certificate, struct tg_err *err)
{
    const struct tg_slice chain = certificate->chain;
    char *text = tg_mem_alloc(chain.n + certificate->key.n + 1);
    if (text == NULL) {
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    memcpy(text, chain.p, chain.n);
    memcpy(text + chain.n, certificate->key.p, certificate->key.n);
    *out = (struct unread){text, chain.n, chain.n + certificate->key.n};
    return TG_OK;
}

enum tg_rc
tg_tls_server_add(struct tg_tls_server *server, const struct tg_tls_server_certificate *certificate, struct tg_err *err)
{
    struct site *site = &server->sites[server->count - 1];
    const unsigned i = site->count;
    if (i == TG_TLS_SITE_CERTIFICATES) {
        return tg_err_set(err, TG_ELIMIT, "a site has at most %d certificates", TG_TLS_SITE_CERTIFICATES);
    }
    site->count++;
    site->statuses[i].fetched = certificate->fetched;
    enum tg_rc rc = take_text(&site->unread[i], certificate, err);
    if (rc == TG_OK) {
        rc = take_ocsp(&site->statuses[i], certificate->ocsp, err);
    }
    if (rc == TG_OK && server->count == 1) {
        const struct tg_certificate *read = &site->certificates[i];
        rc = read_certificate(site, i, err);
        if (rc == TG_OK && SSL_CTX_use_cert_and_key(server->context, read->leaf, read->key, read->chain, 1) != 1) {
            ERR_clear_error();
            rc = tg_err_set(err, TG_EINVAL, "OpenSSL does not take this certificate");
        }
    }
    if (rc == TG_OK) {
        take_names(server, certificate->names);
    }
    return rc;
}

/* ------------------------------------------------------------------ connections */

enum tg_rc
tg_tls_server_open(struct tg_tls_server *server, struct tg_transport *transport)
{
    return tg_tls_open(transport, server->context, true, server);
}

bool
tg_tls_server_serves(const struct tg_tls *tls, struct tg_slice host)
{
    const struct tg_tls_server *server = tls->owner;
    const unsigned number = host.n > 0 && host.n <= NAME_MAX_BYTES ? find_site(server, host.p, host.n) : 0;
    return (number > 0 ? number - 1 : 0) == tls->site;
}
