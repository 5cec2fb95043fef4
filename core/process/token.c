#include "process/token.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { RANDOM_BYTES = 24, TOKEN_MIN = 16 };

/* A new one, unless somebody else makes it at the same time: then that is read. */
static enum tg_rc
make(const char *path, struct tg_err *err)
{
    unsigned char bytes[RANDOM_BYTES];
    char text[RANDOM_BYTES * 2 + 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        return tg_err_errno(err, "no randomness for the admin token");
    }
    for (unsigned i = 0; i < sizeof bytes; i++) {
        (void)snprintf(text + 2 * (size_t)i, 3, "%02x", bytes[i]);
    }
    text[sizeof text - 2] = '\n';
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return errno == EEXIST ? TG_OK : tg_err_errno(err, "admin token %s", path);
    }
    const bool written = write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1;
    if (!written) {
        (void)tg_err_errno(err, "admin token %s", path);
        (void)unlink(path);
    }
    close(fd);
    return written ? TG_OK : TG_ESYSTEM;
}

enum tg_rc
tg_token_read(const char *control, char out[TG_TOKEN_SIZE], struct tg_err *err)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s.token", control);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        if (make(path, err) != TG_OK) {
            return TG_ESYSTEM;
        }
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    if (fd < 0) {
        return tg_err_errno(err, "admin token %s", path);
    }
    const ssize_t n = read(fd, out, TG_TOKEN_SIZE - 1);
    close(fd);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    if (strlen(out) < TOKEN_MIN) {
        (void)tg_err_set(err, TG_EINVAL,
                         "admin token %s: found fewer than %d characters; remove the file, and a new one is made", path,
                         TOKEN_MIN);
        return TG_ESYSTEM;
    }
    return TG_OK;
}
