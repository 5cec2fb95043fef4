/*
 * The border: content codings. Contracts are in abi.h.
 */
#include "base/buffer.h"
#include "base/coding.h"
#include "base/mem.h"
#include "vm/coroutine.h"

/* Lua is done with vm.out before it calls again, so one buffer serves all codings. */
static char room[TG_BUFFER_WINDOW];
static size_t memory;

struct tg_abi_coding {
    struct tg_coding *coding;
    size_t at;     /* in the piece that is being worked on */
    size_t memory; /* of `memory` */
};

static void
count(struct tg_abi_coding *handle, size_t now)
{
    memory = memory - handle->memory + now;
    handle->memory = now;
}

struct tg_abi_coding *
tg_abi_coding_new(const char *name, size_t name_len, int decode, int level, double output_max)
{
    enum tg_coding_kind kind = TG_CODING_GZIP;
    struct tg_coding_limits limits = tg_coding_limits_default;
    if (output_max >= 1) {
        limits.output_max = output_max < 1e15 ? (uint64_t)output_max : (uint64_t)1e15;
    }
    if (tg_coding_find(name, name_len, &kind) != TG_OK) {
        return NULL;
    }
    struct tg_abi_coding *handle = tg_mem_new(struct tg_abi_coding);
    if (handle == NULL) {
        return NULL;
    }
    handle->coding = tg_coding_new(kind, decode != 0, level, &limits);
    if (handle->coding == NULL) {
        tg_mem_free(handle);
        return NULL;
    }
    count(handle, tg_coding_memory(handle->coding));
    return handle;
}

void
tg_abi_coding_free(struct tg_abi_coding *coding)
{
    if (coding != NULL) {
        count(coding, 0);
        tg_coding_free(coding->coding);
        tg_mem_free(coding);
    }
}

int
tg_abi_coding_run(struct tg_abi_coding *coding, const char *p, size_t n, int last)
{
    if (coding->at > n) {
        return TG_EINVAL; /* another piece, before the one that was begun is done */
    }
    struct tg_coding_io io = {p + coding->at, n - coding->at, room, sizeof room, last != 0};
    const enum tg_rc rc = tg_coding_run(coding->coding, &io);
    count(coding, tg_coding_memory(coding->coding));
    if (rc < 0) {
        return rc;
    }
    coding->at = rc == TG_AGAIN ? n - io.in_n : 0;
    tg_abi_vm.out = tg_slice_of(room, sizeof room - io.out_n);
    return rc == TG_AGAIN ? 0 : 1;
}

double
tg_abi_coding_memory(void)
{
    return (double)memory;
}
