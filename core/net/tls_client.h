/*
 * tls_client.h - how we speak TLS to a peer: what we trust, who it must be, who we are.
 *
 * Owns: the SSL_CTX. Used by: proxy/peer.c, which keeps one for each way that is asked for, upstream.c, and
 * vm/fetch.c.
 * The certificate is verified unless that is switched off by name: chain, name or address, and pins.
 */
#ifndef TG_NET_TLS_CLIENT_H
#define TG_NET_TLS_CLIENT_H

#include "net/certificate.h"
#include "net/tls.h"

enum { TG_TLS_PIN = 32 /* bytes: SHA-256 of a SubjectPublicKeyInfo (RFC 7469, section 2.4) */, TG_TLS_PINS_MAX = 16 };

struct tg_tls_client_options {
    struct tg_slice ca;          /* PEM; empty: what the system trusts */
    struct tg_slice certificate; /* PEM, ours; empty: none */
    struct tg_slice key;
    struct tg_slice name; /* asked for by SNI and verified; empty: the host of the peer */
    struct tg_slice pins; /* one after the other; one of them must be in the chain. Empty: none */
    bool verify;
    bool tls12;  /* TLS 1.2 will do */
    bool http2;  /* offered by ALPN before HTTP/1.1 */
    bool kernel; /* encrypts what is written, where it can */
};

struct tg_tls_client;

/* The last session with one peer; zero it to begin. */
struct tg_tls_memory {
    SSL_SESSION *session;
};

/* A new one, or NULL and `err`. */
struct tg_tls_client *tg_tls_client_new(const struct tg_tls_client_options *options, struct tg_err *err);
/* NULL is allowed. */
void tg_tls_client_free(struct tg_tls_client *client);
/* Whether it was made from these very options. */
bool tg_tls_client_is(const struct tg_tls_client *client, const struct tg_tls_client_options *options);

/* Puts TLS on a connection to `host` (a name or an address). `memory` must outlive the transport. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_tls_client_open(struct tg_tls_client *client, struct tg_transport *transport,
                                            const char *host, struct tg_tls_memory *memory);
/* For who needs no transport, and waits: an SSL object for `host`, the caller's, without a connection yet; or NULL. */
SSL *tg_tls_client_ssl(const struct tg_tls_client *client, const char *host);
/* The handshake is done: looks for the pins. TG_EDENIED: none of them is there. */
TG_MUST_CHECK enum tg_rc tg_tls_client_judge(const struct tg_tls_client *client, const struct tg_tls *tls);

void tg_tls_memory_clear(struct tg_tls_memory *memory);

#endif
