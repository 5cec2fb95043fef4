#include "http/edits.h"

enum { OLD_NAME = UINT8_MAX /* behind a RENAME: what it renames */ };

struct edit {
    struct tg_field field;
    uint8_t kind; /* enum tg_abi_edit, or OLD_NAME */
};

/* One block with the bytes of all names and values behind the list: each that a request is the first to touch in a
 * while is a cache miss. */
struct tg_edits {
    uint32_t count;
    uint32_t capacity;
    uint32_t text_used;
    uint32_t text_room : 31;
    uint32_t take_id : 1;
    struct edit list[];
};

struct tg_edits *
tg_edits_new(unsigned fields, size_t text)
{
    if (fields > UINT16_MAX || text > INT32_MAX) {
        return NULL;
    }
    struct tg_edits *edits = tg_mem_zero(sizeof *edits + fields * sizeof edits->list[0] + text);
    if (edits != NULL) {
        edits->capacity = fields;
        edits->text_room = (uint32_t)text & INT32_MAX;
    }
    return edits;
}

void
tg_edits_free(struct tg_edits *edits)
{
    tg_mem_free(edits);
}

/* A field that may be removed; `value` is that of one that is set. */
static enum tg_rc
prepare(struct tg_edits *edits, uint8_t kind, struct tg_slice name, struct tg_slice value)
{
    if (name.n > UINT16_MAX || value.n > UINT32_MAX || !tg_is_token(name.p, name.n)) {
        return TG_EINVAL;
    }
    struct edit edit = {.kind = kind, .field = tg_field_of(name, value)};
    if ((edit.field.flags & TG_FIELD_FRAMING) != 0) {
        return TG_EINVAL;
    }
    if (edits->count == edits->capacity || name.n + value.n > edits->text_room - edits->text_used) {
        return TG_ELIMIT;
    }
    tg_field_keep(&edit.field, (char *)(edits->list + edits->capacity) + edits->text_used);
    edits->text_used += (uint32_t)(name.n + value.n);
    edits->list[edits->count++] = edit;
    return TG_OK;
}

static enum tg_rc
add_told(struct tg_edits *edits)
{
    if (edits->count == edits->capacity) {
        return TG_ELIMIT;
    }
    edits->list[edits->count++] = (struct edit){.kind = TG_EDIT_TELL};
    return TG_OK;
}

enum tg_rc
tg_edits_add(struct tg_edits *edits, enum tg_abi_edit kind, struct tg_slice name, struct tg_slice value)
{
    const uint32_t count = edits->count;
    const uint32_t text_used = edits->text_used;
    const bool has_value = kind == TG_EDIT_SET || kind == TG_EDIT_ADD;
    if (kind == TG_EDIT_TELL) {
        return add_told(edits);
    }
    if (kind < TG_EDIT_SET || kind > TG_EDIT_SET_ID || (has_value && !tg_is_value(value.p, value.n))) {
        return TG_EINVAL;
    }
    const bool renames = kind == TG_EDIT_RENAME;
    const struct tg_slice nothing = {0};
    enum tg_rc rc = prepare(edits, (uint8_t)kind, renames ? value : name, has_value ? value : nothing);
    if (rc == TG_OK && kind != TG_EDIT_REMOVE &&
        (tg_field_flags_of((enum tg_field_id)edits->list[count].field.id) & TG_FIELD_HOP) != 0) {
        rc = TG_EINVAL;
    }
    if (rc == TG_OK && renames) {
        rc = prepare(edits, OLD_NAME, name, nothing);
    }
    if (rc != TG_OK) {
        edits->count = count;
        edits->text_used = text_used;
        return rc;
    }
    edits->take_id |= kind == TG_EDIT_SET_ID;
    return TG_OK;
}

bool
tg_edits_take_id(const struct tg_edits *edits)
{
    return edits->take_id;
}

static enum tg_rc
set_id(struct tg_message *message, const struct tg_field *as, struct tg_slice id)
{
    struct tg_field field = *as;
    field.value = id.p;
    field.value_len = (uint32_t)id.n;
    return tg_message_put(message, &field);
}

static enum tg_rc
put_told(struct tg_message *message, const struct tg_told **told)
{
    enum tg_rc rc = TG_OK;
    for (; *told != NULL && rc == TG_OK; *told = (*told)->next) {
        rc = tg_message_put(message, &(*told)->field);
    }
    return rc;
}

/* What of `told` was set is not set once more. */
static enum tg_rc
apply(const struct tg_edits *edits, struct tg_slice id, const struct tg_told **told, struct tg_message *message)
{
    enum tg_rc rc = TG_OK;
    for (uint32_t i = 0; i < edits->count && rc == TG_OK; i++) {
        const struct tg_field *field = &edits->list[i].field;
        switch (edits->list[i].kind) {
        case TG_EDIT_SET:
            rc = tg_message_put(message, field);
            break;
        case TG_EDIT_ADD:
            rc = tg_message_push(message, field);
            break;
        case TG_EDIT_REMOVE:
            tg_message_drop(message, field);
            break;
        case TG_EDIT_SET_ID:
            rc = id.n > 0 ? set_id(message, field, id) : TG_OK;
            break;
        case TG_EDIT_RENAME:
            tg_message_rename(message, &edits->list[++i].field, field);
            break;
        case TG_EDIT_TELL:
            rc = put_told(message, told);
            break;
        default:
            TG_ASSERT(false);
        }
    }
    return rc;
}

enum tg_rc
tg_edits_apply(const struct tg_edits *edits, struct tg_slice id, struct tg_message *message)
{
    const struct tg_told *nothing = NULL;
    return apply(edits, id, &nothing, message);
}

enum tg_rc
tg_edits_apply_told(const struct tg_edits *edits, struct tg_slice id, const struct tg_told *told,
                    struct tg_message *message)
{
    const enum tg_rc rc = edits == NULL ? TG_OK : apply(edits, id, &told, message);
    return rc == TG_OK ? put_told(message, &told) : rc;
}
