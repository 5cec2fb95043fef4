/*
 * rc.h - result codes, error texts and assertions.
 *
 * Owns: nothing. Used by: everything. The data path returns codes only; set-up and configuration also fill a
 * struct tg_err. Does not know: where an error is reported.
 */
#ifndef TG_BASE_RC_H
#define TG_BASE_RC_H

#include <stdbool.h>
#include <stddef.h>

#define TG_MUST_CHECK __attribute__((warn_unused_result))
#define TG_PRINTF(f, a) __attribute__((format(printf, f, a)))

enum tg_rc {
    TG_OK = 0,
    TG_AGAIN = 1,       /* not now: an event will tell */
    TG_ENOMEM = -1,     /* memory is short */
    TG_EINVAL = -2,     /* an argument that may not stand there */
    TG_ENONE = -3,      /* not found */
    TG_ELIMIT = -4,     /* a maximum is reached */
    TG_ESYSTEM = -5,    /* a system call failed; struct tg_err or errno says why */
    TG_ECLOSED = -6,    /* the other side has closed */
    TG_ERESET = -7,     /* the connection broke */
    TG_ETIMEOUT = -8,   /* a deadline passed */
    TG_ECONNECT = -9,   /* a connection could not be made */
    TG_EDNS = -10,      /* a name could not be resolved */
    TG_EPROTOCOL = -11, /* the other side broke HTTP */
    TG_ECANCELLED = -12,
    TG_ESCRIPT = -13, /* Lua raised */
    TG_EBUSY = -14,
    TG_ESTALE = -15,  /* the exchange has ended */
    TG_EDENIED = -16, /* it is not allowed to go there */
    TG_ETLS = -17,    /* no TLS connection came about, or its certificate was refused */
    TG_EOPEN = -18    /* it has failed so often that it is not tried for a while */
};

/* Text of an error, for a person. Empty until set. */
struct tg_err {
    char text[8192];
};

/* A lasting, short name of `rc`: "timeout", "connect" ...; the `code` of errors in Lua. */
const char *tg_rc_name(enum tg_rc rc);

/* Sets the text, cut to fit. `err` may be NULL. Returns `rc`, so that a failure is one line. */
enum tg_rc tg_err_set(struct tg_err *err, enum tg_rc rc, const char *format, ...) TG_PRINTF(3, 4);

/* As tg_err_set with ": " and the text of errno appended; returns TG_ESYSTEM. Leaves errno as it was. */
enum tg_rc tg_err_errno(struct tg_err *err, const char *format, ...) TG_PRINTF(2, 3);

/* For what can only be our own bug: says where and aborts; the master starts another worker. */
#define TG_ASSERT(condition) ((condition) ? (void)0 : tg_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void tg_assert_failed(const char *condition, const char *file, int line);

#endif
