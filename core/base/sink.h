/*
 * sink.h - lines of a log on their way out, written by a thread of its own so that no disk and no peer can block the
 * loop.
 *
 * Owns: the outlet, two buffers and the thread. Used by: the border to Lua (access logs), from one thread. The queue is
 * bounded: what does not fit is dropped and counted (SECURITY 2). Lines come out whole and in order.
 */
#ifndef TG_BASE_SINK_H
#define TG_BASE_SINK_H

#include <stddef.h>
#include <stdint.h>

#include "base/rc.h"

enum {
    TG_SINK_QUEUE = 1024 * 1024, /* bytes that may wait */
    TG_SINK_LINE = 16 * 1024,    /* bytes of the longest line, with its newline */
    TG_SINK_SLACK = 16           /* bytes behind a line that may be written in its making */
};

struct tg_sink;

/* `path`: any target of base/outlet.h. NULL and `err`. */
struct tg_sink *tg_sink_open(const char *path, struct tg_err *err);
/* Writes what waits, for at most two seconds, and closes. NULL is allowed. */
void tg_sink_close(struct tg_sink *sink);
/* Queues one line; a newline is added, a line that is too long is cut. TG_ELIMIT: the queue is full, it was dropped. */
enum tg_rc tg_sink_write(struct tg_sink *sink, const char *p, size_t n);
/*
 * The same without a copy. begin: where TG_SINK_LINE + TG_SINK_SLACK bytes may be written; NULL: the queue is full, the
 * line was dropped. Then, before anything else is done with the sink, end: `n` of them are a line, without a newline,
 * at most TG_SINK_LINE - 1.
 */
char *tg_sink_begin(struct tg_sink *sink);
void tg_sink_end(struct tg_sink *sink, size_t n);
/* Wakes the writer if lines wait. For a timer: waking it for each line would cost a system call for each. */
void tg_sink_flush(struct tg_sink *sink);
/* Opens the path anew before the next write (after a rotation). */
void tg_sink_reopen(struct tg_sink *sink);
/* As tg_outlet_configure, with a copy of `settings`. TG_ENOMEM: those before hold. */
TG_MUST_CHECK enum tg_rc tg_sink_configure(struct tg_sink *sink, const char *settings);
/* As tg_outlet_rotate. */
void tg_sink_rotate(struct tg_sink *sink, uint64_t size, unsigned keep);
uint64_t tg_sink_dropped(struct tg_sink *sink);
const char *tg_sink_path(const struct tg_sink *sink);

#endif
