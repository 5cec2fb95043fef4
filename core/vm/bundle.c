#include "vm/bundle.h"

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

static const char magic[8] = {'t', 'g', 'b', 'u', 'n', 'd', '1', '\n'};

enum tg_rc
tg_bundle_each(struct tg_slice bytes, tg_bundle_cb entry, void *arg)
{
    if (bytes.n < sizeof magic || memcmp(bytes.p, magic, sizeof magic) != 0) {
        return TG_EINVAL;
    }
    const char *p = bytes.p + sizeof magic;
    const char *end = bytes.p + bytes.n;
    while (p < end) {
        uint32_t sizes[2];
        if ((size_t)(end - p) < sizeof sizes) {
            return TG_EINVAL;
        }
        memcpy(sizes, p, sizeof sizes);
        p += sizeof sizes;
        if ((uint64_t)sizes[0] + sizes[1] > (uint64_t)(end - p)) {
            return TG_EINVAL;
        }
        if (!entry(arg, tg_slice_of(p, sizes[0]), tg_slice_of(p + sizes[0], sizes[1]))) {
            return TG_OK;
        }
        p += (size_t)sizes[0] + sizes[1];
    }
    return TG_OK;
}

struct search {
    const char *name;
    struct tg_slice *data;
    bool found;
};

static bool
compare(void *arg, struct tg_slice name, struct tg_slice data)
{
    struct search *search = arg;
    if (tg_slice_is(name, search->name, strlen(search->name))) {
        *search->data = data;
        search->found = true;
    }
    return !search->found;
}

enum tg_rc
tg_bundle_find(struct tg_slice bytes, const char *name, struct tg_slice *data)
{
    struct search search = {name, data, false};
    const enum tg_rc rc = tg_bundle_each(bytes, compare, &search);
    return rc != TG_OK ? rc : search.found ? TG_OK : TG_ENONE;
}

static enum tg_rc
write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        const ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return TG_ESYSTEM;
        }
        p += done;
        n -= (size_t)done;
    }
    return TG_OK;
}

enum tg_rc
tg_bundle_begin(int fd)
{
    return write_all(fd, magic, sizeof magic);
}

enum tg_rc
tg_bundle_write(int fd, struct tg_slice name, struct tg_slice data)
{
    const uint32_t sizes[2] = {(uint32_t)name.n, (uint32_t)data.n};
    if (name.n > UINT32_MAX || data.n > UINT32_MAX) {
        return TG_ELIMIT;
    }
    enum tg_rc rc = write_all(fd, (const char *)sizes, sizeof sizes);
    rc = rc == TG_OK ? write_all(fd, name.p, name.n) : rc;
    return rc == TG_OK ? write_all(fd, data.p, data.n) : rc;
}
