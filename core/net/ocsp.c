#include "net/ocsp.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum { SKEW = 300 /* seconds by which the clocks of others may differ */ };

static const char plain_http[] = "http://";

bool
tg_ocsp_id(const X509 *leaf, unsigned char id[TG_OCSP_ID])
{
    unsigned n = 0;
    return X509_digest(leaf, EVP_sha256(), id, &n) == 1 && n == TG_OCSP_ID;
}

/* The certificate, and its issuer, which must be the next one. */
static enum tg_rc
read_pair(struct tg_certificate *out, struct tg_slice chain, X509 **issuer, struct tg_err *err)
{
    const enum tg_rc rc = tg_certificate_read_chain(out, chain, err);
    if (rc != TG_OK) {
        return rc;
    }
    *issuer = sk_X509_num(out->chain) > 0 ? sk_X509_value(out->chain, 0) : NULL;
    if (*issuer == NULL || X509_check_issued(*issuer, out->leaf) != X509_V_OK) {
        tg_certificate_fini(out);
        return tg_err_set(err, TG_EINVAL, "the certificate of its issuer does not follow it, which OCSP is asked with");
    }
    return TG_OK;
}

static enum tg_rc
find_url(X509 *leaf, char *out, size_t room, struct tg_err *err)
{
    enum tg_rc rc = tg_err_set(err, TG_EINVAL, "the certificate names no OCSP responder (http://) to fetch from");
    STACK_OF(OPENSSL_STRING) *urls = X509_get1_ocsp(leaf);
    for (int i = 0; i < sk_OPENSSL_STRING_num(urls) && rc != TG_OK; i++) {
        const char *url = sk_OPENSSL_STRING_value(urls, i);
        if (strncmp(url, plain_http, sizeof plain_http - 1) == 0 && strlen(url) < room) {
            (void)snprintf(out, room, "%s", url);
            rc = TG_OK;
        }
    }
    X509_email_free(urls);
    return rc;
}

static enum tg_rc
write_request(const X509 *leaf, const X509 *issuer, struct tg_ocsp_question *out, struct tg_err *err)
{
    unsigned char *p = (unsigned char *)out->request;
    OCSP_REQUEST *request = OCSP_REQUEST_new();
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, leaf, issuer);
    if (request == NULL || id == NULL || OCSP_request_add0_id(request, id) == NULL) {
        OCSP_CERTID_free(id);
        OCSP_REQUEST_free(request);
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    const int n = i2d_OCSP_REQUEST(request, NULL);
    const bool fits = n > 0 && (size_t)n <= sizeof out->request;
    if (fits) {
        out->request_len = (size_t)i2d_OCSP_REQUEST(request, &p);
    }
    OCSP_REQUEST_free(request);
    return fits ? TG_OK : tg_err_set(err, TG_EINVAL, "its OCSP request would be too long");
}

enum tg_rc
tg_ocsp_ask(struct tg_slice chain, struct tg_ocsp_question *out, struct tg_err *err)
{
    struct tg_certificate read = {0};
    X509 *issuer = NULL;
    enum tg_rc rc = read_pair(&read, chain, &issuer, err);
    if (rc != TG_OK) {
        return rc;
    }
    rc = find_url(read.leaf, out->url, sizeof out->url, err);
    if (rc == TG_OK) {
        rc = write_request(read.leaf, issuer, out, err);
    }
    if (rc == TG_OK && !tg_ocsp_id(read.leaf, out->id)) {
        rc = tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    tg_certificate_fini(&read);
    ERR_clear_error();
    return rc;
}

/* The signed part of a successful response, or NULL. */
static OCSP_BASICRESP *
read_basic(struct tg_slice response)
{
    const unsigned char *p = (const unsigned char *)response.p;
    OCSP_RESPONSE *read = response.n <= TG_OCSP_RESPONSE_MAX ? d2i_OCSP_RESPONSE(NULL, &p, (long)response.n) : NULL;
    const bool ok = read != NULL && OCSP_response_status(read) == OCSP_RESPONSE_STATUS_SUCCESSFUL;
    OCSP_BASICRESP *basic = ok ? OCSP_response_get1_basic(read) : NULL;
    OCSP_RESPONSE_free(read);
    return basic;
}

/* Signed by the issuer itself, or by a certificate of its own for that (RFC 6960, section 4.2.2.2). */
static bool
is_signed(OCSP_BASICRESP *basic, X509 *issuer)
{
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509) *known = sk_X509_new_null();
    const bool ok = store != NULL && known != NULL && sk_X509_push(known, issuer) > 0 &&
                    X509_STORE_add_cert(store, issuer) == 1 &&
                    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1 &&
                    OCSP_basic_verify(basic, known, store, OCSP_TRUSTOTHER) == 1;
    sk_X509_free(known);
    X509_STORE_free(store);
    return ok;
}

