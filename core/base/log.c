#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 16 * 1024 };

static const char *const names[] = {"debug", "info", "warn", "error"};
static enum tg_log_level current_level = TG_LOG_INFO;
static char current_who[32] = "tidegate";
static unsigned long lost; /* lines */

void
tg_log_set(enum tg_log_level level, const char *who)
{
    current_level = level;
    (void)snprintf(current_who, sizeof current_who, "%s", who);
}

void
tg_log_set_level(enum tg_log_level level)
{
    current_level = level;
}

enum tg_rc
tg_log_level_of(const char *name, enum tg_log_level *level)
{
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *level = (enum tg_log_level)i;
            return TG_OK;
        }
    }
    return TG_EINVAL;
}

enum tg_log_level
tg_log_get_level(void)
{
    return current_level;
}

static size_t
write_prefix(char *line, size_t size, enum tg_log_level level)
{
    struct timespec now;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &tm);
    int more = snprintf(line + n, size - n, ".%03ldZ %s [%s] ", now.tv_nsec / 1000000, names[level], current_who);
    return n + (size_t)more;
}

/* A traceback has lines: a newline is kept as one, indented, so that a record can still be told from the next. */
static size_t
escape(char *out, size_t size, const char *p, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    size_t len = 0;
    for (size_t i = 0; i < n && len + 6 < size; i++) {
        const unsigned char c = (unsigned char)p[i];
        if (c == '\n') {
            memcpy(out + len, "\n    ", 5);
            len += 5;
        } else if (c == '\t') {
            out[len++] = ' ';
        } else if (c < 0x20 || c == 0x7f) {
            out[len++] = '\\';
            out[len++] = 'x';
            out[len++] = hex[c >> 4];
            out[len++] = hex[c & 15];
        } else {
            out[len++] = (char)c;
        }
    }
    return len;
}

/*
 * One write a line, so that lines of several processes do not mix. A pipe whose reader has stopped would block us: it
 * is asked first, and takes PIPE_BUF bytes when it says yes (pipe(7)).
 */
static bool
put_line(const char *line, size_t n)
{
    for (size_t done = 0; done < n;) {
        struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};
        const size_t piece = n - done < PIPE_BUF ? n - done : PIPE_BUF;
        if (poll(&fd, 1, 0) != 1 || (fd.revents & POLLOUT) == 0) {
            return false;
        }
        const ssize_t written = write(STDERR_FILENO, line + done, piece);
        if (written <= 0) {
            return false;
        }
        done += (size_t)written;
    }
    return true;
}

unsigned long
tg_log_lost(void)
{
    return lost;
}

void
tg_log_bytes(enum tg_log_level level, const char *p, size_t n)
{
    if (level < current_level) {
        return;
    }
    char line[LINE_MAX_BYTES];
    size_t len = write_prefix(line, sizeof line, level);
    len += escape(line + len, sizeof line - len - 1, p, n);
    line[len++] = '\n';
    lost += put_line(line, len) ? 0 : 1;
}

void
tg_log(enum tg_log_level level, const char *format, ...)
{
    if (level < current_level) {
        return;
    }
    char text[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0) {
        tg_log_bytes(level, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    }
}
