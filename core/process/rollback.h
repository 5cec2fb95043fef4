/*
 * rollback.h - the way back, which comes before everything else that is under way.
 *
 * Owns nothing. Used by: master.c. Does not know: how a generation becomes live.
 */
#ifndef TG_PROCESS_ROLLBACK_H
#define TG_PROCESS_ROLLBACK_H

#include "process/reload.h"

/*
 * "rollback ID": commits a bundle that is kept; no files are needed. `id` empty: ends a trial, or else goes to the
 * generation before the current one. A reload and a trial that are under way end, and an upgrade that has not yet come
 * to serving: who is in need cannot wait for them. The client is answered when it is done.
 */
void tg_rollback(struct tg_reload *reload, struct tg_control_client *client, const char *id);

#endif
