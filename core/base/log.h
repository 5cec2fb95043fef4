/*
 * log.h - the error log: one line a record, on standard error.
 *
 * Owns: the level and the name of the process in each line. Used by: the place that handles an error, once.
 * Does not know: the access log, which is base/sink.h.
 */
#ifndef TG_BASE_LOG_H
#define TG_BASE_LOG_H

#include <stddef.h>

#include "base/rc.h"

enum tg_log_level { TG_LOG_DEBUG, TG_LOG_INFO, TG_LOG_WARN, TG_LOG_ERROR };

/* `who` ("master", "worker 0") is copied. */
void tg_log_set(enum tg_log_level level, const char *who);
void tg_log_set_level(enum tg_log_level level);
enum tg_log_level tg_log_get_level(void);
/* The level of this name: debug, info, warn, error. TG_EINVAL. */
TG_MUST_CHECK enum tg_rc tg_log_level_of(const char *name, enum tg_log_level *level);

/* A line of at most 16 KiB (never waits: what the reader of the log has no room for is lost and counted) with time,
 * level and who; control bytes are written as \xHH. */
void tg_log(enum tg_log_level level, const char *format, ...) TG_PRINTF(2, 3);
void tg_log_bytes(enum tg_log_level level, const char *p, size_t n);
/* Lines that were lost so far, in this process. */
unsigned long tg_log_lost(void);

#define tg_log_debug(...) (tg_log_get_level() <= TG_LOG_DEBUG ? tg_log(TG_LOG_DEBUG, __VA_ARGS__) : (void)0)

#endif
