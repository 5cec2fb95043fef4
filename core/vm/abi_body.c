/*
 * The border: bodies. Contracts are in abi.h.
 */
#include "proxy/stream.h"
#include "vm/host.h"

int
tg_abi_body_whole(struct tg_abi_exchange *x, int side, size_t max)
{
    return tg_exchange_is_side(side) ? tg_stream_whole(tg_exchange_of(x), (enum tg_abi_side)side, max, &tg_abi_vm.out)
                                     : TG_EINVAL;
}

int
tg_abi_body_set(struct tg_abi_exchange *x, int side, const char *p, size_t n)
{
    struct tg_exchange *exchange = tg_exchange_of(x);
    const bool request = side == TG_SIDE_REQUEST;
    if (!tg_exchange_is_side(side) || exchange->state > (request ? TG_STATE_REQUEST : TG_STATE_RESPONSE)) {
        return TG_EINVAL;
    }
    const enum tg_rc rc =
        tg_exchange_make(exchange, request ? &exchange->buffered : &exchange->answer, tg_slice_of(p, n));
    if (rc == TG_OK) {
        exchange->flow[side] = (struct tg_flow){.sourced = exchange->flow[side].sourced};
    }
    return rc;
}

int
tg_abi_body_read(struct tg_abi_exchange *x, int side)
{
    if (!tg_exchange_is_side(side)) {
        return TG_EINVAL;
    }
    const enum tg_rc rc = tg_stream_read(tg_exchange_of(x), (enum tg_abi_side)side, &tg_abi_vm.out);
    return rc == TG_OK && tg_abi_vm.out.n == 0 ? TG_ENONE : rc;
}

int
tg_abi_body_open(struct tg_abi_exchange *x, int side)
{
    return tg_exchange_is_side(side) ? tg_stream_open(tg_exchange_of(x), (enum tg_abi_side)side) : TG_EINVAL;
}

int
tg_abi_body_write(struct tg_abi_exchange *x, int side, const char *p, size_t n)
{
    size_t done = 0;
    enum tg_rc rc = tg_exchange_is_side(side) ? TG_OK : TG_EINVAL;
    while (rc == TG_OK && done < n) {
        size_t taken = 0;
        rc = tg_stream_write(tg_exchange_of(x), (enum tg_abi_side)side, tg_slice_of(p + done, n - done), &taken);
        done += taken;
    }
    tg_abi_vm.number = (double)done;
    return rc;
}
