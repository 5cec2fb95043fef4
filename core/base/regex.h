/*
 * regex.h - regular expressions on PCRE2, compiled to machine code, with limits that hold whatever the subject is.
 *
 * Owns: a compiled pattern. One match is under way at a time in a process: its offsets are valid until the next.
 * Used by: vm/, for tg.re. Limits: SECURITY 1.2.
 */
#ifndef TG_BASE_REGEX_H
#define TG_BASE_REGEX_H

#include "base/rc.h"
#include "base/slice.h"

enum {
    TG_REGEX_PATTERN_MAX = 16 * 1024, /* bytes */
    TG_REGEX_GROUPS_MAX = 99,
    TG_REGEX_MATCH_LIMIT = 100000,
    TG_REGEX_DEPTH_LIMIT = 1000,
    TG_REGEX_HEAP_LIMIT = 1024 /* KiB */
};

/* How a match is looked for. */
enum tg_regex_option {
    TG_REGEX_PARTIAL = 1,  /* the subject goes on: what more of it might change is TG_AGAIN */
    TG_REGEX_NOT_EMPTY = 2 /* at the start, a match of no bytes is none */
};

struct tg_regex;

/*
 * `flags` are letters: i (case), m (^ and $ at lines), s (. takes line ends), x (blanks and comments), u (UTF-8), a (at
 * the start only). TG_EINVAL: `err` says what is wrong, and at which byte of the pattern. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_regex_new(struct tg_slice pattern, struct tg_slice flags, struct tg_regex **out,
                                      struct tg_err *err);
/* NULL is allowed. */
void tg_regex_free(struct tg_regex *regex);
/* Groups, without the whole match. */
unsigned tg_regex_groups(const struct tg_regex *regex);
/* Characters that a match may look at before its start. */
unsigned tg_regex_lookbehind(const struct tg_regex *regex);
bool tg_regex_matches_nothing(const struct tg_regex *regex);
/* The name of a group, an empty slice when it has none. */
struct tg_slice tg_regex_name(const struct tg_regex *regex, unsigned group);

/*
 * Looks for the first match from byte `start` on. TG_ENONE; TG_AGAIN: from offset 0 of tg_regex_offsets on it might
 * match, if there were more; TG_ELIMIT: a limit was reached, nothing is known; TG_EINVAL: `start` is behind
 * the end. Bytes that are no UTF-8 match nothing.
 */
TG_MUST_CHECK enum tg_rc tg_regex_match(struct tg_regex *regex, struct tg_slice subject, size_t start,
                                        unsigned options);
/* Begin and end of the match and of each group: SIZE_MAX for one that took no part. */
const size_t *tg_regex_offsets(void);

#endif
