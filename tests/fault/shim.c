/*
 * shim.c - preloaded into a gateway: system calls and allocations that fail by a plan, a wall clock that jumps.
 *
 * FAULT_PLAN names a file that holds a struct plan. It is mapped and shared with the test, which arms and disarms it
 * with a store while the gateway runs, says for which process it is meant, and reads how often each rule was asked and
 * has struck. While it is not armed a call costs one load more; without the variable nothing is changed at all.
 *
 * The calls go to the kernel and to glibc's own allocator without dlsym, so that they may come before any constructor
 * has run. Only fork is looked up: it has duties in the C library.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The order is known to faults.py. */
enum function {
    ACCEPT,
    CONNECT,
    SOCKET,
    SOCKETPAIR,
    RECV,
    RECVMSG,
    READ,
    SEND,
    WRITE,
    OPEN,
    MEMFD,
    PIPE,
    EPOLL_CTL, /* only what adds a descriptor */
    EPOLL_WAIT,
    FORK,
    MALLOC, /* calloc and realloc, too */
    MMAP,   /* only memory: LuaJIT asks the kernel for its own */
    FSYNC
};

enum where { ANYWHERE, INTERNET, LOCAL, FILES };

struct rule {
    uint32_t functions; /* a bit for each enum function */
    uint32_t where;     /* enum where: which descriptors are meant */
    int32_t
        error; /* errno; 0: a few bytes are read or written, no more; -1: it hangs for as long as the plan is armed */
    uint32_t first;  /* the first call that may fail, from 1 on */
    uint32_t chance; /* of 1000, for each call from there on */
    uint32_t times;  /* failures at most; 0: without end */
    uint32_t seed;
    _Atomic uint32_t asked;
    _Atomic uint32_t struck;
    uint32_t reserved;
};

struct plan {
    _Atomic uint32_t armed;
    _Atomic uint32_t pid; /* of the only process that is meant; 0: all */
    uint32_t count;
    _Atomic int32_t skew; /* seconds that the wall clock is ahead, armed or not */
    struct rule rules[8];
};

enum { FDS = 4096, PIECE = 7, HANGS = -1 };

static struct plan *plan;

/* How each descriptor was registered: what the kernel will not say again must be made to be said (see `later`). */
static struct {
    int epoll;
    struct epoll_event event;
} registered[FDS];

static int find_libgcc(struct dl_phdr_info *info, size_t size, void *arg);

__attribute__((constructor)) static void
map_plan(void)
{
    (void)dl_iterate_phdr(find_libgcc, NULL);
    const char *path = getenv("FAULT_PLAN");
    const int fd = path == NULL ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    void *p = (void *)syscall(SYS_mmap, NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)syscall(SYS_close, fd);
    if (p != MAP_FAILED) {
        plan = p;
    }
}

static uint32_t
mix(uint32_t seed, uint32_t n)
{
    uint32_t h = seed * 2654435761U + n * 2246822519U;
    h = (h ^ (h >> 15)) * 2246822519U;
    h = (h ^ (h >> 13)) * 3266489917U;
    return h ^ (h >> 16);
}

static enum where
where_is(int fd)
{
    int domain = 0;
    socklen_t length = sizeof domain;
    if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0) {
        return FILES;
    }
    return domain == AF_UNIX ? LOCAL : INTERNET;
}

/* The rule by which this call fails, or NULL. *n is the number of the call under that rule. */
static struct rule *
strikes(enum function function, int fd, uint32_t *n)
{
    const int before = errno;
    struct rule *found = NULL;
    if (plan == NULL || plan->armed == 0 || (plan->pid != 0 && plan->pid != (uint32_t)getpid())) {
        return NULL;
    }
    for (uint32_t i = 0; i < plan->count && found == NULL; i++) {
        struct rule *rule = &plan->rules[i];
        if ((rule->functions & (1U << function)) == 0 ||
            (rule->where != ANYWHERE && (fd < 0 || rule->where != (uint32_t)where_is(fd)))) {
            continue;
        }
        *n = atomic_fetch_add(&rule->asked, 1) + 1;
        if (*n >= rule->first && mix(rule->seed, *n) % 1000 < rule->chance &&
            (rule->times == 0 || rule->struck < rule->times)) {
            atomic_fetch_add(&rule->struck, 1);
            found = rule;
        }
    }
    errno = before;
    return found;
}

