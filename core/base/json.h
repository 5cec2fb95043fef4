/*
 * json.h - JSON texts (RFC 8259) whether one is well-formed, and what every reader of one needs.
 *
 * Owns: nothing. Used by: vm/, before it reads a text or passes it on. A check that reads the first of two members of
 * one name and a service that reads the last would not mean the same (SECURITY 1.2), so those are refused.
 */
#ifndef TG_BASE_JSON_H
#define TG_BASE_JSON_H

#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_JSON_KEYS_MAX = 10000, /* of an object */
    TG_JSON_DEPTH_MAX = 32
};

struct tg_json_report {
    const char *at;       /* where the fault is; in the text, or its end */
    const char *what;     /* is wrong: an English phrase; NULL: nothing */
    struct tg_slice name; /* the member that stands twice or is one too many, as it is spelled */
};

/*
 * TG_OK: a well-formed text in UTF-8. TG_EPROTOCOL: malformed. TG_EBUSY: a member stands twice in its object.
 * TG_ELIMIT: deeper than TG_JSON_DEPTH_MAX, or more members than TG_JSON_KEYS_MAX. TG_ENOMEM. `report` says where.
 */
TG_MUST_CHECK enum tg_rc tg_json_check(const char *p, size_t n, struct tg_json_report *report);

/* Bytes of a string before its first quote, backslash, control byte or byte above 0x7f; near `end` it may tell fewer.
 */
size_t tg_json_plain(const char *p, const char *end);
/* A string as it is meant, without quotes and escapes: at most as long as it is spelled. Returns the bytes written. */
size_t tg_json_unescape(struct tg_slice spelled, char *out);
/* Whether an integer of these digits is beyond 2^53: as a double it could not be told from its neighbours. */
bool tg_json_is_long(const char *digits, size_t n);

#endif
