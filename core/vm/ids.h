/*
 * ids.h - identifiers that are new: of exchanges, of traces, of whatever Lua wants to name.
 *
 * Owns: random bytes of the kernel, some in advance; and the last UUID of version 7. Used by: steps and the border.
 * Does not know: where they go. Not for keys: what is fetched in advance is a copy that a fork would share.
 */
#ifndef TG_VM_IDS_H
#define TG_VM_IDS_H

#include <stddef.h>
#include <stdint.h>

#include "http/trace_context.h"

enum { TG_ID_MAX = 36 };

/*
 * Writes a UUID of the version 4, or of 7 that begins with `milliseconds` of the wall clock (0: of now) and is greater
 * than the one before (RFC 9562); of any other one 32 hexadecimal digits, not all of them 0. Returns how many bytes.
 */
size_t tg_ids_write(char out[static TG_ID_MAX], int version, uint64_t milliseconds);
/* Writes a traceparent with the flags 00. Returns the share of its trace (tg_traceparent_share). */
double tg_ids_traceparent(char out[static TG_TRACEPARENT_LEN]);
/* `n` bytes of the kernel, fetched for this call alone. */
void tg_ids_random(void *out, size_t n);

#endif
