/*
 * field.h - names and values of fields (RFC 9110, section 5): which bytes are allowed, which names are known.
 *
 * Owns: the constant table of known names. Used by: the codecs and whatever looks a field up.
 * Does not know: messages.
 */
#ifndef TG_HTTP_FIELD_H
#define TG_HTTP_FIELD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* Names that the core itself must recognise; all others are TG_FIELD_OTHER. */
enum tg_field_id {
    TG_FIELD_OTHER,
    TG_FIELD_HOST,
    TG_FIELD_CONTENT_LENGTH,
    TG_FIELD_TRANSFER_ENCODING,
    TG_FIELD_CONNECTION,
    TG_FIELD_KEEP_ALIVE,
    TG_FIELD_PROXY_CONNECTION,
    TG_FIELD_TE,
    TG_FIELD_TRAILER,
    TG_FIELD_UPGRADE,
    TG_FIELD_EXPECT,
    TG_FIELD_HTTP2_SETTINGS,
    TG_FIELD_PROXY,
    TG_FIELD_PROXY_AUTHENTICATE,
    TG_FIELD_PROXY_AUTHORIZATION,
    TG_FIELD_X_FORWARDED_FOR,
    TG_FIELD_X_FORWARDED_PROTO,
    TG_FIELD_X_FORWARDED_HOST,
    TG_FIELD_X_FORWARDED_PORT,
    TG_FIELD_X_REAL_IP,
    TG_FIELD_FORWARDED,
    TG_FIELD_VIA,
    TG_FIELD_DATE,
    TG_FIELD_SERVER,
    TG_FIELD_AUTHORIZATION,
    TG_FIELD_COOKIE,
    TG_FIELD_SET_COOKIE,
    TG_FIELD_CONTENT_TYPE,
    TG_FIELD_COUNT
};

enum tg_field_flag {
    TG_FIELD_HOP = 1,     /* hop-by-hop: never forwarded (RFC 9110, section 7.6.1) */
    TG_FIELD_FRAMING = 2, /* read-only for plugins: written by the codec alone */
    TG_FIELD_SET = 4,     /* set by a plugin: Connection cannot remove it */
    TG_FIELD_PROTECTED =
        8, /* routes, or tells who the client is: Connection may not name it, trailers may not hold it */
    TG_FIELD_UNDERSCORE = 16 /* allowed with an underscore in its name */
};

struct tg_field {
    const char *name; /* as received */
    const char *value;
    uint32_t value_len; /* without blanks around */
    uint16_t name_len;
    uint8_t id;    /* enum tg_field_id */
    uint8_t flags; /* enum tg_field_flag */
    uint32_t hash; /* tg_field_hash of the name */
};

/* Table lookups: bytes of a token (RFC 9110, section 5.6.2), of a value (section 5.5). */
extern const unsigned char tg_token_byte[256]; /* 0, or the lower-case byte */
bool tg_is_token(const char *p, size_t n);
/* How many bytes at `p` may stand in a value: up to the first control byte but HTAB, at most n. */
size_t tg_value_length(const char *p, size_t n);
/* Without NUL, CR, LF and other control bytes but HTAB; blanks at the ends are refused as well. */
bool tg_is_value(const char *p, size_t n);

/* One member of a list (RFC 9110, section 5.6.1), without the blanks around it; *p moves behind its comma. An empty one
 * ends nothing. */
struct tg_slice tg_next_member(const char **p, const char *end);

/* Case-free hash of a name; the same in one process alone. */
uint32_t tg_field_hash(const char *name, size_t n);

/* The known methods (RFC 9110, section 9.3, and PATCH), from 1 on; 0 for another one. */
unsigned tg_method_id(struct tg_slice method);
/* NULL behind the last. */
const char *tg_method_name(unsigned id);

/* The field of these bytes, with what its name says of it. At most UINT16_MAX and UINT32_MAX of them. */
struct tg_field tg_field_of(struct tg_slice name, struct tg_slice value);
/* A plugin sets it: from now on its name, and its value behind that, are at `copy`, which has room for both. */
void tg_field_keep(struct tg_field *field, char *copy);

/* The id of a name whose hash is known. */
enum tg_field_id tg_field_id_of(const char *name, size_t n, uint32_t hash);
/* Flags that the id brings by itself. */
uint8_t tg_field_flags_of(enum tg_field_id id);

#endif
