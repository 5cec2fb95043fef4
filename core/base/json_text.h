/*
 * json_text.h - a JSON text that is being written (RFC 8259), piece by piece.
 *
 * Owns: the bytes, which grow. Used by: yaml, and vm/ for what Lua encodes. Whether commas and brackets stand where
 * they must is the writer's business.
 */
#ifndef TG_BASE_JSON_TEXT_H
#define TG_BASE_JSON_TEXT_H

#include "base/rc.h"

struct tg_json_text {
    char *p;
    size_t n;
    size_t capacity;
    size_t max; /* bytes */
};

/* TG_ELIMIT: more than `max`; TG_ENOMEM. The text is as it was then. */
TG_MUST_CHECK enum tg_rc tg_json_put(struct tg_json_text *text, const char *p, size_t n);
/* With quotes; bytes that are no UTF-8 become U+FFFD. Errors as above, perhaps with half of it written. */
TG_MUST_CHECK enum tg_rc tg_json_put_string(struct tg_json_text *text, const char *p, size_t n);
/* The same, but nothing more of it once the text has `most` bytes, and then its end. */
TG_MUST_CHECK enum tg_rc tg_json_put_string_cut(struct tg_json_text *text, const char *p, size_t n, size_t most);
/* How many bytes at `p` stand for themselves, up to the first that is no printable ASCII, a quote or a backslash. */
size_t tg_json_plain_length(const char *p, size_t n);
/* The shortest digits that are read as the same number again. TG_EINVAL: JSON has none for NaN and infinity. */
TG_MUST_CHECK enum tg_rc tg_json_put_number(struct tg_json_text *text, double number);
/* Empties it, and keeps no more memory than `keep` bytes. */
void tg_json_text_clear(struct tg_json_text *text, size_t keep);

#endif
