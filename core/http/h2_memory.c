#include "http/h2_memory.h"

struct tg_h2_piece {
    struct tg_h2_piece *next;
    struct tg_h2_piece **link;
};

static void *
linked(struct tg_h2_memory *memory, struct tg_h2_piece *piece)
{
    if (piece == NULL) {
        memory->failed = true;
        return NULL;
    }
    piece->next = memory->pieces;
    piece->link = &memory->pieces;
    if (piece->next != NULL) {
        piece->next->link = &piece->next;
    }
    memory->pieces = piece;
    return piece + 1;
}

static void
unlink_piece(struct tg_h2_piece *piece)
{
    *piece->link = piece->next;
    if (piece->next != NULL) {
        piece->next->link = piece->link;
    }
}

static void *
take(size_t n, void *memory)
{
    return linked(memory, tg_mem_alloc(sizeof(struct tg_h2_piece) + n));
}

static void *
take_zero(size_t count, size_t n, void *memory)
{
    const bool fits = n == 0 || count < (SIZE_MAX - sizeof(struct tg_h2_piece)) / n;
    return linked(memory, fits ? tg_mem_zero(sizeof(struct tg_h2_piece) + count * n) : NULL);
}

static void
give(void *p, void *arg)
{
    const struct tg_h2_memory *memory = arg;
    if (p != NULL && !memory->failed) {
        struct tg_h2_piece *piece = (struct tg_h2_piece *)p - 1;
        unlink_piece(piece);
        tg_mem_free(piece);
    }
}

static void *
resize(void *p, size_t n, void *arg)
{
    struct tg_h2_memory *memory = arg;
    if (p == NULL) {
        return take(n, memory);
    }
    struct tg_h2_piece *piece = (struct tg_h2_piece *)p - 1;
    unlink_piece(piece);
    struct tg_h2_piece *other = tg_mem_resize(piece, sizeof *piece + n);
    (void)linked(memory, other != NULL ? other : piece);
    memory->failed |= other == NULL;
    return other == NULL ? NULL : other + 1;
}

nghttp2_mem
tg_h2_memory_of(struct tg_h2_memory *memory)
{
    return (nghttp2_mem){memory, take, give, take_zero, resize};
}

void
tg_h2_memory_fini(struct tg_h2_memory *memory)
{
    while (memory->pieces != NULL) {
        struct tg_h2_piece *piece = memory->pieces;
        memory->pieces = piece->next;
        tg_mem_free(piece);
    }
}
