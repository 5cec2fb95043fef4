/*
 * jws.h - signed tokens in compact form (RFC 7515, section 7.1): where their parts are, and the claims in a payload.
 *
 * Owns: nothing; rooms are the caller's, and all slices point into them or into the token. Used by: the border.
 * Does not know: keys, or what a claim means. Whoever reads claims has verified the signature before.
 */
#ifndef TG_BASE_JWS_H
#define TG_BASE_JWS_H

#include "base/rc.h"
#include "base/slice.h"

enum { TG_JWS_FEW = 24 /* members that are found without reading the text again */ };

/* The members of a payload, or none of them when they are too many, or spelled with escapes. */
struct tg_jws_claims {
    struct tg_slice text; /* an object of JSON that is well-formed, without blanks before it */
    unsigned count;
    struct tg_slice names[TG_JWS_FEW];
    struct tg_slice values[TG_JWS_FEW];
};

/*
 * The parts of a token: header and payload as they are spelled, what was signed, and the bytes of the signature in
 * `room` of `room_n` bytes; signature.p is NULL when it is no base64url, or longer than that. TG_EINVAL: not three
 * parts with something in each, or padded; *jws is untouched.
 */
TG_MUST_CHECK enum tg_rc tg_jws_split(struct tg_slice token, char *room, size_t room_n, struct tg_abi_jws *jws);

/*
 * Reads a payload as it is spelled; `room` has TG_BASE64_BYTES of its length. TG_EINVAL: it is no object of JSON in
 * base64url that has each member once, and *claims is of no use. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_jws_read(struct tg_slice spelled, char *room, struct tg_jws_claims *claims);
/* The value of one of them, as it is spelled. TG_ENONE. */
TG_MUST_CHECK enum tg_rc tg_jws_claim(const struct tg_jws_claims *claims, struct tg_slice name, struct tg_slice *value);

#endif
