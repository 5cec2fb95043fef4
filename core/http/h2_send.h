/*
 * h2_send.h - what goes over an HTTP/2 connection: frames of all streams, packed into the buffers that are handed in.
 *
 * Owns: nothing. Used by: h2.c. Data is copied once on its way out, from the queue of its stream.
 */
#ifndef TG_HTTP_H2_SEND_H
#define TG_HTTP_H2_SEND_H

#include "http/h2_stream.h"

void tg_h2_send_set(nghttp2_session_callbacks *callbacks);
/* Where the session gets the data of a stream. */
nghttp2_data_provider tg_h2_send_provider(void);
/* See tg_h2_output. */
size_t tg_h2_send_output(struct tg_h2 *h2, char *out, size_t capacity);

#endif