/* Whether this call fails as a whole; errno is set. */
static int
fails(enum function function, int fd)
{
    uint32_t n;
    const struct rule *rule = strikes(function, fd, &n);
    if (rule == NULL) {
        return 0;
    }
    if (rule->error == HANGS) {
        static const struct timespec pause = {0, 5 * 1000 * 1000};
        while (plan->armed != 0) {
            (void)syscall(SYS_nanosleep, &pause, NULL);
        }
        return 0;
    }
    errno = rule->error;
    return 1;
}

/*
 * An edge-triggered descriptor whose bytes were held back is not reported again, as it would be if they had come later:
 * it is registered anew, which makes the kernel look.
 */
static void
later(int fd)
{
    const int before = errno;
    if (fd >= 0 && fd < FDS && registered[fd].epoll > 0) {
        (void)syscall(SYS_epoll_ctl, registered[fd].epoll, EPOLL_CTL_MOD, fd, &registered[fd].event);
    }
    errno = before;
}

/* For what moves bytes: -1 when it fails, else how many of `size` it may move. */
static ssize_t
allowed(enum function function, int fd, size_t size)
{
    uint32_t n;
    const struct rule *rule = strikes(function, fd, &n);
    if (rule == NULL) {
        return (ssize_t)size;
    }
    if (rule->error == EAGAIN || rule->error == 0) {
        later(fd);
    }
    if (rule->error != 0) {
        errno = rule->error;
        return -1;
    }
    const size_t piece = 1 + mix(rule->seed + 1, n) % PIECE;
    return (ssize_t)(piece < size ? piece : size);
}

static size_t
size_of(const struct iovec *v, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += v[i].iov_len;
    }
    return size;
}

/* ---------------------------------------------------------------- sockets */

int
accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict length, int flags)
{
    return fails(ACCEPT, fd) ? -1 : (int)syscall(SYS_accept4, fd, address, length, flags);
}

int
accept(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
    return accept4(fd, address, length, 0);
}

int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
    return fails(CONNECT, fd) ? -1 : (int)syscall(SYS_connect, fd, address, length);
}

int
socket(int domain, int type, int protocol)
{
    return fails(SOCKET, -1) ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}

int
socketpair(int domain, int type, int protocol, int ends[2])
{
    return fails(SOCKETPAIR, -1) ? -1 : (int)syscall(SYS_socketpair, domain, type, protocol, ends);
}

ssize_t
recv(int fd, void *p, size_t size, int flags)
{
    const ssize_t n = allowed(RECV, fd, size);
    return n < 0 ? -1 : syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
}

ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
    return fails(RECVMSG, fd) ? -1 : syscall(SYS_recvmsg, fd, message, flags);
}

ssize_t
send(int fd, const void *p, size_t size, int flags)
{
    const ssize_t n = allowed(SEND, fd, size);
    return n < 0 ? -1 : syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    const size_t size = size_of(message->msg_iov, message->msg_iovlen);
    const ssize_t n = allowed(SEND, fd, size);
    if (n < 0 || (size_t)n == size) {
        return n < 0 ? -1 : syscall(SYS_sendmsg, fd, message, flags);
    }
    const struct iovec *first = message->msg_iov;
    while (first->iov_len == 0) {
        first++;
    }
    struct iovec piece = {first->iov_base, (size_t)n < first->iov_len ? (size_t)n : first->iov_len};
    struct msghdr shorter = *message;
    shorter.msg_iov = &piece;
    shorter.msg_iovlen = 1;
    return syscall(SYS_sendmsg, fd, &shorter, flags);
}

/* ---------------------------------------------------------------- files */

