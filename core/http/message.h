/*
 * message.h - the parsed head of a request or a response: its fields in order, and edits of them.
 *
 * Owns: nothing; names and values are borrowed from the bytes that were parsed or from the arena of the exchange, and
 * the array lives in that arena. Used by: codecs, proxy, the border to Lua. Does not know: sockets, framing.
 */
#ifndef TG_HTTP_MESSAGE_H
#define TG_HTTP_MESSAGE_H

#include "base/mem.h"
#include "http/field.h"

enum { TG_MESSAGE_FIELDS_MAX = 512 }; /* also of what plugins add */

/* How the body is delimited (RFC 9112, section 6). */
enum tg_framing { TG_FRAMING_NONE, TG_FRAMING_LENGTH, TG_FRAMING_CHUNKED, TG_FRAMING_CLOSE };

/* What becomes of a request's fields with an underscore in their name. */
enum tg_underscores {
    TG_UNDERSCORES_DROP,
    TG_UNDERSCORES_ALLOW,
    TG_UNDERSCORES_REJECT /* 400 */
};

/* How a request is read where there is a choice; zero is the default. To be set before parsing. */
struct tg_reading {
    uint8_t underscores; /* enum tg_underscores */
    bool keep_slashes;   /* doubled slashes in the path are not merged */
};

struct tg_message {
    struct tg_arena *arena; /* borrowed */
    struct tg_field *fields;
    unsigned count;
    unsigned capacity;
    uint64_t seen;             /* a bit for the name of each field, also of some that are gone: most that are looked for
                                  are not there */
    uint64_t content_length;   /* for TG_FRAMING_LENGTH */
    uint8_t framing;           /* enum tg_framing */
    uint8_t version_major;     /* 1 or 2 */
    uint8_t version_minor;     /* 0 or 1; 0 of HTTP/2 */
    bool keep_alive;           /* what this message says of its connection */
    bool expect_continue;      /* request */
    bool close;                /* Connection has the option: it wins over keep-alive */
    bool upgrade;              /* Connection has the option */
    bool has_date;             /* response */
    bool has_length;           /* response: a Content-Length, also where none delimits the body (HEAD, 304) */
    uint16_t status;           /* response */
    struct tg_reading reading; /* request */
    struct tg_slice method;    /* request */
    struct tg_slice target;    /* request; as received */
    struct tg_slice host;      /* request; value of Host, or authority of an absolute-form target */
    struct tg_slice reason;    /* response */
};

void tg_message_init(struct tg_message *message, struct tg_arena *arena);

/* Appends a field whose bytes outlive the message. TG_ENOMEM, TG_ELIMIT: the message is as before. */
TG_MUST_CHECK enum tg_rc tg_message_push(struct tg_message *message, const struct tg_field *field);

/* The first field of this name at or after `*from`, or NULL; `*from` is then behind it. */
struct tg_field *tg_message_find(const struct tg_message *message, const char *name, size_t n, unsigned *from);
/* The same for the name of `field`, whose hash is known. */
struct tg_field *tg_message_find_same(const struct tg_message *message, const struct tg_field *field, unsigned *from);
struct tg_field *tg_message_find_id(const struct tg_message *message, enum tg_field_id id);

/*
 * Adds a field made of copies. TG_EINVAL: no token, a byte that may not stand in a value, or a framing field; nothing
 * is changed then.
 */
TG_MUST_CHECK enum tg_rc tg_message_add(struct tg_message *message, struct tg_slice name, struct tg_slice value);
/* As tg_message_add, in the place of the first field of this name; the others of it are removed. */
TG_MUST_CHECK enum tg_rc tg_message_set(struct tg_message *message, struct tg_slice name, struct tg_slice value);
/* Removes all fields of this name. TG_EINVAL for a framing field. */
TG_MUST_CHECK enum tg_rc tg_message_remove(struct tg_message *message, const char *name, size_t n);

/*
 * The same with a field that was judged before, and whose bytes outlive the message. put: as tg_message_set, drop: as
 * tg_message_remove of its name. rename: fields named as `from` take the name of `to` where they stand; those that had
 * it are removed.
 */
TG_MUST_CHECK enum tg_rc tg_message_put(struct tg_message *message, const struct tg_field *field);
void tg_message_drop(struct tg_message *message, const struct tg_field *field);
void tg_message_rename(struct tg_message *message, const struct tg_field *from, const struct tg_field *to);

/* The bytes at `p` that names and values were borrowed from are about to go: borrows from a copy of them. TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_message_move(struct tg_message *message, const char *p, size_t n);

/* Marks as hop-by-hop what the Connection field names. TG_EINVAL: it names a field that it may not remove. */
TG_MUST_CHECK enum tg_rc tg_message_apply_connection(struct tg_message *message);

#endif
