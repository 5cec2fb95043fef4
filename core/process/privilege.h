/*
 * privilege.h - what a process that runs the user's code may do: as whom, and what it leaves behind when it dies.
 *
 * Owns: nothing. Used by: main.c (finds the user), worker.c and generation.c (drop), master.c (core dumps).
 * The master keeps its user: it binds low ports at each reload, and runs no code but ours.
 */
#ifndef TG_PROCESS_PRIVILEGE_H
#define TG_PROCESS_PRIVILEGE_H

#include <sys/types.h>

#include "base/rc.h"

enum { TG_PRIVILEGE_GROUPS = 64 };

struct tg_privilege {
    bool drops; /* to the user below; otherwise that of the master stays */
    uid_t uid;
    gid_t gid;
    gid_t groups[TG_PRIVILEGE_GROUPS];
    int group_count;
    bool core_dumps; /* a crash may write the memory, keys and all, to a file */
};

/*
 * `text` is NAME[:GROUP]; both may be numbers. TG_OK also when it is who we are already. TG_EINVAL: nobody is called
 * that, or only root could become it; `err` tells.
 */
TG_MUST_CHECK enum tg_rc tg_privilege_find(struct tg_privilege *privilege, const char *text, struct tg_err *err);

/* For the whole program, before it forks: core dumps are as `privilege` says. */
void tg_privilege_guard(const struct tg_privilege *privilege);

/*
 * In a child, before it runs code of the configuration: becomes the user, and gives up gaining any right by an exec.
 * NULL: the user stays. TG_ESYSTEM and `err`: the child must end, it may be anyone.
 */
TG_MUST_CHECK enum tg_rc tg_privilege_drop(const struct tg_privilege *privilege, struct tg_err *err);

#endif
