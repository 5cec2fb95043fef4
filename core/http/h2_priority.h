/*
 * h2_priority.h - what a Priority field says (RFC 9218, section 4): a dictionary of structured fields (RFC 9651).
 *
 * Owns: nothing. Used by: h2_receive.c and h2.c. Does not know: streams, nor in which order anything is sent.
 */
#ifndef TG_HTTP_H2_PRIORITY_H
#define TG_HTTP_H2_PRIORITY_H

#include <stdint.h>

#include "base/slice.h"

enum { TG_H2_URGENCY_DEFAULT = 3, TG_H2_URGENCY_MAX = 7 };

struct tg_h2_priority {
    uint8_t urgency; /* 0 is first */
    bool incremental;
};

/*
 * Overwrites those of *priority that `value` names; members that we do not know are left out, and so are those of ours
 * that have no value of their kind. False: it is no dictionary, nothing was changed.
 */
bool tg_h2_priority_merge(struct tg_h2_priority *priority, struct tg_slice value);

#endif
