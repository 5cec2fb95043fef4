#include "base/rc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *
tg_rc_name(enum tg_rc rc)
{
    switch (rc) {
    case TG_OK:
        return "ok";
    case TG_AGAIN:
        return "again";
    case TG_ENOMEM:
        return "memory";
    case TG_EINVAL:
        return "invalid";
    case TG_ENONE:
        return "none";
    case TG_ELIMIT:
        return "too_large";
    case TG_ESYSTEM:
        return "system";
    case TG_ECLOSED:
    case TG_ERESET:
        return "reset";
    case TG_ETIMEOUT:
        return "timeout";
    case TG_ECONNECT:
        return "connect";
    case TG_ETLS:
        return "tls";
    case TG_EDNS:
        return "dns";
    case TG_EPROTOCOL:
        return "protocol";
    case TG_ECANCELLED:
        return "cancelled";
    case TG_ESCRIPT:
        return "script";
    case TG_EBUSY:
        return "busy";
    case TG_ESTALE:
        return "stale";
    case TG_EDENIED:
        return "denied";
    case TG_EOPEN:
        return "open";
    }
    return "unknown";
}

enum tg_rc
tg_err_set(struct tg_err *err, enum tg_rc rc, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return rc;
}

enum tg_rc
tg_err_errno(struct tg_err *err, const char *format, ...)
{
    const int saved = errno;
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        int n = vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof err->text) {
            char why[128];
            (void)snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror_r(saved, why, sizeof why));
        }
    }
    errno = saved;
    return TG_ESYSTEM;
}

_Noreturn void
tg_assert_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "tidegate: assertion failed: %s at %s:%d\n", condition, file, line);
    abort();
}