ssize_t
read(int fd, void *p, size_t size)
{
    const ssize_t n = allowed(READ, fd, size);
    return n < 0 ? -1 : syscall(SYS_read, fd, p, n);
}

ssize_t
readv(int fd, const struct iovec *v, int count)
{
    return fails(READ, fd) ? -1 : syscall(SYS_readv, fd, v, count);
}

ssize_t
write(int fd, const void *p, size_t size)
{
    const ssize_t n = allowed(WRITE, fd, size);
    return n < 0 ? -1 : syscall(SYS_write, fd, p, n);
}

ssize_t
writev(int fd, const struct iovec *v, int count)
{
    return fails(WRITE, fd) ? -1 : syscall(SYS_writev, fd, v, count);
}

int
open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails(OPEN, -1) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int
openat(int folder, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails(OPEN, -1) ? -1 : (int)syscall(SYS_openat, folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) __attribute__((alias("openat")));

int
fsync(int fd)
{
    return fails(FSYNC, fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int
memfd_create(const char *name, unsigned flags)
{
    return fails(MEMFD, -1) ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

int
pipe2(int ends[2], int flags)
{
    return fails(PIPE, -1) ? -1 : (int)syscall(SYS_pipe2, ends, flags);
}

/* ---------------------------------------------------------------- events and processes */

int
epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    if (operation == EPOLL_CTL_ADD && fails(EPOLL_CTL, fd)) {
        return -1;
    }
    if (fd >= 0 && fd < FDS) {
        registered[fd].epoll = operation == EPOLL_CTL_DEL ? 0 : epoll;
        if (event != NULL) {
            registered[fd].event = *event;
        }
    }
    return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
}

int
epoll_wait(int epoll, struct epoll_event *events, int max, int timeout)
{
    return fails(EPOLL_WAIT, -1) ? -1 : (int)syscall(SYS_epoll_pwait, epoll, events, max, timeout, NULL, 0);
}

pid_t
fork(void)
{
    static pid_t (*next)(void);
    if (next == NULL) {
        *(void **)&next = dlsym(RTLD_NEXT, "fork");
    }
    return fails(FORK, -1) ? -1 : next();
}

/* ---------------------------------------------------------------- memory */

/*
 * libgcc does not look at what malloc gives it when LuaJIT tells it of new machine code (__register_frame): a null
 * pointer ends the process there, and no program can help it.
 */
static uintptr_t libgcc_first;
static uintptr_t libgcc_last;

static int
find_libgcc(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    if (strstr(info->dlpi_name, "libgcc_s") == NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const uintptr_t first = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X) != 0) {
            libgcc_first = first;
            libgcc_last = first + info->dlpi_phdr[i].p_memsz;
        }
    }
    return 1;
}

static int
is_libgcc(const void *caller)
{
    return (uintptr_t)caller >= libgcc_first && (uintptr_t)caller < libgcc_last;
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *p, size_t size);

void *
malloc(size_t size)
{
    return !is_libgcc(__builtin_return_address(0)) && fails(MALLOC, -1) ? NULL : __libc_malloc(size);
}

void *
calloc(size_t count, size_t size)
{
    return fails(MALLOC, -1) ? NULL : __libc_calloc(count, size);
}

void *
realloc(void *p, size_t size)
{
    return fails(MALLOC, -1) ? NULL : __libc_realloc(p, size);
}

void *
mmap(void *place, size_t size, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) != 0 && fails(MMAP, -1)) {
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, place, size, protection, flags, fd, offset);
}

void *mmap64(void *place, size_t size, int protection, int flags, int fd, off_t offset) __attribute__((alias("mmap")));

int
clock_gettime(clockid_t clock, struct timespec *time)
{
    const int rc = (int)syscall(SYS_clock_gettime, clock, time);
    if (rc == 0 && plan != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        time->tv_sec += plan->skew;
    }
    return rc;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec time;
    (void)zone;
    const int rc = clock_gettime(CLOCK_REALTIME, &time);
    *now = (struct timeval){time.tv_sec, time.tv_nsec / 1000};
    return rc;
}

time_t
time(time_t *out)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}
