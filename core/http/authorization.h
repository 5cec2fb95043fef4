/*
 * authorization.h - the credentials of a scheme in the field Authorization (RFC 9110, section 11.6.2).
 *
 * Owns: nothing; the credentials are borrowed from the value. Used by: the border.
 * Does not know: whether credentials are right.
 */
#ifndef TG_HTTP_AUTHORIZATION_H
#define TG_HTTP_AUTHORIZATION_H

#include "base/slice.h"

/*
 * Whether a value is of this scheme, whose case is free. *credentials: what stands behind it, without blanks around;
 * empty when there is nothing, and when the scheme begins a later line of the field, of which there may be but one:
 * both are credentials that are none, not those of another scheme. Not written when false.
 */
bool tg_authorization_is(struct tg_slice value, struct tg_slice scheme, struct tg_slice *credentials);

#endif
