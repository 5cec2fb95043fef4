/*
 * keeping.h - the archive's files are written by a child, one after the other: a disk that hangs holds nobody up.
 *
 * Owns: what is to be written yet, and the child. Used by: reload.c and master.c. Does not know: what a file holds.
 * A child and no thread: one that the kernel does not let go of would keep the process, and its sockets, from ending.
 */
#ifndef TG_PROCESS_KEEPING_H
#define TG_PROCESS_KEEPING_H

#include "process/archive.h"

struct tg_keeping {
    struct tg_archive archive;
    struct tg_archive_item *first; /* what the child writes, if there is one, */
    struct tg_archive_item **last; /* and what is to be written after it */
    unsigned count;
    pid_t pid;      /* 0: nothing is to be written */
    int message;    /* read end of its errors */
    uint64_t began; /* milliseconds, of tg_loop_clock; */
    bool overdue;   /* and that was long ago */
};

/* `path` of the archive, and `most`. NULL as the path: nothing is kept, and all functions do nothing. */
void tg_keeping_init(struct tg_keeping *keeping, const char *path, unsigned most);
/*
 * The generation is to be written as the newest. More than `most` do not wait: the oldest of them is given up. That it
 * cannot be kept, or that the disk does not answer, is told once, until it is again as it should be.
 */
void tg_keeping_put(struct tg_keeping *keeping, const struct tg_generation *generation);
/* A child has ended; true: it was this one, and the next may have begun. */
bool tg_keeping_reaped(struct tg_keeping *keeping, pid_t pid, int status);
/* Several times a second. */
void tg_keeping_check(struct tg_keeping *keeping);
/* The process ends: what waits is written, for two seconds at most. */
void tg_keeping_end(struct tg_keeping *keeping);
/* In a forked worker. */
void tg_keeping_forget(struct tg_keeping *keeping);

#endif
