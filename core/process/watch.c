#include "process/watch.h"

#include <event2/event.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"

enum {
    SETTLE = 30 * 1000, /* microseconds: a save of several files is one change */
    LOOK = 100 * 1000,  /* microseconds between two looks whether Git is done */
    TELL_AFTER = 300,   /* looks */
    TREES_MAX = 8
};

struct tg_watch {
    int fd;
    bool any;
    struct event *readable;
    struct event *settled;
    struct tg_map *names;   /* of the files that were added, without their folders */
    char *trees[TREES_MAX]; /* folders of Git whose work trees the watched folders are in */
    unsigned tree_count;
    unsigned looks; /* at Git, since something has changed */
    tg_watch_cb changed;
    void *arg;
};

static bool
ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name);
    const size_t m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/*
 * Temporary files of editors and specs are nobody's configuration. "..data" is what Kubernetes renames when it renews
 * the files of a volume, which are links into it.
 */
static bool
matters(const struct tg_watch *watch, const char *name)
{
    static const char *const ends[] = {".lua", ".json", ".yaml", ".yml"};
    bool looks_like_it = false;
    for (size_t i = 0; watch->any && i < sizeof ends / sizeof ends[0]; i++) {
        looks_like_it = looks_like_it || ends_with(name, ends[i]);
    }
    return (looks_like_it && name[0] != '.' && !ends_with(name, ".spec.lua")) || strcmp(name, "..data") == 0 ||
           tg_map_find(watch->names, name, strlen(name)) != 0;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval settle = {0, SETTLE};
    struct tg_watch *watch = arg;
    _Alignas(struct inotify_event) char bytes[4096];
    ssize_t n;
    (void)what;
    while ((n = read(fd, bytes, sizeof bytes)) > 0) {
        for (char *p = bytes; p < bytes + n;) {
            const struct inotify_event *event = (const struct inotify_event *)p;
            /* A file that is created is not written yet; a folder may be one that an include looks into. */
            const bool counts =
                (event->mask & IN_ISDIR) != 0 ? watch->any && event->name[0] != '.' : (event->mask & IN_CREATE) == 0;
            if (event->len > 0 && counts && ((event->mask & IN_ISDIR) != 0 || matters(watch, event->name))) {
                (void)event_add(watch->settled, &settle);
            }
            p += sizeof *event + event->len;
        }
    }
}

/* Git holds its lock from before it writes the first file until it has written the last; a rebase takes several turns.
 */
