/*
 * h2_receive.h - what comes over an HTTP/2 connection: which frame becomes which hook, and which ends a stream.
 *
 * Owns: nothing. Used by: h2.c, for the callbacks of its session. Does not know: how anything is sent.
 */
#ifndef TG_HTTP_H2_RECEIVE_H
#define TG_HTTP_H2_RECEIVE_H

#include "http/h2_stream.h"

void tg_h2_receive_set(nghttp2_session_callbacks *callbacks);

#endif
