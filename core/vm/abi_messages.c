/*
 * The border: messages of WebSockets. Contracts are in abi.h.
 */
#include "proxy/messages.h"
#include "vm/host.h"

int
tg_abi_message_watch(struct tg_abi_exchange *x, uint32_t max, int deflate)
{
    struct tg_exchange *exchange = tg_exchange_of(x);
    exchange->message_max = max;
    exchange->messages_deflate = deflate != 0;
    return deflate != 0 ? TG_OK : tg_message_remove(&exchange->request, "Sec-WebSocket-Extensions", 24);
}

int
tg_abi_message(struct tg_abi_exchange *x, int side)
{
    struct tg_ws_piece piece;
    unsigned code = 0;
    const enum tg_rc rc = tg_exchange_is_side(side)
                              ? tg_messages_current(tg_exchange_of(x), (enum tg_abi_side)side, &piece, &code)
                              : TG_EINVAL;
    if (rc == TG_OK) {
        tg_abi_vm.out = piece.data;
        tg_abi_vm.type = piece.opcode | (piece.compressed ? TG_MESSAGE_COMPRESSED : 0U);
        tg_abi_vm.number = code;
    }
    return rc;
}

int
tg_abi_message_replace(struct tg_abi_exchange *x, int side, const char *p, size_t n)
{
    return tg_exchange_is_side(side) ? tg_messages_replace(tg_exchange_of(x), (enum tg_abi_side)side, tg_slice_of(p, n))
                                     : TG_EINVAL;
}

int
tg_abi_message_drop(struct tg_abi_exchange *x, int side)
{
    return tg_exchange_is_side(side) ? tg_messages_drop(tg_exchange_of(x), (enum tg_abi_side)side) : TG_EINVAL;
}

int
tg_abi_message_send(struct tg_abi_exchange *x, int side, int opcode, const char *p, size_t n)
{
    return tg_exchange_is_side(side) ? tg_messages_send(tg_exchange_of(x), (enum tg_abi_side)side,
                                                        (enum tg_ws_opcode)opcode, tg_slice_of(p, n))
                                     : TG_EINVAL;
}

int
tg_abi_message_close(struct tg_abi_exchange *x, uint32_t code, const char *reason, size_t n)
{
    return tg_messages_close(tg_exchange_of(x), code, tg_slice_of(reason, n));
}
