#include "process/archive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/log.h"
#include "base/mem.h"
#include "vm/bundle.h"

/* A file is a bundle, too: this head, its digest, and the bundle of the generation. */
#define FORMAT "tidegate generation 1"
#define ENDING ".generation"
#define BESIDE ".new"

enum {
    FILES_MAX = 1000,
    NAME = 64,
    BYTES_MAX = 1 << 28,
    DIGEST = TG_ARCHIVE_PROGRAM,
    LOCK_TRIES = 40, /* of a reader, */
    LOCK_PAUSE = 25  /* milliseconds between two */
};

struct head {
    unsigned char program[DIGEST];
    unsigned char bundle[DIGEST];
    char by[sizeof((struct tg_archive_item *)0)->by];
    char change[sizeof((struct tg_archive_item *)0)->change];
    double committed;
};

/* ------------------------------------------------------------------ the folder */

static enum tg_rc
digest(struct tg_slice bytes, unsigned char out[DIGEST])
{
    return tg_digest(TG_DIGEST_SHA256, bytes.p, bytes.n, out);
}

/* A bundle holds what C and Lua of one build know of each other: any other build is another program. */
static enum tg_rc
digest_program(unsigned char out[DIGEST], struct tg_err *err)
{
    struct stat st;
    const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    void *p = fd < 0 || fstat(fd, &st) < 0 ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd >= 0) {
        close(fd);
    }
    if (p == MAP_FAILED) {
        return tg_err_errno(err, "read the program");
    }
    const enum tg_rc rc = digest(tg_slice_of(p, (size_t)st.st_size), out);
    (void)munmap(p, (size_t)st.st_size);
    return rc == TG_OK ? TG_OK : tg_err_set(err, rc, "memory is short");
}

/* Who may write there could have the workers run what he likes. A descriptor, or -1 and `err`. */
static int
open_folder(const char *path, struct tg_err *err)
{
    struct stat st;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        (void)tg_err_errno(err, "folder %s", path);
        return -1;
    }
    const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || fstat(folder, &st) < 0) {
        (void)tg_err_errno(err, "folder %s", path);
    } else if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        (void)tg_err_set(err, TG_EINVAL, "folder %s: others may write there", path);
    } else {
        return folder;
    }
    if (folder >= 0) {
        close(folder);
    }
    return -1;
}

/* The number that a name begins with; 0: it is not ours. */
static unsigned long long
number_of(const char *name)
{
    char *end = NULL;
    const size_t n = strlen(name);
    const size_t ending = sizeof ENDING - 1;
    if (n <= ending || n >= NAME || strcmp(name + n - ending, ENDING) != 0 || name[0] < '0' || name[0] > '9') {
        return 0;
    }
    const unsigned long long number = strtoull(name, &end, 10);
    return *end == '-' ? number : 0;
}

static int
compare_names(const void *a, const void *b)
{
    const unsigned long long one = number_of(a);
    const unsigned long long other = number_of(b);
    return one < other ? 1 : one > other ? -1 : 0;
}

/* The names of the files, the newest first. */
static unsigned
list_files(int folder, char names[FILES_MAX][NAME])
{
    unsigned count = 0;
    const int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    if (dir == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return 0;
    }
    while (count < FILES_MAX && (entry = readdir(dir)) != NULL) {
        if (number_of(entry->d_name) != 0) {
            memcpy(names[count++], entry->d_name, strlen(entry->d_name) + 1); /* shorter than NAME */
        }
    }
    (void)closedir(dir);
    qsort(names, count, NAME, compare_names);
    return count;
}

/* ------------------------------------------------------------------ reading */

