/*
 * edits.h - changes of fields that are known beforehand: judged and prepared once, applied to many messages.
 *
 * Owns: copies of all names and values. The fields of a message to which they were applied borrow from them, so they
 * must outlive it. Used by: the border to Lua. Does not know: who changes what, and why.
 */
#ifndef TG_HTTP_EDITS_H
#define TG_HTTP_EDITS_H

#include "http/message.h"

struct tg_edits;

/* A field that was made for a message before that is there; the last one first. Borrowed until the message is over. */
struct tg_told {
    const struct tg_told *next;
    struct tg_field field;
};

/* Room for this many fields, two of each RENAME and one of each other edit, and this many bytes of names and values in
 * all. NULL: memory is short, or it is too much. */
struct tg_edits *tg_edits_new(unsigned fields, size_t text);
void tg_edits_free(struct tg_edits *edits);

/*
 * One more, done after those before it. `value`: of RENAME the new name, of REMOVE, SET_ID and TELL nothing. A field
 * takes the new name where it stands, and those that had that name before are removed. TG_EINVAL: no name, a framing or
 * hop-by-hop field, or a value with control bytes; TG_ELIMIT: there is no room. All is as before then.
 */
TG_MUST_CHECK enum tg_rc tg_edits_add(struct tg_edits *edits, enum tg_abi_edit kind, struct tg_slice name,
                                      struct tg_slice value);

/* Whether there is a SET_ID among them. */
bool tg_edits_take_id(const struct tg_edits *edits);

/* `id`: of the exchange, outlives the message; an empty one is set nowhere. TG_ENOMEM, TG_ELIMIT: those up to the one
 * that needed too much are done. */
TG_MUST_CHECK enum tg_rc tg_edits_apply(const struct tg_edits *edits, struct tg_slice id, struct tg_message *message);
/* The same to a message for which something was told: it is set where TELL says so, or else at last. `edits` NULL:
 * none. */
TG_MUST_CHECK enum tg_rc tg_edits_apply_told(const struct tg_edits *edits, struct tg_slice id,
                                             const struct tg_told *told, struct tg_message *message);

#endif
