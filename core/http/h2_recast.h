/*
 * h2_recast.h - heads on their way from one version to the other: of a request as h1_write.h makes it to HTTP/2, and of
 * the response back to what h1_parse.h would have made of it.
 *
 * Owns: what it remembers of a connection. Used by: proxy/mux.c. Does not know: the stream, nor who has made a head:
 * its lines are as expected, its fields were judged when they came or were set, and are not judged again.
 *
 * A field whose value is not that of the request before is sent without a place in the table of HPACK: else the
 * addresses and ids of many clients would drive out of it what never changes, and each request would be sent whole.
 * Most lines are the same in the same place each time: those are not looked into again.
 */
#ifndef TG_HTTP_H2_RECAST_H
#define TG_HTTP_H2_RECAST_H

#include "http/h2.h"

enum {
    TG_H2_RECAST_SETS = 64,
    TG_H2_RECAST_WAYS = 2,
    TG_H2_RECAST_NAMES = 64,
    TG_H2_RECAST_NAME_MAX = 31, /* bytes of one that is remembered */
    TG_H2_RECAST_LINES = 24,
    TG_H2_RECAST_LINE_MAX = 125
};

/* Zero it to begin. It must last as long as the connection, which sends the names that stand in it. */
struct tg_h2_recast {
    struct tg_h2_recast_place {
        uint32_t name; /* hashes */
        uint32_t value;
    } last[TG_H2_RECAST_SETS][TG_H2_RECAST_WAYS]; /* of each, the one in use first */
    struct tg_h2_recast_name {
        uint8_t n; /* 0: none */
        char text[TG_H2_RECAST_NAME_MAX];
    } names[TG_H2_RECAST_NAMES]; /* in lower case, by hash; never another one in a place */
    struct tg_h2_recast_line {
        uint8_t n; /* 0: none */
        uint8_t name;
        uint8_t place; /* of the name among `names` */
        char text[TG_H2_RECAST_LINE_MAX];
    } lines[TG_H2_RECAST_LINES]; /* of the request before, those that go on and whose names are remembered */
};

/*
 * Fills `request` but for scheme, protocol and end, and appends the other fields to `block`, all borrowed from `text`;
 * *used is where the body begins. TG_EINVAL: it is no whole head. TG_ENOMEM, TG_ELIMIT.
 */
TG_MUST_CHECK enum tg_rc tg_h2_recast_request(struct tg_h2_recast *recast, struct tg_slice text,
                                              struct tg_h2_request *request, struct tg_h2_block *block, size_t *used);

/*
 * Fills `message` with the response, whose bytes are copied to the first *used of the `room` at `p`. `to_head`:
 * the request was HEAD. TG_ELIMIT: there is not enough room. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_h2_recast_response(const struct tg_message *response, char *p, size_t room,
                                               struct tg_message *message, bool to_head, size_t *used);

#endif
