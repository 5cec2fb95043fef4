#include "process/pid_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum tg_rc
tg_pid_file_write(const char *path, struct tg_err *err)
{
    char beside[PATH_MAX];
    if ((size_t)snprintf(beside, sizeof beside, "%s.new", path) >= sizeof beside) {
        return tg_err_set(err, TG_EINVAL, "pid file %s: the path is too long", path);
    }
    /* Never through a link that somebody has put there. */
    (void)unlink(beside);
    const int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) {
        return tg_err_errno(err, "pid file %s", beside);
    }
    const bool written = dprintf(fd, "%d\n", (int)getpid()) > 0;
    if (!written || rename(beside, path) < 0) {
        (void)tg_err_errno(err, "pid file %s", path);
        (void)unlink(beside);
        close(fd);
        return TG_ESYSTEM;
    }
    close(fd);
    return TG_OK;
}

void
tg_pid_file_remove(const char *path)
{
    char text[32];
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return;
    }
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    if (strtol(text, NULL, 10) == (long)getpid()) {
        (void)unlink(path);
    }
}
