/*
 * certificate.h - a certificate with its chain and private key, read from PEM and judged.
 *
 * Owns: the objects of OpenSSL. Used by: ocsp.c, tls_server.c, tls_client.c, and the border, which judges what a
 * configuration names. Does not know: files, connections. Keys are read without a password: nobody is there to be
 * asked.
 */
#ifndef TG_NET_CERTIFICATE_H
#define TG_NET_CERTIFICATE_H

#include <openssl/x509.h>

#include "base/rc.h"
#include "base/slice.h"

enum { TG_CERTIFICATE_RSA_MIN = 2048, TG_CERTIFICATE_EC_MIN = 224 /* bits */, TG_CERTIFICATE_CHAIN_MAX = 16 };

struct tg_certificate {
    X509 *leaf;
    EVP_PKEY *key;
    STACK_OF(X509) * chain; /* without the leaf */
};

/*
 * Reads the leaf and its chain from `certificate`, and its private key from `key`. TG_OK: to be freed by
 * tg_certificate_fini. TG_EINVAL: `err` says what is wrong: no PEM, the key is another's, it is too short. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_certificate_read(struct tg_certificate *out, struct tg_slice certificate,
                                             struct tg_slice key, struct tg_err *err);
/* The same without a key. */
TG_MUST_CHECK enum tg_rc tg_certificate_read_chain(struct tg_certificate *out, struct tg_slice certificate,
                                                   struct tg_err *err);
void tg_certificate_fini(struct tg_certificate *certificate);

/*
 * Calls back with each name that the certificate is for (RFC 6125: the DNS names of subjectAltName, else the common
 * name), in lower case; until false. Names with bytes that no host name has are left out: a NUL would hide the rest.
 */
typedef bool (*tg_certificate_name_cb)(void *arg, struct tg_slice name);
void tg_certificate_names(const X509 *leaf, tg_certificate_name_cb name, void *arg);

/* What is shown of a certificate. Texts go into `out` of TG_CERTIFICATE_TEXT bytes; TG_ELIMIT: it is too small. */
enum { TG_CERTIFICATE_TEXT = 16 * 1024 };
enum tg_certificate_part {
    TG_CERTIFICATE_SUBJECT, /* RFC 2253 */
    TG_CERTIFICATE_ISSUER,
    TG_CERTIFICATE_SERIAL,      /* hexadecimal */
    TG_CERTIFICATE_FINGERPRINT, /* SHA-256, hexadecimal */
    TG_CERTIFICATE_NAMES,       /* of subjectAltName: "dns:", "email:", "uri:" or "ip:" and the value, a line each */
    TG_CERTIFICATE_AS_PEM
};
TG_MUST_CHECK enum tg_rc tg_certificate_text(X509 *certificate, enum tg_certificate_part part, char *out, size_t *n);
/* Seconds since 1970. */
double tg_certificate_time(const ASN1_TIME *time);

/* All certificates of a PEM text as those that are trusted. TG_EINVAL and `err`: there is none, or one is broken. */
TG_MUST_CHECK enum tg_rc tg_certificate_store(X509_STORE **out, STACK_OF(X509_NAME) * *names, struct tg_slice pem,
                                              struct tg_err *err);

/*
 * Adds lists of revoked certificates to a store: PEM, or one in DER. From then on each authority of a chain needs one
 * that is valid now: what it does not know of, or what has run out, is refused. TG_EINVAL and `err`: there is none, or
 * one is broken, or signed by another than the authority of the store whose name it has; the store is of no use then.
 */
enum { TG_CERTIFICATE_CRLS_MAX = 100 };
TG_MUST_CHECK enum tg_rc tg_certificate_revocations(X509_STORE *store, struct tg_slice crls, struct tg_err *err);

/*
 * A certificate for localhost, its sub-domains and the loopback addresses, signed by itself, for 397 days, as PEM into
 * `certificate` and `key` of TG_CERTIFICATE_PEM bytes each, NUL-terminated. TG_ESYSTEM.
 */
enum { TG_CERTIFICATE_PEM = 4096 };
TG_MUST_CHECK enum tg_rc tg_certificate_self_signed(char *certificate, char *key);

#endif
