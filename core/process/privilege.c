#include "process/privilege.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* 4294967295 is "leave it as it is" to the kernel, and no user. */
static bool
parse_id(const char *text, unsigned *id)
{
    char *end = NULL;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0' || value >= 0xffffffffUL) {
        return false;
    }
    *id = (unsigned)value;
    return true;
}

static enum tg_rc
find_group(struct tg_privilege *privilege, const char *name, struct tg_err *err)
{
    const struct group *entry = getgrnam(name);
    if (entry != NULL) {
        privilege->gid = entry->gr_gid;
    } else if (!parse_id(name, &privilege->gid)) {
        return tg_err_set(err, TG_EINVAL, "--user: there is no group \"%s\"", name);
    }
    privilege->groups[0] = privilege->gid;
    privilege->group_count = 1;
    return TG_OK;
}

static enum tg_rc
find_user(struct tg_privilege *privilege, const char *name, bool with_groups, struct tg_err *err)
{
    unsigned id = 0;
    const struct passwd *entry = getpwnam(name);
    if (entry == NULL && parse_id(name, &id)) {
        entry = getpwuid(id);
        if (entry == NULL) { /* a container's user need not have a name; its group is then the one of this number */
            privilege->uid = id;
            privilege->gid = id;
            privilege->groups[0] = id;
            privilege->group_count = 1;
            return TG_OK;
        }
    }
    if (entry == NULL) {
        return tg_err_set(err, TG_EINVAL, "--user: there is no user \"%s\"", name);
    }
    privilege->uid = entry->pw_uid;
    privilege->gid = entry->pw_gid;
    privilege->group_count = TG_PRIVILEGE_GROUPS;
    if (with_groups && getgrouplist(entry->pw_name, entry->pw_gid, privilege->groups, &privilege->group_count) < 0) {
        return tg_err_set(err, TG_EINVAL, "--user: \"%s\" is in more than %d groups", name, TG_PRIVILEGE_GROUPS);
    }
    return TG_OK;
}

enum tg_rc
tg_privilege_find(struct tg_privilege *privilege, const char *text, struct tg_err *err)
{
    char name[256];
    const char *colon = strchr(text, ':');
    const size_t n = colon == NULL ? strlen(text) : (size_t)(colon - text);
    if (n == 0 || n >= sizeof name) {
        return tg_err_set(err, TG_EINVAL, "--user: found \"%s\", expected NAME or NAME:GROUP", text);
    }
    memcpy(name, text, n);
    name[n] = '\0';
    enum tg_rc rc = find_user(privilege, name, colon == NULL, err);
    if (rc == TG_OK && colon != NULL) {
        rc = find_group(privilege, colon + 1, err);
    }
    if (rc != TG_OK) {
        return rc;
    }
    privilege->drops = geteuid() == 0;
    if (!privilege->drops && (privilege->uid != geteuid() || privilege->gid != getegid())) {
        return tg_err_set(err, TG_EINVAL, "--user %s: only root can become another user", text);
    }
    return TG_OK;
}

void
tg_privilege_guard(const struct tg_privilege *privilege)
{
    struct rlimit limit = {0, 0};
    if (privilege->core_dumps && getrlimit(RLIMIT_CORE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
    }
    (void)setrlimit(RLIMIT_CORE, &limit);
    /* The limit does not bind a core_pattern that is a pipe; this does, and it keeps other processes of the user out.
     */
    (void)prctl(PR_SET_DUMPABLE, privilege->core_dumps ? 1 : 0);
}

static enum tg_rc
become(const struct tg_privilege *privilege, struct tg_err *err)
{
    /* The groups first: afterwards nobody may change them. */
    if (setgroups((size_t)privilege->group_count, privilege->groups) < 0 ||
        setresgid(privilege->gid, privilege->gid, privilege->gid) < 0 ||
        setresuid(privilege->uid, privilege->uid, privilege->uid) < 0) {
        return tg_err_errno(err, "become user %u, group %u", (unsigned)privilege->uid, (unsigned)privilege->gid);
    }
    if (privilege->uid != 0 && setuid(0) == 0) {
        return tg_err_set(err, TG_ESYSTEM, "user %u can become root again", (unsigned)privilege->uid);
    }
    /* The kernel has set it anew with the user. */
    (void)prctl(PR_SET_DUMPABLE, privilege->core_dumps ? 1 : 0);
    return TG_OK;
}

enum tg_rc
tg_privilege_drop(const struct tg_privilege *privilege, struct tg_err *err)
{
    if (privilege != NULL && privilege->drops) {
        const enum tg_rc rc = become(privilege, err);
        if (rc != TG_OK) {
            return rc;
        }
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? tg_err_errno(err, "PR_SET_NO_NEW_PRIVS") : TG_OK;
}
