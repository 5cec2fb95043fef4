#include "http/edits.h"

struct owned {
    struct tg_field field;
    char *text; /* the bytes of its name, and of its value behind them */
};

struct edit {
    uint8_t kind;       /* enum tg_abi_edit */
    struct owned field; /* what is set, added or removed; of a renamed one the new name */
    struct owned from;  /* of a renamed one: the old name */
};

struct tg_edits {
    struct edit *list;
    unsigned count;
    unsigned capacity;
    bool take_id;
};

enum { FIRST_CAPACITY = 2 };

struct tg_edits *
tg_edits_new(void)
{
    return tg_mem_new(struct tg_edits);
}

static void
forget(struct edit *edit)
{
    tg_mem_free(edit->field.text);
    tg_mem_free(edit->from.text);
}

void
tg_edits_free(struct tg_edits *edits)
{
    if (edits == NULL) {
        return;
    }
    for (unsigned i = 0; i < edits->count; i++) {
        forget(&edits->list[i]);
    }
    tg_mem_free(edits->list);
    tg_mem_free(edits);
}

/* A field that may be removed; `value` is that of one that is set. What is no TG_OK has taken no memory. */
static enum tg_rc
prepare(struct tg_slice name, struct tg_slice value, struct owned *out)
{
    if (name.n > UINT16_MAX || value.n > UINT32_MAX || !tg_is_token(name.p, name.n)) {
        return TG_EINVAL;
    }
    out->field = tg_field_of(name, value);
    if ((out->field.flags & TG_FIELD_FRAMING) != 0) {
        return TG_EINVAL;
    }
    out->text = tg_mem_alloc(name.n + value.n);
    if (out->text == NULL) {
        return TG_ENOMEM;
    }
    tg_field_keep(&out->field, out->text);
    return TG_OK;
}

static enum tg_rc
grow(struct tg_edits *edits)
{
    const unsigned capacity = edits->capacity == 0 ? FIRST_CAPACITY : edits->capacity * 2;
    struct edit *list = tg_mem_resize(edits->list, capacity * sizeof *list);
    if (list == NULL) {
        return TG_ENOMEM;
    }
    edits->list = list;
    edits->capacity = capacity;
    return TG_OK;
}

static enum tg_rc
prepare_edit(struct edit *edit, struct tg_slice name, struct tg_slice value)
{
    const struct tg_slice nothing = {0};
    enum tg_rc rc;
    switch ((enum tg_abi_edit)edit->kind) {
    case TG_EDIT_TELL:
        return TG_OK;
    case TG_EDIT_REMOVE:
        return prepare(name, nothing, &edit->field);
    case TG_EDIT_RENAME:
        rc = prepare(name, nothing, &edit->from);
        if (rc == TG_OK) {
            rc = prepare(value, nothing, &edit->field);
        }
        break;
    case TG_EDIT_SET_ID:
        rc = prepare(name, nothing, &edit->field);
        break;
    case TG_EDIT_SET:
    case TG_EDIT_ADD:
        rc = tg_is_value(value.p, value.n) ? prepare(name, value, &edit->field) : TG_EINVAL;
        break;
    default:
        return TG_EINVAL;
    }
    const bool hop = (tg_field_flags_of((enum tg_field_id)edit->field.field.id) & TG_FIELD_HOP) != 0;
    return rc == TG_OK && hop ? TG_EINVAL : rc;
}

enum tg_rc
tg_edits_add(struct tg_edits *edits, enum tg_abi_edit kind, struct tg_slice name, struct tg_slice value)
{
    struct edit edit = {.kind = (uint8_t)kind};
    enum tg_rc rc = prepare_edit(&edit, name, value);
    if (rc == TG_OK && edits->count == edits->capacity) {
        rc = grow(edits);
    }
    if (rc != TG_OK) {
        forget(&edit);
        return rc;
    }
    edits->take_id |= kind == TG_EDIT_SET_ID;
    edits->list[edits->count++] = edit;
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
    for (unsigned i = 0; i < edits->count && rc == TG_OK; i++) {
        const struct edit *edit = &edits->list[i];
        switch ((enum tg_abi_edit)edit->kind) {
        case TG_EDIT_SET:
            rc = tg_message_put(message, &edit->field.field);
            break;
        case TG_EDIT_ADD:
            rc = tg_message_push(message, &edit->field.field);
            break;
        case TG_EDIT_REMOVE:
            tg_message_drop(message, &edit->field.field);
            break;
        case TG_EDIT_SET_ID:
            rc = id.n > 0 ? set_id(message, &edit->field.field, id) : TG_OK;
            break;
        case TG_EDIT_RENAME:
            tg_message_rename(message, &edit->from.field, &edit->field.field);
            break;
        case TG_EDIT_TELL:
            rc = put_told(message, told);
            break;
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
