/*
 * abi_filter.h - the part of abi.h about Bloom filters of names (base/bloom.h) that outlive a generation: to fill one
 * may take seconds of the processor, so the next generation goes on with what the one before has got.
 */
#ifndef TG_ABI_FILTER_H
#define TG_ABI_FILTER_H

#include <stddef.h>
#include <stdint.h>

#define TG_ABI __attribute__((visibility("default")))

enum { TG_FILTER_NAME_MAX = 383, TG_FILTER_LAST_MAX = 63 };

/*
 * A filter, and up to where it has been filled, which is for Lua to read and to write. All generations of a worker that
 * have it add to it: what one of them knows is no harm to the other.
 */
struct tg_abi_filter {
    double held; /* names that were added */
    double room; /* names that it is made for */
    double size; /* of what it is filled from, when it was looked at last */
    uint32_t last_n;
    char last[64];  /* what was added last; last_n bytes, up to TG_FILTER_LAST_MAX */
    uint32_t bytes; /* of its bits */
    uint32_t whole; /* 1: all of what it is filled from is in it, up to `last` */
    uint32_t spare;
};

/*
 * take: the filter of this name that some generation still has; NULL: there is none. new: an empty one, which from now
 * on is taken by this name, while those who have the one before keep that; NULL: memory is short, or the name is empty
 * or too long. Each of them is given back once by whoever got it. add: `p` is "kind:name", of which the kind has no
 * colon; -TG_EINVAL: there is none in it. has: 1, or 0 when it was never added.
 */
TG_ABI struct tg_abi_filter *tg_abi_filter_take(const char *name, size_t n);
TG_ABI struct tg_abi_filter *tg_abi_filter_new(const char *name, size_t n, size_t names);
TG_ABI void tg_abi_filter_give(struct tg_abi_filter *filter);
TG_ABI int tg_abi_filter_add(struct tg_abi_filter *filter, const char *p, size_t n);
TG_ABI int tg_abi_filter_has(const struct tg_abi_filter *filter, const char *kind, size_t kind_n, const char *p,
                             size_t n);

#endif
