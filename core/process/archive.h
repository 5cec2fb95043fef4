/*
 * archive.h - the generations that were live, in files of a folder, so that a restart knows them: a file each.
 *
 * Owns: the files, never more than `most` of them. Used by: keeping.c, which writes them, and master.c. Does not know:
 * Lua; what a file holds is the bundle as the workers load it, so it is loaded again by the program alone that has
 * written it, and only when every byte is as it was. Bundles hold secrets: folder and files are for nobody but the user
 * of the master. All functions wait for the disk.
 */
#ifndef TG_PROCESS_ARCHIVE_H
#define TG_PROCESS_ARCHIVE_H

#include "process/generation.h"

enum { TG_ARCHIVE_PROGRAM = 32 /* bytes of a SHA-256 */ };

struct tg_archive {
    const char *path; /* of the folder; NULL: nothing is kept, and all functions do nothing */
    unsigned most;
    bool failing; /* was told */
    unsigned char program[TG_ARCHIVE_PROGRAM];
    struct tg_slice pushed; /* what tg_generation_pushed says of the newest, whichever program has written it: ours */
};

/* A generation that is to be kept. */
struct tg_archive_item {
    struct tg_archive_item *next;
    int bundle; /* memory file */
    char id[TG_GENERATION_ID];
    char by[sizeof((struct tg_generation *)0)->by];
    char change[sizeof((struct tg_generation *)0)->change];
    double committed;
};

/*
 * Makes the folder if there is none, and reads what is in it: the newest first, or NULL. `path` and `most` are set.
 * What cannot be used is told and left alone: an archive may do no harm. Another process that writes is waited for, for
 * a second at most.
 */
struct tg_generation *tg_archive_open(struct tg_archive *archive);
/* Writes the item as the newest, and removes what is too old. One process at a time: the others wait. An error, with
 * `err`, leaves no half of a file. */
TG_MUST_CHECK enum tg_rc tg_archive_write(const struct tg_archive *archive, const struct tg_archive_item *item,
                                          struct tg_err *err);

#endif
