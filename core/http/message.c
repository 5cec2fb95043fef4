#include "http/message.h"

enum { FIRST_CAPACITY = 24 };

static inline uint64_t
bit_of(uint32_t hash)
{
    return UINT64_C(1) << (hash & 63);
}

void
tg_message_init(struct tg_message *message, struct tg_arena *arena)
{
    *message = (struct tg_message){.arena = arena, .version_major = 1};
}

static enum tg_rc
grow(struct tg_message *message)
{
    if (message->count >= TG_MESSAGE_FIELDS_MAX) {
        return TG_ELIMIT;
    }
    const unsigned capacity = message->capacity == 0 ? FIRST_CAPACITY : message->capacity * 2;
    struct tg_field *fields = tg_arena_alloc(message->arena, capacity * sizeof *fields);
    if (fields == NULL) {
        return TG_ENOMEM;
    }
    if (message->count > 0) {
        memcpy(fields, message->fields, message->count * sizeof *fields);
    }
    message->fields = fields;
    message->capacity = capacity;
    return TG_OK;
}

enum tg_rc
tg_message_push(struct tg_message *message, const struct tg_field *field)
{
    if (message->count == message->capacity) {
        enum tg_rc rc = grow(message);
        if (rc != TG_OK) {
            return rc;
        }
    }
    message->fields[message->count++] = *field;
    message->seen |= bit_of(field->hash);
    return TG_OK;
}

/* A name that was written once a generation is often where it was put. */
static inline bool
is_hashed(const struct tg_field *field, const char *name, size_t n, uint32_t hash)
{
    return field->hash == hash && field->name_len == n &&
           (field->name == name || tg_slice_same_text(field->name, name, n));
}

static struct tg_field *
find_hashed(const struct tg_message *message, const char *name, size_t n, uint32_t hash, unsigned *from)
{
    if ((message->seen & bit_of(hash)) == 0) {
        return NULL;
    }
    for (unsigned i = *from; i < message->count; i++) {
        struct tg_field *field = &message->fields[i];
        if (is_hashed(field, name, n, hash)) {
            *from = i + 1;
            return field;
        }
    }
    return NULL;
}

struct tg_field *
tg_message_find(const struct tg_message *message, const char *name, size_t n, unsigned *from)
{
    return find_hashed(message, name, n, tg_field_hash(name, n), from);
}

struct tg_field *
tg_message_find_same(const struct tg_message *message, const struct tg_field *field, unsigned *from)
{
    return find_hashed(message, field->name, field->name_len, field->hash, from);
}

struct tg_field *
tg_message_find_id(const struct tg_message *message, enum tg_field_id id)
{
    for (unsigned i = 0; i < message->count; i++) {
        if (message->fields[i].id == id) {
            return &message->fields[i];
        }
    }
    return NULL;
}

static enum tg_rc
make_field(struct tg_message *message, struct tg_slice name, struct tg_slice value, struct tg_field *out)
{
    if (name.n > UINT16_MAX || value.n > UINT32_MAX || !tg_is_token(name.p, name.n) || !tg_is_value(value.p, value.n)) {
        return TG_EINVAL;
    }
    *out = tg_field_of(name, value);
    if ((out->flags & (TG_FIELD_FRAMING | TG_FIELD_HOP)) != 0) {
        return TG_EINVAL;
    }
    char *copy = tg_arena_alloc(message->arena, name.n + value.n);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    tg_field_keep(out, copy);
    return TG_OK;
}

enum tg_rc
tg_message_add(struct tg_message *message, struct tg_slice name, struct tg_slice value)
{
    struct tg_field field;
    enum tg_rc rc = make_field(message, name, value, &field);
    return rc == TG_OK ? tg_message_push(message, &field) : rc;
}

/* Removes the fields of this name from index `from` on. */
static void
remove_from(struct tg_message *message, const char *name, size_t n, uint32_t hash, unsigned from)
{
    unsigned kept = from;
    if ((message->seen & bit_of(hash)) == 0) {
        return;
    }
    for (unsigned i = from; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        if (is_hashed(field, name, n, hash)) {
            continue;
        }
        if (kept != i) {
            message->fields[kept] = *field;
        }
        kept++;
    }
    message->count = kept;
}

