/*
 * fetch.h - one request of the process that validates: for the secrets that a configuration has elsewhere.
 *
 * Owns: its connection, while it runs. Used by: compile.c alone: it waits, which no worker may. Who calls says where
 * to; nothing leads elsewhere, neither a redirection nor a proxy. Does not know: what is asked for.
 */
#ifndef TG_VM_FETCH_H
#define TG_VM_FETCH_H

#include "net/tls_client.h"

enum { TG_FETCH_MAX = 1024 * 1024 /* bytes of an answer */ };

struct tg_fetch {
    const char *host;                        /* a name, or an address without brackets */
    const char *port;                        /* in digits */
    const struct tg_tls_client_options *tls; /* NULL: in plain text */
    struct tg_slice request;                 /* a whole one, which asks for the connection to be closed */
    unsigned timeout;                        /* milliseconds, for all of it */
    unsigned status;                         /* result */
    struct tg_slice body;                    /* result; in `data` */
    char *data;                              /* 0 to begin */
};

/* TG_OK: `status` and `body`. Otherwise `err` says why in a few words. Either way tg_fetch_fini follows. */
TG_MUST_CHECK enum tg_rc tg_fetch_run(struct tg_fetch *fetch, struct tg_err *err);
void tg_fetch_fini(struct tg_fetch *fetch);

#endif
