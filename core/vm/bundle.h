/*
 * bundle.h - all that a generation consists of, as one sequence of bytes: names and contents.
 *
 * Owns: nothing; a view of bytes that outlive it. Used by: vm.c, which loads from it and writes it, and process/, which
 * keeps it in sealed memory files. Does not know what the entries mean.
 */
#ifndef TG_VM_BUNDLE_H
#define TG_VM_BUNDLE_H

#include "base/rc.h"
#include "base/slice.h"

/* Calls back for each entry until it returns false. TG_EINVAL: the bytes are no bundle. */
typedef bool (*tg_bundle_cb)(void *arg, struct tg_slice name, struct tg_slice data);
TG_MUST_CHECK enum tg_rc tg_bundle_each(struct tg_slice bytes, tg_bundle_cb entry, void *arg);

/* The entry of this name. TG_ENONE, TG_EINVAL. */
TG_MUST_CHECK enum tg_rc tg_bundle_find(struct tg_slice bytes, const char *name, struct tg_slice *data);

/* Writes the head of a bundle, and an entry. TG_ESYSTEM with errno set. */
TG_MUST_CHECK enum tg_rc tg_bundle_begin(int fd);
TG_MUST_CHECK enum tg_rc tg_bundle_write(int fd, struct tg_slice name, struct tg_slice data);

#endif
