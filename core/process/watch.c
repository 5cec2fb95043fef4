#include "process/watch.h"

#include <event2/event.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/mem.h"

enum { SETTLE = 30 * 1000 /* microseconds: a save of several files is one change */ };

struct tg_watch {
    int fd;
    struct event *readable;
    struct event *settled;
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

/* Temporary files of editors and specs are nobody's configuration. */
static bool
matters(const char *name)
{
    return name[0] != '.' && !ends_with(name, ".spec.lua") && (ends_with(name, ".lua") || ends_with(name, ".json"));
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
            if (event->len > 0 && matters(event->name)) {
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
tg_watch_new(struct tg_loop *loop, tg_watch_cb changed, void *arg, struct tg_err *err)
{
    struct tg_watch *watch = tg_mem_new(struct tg_watch);
    if (watch == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "memory is short");
        return NULL;
    }
    watch->changed = changed;
    watch->arg = arg;
    watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch->fd < 0) {
        (void)tg_err_errno(err, "inotify");
        tg_mem_free(watch);
        return NULL;
    }
    watch->readable = event_new(tg_loop_base(loop), watch->fd, EV_READ | EV_PERSIST, on_readable, watch);
    watch->settled = event_new(tg_loop_base(loop), -1, 0, on_settled, watch);
    if (watch->readable == NULL || watch->settled == NULL || event_add(watch->readable, NULL) < 0) {
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
    tg_mem_free(watch);
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
