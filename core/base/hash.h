/*
 * hash.h - xxHash32 with seed 0: the same number for the same bytes, on every machine and in every version.
 *
 * Owns: nothing. Used by: the border, for shares and slots ("these 10 % of the users"). It is no defence: whoever may
 * choose the bytes can make them collide.
 */
#ifndef TG_BASE_HASH_H
#define TG_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint32_t tg_hash32(const void *bytes, size_t n);

#endif
