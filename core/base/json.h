/*
 * json.h - what a JSON decoder passes over: two members of one name in an object, and objects without measure.
 *
 * Owns: nothing. Used by: vm/, for lua-cjson, which keeps the last of two members: a check that reads the first and a
 * service that reads the last would not mean the same (SECURITY 1.2).
 */
#ifndef TG_BASE_JSON_H
#define TG_BASE_JSON_H

#include "base/rc.h"
#include "base/slice.h"

enum { TG_JSON_KEYS_MAX = 10000 }; /* of an object */

/*
 * Checks a text that a decoder has found well-formed (RFC 8259); another one is read without harm, and the result says
 * nothing. TG_EBUSY: a name stands twice in an object; TG_ELIMIT: an object has more than TG_JSON_KEYS_MAX members.
 * Both set *name to the bytes in the text, without quotes. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_json_check(const char *p, size_t n, struct tg_slice *name);

#endif
