/*
 * token.h - the token of the admin interface, made once and kept in a file beside the control socket.
 *
 * Owns: nothing. Used by: master.c. Whoever may read the file (mode 0600) may command.
 */
#ifndef TG_PROCESS_TOKEN_H
#define TG_PROCESS_TOKEN_H

#include "base/rc.h"

enum { TG_TOKEN_SIZE = 64 /* with its NUL */ };

/* The token that is kept in the file `control`.token, which is made when it is not there. TG_ESYSTEM and `err`. */
TG_MUST_CHECK enum tg_rc tg_token_read(const char *control, char out[TG_TOKEN_SIZE], struct tg_err *err);

#endif