enum tg_rc
tg_message_set(struct tg_message *message, struct tg_slice name, struct tg_slice value)
{
    struct tg_field field;
    enum tg_rc rc = make_field(message, name, value, &field);
    return rc == TG_OK ? tg_message_put(message, &field) : rc;
}

enum tg_rc
tg_message_put(struct tg_message *message, const struct tg_field *field)
{
    unsigned next = 0;
    struct tg_field *first = find_hashed(message, field->name, field->name_len, field->hash, &next);
    if (first == NULL) {
        return tg_message_push(message, field);
    }
    *first = *field;
    remove_from(message, field->name, field->name_len, field->hash, next);
    return TG_OK;
}

void
tg_message_drop(struct tg_message *message, const struct tg_field *field)
{
    remove_from(message, field->name, field->name_len, field->hash, 0);
}

static bool
is_named(const struct tg_field *field, const struct tg_field *as)
{
    return is_hashed(field, as->name, as->name_len, as->hash);
}

void
tg_message_rename(struct tg_message *message, const struct tg_field *from, const struct tg_field *to)
{
    unsigned first = 0;
    if (find_hashed(message, from->name, from->name_len, from->hash, &first) == NULL) {
        return;
    }
    unsigned kept = 0;
    message->seen |= bit_of(to->hash);
    for (unsigned i = 0; i < message->count; i++) {
        struct tg_field field = message->fields[i];
        if (is_named(&field, from)) {
            field.name = to->name;
            field.name_len = to->name_len;
            field.id = to->id;
            field.flags = TG_FIELD_SET;
            field.hash = to->hash;
        } else if (is_named(&field, to)) {
            continue;
        }
        message->fields[kept++] = field;
    }
    message->count = kept;
}

enum tg_rc
tg_message_remove(struct tg_message *message, const char *name, size_t n)
{
    const uint32_t hash = tg_field_hash(name, n);
    const enum tg_field_id id = tg_field_id_of(name, n, hash);
    if (n == 0 || (tg_field_flags_of(id) & TG_FIELD_FRAMING) != 0) {
        return TG_EINVAL;
    }
    remove_from(message, name, n, hash, 0);
    return TG_OK;
}

/*
 * RFC 9110, section 7.6.1: a member of Connection is hop-by-hop. It must not reach what decides who the client is, also
 * when no such field is there: a gateway behind us might add it.
 */
static enum tg_rc
drop_named(struct tg_message *message, const char *name, size_t n)
{
    const uint32_t hash = tg_field_hash(name, n);
    unsigned from = 0;
    struct tg_field *field;
    if ((tg_field_flags_of(tg_field_id_of(name, n, hash)) & TG_FIELD_PROTECTED) != 0) {
        return TG_EINVAL;
    }
    while ((field = find_hashed(message, name, n, hash, &from)) != NULL) {
        field->flags |= TG_FIELD_HOP;
    }
    return TG_OK;
}

enum tg_rc
tg_message_apply_connection(struct tg_message *message)
{
    for (unsigned i = 0; i < message->count; i++) {
        const struct tg_field *field = &message->fields[i];
        if (field->id != TG_FIELD_CONNECTION) {
            continue;
        }
        const char *p = field->value;
        const char *end = p + field->value_len;
        while (p < end) {
            const struct tg_slice option = tg_next_member(&p, end);
            if (option.n > 0 && drop_named(message, option.p, option.n) != TG_OK) {
                return TG_EINVAL;
            }
        }
    }
    return TG_OK;
}

static const char *
moved(const char *pointer, const char *from, size_t n, const char *to)
{
    const bool inside = (uintptr_t)pointer >= (uintptr_t)from && (uintptr_t)pointer < (uintptr_t)from + n;
    return inside ? to + (pointer - from) : pointer;
}

enum tg_rc
tg_message_move(struct tg_message *message, const char *p, size_t n)
{
    const char *copy = tg_arena_copy(message->arena, p, n);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    for (unsigned i = 0; i < message->count; i++) {
        struct tg_field *field = &message->fields[i];
        field->name = moved(field->name, p, n, copy);
        field->value = moved(field->value, p, n, copy);
    }
    message->reason.p = moved(message->reason.p, p, n, copy);
    return TG_OK;
}
