/*
 * outlet.h - where the lines of a log go: a file that may be rotated by its size, standard output, or a socket.
 *
 * Owns: the descriptor. Used by: base/sink.c, in its thread: everything here may block, for some seconds.
 * Does not know: queues, threads, and what the lines say.
 */
#ifndef TG_BASE_OUTLET_H
#define TG_BASE_OUTLET_H

#include <stddef.h>
#include <stdint.h>

#include "base/rc.h"

struct tg_outlet;

/*
 * `target`: a path, "-" (standard output), "tcp://host:port", "tcp+octets://host:port" (each message behind its length,
 * RFC 6587, section 3.4.1), "udp://host:port", "unix:/path" (a stream), "unixgram:/path", or
 * "kafka://host:port,host:port/topic". A file is opened at once; the others connect when there is something to be sent.
 * NULL and `err`.
 */
struct tg_outlet *tg_outlet_open(const char *target, struct tg_err *err);
/* Whether `target` can be understood, with `settings` as tg_outlet_configure takes them. TG_EINVAL and `err`. */
TG_MUST_CHECK enum tg_rc tg_outlet_judge(const char *target, const char *settings, struct tg_err *err);
/* Of Kafka: lines of "name=value" (base/kafka.h), which hold from the next write on. Takes `settings`, which is freed
 * by tg_mem_free. Others have none. */
void tg_outlet_configure(struct tg_outlet *outlet, char *settings);
/* NULL is allowed. */
void tg_outlet_close(struct tg_outlet *outlet);
/*
 * Writes whole lines, each with its newline; a datagram is a line without it. Returns how many bytes are done with, of
 * whole lines: all of them, unless a stream is away: then the rest is to be given again later. Lines that were lost are
 * added to *lost.
 */
size_t tg_outlet_write(struct tg_outlet *outlet, const char *p, size_t n, uint64_t *lost);
/* Opens the path anew (somebody has rotated it); connects anew. */
void tg_outlet_reopen(struct tg_outlet *outlet);
/* From `size` bytes on, a file becomes `path.1`, that `path.2`, up to `keep`; several processes may do so. 0: never. */
void tg_outlet_rotate(struct tg_outlet *outlet, uint64_t size, unsigned keep);

#endif
