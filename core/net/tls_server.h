/*
 * tls_server.h - what a listener says in TLS: its certificates by name, which clients it wants, its protocols.
 *
 * Owns: certificates and their keys, the SSL_CTX. Counted: each connection holds the one that it began with, so that a
 * reload takes nothing away from it. Used by: process/, which makes one per listener and generation, and proxy/.
 * A site is a set of certificates (RSA and ECDSA side by side) with the rules for its clients. Sessions are resumed by
 * tickets alone, within one site, and never where clients show certificates (SECURITY 1.3).
 */
#ifndef TG_NET_TLS_SERVER_H
#define TG_NET_TLS_SERVER_H

#include "net/ocsp.h"
#include "net/tickets.h"
#include "net/tls.h"

enum tg_tls_client_auth { TG_TLS_CLIENT_NONE, TG_TLS_CLIENT_OPTIONAL, TG_TLS_CLIENT_REQUIRED };

enum { TG_TLS_SITES_MAX = 100000, TG_TLS_SITE_CERTIFICATES = 4 };

/* The response that was fetched for the certificate of this id and holds now, until the next call. False: none is
 * there. */
typedef bool (*tg_tls_response_cb)(void *arg, const unsigned char id[TG_OCSP_ID], struct tg_slice *response);

struct tg_tls_server_options {
    unsigned ordinal;              /* of the listener: no session goes from one to another */
    bool tls12;                    /* TLS 1.2 is served besides 1.3 */
    bool http2;                    /* offered by ALPN before HTTP/1.1 */
    bool strict_sni;               /* a name that no certificate is for is refused, and so is none */
    bool tickets;                  /* sessions are resumed */
    bool kernel;                   /* encrypts what is written, where it can */
    const struct tg_tickets *keys; /* NULL: they are not */
    tg_tls_response_cb response;
    void *response_arg;
};

struct tg_tls_server;

/* A new one without certificates, held once; NULL when memory is short. */
struct tg_tls_server *tg_tls_server_new(const struct tg_tls_server_options *options);
struct tg_tls_server *tg_tls_server_ref(struct tg_tls_server *server);
/* NULL is allowed. */
void tg_tls_server_unref(struct tg_tls_server *server);

/* Begins a site; the first one is that of all names that no other is for. `client_ca` is PEM; `client_crl`: lists of
 * revoked certificates as PEM or DER, or empty. TG_EINVAL and `err`. */
TG_MUST_CHECK enum tg_rc tg_tls_server_site(struct tg_tls_server *server, enum tg_tls_client_auth auth,
                                            struct tg_slice client_ca, struct tg_slice client_crl, struct tg_err *err);
struct tg_tls_server_certificate {
    struct tg_slice chain; /* PEM, as tg_certificate_read takes it */
    struct tg_slice key;
    struct tg_slice names; /* that it is for, a line each; one stays the first certificate's */
    struct tg_slice ocsp;  /* DER, or empty; stapled while it holds */
    bool fetched;          /* what is asked for with `response` is stapled */
};

/*
 * A certificate of the site that was begun last. It is copied, and read when a client first asks for the site, unless
 * that is the first one: thousands of them take seconds to read, in which nobody would be served.
 */
TG_MUST_CHECK enum tg_rc tg_tls_server_add(struct tg_tls_server *server,
                                           const struct tg_tls_server_certificate *certificate, struct tg_err *err);

/* Puts TLS on an accepted connection. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_tls_server_open(struct tg_tls_server *server, struct tg_transport *transport);
/* Whether requests for `host` (lower case, without port) may come on this connection: else they are misdirected. */
bool tg_tls_server_serves(const struct tg_tls *tls, struct tg_slice host);

#endif
