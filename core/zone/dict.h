/*
 * dict.h - a dictionary in shared memory: keys and values of bounded size, with expiry, evicted by least recent use.
 *
 * Owns: the mapping of its memory; the memory itself lives as long as a process has it (a memory file handed on by the
 * master). Used by: the border to Lua. Does not know what a value means.
 * Each shard has a robust mutex: one whose owner died is emptied, since a half-done change cannot be trusted.
 */
#ifndef TG_ZONE_DICT_H
#define TG_ZONE_DICT_H

#include <stdint.h>

#include "base/rc.h"

enum {
    TG_DICT_KEY_MAX = 1024,
    TG_DICT_NUMBERS_MAX = 16384, /* in one list of them */
    TG_DICT_SWAP_MAX = 8,
    TG_DICT_SIZE_MIN = 64 * 1024 /* bytes of a dictionary */
};

enum tg_dict_type {
    TG_DICT_NIL,
    TG_DICT_NUMBER,
    TG_DICT_STRING,
    TG_DICT_BOOLEAN,
    TG_DICT_TABLE,
    TG_DICT_NUMBERS /* a list of them: tg_dict_read, tg_dict_swap */
};

struct tg_dict;

/* `p` is borrowed: until the next call for a value that was got, until the call returns for one that is set. */
struct tg_dict_value {
    enum tg_dict_type type;
    double number; /* numbers, and 0 or 1 for booleans */
    const char *p; /* strings and encoded tables */
    size_t n;
};

/* What is to be in place of what was read. All is borrowed until the call returns. */
struct tg_dict_change {
    const char *key;
    size_t n;
    const double *old; /* 0 numbers: nothing was there */
    size_t old_count;
    const double *new; /* 0 numbers: it is deleted */
    size_t new_count;
    uint64_t ttl; /* of what is new */
};

/* A memory file of `size` bytes with an empty dictionary in it; -1 and `err`. The descriptor is the caller's. */
int tg_dict_create(size_t size, struct tg_err *err);
/* Maps the dictionary in `fd`, which may be closed afterwards. NULL: it is none, or memory is short. */
struct tg_dict *tg_dict_open(int fd);
void tg_dict_close(struct tg_dict *dict);
size_t tg_dict_size(const struct tg_dict *dict);

/*
 * Times are milliseconds of the monotonic clock; `ttl` 0 means for ever. All copy. TG_EINVAL: the key is empty or too
 * long. TG_ELIMIT: there is no room for a value of this size, even by evicting.
 */
/* The value is copied into memory of this process, valid until the next get. TG_ENONE: there is none. */
TG_MUST_CHECK enum tg_rc tg_dict_get(struct tg_dict *dict, const char *key, size_t n, uint64_t now,
                                     struct tg_dict_value *value);
/* `only_new`: TG_EBUSY when the key is there. */
TG_MUST_CHECK enum tg_rc tg_dict_set(struct tg_dict *dict, const char *key, size_t n, uint64_t now, uint64_t ttl,
                                     const struct tg_dict_value *value, bool only_new);
/* Sets when `expected` is there (TG_DICT_NIL: nothing). TG_EBUSY: something else is. `value` TG_DICT_NIL: deletes. */
TG_MUST_CHECK enum tg_rc tg_dict_compare_set(struct tg_dict *dict, const char *key, size_t n, uint64_t now,
                                             uint64_t ttl, const struct tg_dict_value *expected,
                                             const struct tg_dict_value *value);
/* Adds `by`; a missing key begins at 0 and lives for `ttl`. TG_EINVAL: what is there is no number. */
TG_MUST_CHECK enum tg_rc tg_dict_incr(struct tg_dict *dict, const char *key, size_t n, uint64_t now, uint64_t ttl,
                                      double by, double *result);
/*
 * Lists of numbers that are held: nobody else sees or changes them, nor what stands near them, until they are released,
 * which is to be soon. `key` is borrowed until then. A process that dies meanwhile costs all that stood near them.
 */
struct tg_dict_list {
    const char *key;
    size_t n;
    char *numbers; /* doubles, which need not be aligned; NULL: there are none */
    size_t count;
    uint32_t shard; /* from here on the dictionary's own */
    uint32_t hash;
    uint32_t offset;
    uint64_t seen;
};

/* Fills numbers and count. Otherwise nothing is held; at most TG_DICT_SWAP_MAX keys. *held is for the release. */
TG_MUST_CHECK enum tg_rc tg_dict_hold(struct tg_dict *dict, uint64_t now, struct tg_dict_list *lists, unsigned count,
                                      uint32_t *held);
/*
 * Of a list that is held: from now on it has `count` numbers, which are what they were if there were as many, otherwise
 * 0, and lives for `ttl`. 0 numbers: it is deleted. To make room for one may cost another that is held its place: what
 * is kept later is made anew.
 */
TG_MUST_CHECK enum tg_rc tg_dict_keep(struct tg_dict *dict, uint64_t now, struct tg_dict_list *list, size_t count,
                                      uint64_t ttl);
void tg_dict_release(struct tg_dict *dict, uint32_t held);

/*
 * A list of numbers, of which there are *count; at most `max` are copied, so a longer one is to be read again. None: 0,
 * also for a value of another type.
 */
TG_MUST_CHECK enum tg_rc tg_dict_read(struct tg_dict *dict, const char *key, size_t n, uint64_t now, double *numbers,
                                      size_t max, size_t *count);
/*
 * Makes all of 1 to TG_DICT_SWAP_MAX changes, and nobody sees some without the others; or, with TG_EBUSY, none, when
 * one of the lists is not what was read. Who works so needs no lock: read, compute, swap, and again if need be.
 * TG_ELIMIT: there is no room for one of them; those before it are made.
 */
TG_MUST_CHECK enum tg_rc tg_dict_swap(struct tg_dict *dict, uint64_t now, const struct tg_dict_change *changes,
                                      unsigned count);
/* TG_ENONE: it was not there. */
enum tg_rc tg_dict_delete(struct tg_dict *dict, const char *key, size_t n, uint64_t now);
/* Milliseconds that are left; 0 for ever. TG_ENONE. */
TG_MUST_CHECK enum tg_rc tg_dict_ttl(struct tg_dict *dict, const char *key, size_t n, uint64_t now, uint64_t *left);

#endif
