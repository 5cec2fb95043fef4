/*
 * The border: questions to the master. Contract is in abi.h.
 */
#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "vm/coroutine.h"

enum { ASKING_MAX = 16, EXAMPLE_MAX = 256, PIECE = 65536, ANSWER_MAX = 16 * 1024 * 1024 };

/* One who asks, from the question until it has taken the answer. */
struct asking {
    bool used;
    bool told;
    uint32_t coroutine;
    uint32_t serial;
    int fd;
    struct event *event;
    char *out; /* the question, as long as it is not sent */
    size_t out_length;
    size_t sent;
    char *in;
    size_t length;
    size_t capacity;
};

static struct asking list[ASKING_MAX];
static char *told; /* what vm.out of the last answer points into */

static void
forget(struct asking *one)
{
    if (one->event != NULL) {
        event_free(one->event);
    }
    if (one->used) {
        close(one->fd);
    }
    tg_mem_free(one->out);
    tg_mem_free(one->in);
    *one = (struct asking){0};
}

static void
tell(struct asking *one)
{
    struct tg_coroutine *co = tg_coroutine_find(one->coroutine, one->serial);
    one->told = true;
    (void)event_del(one->event);
    if (co == NULL) { /* nobody waits any more */
        forget(one);
        return;
    }
    tg_coroutine_ready(co);
}

/* False: it ends here, for now or for good. */
static bool
read_more(struct asking *one)
{
    if (one->capacity - one->length < PIECE) {
        char *more = one->capacity >= ANSWER_MAX ? NULL : tg_mem_resize(one->in, one->capacity + 4 * (size_t)PIECE);
        if (more == NULL) {
            tell(one);
            return false;
        }
        one->in = more;
        one->capacity += 4 * (size_t)PIECE;
    }
    const ssize_t n = read(one->fd, one->in + one->length, one->capacity - one->length);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (n <= 0) {
        tell(one);
        return false;
    }
    one->length += (size_t)n;
    return true;
}

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
    struct asking *one = arg;
    if ((what & EV_WRITE) != 0 && one->sent < one->out_length) {
        const ssize_t n = send(fd, one->out + one->sent, one->out_length - one->sent, MSG_NOSIGNAL);
        one->sent += n > 0 ? (size_t)n : 0;
        if (one->sent == one->out_length) {
            (void)event_del(one->event);
            (void)event_assign(one->event, event_get_base(one->event), fd, EV_READ | EV_PERSIST, on_event, one);
            (void)event_add(one->event, NULL);
        }
    }
    if ((what & EV_READ) != 0) {
        while (read_more(one)) {
        }
    }
}

static struct asking *
find(const struct tg_coroutine *co)
{
    struct asking *spare = NULL;
    for (unsigned i = 0; i < ASKING_MAX; i++) {
        struct asking *one = &list[i];
        if (one->used && one->coroutine == co->index && one->serial == co->serial) {
            return one;
        }
        if (one->told && tg_coroutine_find(one->coroutine, one->serial) == NULL) {
            forget(one);
        }
        spare = !one->used ? one : spare;
    }
    return spare;
}

static int
ask(struct asking *one, const struct tg_coroutine *co, struct tg_slice line, struct tg_slice payload)
{
    int ends[2];
    if (tg_host->ask == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
        return TG_ECLOSED;
    }
    const enum tg_rc rc = tg_host->ask(tg_host->ask_arg, ends[1]);
    close(ends[1]);
    *one = (struct asking){.used = true, .coroutine = co->index, .serial = co->serial, .fd = ends[0]};
    one->out_length = line.n + 1 + payload.n;
    one->out = tg_mem_alloc(one->out_length);
    one->event = event_new(tg_loop_base(tg_host->proxy->loop), ends[0], EV_READ | EV_WRITE | EV_PERSIST, on_event, one);
    if (rc != TG_OK || one->out == NULL || one->event == NULL || event_add(one->event, NULL) < 0) {
        forget(one);
        return rc != TG_OK ? TG_ECLOSED : TG_ENOMEM;
    }
    memcpy(one->out, line.p, line.n);
    one->out[line.n] = '\n';
    if (payload.n > 0) {
        memcpy(one->out + line.n + 1, payload.p, payload.n);
    }
    return TG_AGAIN;
}

int
tg_abi_ask(const char *line, size_t line_len, const char *payload, size_t n)
{
    const struct tg_coroutine *co = tg_host->running;
    struct asking *one = co == NULL ? NULL : find(co);
    if (one == NULL) {
        return co == NULL ? TG_EINVAL : TG_EBUSY;
    }
    if (!one->used) {
        return ask(one, co, tg_slice_of(line, line_len), tg_slice_of(payload, n));
    }
    if (!one->told) {
        return TG_AGAIN;
    }
    static const char *const heads[] = {"ok\n", "error\n"};
    tg_mem_free(told);
    told = one->in;
    const size_t length = one->length;
    one->in = NULL;
    forget(one);
    for (unsigned i = 0; i < 2; i++) {
        const size_t head = strlen(heads[i]);
        if (length >= head && memcmp(told, heads[i], head) == 0) {
            tg_abi_vm.out = tg_slice_of(told + head, length - head);
            return i == 0 ? TG_OK : TG_EDENIED;
        }
    }
    tg_abi_vm.out = tg_slice_of("", 0);
    return TG_ECLOSED;
}

void
tg_abi_differs(uint32_t kind, const char *example, size_t n)
{
    const struct tg_coroutine *co = tg_host->running;
    if (co != NULL && tg_host->differs != NULL && co->vm == tg_host->trial.vm) {
        tg_host->differs(tg_host->ask_arg, co->vm->serial, kind,
                         tg_slice_of(example, n < EXAMPLE_MAX ? n : EXAMPLE_MAX));
    }
}
