/*
 * abi_tls.h - the part of abi.h about the TLS of clients and of listeners.
 */
#ifndef TG_ABI_TLS_H
#define TG_ABI_TLS_H

#include "abi_cell.h"

struct tg_abi_exchange;
struct tg_slice;

/* What is known of the TLS connection of a client, and of the certificate that it has shown and that was verified. */
enum tg_abi_tls_part {
    TG_TLS_VERSION,
    TG_TLS_CIPHER,
    TG_TLS_SERVER_NAME,
    TG_TLS_ALPN,
    TG_TLS_RESUMED, /* vm.number */
    TG_TLS_SUBJECT, /* RFC 2253 */
    TG_TLS_ISSUER,
    TG_TLS_SERIAL,      /* hexadecimal */
    TG_TLS_FINGERPRINT, /* SHA-256, hexadecimal */
    TG_TLS_NAMES,       /* of subjectAltName, a line each: "dns:", "email:", "uri:" or "ip:" and the value */
    TG_TLS_NOT_BEFORE,  /* vm.number: seconds of the wall clock */
    TG_TLS_NOT_AFTER,
    TG_TLS_PEM
};

/* Into vm.out or vm.number. TG_ENONE: plain text, no certificate, or nothing was said; TG_EINVAL: it is out of range.
 */
TG_ABI int tg_abi_tls(struct tg_abi_exchange *x, int part);

/*
 * OCSP for the first certificate of a chain. ask: vm.out is the request; *url is asked, *id names the certificate; both
 * are valid until the next call. judge: the response may be stapled; vm.number is how many seconds it still holds, *age
 * how long it has. -TG_EDENIED: the certificate was revoked. Not 0: vm.out says why not.
 */
TG_ABI int tg_abi_ocsp_ask(const char *chain, size_t chain_len, struct tg_slice *url, struct tg_slice *id);
TG_ABI int tg_abi_ocsp_judge(const char *chain, size_t chain_len, const char *response, size_t response_len,
                             double *age);
#endif
