/*
 * abi_line.h - the part of abi.h about lines of access logs.
 */
#ifndef TG_ABI_LINE_H
#define TG_ABI_LINE_H

#include "abi_cell.h"

struct tg_abi_exchange;

/*
 * Lines of an access log, put together here: a line is a list of texts and parts, made in set-up, freed by whoever made
 * it. In the style of JSON a part is a JSON value, null when it is absent; otherwise it is text, "-" when it is absent,
 * without quotes, backslashes, control and non-ASCII bytes: those are \xHH.
 */
enum tg_abi_line_part {
    TG_LINE_VALUE = 0,  /* the value that was set under `number` */
    TG_LINE_TIME = 1,   /* seconds of the wall clock */
    TG_LINE_DATE = 2,   /* the same by RFC 3339; a string */
    TG_LINE_ID = 3,     /* made if there is none */
    TG_LINE_CLIENT = 4, /* address */
    TG_LINE_METHOD = 5,
    TG_LINE_HOST = 6,
    TG_LINE_PATH = 7,      /* decoded */
    TG_LINE_STATUS = 8,    /* 499 when there is none */
    TG_LINE_SOURCE = 9,    /* who made the response */
    TG_LINE_DURATION = 10, /* seconds */
    TG_LINE_UPSTREAM_TIME = 11,
    TG_LINE_BYTES_IN = 12,
    TG_LINE_BYTES_OUT = 13,
    TG_LINE_ABORTED = 14,
    TG_LINE_ATTEMPTS = 15,
    TG_LINE_TRACE = 16, /* in which it is recorded, or else of the request's traceparent */
    TG_LINE_SPAN = 17,
    TG_LINE_PRIORITY = 18, /* of syslog, for the facility `number` and the status: no quotes in any style */
    TG_LINE_ROUTE = 19,    /* its name; this and the next four as tg_abi_name and tg_abi_set_consumer have them */
    TG_LINE_UPSTREAM = 20,
    TG_LINE_PEER = 21,
    TG_LINE_GENERATION = 22,
    TG_LINE_CONSUMER = 23,
    TG_LINE_SCHEME = 24,
    TG_LINE_VERSION = 25, /* of HTTP, by the client */
    TG_LINE_PARTS = 26,
    TG_LINE_HEADER = 27 /* one of the request; see tg_abi_line_header */
};
enum { TG_LINE_VALUES = 64 };

struct tg_abi_line;
TG_ABI struct tg_abi_line *tg_abi_line_new(void);
TG_ABI void tg_abi_line_free(struct tg_abi_line *line);
/* -TG_ELIMIT: the line is too long, or has more than 192 pieces. */
TG_ABI int tg_abi_line_text(struct tg_abi_line *line, const char *p, size_t n);
TG_ABI int tg_abi_line_part(struct tg_abi_line *line, int part, uint32_t number, int json);
/* The field of this name of the request; `hidden`: in place of what it says, three asterisks. As above, and -TG_EINVAL:
 * it is no name. */
TG_ABI int tg_abi_line_header(struct tg_abi_line *line, const char *name, size_t n, int hidden, int json);
/* A value for the next line, borrowed until that is made. */
TG_ABI void tg_abi_line_value(uint32_t number, const char *p, size_t n);
/* Makes the line of an exchange that is over: into vm.out; or into a sink: -TG_ELIMIT: it is full. All values are
 * forgotten then. */
TG_ABI int tg_abi_line_make(struct tg_abi_line *line, struct tg_abi_exchange *x);
TG_ABI int tg_abi_line_write(struct tg_abi_line *line, struct tg_abi_exchange *x, uint32_t sink);

#endif
