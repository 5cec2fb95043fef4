#include "proxy/outbox.h"

#include "base/mem.h"

enum { WRITE_SIZE = 16 * 1024, WRITES_A_TURN = 32 };

static enum tg_rc
keep(struct tg_outbox *outbox, const char *p, size_t n)
{
    if (outbox->left == NULL && (outbox->left = tg_mem_alloc(WRITE_SIZE)) == NULL) {
        return TG_ENOMEM;
    }
    memcpy(outbox->left, p, n);
    outbox->begin = 0;
    outbox->end = n;
    return TG_OK;
}

static enum tg_rc
write_left(struct tg_outbox *outbox, struct tg_transport *transport)
{
    while (outbox->begin < outbox->end) {
        struct iovec v = {outbox->left + outbox->begin, outbox->end - outbox->begin};
        size_t sent = 0;
        const enum tg_rc rc = tg_transport_write(transport, &v, 1, &sent);
        if (rc != TG_OK) {
            return rc;
        }
        outbox->begin += sent;
    }
    tg_outbox_fini(outbox);
    return TG_OK;
}

enum tg_rc
tg_outbox_flush(struct tg_outbox *outbox, struct tg_h2 *h2, struct tg_transport *transport)
{
    char output[WRITE_SIZE];
    for (unsigned i = 0; i < WRITES_A_TURN; i++) {
        enum tg_rc rc = write_left(outbox, transport);
        if (rc != TG_OK) {
            return rc;
        }
        const size_t n = tg_h2_output(h2, output, sizeof output);
        const bool paused = tg_h2_is_paused(h2);
        if (n == 0) {
            return paused ? TG_EBUSY : TG_OK;
        }
        struct iovec v = {output, n};
        size_t sent = 0;
        rc = tg_transport_write(transport, &v, 1, &sent);
        if (rc != TG_OK && rc != TG_AGAIN) {
            return rc;
        }
        sent = rc == TG_OK ? sent : 0;
        if (sent < n && keep(outbox, output + sent, n - sent) != TG_OK) {
            return TG_ENOMEM;
        }
        if (rc == TG_AGAIN || paused) {
            return rc == TG_AGAIN ? rc : TG_EBUSY;
        }
    }
    return TG_EBUSY;
}

void
tg_outbox_fini(struct tg_outbox *outbox)
{
    tg_mem_free(outbox->left);
    *outbox = (struct tg_outbox){0};
}
