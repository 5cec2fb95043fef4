/*
 * json_read.h - values in a JSON text that tg_json_check has found well-formed. Other texts are read without harm, and
 * the results say nothing.
 *
 * Owns: room for one string without its escapes. Used by: vm/, to decode a text, or one part of it.
 */
#ifndef TG_BASE_JSON_READ_H
#define TG_BASE_JSON_READ_H

#include "base/rc.h"
#include "base/slice.h"

/* Steps through the members of an object or the items of an array. */
struct tg_json_step {
    const char *next; /* the first byte that was not looked at */
    const char *end;
    bool object;
    struct tg_slice name; /* without its quotes, as it is spelled; of a member */
    struct tg_slice value;
};

/* TG_EINVAL: the value is neither object nor array. */
TG_MUST_CHECK enum tg_rc tg_json_open(struct tg_json_step *step, struct tg_slice value);
/* TG_ENONE: there is no other one. */
TG_MUST_CHECK enum tg_rc tg_json_next(struct tg_json_step *step);
/* The member of that name; of an array the item of that number, the first is 0. TG_ENONE. */
TG_MUST_CHECK enum tg_rc tg_json_find(struct tg_slice value, const char *name, size_t n, struct tg_slice *found);
enum tg_json_token {
    TG_JSON_END,
    TG_JSON_OBJECT,
    TG_JSON_OBJECT_END,
    TG_JSON_ARRAY,
    TG_JSON_ARRAY_END,
    TG_JSON_NAME,    /* text */
    TG_JSON_STRING,  /* text */
    TG_JSON_NUMBER,  /* number */
    TG_JSON_INTEGER, /* text: one that a double cannot hold */
    TG_JSON_TRUE,
    TG_JSON_FALSE,
    TG_JSON_NULL
};

/* Reads a value token by token; zero it before its first use. */
struct tg_json_reader {
    const char *p; /* the first byte that was not looked at */
    const char *end;
    enum tg_json_token token;
    struct tg_slice text; /* without quotes and escapes, until the next token */
    double number;
    char *room;
    size_t room_n;
};

void tg_json_reader_init(struct tg_json_reader *reader, struct tg_slice value);
void tg_json_reader_fini(struct tg_json_reader *reader);
/* The next token. TG_ENOMEM; TG_EPROTOCOL: the text is none. */
TG_MUST_CHECK enum tg_rc tg_json_read(struct tg_json_reader *reader);

#endif
