/*
 * fuzz_jws.c - a token through jws.h. Input: 't' and a token, or 'p' and a payload before base64url.
 *
 * Oracles: a token is one exactly when a slow reader says so, and its parts are the text again; of a signature the
 * bytes are written as the same text. A payload is read exactly when it is an object that is well-formed, and each
 * member is found where the reader of JSON finds it, whatever its name is spelled like.
 */
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/json.h"
#include "base/json_read.h"
#include "base/jws.h"
#include "fuzz.h"

enum { SIGNATURE = 64 };

static size_t
dot_from(struct tg_slice text, size_t from)
{
    while (from < text.n && text.p[from] != '.') {
        from++;
    }
    return from;
}

static bool
is_token(struct tg_slice text)
{
    const size_t first = dot_from(text, 0);
    const size_t second = first < text.n ? dot_from(text, first + 1) : text.n;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '=') {
            return false;
        }
    }
    return first > 0 && second > first + 1 && second + 1 < text.n;
}

static void
try_token(struct tg_slice text)
{
    char room[SIGNATURE];
    struct tg_abi_jws jws;
    const enum tg_rc rc = tg_jws_split(text, room, sizeof room, &jws);
    MUST((rc == TG_OK) == is_token(text));
    if (rc != TG_OK) {
        return;
    }
    MUST(jws.header.p == text.p && jws.is_signed.p == text.p && jws.payload.p == text.p + jws.header.n + 1);
    MUST(jws.is_signed.n == jws.header.n + 1 + jws.payload.n && text.p[jws.header.n] == '.');
    MUST(text.p[jws.is_signed.n] == '.' && memchr(jws.payload.p, '.', jws.payload.n) == NULL);
    const struct tg_slice spelled = tg_slice_of(text.p + jws.is_signed.n + 1, text.n - jws.is_signed.n - 1);
    if (jws.signature.p != NULL) {
        char again[TG_BASE64_ROOM(SIGNATURE)];
        const char *end = tg_base64_encode(again, jws.signature.p, jws.signature.n, TG_BASE64_URL);
        MUST(tg_slice_is(spelled, again, (size_t)(end - again)));
    }
}

static void
try_member(const struct tg_jws_claims *claims, const struct tg_json_step *step)
{
    char *name = malloc(step->name.n + 1);
    struct tg_slice value;
    MUST(name != NULL);
    const size_t n = tg_json_unescape(step->name, name);
    MUST(tg_jws_claim(claims, tg_slice_of(name, n), &value) == TG_OK);
    MUST(value.p == step->value.p && value.n == step->value.n);
    name[n] = 'x'; /* most likely another one */
    struct tg_slice found;
    const enum tg_rc rc = tg_json_find(claims->text, name, n + 1, &found);
    MUST(tg_jws_claim(claims, tg_slice_of(name, n + 1), &value) == rc);
    MUST(rc != TG_OK || (value.p == found.p && value.n == found.n));
    free(name);
}

static void
try_payload(struct tg_slice text)
{
    struct tg_json_report report;
    struct tg_jws_claims claims;
    struct tg_json_step step;
    char *spelled = malloc(TG_BASE64_ROOM(text.n) + 1);
    MUST(spelled != NULL);
    const size_t n = (size_t)(tg_base64_encode(spelled, text.p, text.n, TG_BASE64_URL) - spelled);
    char *room = malloc(TG_BASE64_BYTES(n) + 1);
    MUST(room != NULL);
    const bool is_right = text.n > 0 && text.p[0] == '{' && tg_json_check(text.p, text.n, &report) == TG_OK;
    const enum tg_rc rc = tg_jws_read(tg_slice_of(spelled, n), room, &claims);
    MUST((rc == TG_OK) == is_right);
    if (rc == TG_OK) {
        MUST(tg_slice_is(claims.text, text.p, text.n));
        MUST(tg_json_open(&step, claims.text) == TG_OK);
        while (tg_json_next(&step) == TG_OK) {
            try_member(&claims, &step);
        }
    }
    free(room);
    free(spelled);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tg_slice text = tg_slice_of((const char *)data + (size > 0), size > 0 ? size - 1 : 0);
    if (size > 1 && data[0] == 't') {
        try_token(text);
    } else if (size > 1 && data[0] == 'p') {
        try_payload(text);
    }
    return 0;
}