static enum tg_rc
judge_status(OCSP_BASICRESP *basic, OCSP_CERTID *id, struct tg_ocsp_time *out, struct tg_err *err)
{
    int status = -1;
    ASN1_GENERALIZEDTIME *from = NULL;
    ASN1_GENERALIZEDTIME *until = NULL;
    if (OCSP_resp_find_status(basic, id, &status, NULL, NULL, &from, &until) != 1) {
        return tg_err_set(err, TG_EINVAL, "the response is for another certificate");
    }
    if (until == NULL) {
        return tg_err_set(err, TG_EINVAL, "the response does not say until when it holds");
    }
    if (OCSP_check_validity(from, until, SKEW, -1) != 1) {
        return tg_err_set(err, TG_EINVAL, "the response does not hold now: %s",
                          ERR_reason_error_string(ERR_peek_last_error()));
    }
    if (status != V_OCSP_CERTSTATUS_GOOD) {
        return tg_err_set(err, status == V_OCSP_CERTSTATUS_REVOKED ? TG_EDENIED : TG_EINVAL, "the certificate is %s",
                          OCSP_cert_status_str(status));
    }
    *out = (struct tg_ocsp_time){tg_certificate_time(from), tg_certificate_time(until)};
    return TG_OK;
}

enum tg_rc
tg_ocsp_judge(struct tg_slice chain, struct tg_slice response, struct tg_ocsp_time *out, struct tg_err *err)
{
    struct tg_certificate read = {0};
    X509 *issuer = NULL;
    enum tg_rc rc = read_pair(&read, chain, &issuer, err);
    if (rc != TG_OK) {
        return rc;
    }
    OCSP_BASICRESP *basic = read_basic(response);
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, read.leaf, issuer);
    if (basic == NULL || id == NULL) {
        rc = tg_err_set(err, TG_EINVAL, "this is no successful OCSP response (DER)");
    } else if (!is_signed(basic, issuer)) {
        const char *why = ERR_reason_error_string(ERR_peek_last_error());
        rc = tg_err_set(err, TG_EINVAL, "the response is not signed by the issuer: %s", why != NULL ? why : "");
    } else {
        rc = judge_status(basic, id, out, err);
    }
    OCSP_CERTID_free(id);
    OCSP_BASICRESP_free(basic);
    tg_certificate_fini(&read);
    ERR_clear_error();
    return rc;
}

enum tg_rc
tg_ocsp_until(struct tg_slice response, double *until)
{
    OCSP_BASICRESP *basic = read_basic(response);
    OCSP_SINGLERESP *single = basic != NULL ? OCSP_resp_get0(basic, 0) : NULL;
    ASN1_GENERALIZEDTIME *end = NULL;
    if (single != NULL) {
        (void)OCSP_single_get0_status(single, NULL, NULL, NULL, &end);
    }
    if (end != NULL) {
        *until = tg_certificate_time(end);
    }
    const enum tg_rc rc = end != NULL ? TG_OK : TG_EINVAL;
    OCSP_BASICRESP_free(basic);
    ERR_clear_error();
    return rc;
}
