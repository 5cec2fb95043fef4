#include "process/watch.h"

#include <event2/event.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"

enum { SETTLE = 30 * 1000 /* microseconds: a save of several files is one change */ };

struct tg_watch {
    int fd;
    bool any;
    struct event *readable;
    struct event *settled;
    struct tg_map *names; /* of the files that were added, without their folders */
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
            if (event->len > 0 && matters(watch, event->name)) {
                (void)event_add(watch->settled, &settle);
            }
            p += sizeof *event + event->len;
        }
    }
}

static void
on_settled(evutil_socket_t fd, short what, void *arg)
{
    struct tg_watch *watch = arg;
    (void)fd;
    (void)what;
    watch->changed(watch->arg);
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
    (void)inotify_add_watch(watch->fd, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR);
}

void
tg_watch_forget(struct tg_watch *watch)
{
    if (watch != NULL) {
        close(watch->fd);
    }
}
