/*
 * trace_context.h - the field traceparent (W3C Trace Context): to which trace a request belongs.
 *
 * Owns: nothing. Used by: the border to Lua, once a request.
 * Does not know: tracestate and the fields of other tracers, which few requests have, and Lua reads.
 */
#ifndef TG_HTTP_TRACE_CONTEXT_H
#define TG_HTTP_TRACE_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/rc.h"

enum {
    TG_TRACEPARENT_LEN = 55,    /* of version 00, the only one that is written */
    TG_TRACEPARENT_TRACE = 3,   /* offset of 32 digits */
    TG_TRACEPARENT_PARENT = 36, /* offset of 16 digits */
    TG_TRACEPARENT_FLAGS = 53,  /* offset of 2 digits */
    TG_TRACE_SAMPLED = 1        /* bit of the flags */
};

/*
 * TG_OK: *flags. TG_EPROTOCOL: the whole field is void. A later version is read as far as version 00 goes (section
 * 3.2.4 of the recommendation: what is known must be the same there).
 */
TG_MUST_CHECK enum tg_rc tg_traceparent_parse(const char *p, size_t n, uint8_t *flags);

/* Writes one with the flags 00, and no zero, from 24 random bytes. */
void tg_traceparent_write(char out[static TG_TRACEPARENT_LEN], unsigned char random[static 24]);

/* Of the last seven bytes of a trace id, which are random: from 0 to 1. A text that was parsed or written. */
double tg_traceparent_share(const char *p);
/* The same of the bytes that one was written from. */
double tg_traceparent_share_of(const unsigned char random[static 16]);

#endif
