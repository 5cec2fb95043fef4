/*
 * tls.h - TLS on a connection, by OpenSSL: the layer between a socket and its user, for both sides.
 *
 * Owns: the SSL object of a connection. Used by: tls_server.c and tls_client.c, which say what it must be like, and
 * proxy/, which waits for the handshake. Does not know: certificates, names, HTTP.
 * An end without close_notify is a broken connection (TG_ERESET): a cut answer must not pass for a whole one.
 * Where the context has SSL_OP_ENABLE_KTLS and the kernel takes the keys, the kernel encrypts what is written. What is
 * read stays with OpenSSL: the kernel cannot be given the new keys of a peer that changes them.
 */
#ifndef TG_NET_TLS_H
#define TG_NET_TLS_H

#include <openssl/ssl.h>

#include "base/slice.h"
#include "net/transport.h"

enum { TG_TLS_ALPN_MAX = 32 };

struct tg_tls {
    const struct tg_layer *layer; /* first: a transport's layer leads here */
    SSL *ssl;
    struct tg_transport *transport;
    uint64_t held_hash; /* of the bytes of a write that waits in OpenSSL: */
    size_t held;        /* how many; 0: none does */
    size_t record;      /* bytes of plain text that one record takes: a write is never more, so that it is held whole */
    bool connected;     /* the handshake is done */
    bool broken;        /* nothing more can be said on it */
    bool shut;          /* the end was sent, or shall be when `held` is */
    bool owing;         /* it could not be sent yet */
    bool kernel;        /* what is written is encrypted by the kernel */
    unsigned site;      /* server: number of what the client has asked for */
    void *owner;        /* of who has made it; not looked at here */
};

/*
 * Puts TLS on the open `transport` with a new SSL object of `context`. TG_ENOMEM: the transport is as it was.
 * The transport must stay where it is until it is closed.
 */
TG_MUST_CHECK enum tg_rc tg_tls_open(struct tg_transport *transport, SSL_CTX *context, bool server, void *owner);

/* The TLS of a transport, or NULL. */
struct tg_tls *tg_tls_of(const struct tg_transport *transport);

/*
 * Goes on with the handshake. TG_OK: it is done. TG_AGAIN: wait. TG_EDENIED: the other side's certificate was refused.
 * TG_EPROTOCOL, TG_ERESET, TG_ECLOSED. `why` is a text for people, of the last two bytes of an error or static.
 */
TG_MUST_CHECK enum tg_rc tg_tls_handshake(struct tg_tls *tls, const char **why);

/* Whether this kernel has TLS at all; loads it, where that is allowed to us. `why`: errno, when it has not. */
bool tg_tls_kernel(int *why);

/* What ALPN (RFC 7301) has agreed on; empty: nothing. */
struct tg_slice tg_tls_alpn(const struct tg_tls *tls);

#endif
