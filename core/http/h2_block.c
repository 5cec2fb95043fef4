#include "http/h2_block.h"

enum { FIRST_CAPACITY = 16, CAPACITY_MAX = TG_MESSAGE_FIELDS_MAX + 32 };

void
tg_h2_block_init(struct tg_h2_block *block, struct tg_arena *arena)
{
    *block = (struct tg_h2_block){.arena = arena};
}

static enum tg_rc
reserve(struct tg_h2_block *block, unsigned more)
{
    const unsigned need = block->count + more;
    if (need <= block->capacity) {
        return TG_OK;
    }
    if (need > CAPACITY_MAX) {
        return TG_ELIMIT;
    }
    unsigned capacity = block->capacity == 0 ? FIRST_CAPACITY : block->capacity * 2;
    while (capacity < need) {
        capacity *= 2;
    }
    nghttp2_nv *fields = tg_arena_alloc(block->arena, (TG_H2_PSEUDO_MAX + (size_t)capacity) * sizeof *fields);
    if (fields == NULL) {
        return TG_ENOMEM;
    }
    fields += TG_H2_PSEUDO_MAX;
    if (block->count > 0) {
        memcpy(fields, block->fields, block->count * sizeof *fields);
    }
    block->fields = fields;
    block->capacity = capacity;
    return TG_OK;
}

static nghttp2_nv
pair_of(const char *name, size_t name_len, const char *value, size_t value_len)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = name_len,
                        .valuelen = value_len,
                        .flags = NGHTTP2_NV_FLAG_NONE};
}

/* RFC 9113, section 8.2.2. */
static bool
has_place(enum tg_field_id id, struct tg_slice value)
{
    switch (id) {
    case TG_FIELD_CONNECTION:
    case TG_FIELD_KEEP_ALIVE:
    case TG_FIELD_PROXY_CONNECTION:
    case TG_FIELD_TRANSFER_ENCODING:
    case TG_FIELD_UPGRADE:
        return false;
    case TG_FIELD_TE:
        return tg_slice_is_text(value, "trailers", 8);
    default:
        return true;
    }
}

enum tg_rc
tg_h2_block_add(struct tg_h2_block *block, struct tg_slice name, struct tg_slice value)
{
    if (!tg_is_token(name.p, name.n) || !tg_is_value(value.p, value.n) ||
        !has_place(tg_field_id_of(name.p, name.n, tg_field_hash(name.p, name.n)), value)) {
        return TG_EINVAL;
    }
    enum tg_rc rc = reserve(block, 1);
    if (rc == TG_OK) {
        block->fields[block->count++] = pair_of(name.p, name.n, value.p, value.n);
    }
    return rc;
}

enum tg_rc
tg_h2_block_put(struct tg_h2_block *block, struct tg_slice name, struct tg_slice value, unsigned flags)
{
    const enum tg_rc rc = reserve(block, 1);
    if (rc == TG_OK) {
        nghttp2_nv *field = &block->fields[block->count++];
        *field = pair_of(name.p, name.n, value.p, value.n);
        field->flags |= (flags & TG_H2_FIELD_INDEXED) != 0 ? 0 : NGHTTP2_NV_FLAG_NO_INDEX;
        field->flags |= (flags & TG_H2_FIELD_KNOWN) != 0 ? NGHTTP2_NV_FLAG_NO_COPY_NAME : 0;
    }
    return rc;
}

enum tg_rc
tg_h2_block_message(struct tg_h2_block *block, const struct tg_message *message)
{
    enum tg_rc rc = reserve(block, message->count);
    for (unsigned i = 0; i < message->count && rc == TG_OK; i++) {
        const struct tg_field *field = &message->fields[i];
        if ((field->flags & TG_FIELD_HOP) == 0 && field->id != TG_FIELD_HOST) {
            block->fields[block->count++] = pair_of(field->name, field->name_len, field->value, field->value_len);
        }
    }
    return rc;
}

/* "Name: value" lines, each with its CRLF, that we have written. */
static enum tg_rc
add_lines(struct tg_h2_block *block, struct tg_slice lines)
{
    enum tg_rc rc = TG_OK;
    const char *end = lines.p + lines.n;
    for (const char *p = lines.p; p < end && rc == TG_OK;) {
        const char *colon = memchr(p, ':', (size_t)(end - p));
        const char *last = memchr(p, '\r', (size_t)(end - p));
        const char *value = colon + 2;
        rc = tg_h2_block_add(block, tg_slice_of(p, (size_t)(colon - p)), tg_slice_of(value, (size_t)(last - value)));
        p = last + 2;
    }
    return rc;
}

enum tg_rc
tg_h2_block_request(struct tg_h2_block *block, const struct tg_message *message, const struct tg_h1_forward *forward)
{
    struct tg_slice lines;
    enum tg_rc rc = tg_h1_write_forward(message, forward, &lines);
    if (rc == TG_OK) {
        rc = reserve(block, message->count + 8); /* lines */
    }
    for (unsigned i = 0; i < message->count && rc == TG_OK; i++) {
        const struct tg_field *field = &message->fields[i];
        if (!tg_h1_is_ours(field, forward->trust)) {
            block->fields[block->count++] = pair_of(field->name, field->name_len, field->value, field->value_len);
        }
    }
    return rc == TG_OK ? add_lines(block, lines) : rc;
}

void
tg_h2_block_pseudo(nghttp2_nv **first, size_t *count, struct tg_slice name, struct tg_slice value)
{
    --*first;
    ++*count;
    **first = pair_of(name.p, name.n, value.p, value.n);
    (*first)->flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
}
