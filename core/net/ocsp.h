/*
 * ocsp.h - the state of a certificate as its issuer tells it (RFC 6960): what is asked, and whether an answer may be
 * stapled.
 *
 * Owns: nothing. Used by: the border, which asks and judges for Lua; tls_server.c, which staples. Does not know: HTTP,
 * where answers are kept.
 */
#ifndef TG_NET_OCSP_H
#define TG_NET_OCSP_H

#include "base/rc.h"
#include "base/slice.h"
#include "net/certificate.h"

enum { TG_OCSP_ID = 32 /* bytes: SHA-256 of a certificate */, TG_OCSP_REQUEST_MAX = 512, TG_OCSP_RESPONSE_MAX = 16384 };

/* What is asked, and where. */
struct tg_ocsp_question {
    unsigned char id[TG_OCSP_ID];
    char url[1024]; /* of the responder: the first http:// one in the certificate (RFC 5280, section 4.2.2.1) */
    char request[TG_OCSP_REQUEST_MAX];
    size_t request_len; /* DER, without a nonce: responders answer from what they have signed before */
};

/* When an answer was true, and until when it holds: seconds since 1970. */
struct tg_ocsp_time {
    double from;
    double until;
};

/* The name under which answers for this certificate are kept. False: memory is short. */
bool tg_ocsp_id(const X509 *leaf, unsigned char id[TG_OCSP_ID]);

/*
 * The question for the first certificate of `chain`, PEM, which its issuer follows. TG_EINVAL and `err`: there is no
 * issuer behind it, or it names no responder.
 */
TG_MUST_CHECK enum tg_rc tg_ocsp_ask(struct tg_slice chain, struct tg_ocsp_question *out, struct tg_err *err);

/*
 * Judges an answer for the first certificate of `chain`. TG_OK: it is signed by the issuer or by whom that has charged
 * with it, says that the certificate is good, and holds now. TG_EDENIED: it is as valid, and says revoked. TG_EINVAL:
 * all else. `err` says why.
 */
TG_MUST_CHECK enum tg_rc tg_ocsp_judge(struct tg_slice chain, struct tg_slice response, struct tg_ocsp_time *out,
                                       struct tg_err *err);

/* Until when a successful answer holds, by its own word alone, which is not verified. TG_EINVAL: it does not say so. */
TG_MUST_CHECK enum tg_rc tg_ocsp_until(struct tg_slice response, double *until);

#endif