static enum tg_rc
read_head(struct tg_slice bytes, struct head *head, struct tg_slice *bundle, struct tg_err *err)
{
    unsigned char sum[DIGEST];
    struct tg_slice text;
    struct tg_slice sealed;
    if (tg_bundle_find(bytes, FORMAT, &text) != TG_OK || text.n != sizeof *head ||
        tg_bundle_find(bytes, "digest", &sealed) != TG_OK || sealed.n != sizeof sum ||
        tg_bundle_find(bytes, "bundle", bundle) != TG_OK) {
        return tg_err_set(err, TG_EINVAL, "it is cut short, or of another format");
    }
    memcpy(head, text.p, sizeof *head);
    if (digest(text, sum) != TG_OK || memcmp(sum, sealed.p, sizeof sum) != 0 || digest(*bundle, sum) != TG_OK ||
        memcmp(sum, head->bundle, sizeof sum) != 0) {
        return tg_err_set(err, TG_EINVAL, "its bytes are not those that were written");
    }
    return TG_OK;
}

/* Files that came from elsewhere are text, which every version can read: a gateway that is started needs them. */
static void
keep_pushed(struct tg_archive *archive, struct tg_slice bundle)
{
    struct tg_slice pushed;
    if (tg_bundle_find(bundle, "pushed", &pushed) == TG_OK) {
        archive->pushed = tg_slice_of(tg_mem_text(pushed.p, pushed.n), pushed.n);
    }
}