static bool
git_writes(const struct tg_watch *watch, char *path, size_t size)
{
    static const char *const marks[] = {"index.lock", "rebase-merge", "rebase-apply"};
    for (unsigned i = 0; i < watch->tree_count; i++) {
        for (unsigned k = 0; k < sizeof marks / sizeof marks[0]; k++) {
            (void)snprintf(path, size, "%s/%s", watch->trees[i], marks[k]);
            if (access(path, F_OK) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void
on_settled(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval again = {0, LOOK};
    struct tg_watch *watch = arg;
    char path[PATH_MAX + 16];
    (void)fd;
    (void)what;
    if (git_writes(watch, path, sizeof path)) {
        if (++watch->looks == TELL_AFTER) {
            tg_log(TG_LOG_WARN, "files have changed, but are not read while there is %s", path);
        }
        (void)event_add(watch->settled, &again);
        return;
    }
    watch->looks = 0;
    watch->changed(watch->arg);
}

/* The folder of Git: itself, or, in a further work tree and in a submodule, what a file of that name says. False: there
 * is none. */
static bool
find_git(const char *folder, char *out, size_t size)
{
    struct stat st;
    char text[PATH_MAX] = "";
    if ((size_t)snprintf(out, size, "%s/.git", folder) >= size || stat(out, &st) < 0) {
        return false;
    }
    if (S_ISDIR(st.st_mode)) {
        return true;
    }
    const int fd = open(out, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (strncmp(text, "gitdir: ", 8) != 0) {
        return false;
    }
    const char *path = text + 8;
    return (size_t)snprintf(out, size, "%s%s%s", *path == '/' ? "" : folder, *path == '/' ? "" : "/", path) < size;
}

/* Remembers the work tree that the folder is in. */
static void
add_tree(struct tg_watch *watch, const char *path)
{
    char folder[PATH_MAX];
    char git[PATH_MAX];
    if (watch->tree_count == TREES_MAX || realpath(path, folder) == NULL) {
        return;
    }
    while (!find_git(folder, git, sizeof git)) {
        char *slash = strrchr(folder, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
    for (unsigned i = 0; i < watch->tree_count; i++) {
        if (strcmp(watch->trees[i], git) == 0) {
            return;
        }
    }
    watch->trees[watch->tree_count] = tg_mem_text(git, strlen(git));
    watch->tree_count += watch->trees[watch->tree_count] != NULL;
}

struct tg_watch *
tg_watch_new(struct tg_loop *loop, bool any, tg_watch_cb changed, void *arg, struct tg_err *err)
{
    struct tg_watch *watch = tg_mem_new(struct tg_watch);
    if (watch == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "memory is short");
        return NULL;
    }
    watch->any = any;
    watch->changed = changed;
    watch->arg = arg;
    watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch->fd < 0) {
        (void)tg_err_errno(err, "inotify");
        tg_mem_free(watch);
        return NULL;
    }
    watch->names = tg_map_new();
    watch->readable = event_new(tg_loop_base(loop), watch->fd, EV_READ | EV_PERSIST, on_readable, watch);
    watch->settled = event_new(tg_loop_base(loop), -1, 0, on_settled, watch);
    if (watch->names == NULL || watch->readable == NULL || watch->settled == NULL ||
        event_add(watch->readable, NULL) < 0) {
        (void)tg_err_set(err, TG_ENOMEM, "memory is short");
        tg_watch_free(watch);
        return NULL;
    }
    return watch;
}

void
tg_watch_free(struct tg_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    if (watch->readable != NULL) {
        event_free(watch->readable);
    }
    if (watch->settled != NULL) {
        event_free(watch->settled);
    }
    close(watch->fd);
    for (unsigned i = 0; i < watch->tree_count; i++) {
        tg_mem_free(watch->trees[i]);
    }
    tg_map_free(watch->names);
    tg_mem_free(watch);
}

void
tg_watch_file(struct tg_watch *watch, const char *path)
{
    char copy[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    /* Short of memory, or there already: it is no worse than before. */
    const enum tg_rc ignored = tg_map_add(watch->names, name, strlen(name), 1);
    (void)ignored;
    (void)snprintf(copy, sizeof copy, "%s", path);
    tg_watch_folder(watch, dirname(copy));
}

void
tg_watch_folder(struct tg_watch *watch, const char *path)
{
    (void)inotify_add_watch(watch->fd, path,
                            IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_CREATE | IN_ONLYDIR);
    add_tree(watch, path);
}

void
tg_watch_forget(struct tg_watch *watch)
{
    if (watch != NULL) {
        close(watch->fd);
    }
}

static bool
watch_file(void *arg, struct tg_slice rest)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%.*s", (int)rest.n, rest.p);
    tg_watch_file(arg, path);
    return true;
}

static bool
watch_folder(void *arg, struct tg_slice rest)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%.*s", (int)rest.n, rest.p);
    tg_watch_folder(arg, path);
    return true;
}

void
tg_watch_generation(struct tg_watch *watch, const struct tg_generation *generation, const char *const *plugin_dirs)
{
    if (watch == NULL) {
        return;
    }
    tg_manifest_each(generation, "live", watch_file, watch);
    if (plugin_dirs != NULL) {
        tg_manifest_each(generation, "file", watch_file, watch);
        tg_manifest_each(generation, "folder", watch_folder, watch);
        for (const char *const *dir = plugin_dirs; *dir != NULL; dir++) {
            tg_watch_folder(watch, *dir);
        }
    }
}
