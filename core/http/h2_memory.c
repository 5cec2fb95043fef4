#include "http/h2_memory.h"

#include <string.h>

struct tg_h2_piece {
    _Alignas(max_align_t) struct tg_h2_piece *next;
    struct tg_h2_piece **link;
    size_t size; /* bytes behind it */
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

static size_t
rounded(size_t n)
{
    const size_t step = TG_H2_MEMORY_STEP;
    return n <= step * TG_H2_MEMORY_SIZES ? (n + step - 1) / step * step : n;
}

/* Streams come and go many at a time: more than the C library has at hand. */
static struct tg_h2_piece **
spare_of(struct tg_h2_memory *memory, size_t size)
{
    return size > 0 && size <= (size_t)TG_H2_MEMORY_STEP * TG_H2_MEMORY_SIZES
               ? &memory->spare[size / TG_H2_MEMORY_STEP - 1]
               : NULL;
}

static struct tg_h2_piece *
piece_of(struct tg_h2_memory *memory, size_t n)
{
    const size_t size = rounded(n);
    struct tg_h2_piece **spare = spare_of(memory, size);
    struct tg_h2_piece *piece = spare != NULL ? *spare : NULL;
    if (piece != NULL) {
        *spare = piece->next;
        memory->spare_size -= size;
        tg_mem_unpoison(piece + 1, size);
        return piece;
    }
    piece = tg_mem_alloc(sizeof *piece + size);
    if (piece != NULL) {
        piece->size = size;
    }
    return piece;
}

static void *
take(size_t n, void *memory)
{
    return linked(memory, n < SIZE_MAX - sizeof(struct tg_h2_piece) ? piece_of(memory, n) : NULL);
}

static void *
take_zero(size_t count, size_t n, void *memory)
{
    const bool fits = n == 0 || count < (SIZE_MAX - sizeof(struct tg_h2_piece)) / n;
    void *p = linked(memory, fits ? piece_of(memory, count * n) : NULL);
    return p == NULL ? NULL : memset(p, 0, count * n);
}

static void
give(void *p, void *arg)
{
    struct tg_h2_memory *memory = arg;
    if (p == NULL || memory->failed) {
        return;
    }
    struct tg_h2_piece *piece = (struct tg_h2_piece *)p - 1;
    struct tg_h2_piece **spare = spare_of(memory, piece->size);
    unlink_piece(piece);
    if (spare == NULL || memory->spare_size + piece->size > TG_H2_MEMORY_SPARE_MAX) {
        tg_mem_free(piece);
        return;
    }
    piece->next = *spare;
    *spare = piece;
    memory->spare_size += piece->size;
    tg_mem_poison(piece + 1, piece->size);
}

void
tg_h2_memory_trim(struct tg_h2_memory *memory)
{
    for (unsigned i = 0; i < TG_H2_MEMORY_SIZES && memory->spare_size > 0; i++) {
        while (memory->spare[i] != NULL) {
            struct tg_h2_piece *piece = memory->spare[i];
            memory->spare[i] = piece->next;
            memory->spare_size -= piece->size;
            tg_mem_unpoison(piece + 1, piece->size);
            tg_mem_free(piece);
        }
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
    if (n <= piece->size) {
        return p;
    }
    unlink_piece(piece);
    n = rounded(n);
    struct tg_h2_piece *other = tg_mem_resize(piece, sizeof *piece + n);
    (void)linked(memory, other != NULL ? other : piece);
    memory->failed |= other == NULL;
    if (other == NULL) {
        return NULL;
    }
    other->size = n;
    return other + 1;
}

nghttp2_mem
tg_h2_memory_of(struct tg_h2_memory *memory)
{
    return (nghttp2_mem){memory, take, give, take_zero, resize};
}

void
tg_h2_memory_fini(struct tg_h2_memory *memory)
{
    tg_h2_memory_trim(memory);
    while (memory->pieces != NULL) {
        struct tg_h2_piece *piece = memory->pieces;
        memory->pieces = piece->next;
        tg_mem_free(piece);
    }
}
