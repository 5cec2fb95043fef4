/*
 * cidr.h - a list of networks, and whether an address lies in one of them.
 *
 * Owns: its array. Used by: listeners (whom to believe) and sets of plugins. Built once a generation, then only read: a
 * lookup writes nothing and allocates nothing. Does not know: what a match means, names, Unix sockets.
 * IPv4 and IPv6 are two worlds: "::/0" holds no IPv4 address. An IPv4-mapped one (::ffff:a.b.c.d, what a dual-stack
 * socket calls an IPv4 client) is IPv4 on both sides, or a rule for 10.0.0.0/8 would depend on how the listener was
 * bound.
 */
#ifndef TG_NET_CIDR_H
#define TG_NET_CIDR_H

#include <stdint.h>

#include "net/address.h"

enum { TG_CIDR_KEY = 17 }; /* bytes: the family first, so that no prefix reaches from one into the other */

struct tg_cidr {
    uint8_t key[TG_CIDR_KEY];
    uint8_t bits; /* of key, that of the family included */
};

/* Ascending and disjoint: two networks overlap only when one holds the other, and then the smaller says nothing. */
struct tg_cidr_list {
    struct tg_cidr *networks;
    unsigned count;
    unsigned capacity;
    unsigned max; /* of count */
};

void tg_cidr_list_init(struct tg_cidr_list *list, unsigned max);
/* The list is empty again, and may hold `max` as before. */
void tg_cidr_list_fini(struct tg_cidr_list *list);

/*
 * Adds "10.0.0.0/8", "2001:db8::/32", or an address, which is a network of one.
 * TG_EINVAL: not a network, or bits are set behind the prefix: what was meant cannot be known. TG_ELIMIT: `max` is
 * reached. TG_ENOMEM. The list is untouched by a failure; but for TG_ENOMEM, `err` (which may be NULL) says why.
 */
TG_MUST_CHECK enum tg_rc tg_cidr_list_add(struct tg_cidr_list *list, const char *text, size_t n, struct tg_err *err);

/*
 * For many networks, which tg_cidr_list_add would move about for each: append them in any order, then settle the list.
 * Before that it answers no question and takes no other addition. Results as of add; duplicates count until they are
 * settled.
 */
TG_MUST_CHECK enum tg_rc tg_cidr_list_append(struct tg_cidr_list *list, const char *text, size_t n, struct tg_err *err);
void tg_cidr_list_settle(struct tg_cidr_list *list);

/* Whether a network holds the address; never for a family that is not IP. */
bool tg_cidr_list_match(const struct tg_cidr_list *list, const struct tg_address *address);

/* As above for the text of an address; never for what is not an address. */
bool tg_cidr_list_match_text(const struct tg_cidr_list *list, const char *text, size_t n);

#endif