/* As the compiler gives it: sealed, in memory. */
static struct tg_generation *
open_bundle(const struct head *head, struct tg_slice bundle, struct tg_err *err)
{
    const int fd = memfd_create("tidegate-bundle", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    size_t done = 0;
    while (fd >= 0 && done < bundle.n) {
        const ssize_t n = write(fd, bundle.p + done, bundle.n - done);
        if (n < 0 && errno != EINTR) {
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    if (fd < 0 || done < bundle.n ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        (void)tg_err_errno(err, "memory file");
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    struct tg_generation *generation = tg_generation_open(fd, NULL, err);
    if (generation != NULL) {
        generation->committed = head->committed;
        (void)snprintf(generation->by, sizeof generation->by, "%.*s", (int)sizeof head->by, head->by);
        (void)snprintf(generation->change, sizeof generation->change, "%.*s", (int)sizeof head->change, head->change);
    }
    return generation;
}

static struct tg_generation *
read_file(struct tg_archive *archive, int folder, const char *name, bool newest, struct tg_err *err)
{
    struct stat st;
    struct head head;
    struct tg_slice bundle;
    struct tg_generation *generation = NULL;
    const int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        (void)tg_err_errno(err, "it cannot be read");
    } else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        (void)tg_err_set(err, TG_EINVAL, "it is open to others");
    } else if (st.st_size == 0 || st.st_size > BYTES_MAX) {
        (void)tg_err_set(err, TG_EINVAL, "it is empty, or too large");
    } else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            (void)tg_err_errno(err, "it cannot be read");
        } else {
            const bool whole = read_head(tg_slice_of(p, (size_t)st.st_size), &head, &bundle, err) == TG_OK;
            if (whole && newest) {
                keep_pushed(archive, bundle);
            }
            if (whole && memcmp(head.program, archive->program, sizeof head.program) != 0) {
                (void)tg_err_set(err, TG_EINVAL, "another version of the program has written it");
            } else if (whole) {
                generation = open_bundle(&head, bundle, err);
            }
            (void)munmap(p, (size_t)st.st_size);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return generation;
}

/* What a master before us writes yet shall be among what is read. A file has its name only when it is whole: who does
 * not come to an end, since its disk hangs, is not waited for. */
static void
wait_for_writer(int folder)
{
    static const struct timespec pause = {0, LOCK_PAUSE * 1000000L};
    for (unsigned i = 0; i < LOCK_TRIES && flock(folder, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK; i++) {
        (void)nanosleep(&pause, NULL);
    }
}

struct tg_generation *
tg_archive_open(struct tg_archive *archive)
{
    static char names[FILES_MAX][NAME];
    struct tg_generation *newest = NULL;
    struct tg_generation **end = &newest;
    struct tg_err err = {0};
    if (archive->path == NULL) {
        return NULL;
    }
    const bool known = digest_program(archive->program, &err) == TG_OK;
    const int folder = known ? open_folder(archive->path, &err) : -1;
    if (folder < 0) {
        tg_log(TG_LOG_WARN, "no history is kept: %s", err.text);
        archive->path = known ? archive->path : NULL;
        archive->failing = true;
        return NULL;
    }
    wait_for_writer(folder);
    const unsigned count = list_files(folder, names);
    for (unsigned i = 0; i < count && i < archive->most; i++) {
        *end = read_file(archive, folder, names[i], i == 0, &err);
        if (*end != NULL) {
            end = &(*end)->next;
        } else {
            tg_log(TG_LOG_WARN, "history: %s/%s is left alone: %s", archive->path, names[i], err.text);
        }
    }
    close(folder);
    return newest;
}

/* ------------------------------------------------------------------ writing */

static enum tg_rc
write_file(int folder, const char *name, const struct head *head, struct tg_slice bundle, struct tg_err *err)
{
    unsigned char sum[DIGEST];
    const struct tg_slice text = tg_slice_of((const char *)head, sizeof *head);
    if (digest(text, sum) != TG_OK) {
        return tg_err_set(err, TG_ENOMEM, "memory is short");
    }
    (void)unlinkat(folder, BESIDE, 0);
    const int fd = openat(folder, BESIDE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return tg_err_errno(err, "%s", name);
    }
    const bool written = tg_bundle_begin(fd) == TG_OK && tg_bundle_write(fd, TG_SLICE(FORMAT), text) == TG_OK &&
                         tg_bundle_write(fd, TG_SLICE("digest"), tg_slice_of((const char *)sum, sizeof sum)) == TG_OK &&
                         tg_bundle_write(fd, TG_SLICE("bundle"), bundle) == TG_OK && fsync(fd) == 0 &&
                         renameat(folder, BESIDE, folder, name) == 0 && fsync(folder) == 0;
    if (!written) {
        (void)tg_err_errno(err, "%s", name);
        (void)unlinkat(folder, BESIDE, 0);
    }
    close(fd);
    return written ? TG_OK : TG_ESYSTEM;
}

/* As the newest of those that are there; then what is too old is removed. */
static enum tg_rc
add_file(const struct tg_archive *archive, int folder, const struct tg_archive_item *item, const struct head *head,
         struct tg_slice bundle, struct tg_err *err)
{
    static char names[FILES_MAX][NAME];
    char name[NAME];
    const unsigned count = list_files(folder, names);
    (void)snprintf(name, sizeof name, "%010llu-%s" ENDING, (count > 0 ? number_of(names[0]) : 0) + 1, item->id);
    const enum tg_rc rc = write_file(folder, name, head, bundle, err);
    for (unsigned i = archive->most - 1; i < count && rc == TG_OK; i++) {
        (void)unlinkat(folder, names[i], 0);
    }
    return rc;
}

static enum tg_rc
write_bundle(const struct tg_archive *archive, int folder, const struct tg_archive_item *item, struct tg_err *err)
{
    struct stat st;
    struct head head = {.committed = item->committed};
    void *p = fstat(item->bundle, &st) < 0 ? MAP_FAILED
                                           : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, item->bundle, 0);
    if (p == MAP_FAILED) {
        return tg_err_errno(err, "map the bundle");
    }
    const struct tg_slice bundle = tg_slice_of(p, (size_t)st.st_size);
    memcpy(head.program, archive->program, sizeof head.program);
    memcpy(head.by, item->by, sizeof head.by);
    memcpy(head.change, item->change, sizeof head.change);
    enum tg_rc rc = digest(bundle, head.bundle);
    rc = rc != TG_OK ? tg_err_set(err, rc, "memory is short") : add_file(archive, folder, item, &head, bundle, err);
    (void)munmap(p, bundle.n);
    return rc;
}

enum tg_rc
tg_archive_write(const struct tg_archive *archive, const struct tg_archive_item *item, struct tg_err *err)
{
    const int folder = open_folder(archive->path, err);
    if (folder < 0) {
        return TG_ESYSTEM;
    }
    /* A master that gives way to the next may not have come to its end. A file system without locks has no such luck:
     * then the digests find what two have mixed. */
    (void)flock(folder, LOCK_EX);
    const enum tg_rc rc = write_bundle(archive, folder, item, err);
    close(folder);
    return rc;
}
