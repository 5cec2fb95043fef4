/*
 * json_items.h - the items of one array in a JSON text that comes in pieces: where each begins and ends.
 *
 * Owns: nothing. Used by: vm/, for streams. Looks at brackets, strings and names only: whether an item is well-formed
 * is for tg_json_check to say, of each item by itself.
 */
#ifndef TG_BASE_JSON_ITEMS_H
#define TG_BASE_JSON_ITEMS_H

#include "base/rc.h"
#include "base/slice.h"

enum { TG_JSON_ITEMS_DEPTH = 64, TG_JSON_ITEMS_PATH = 256 };

/* Zero it, then tg_json_items_init. */
struct tg_json_items {
    char path[TG_JSON_ITEMS_PATH]; /* names, each ended by NUL */
    char name[TG_JSON_ITEMS_PATH]; /* of the member that is being read, */
    unsigned name_n;               /* cut */
    unsigned segments;             /* of the path */
    unsigned matched;              /* of them, by what is open */
    unsigned depth;
    unsigned target;  /* depth within the array, 0: it has not begun */
    uint64_t objects; /* a bit for each level: it is an object */
    bool in_string;
    bool escaped;
    bool is_name; /* the string is the name of a member */
    bool wants_name;
    bool candidate; /* the value that comes next is where the path leads */
    bool in_item;
    bool done;
};

/* `path`: names with dots between, empty for the text itself. TG_EINVAL: too long. */
TG_MUST_CHECK enum tg_rc tg_json_items_init(struct tg_json_items *items, struct tg_slice path);
/*
 * Takes bytes of a piece, *used of them. *item is those that belong to the item that is being read, perhaps none.
 * TG_OK: the item ends here. TG_AGAIN: the piece is used up. TG_ENONE: the array has ended, and an item with it if
 * *item or an earlier one said so: `in_item` is true then. TG_EPROTOCOL: brackets that do not fit, or too deep.
 */
TG_MUST_CHECK enum tg_rc tg_json_items_take(struct tg_json_items *items, struct tg_slice piece, size_t *used,
                                            struct tg_slice *item);

#endif
