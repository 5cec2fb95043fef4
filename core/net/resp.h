/*
 * resp.h - the protocol of Redis (RESP2): commands into bytes, replies out of bytes, and which slot a key is in.
 * RESP3 is not spoken: the types that it adds (map, set, double, push) are unknown to hiredis 0.14, and end the stream.
 *
 * Owns: the reader of one connection (hiredis) and what it has not parsed yet. Used by: redis_link.c, redis.c.
 * Knows no socket and no clock. A reply becomes a flat list of values in pre-order, for Lua to walk: no tree is
 * allocated, and the small ones, which nearly all are, allocate nothing.
 */
#ifndef TG_NET_RESP_H
#define TG_NET_RESP_H

#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_RESP_SLOTS = 16384,
    TG_RESP_MAX =
        16 * 1024 * 1024, /* bytes of a command, and of a reply as it is kept: 16 for each value, and its text */
    TG_RESP_VALUES = 4,   /* of a reply that allocates nothing */
    TG_RESP_BYTES = 128
};

struct redisReader;

struct tg_resp_reply {
    struct tg_abi_redis_value *values;
    char *bytes;
    unsigned count;
    unsigned values_max;
    size_t used; /* of bytes */
    size_t bytes_max;
    enum tg_rc rc; /* TG_ELIMIT, TG_ENOMEM: read to its end, but not kept */
    struct tg_abi_redis_value own_values[TG_RESP_VALUES];
    char own_bytes[TG_RESP_BYTES];
};

/* Empty; to be ended with tg_resp_reply_fini. */
void tg_resp_reply_init(struct tg_resp_reply *reply);
/* As after init. */
void tg_resp_reply_fini(struct tg_resp_reply *reply);

struct tg_resp {
    struct redisReader *reader;
    struct tg_resp_reply *into;
};

/* TG_ENOMEM when memory is short. */
TG_MUST_CHECK enum tg_rc tg_resp_init(struct tg_resp *resp);
/* One that is zeroed is left alone. */
void tg_resp_fini(struct tg_resp *resp);

/* Takes bytes as they came; copies. TG_ENOMEM: the stream is lost. */
TG_MUST_CHECK enum tg_rc tg_resp_feed(struct tg_resp *resp, const char *p, size_t n);
/*
 * The next reply, into `into`, which must be the same until it is whole, or from some moment on NULL: then what follows
 * of it is thrown away. TG_OK: it is whole; into->rc says whether it was kept. TG_AGAIN: more must be fed. What ends
 * the stream: TG_ELIMIT a text of more than TG_RESP_MAX bytes, or lists in lists to more than 7 levels; TG_EPROTOCOL;
 * TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_resp_next(struct tg_resp *resp, struct tg_resp_reply *into);

/* Bytes that a command of these words has; 0: more than TG_RESP_MAX. */
size_t tg_resp_size(unsigned count, const size_t *lengths);
/* Writes it, tg_resp_size bytes; returns the end. */
char *tg_resp_write(char *out, unsigned count, const char *const *words, const size_t *lengths);

/* The slot of a key: of what is between its first "{" and the next "}", if there is something. */
unsigned tg_resp_slot(const char *key, size_t n);

#endif
