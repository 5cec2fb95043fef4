/*
 * tls_servers.h - the TLS of a generation's listeners, made from its bundle.
 *
 * Owns: nothing; what it makes is the caller's. Used by: worker.c, which makes it while a generation is prepared.
 */
#ifndef TG_PROCESS_TLS_SERVERS_H
#define TG_PROCESS_TLS_SERVERS_H

#include "process/generation.h"
#include "vm/host.h"

/*
 * Fills `servers`, one for each listener of the manifest in its order, NULL where it has no TLS. TG_OK: they are held
 * once. Otherwise `err` says why, and none is made. `host` has the dictionary of fetched OCSP responses, and outlives
 * them.
 */
TG_MUST_CHECK enum tg_rc tg_tls_servers_make(struct tg_tls_server *servers[TG_LISTENERS_MAX],
                                             const struct tg_generation *generation, const struct tg_tickets *tickets,
                                             struct tg_host *host, struct tg_err *err);
/* Lets go of all; the places are NULL then. */
void tg_tls_servers_drop(struct tg_tls_server *servers[TG_LISTENERS_MAX]);

#endif
