/*
 * fuzz_ws_frame.c - frames of WebSocket. The first byte says whose they are and what was agreed on, the second how they
 * are cut.
 *
 * Oracles: where they are cut changes nothing that is told; a text is UTF-8; a message is within its limit; what was
 * read is written and read again as the same.
 */
#include <string.h>

#include "base/utf8.h"
#include "fuzz.h"
#include "http/ws_frame.h"

enum { INPUT_MAX = 16 * 1024, MESSAGE_MAX = 4096, MASKED = 1, DEFLATE = 2 };

struct outcome {
    enum tg_rc rc;
    unsigned code;
    unsigned messages;
    uint64_t hash;
    size_t size;
    char message[MESSAGE_MAX];
};

static void
mix(struct outcome *out, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out->hash = (out->hash ^ ((const unsigned char *)p)[i]) * 1099511628211ULL;
    }
}

static void
check_text(const char *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        const size_t size = tg_utf8_length((const unsigned char *)p + at, n - at);
        MUST(size > 0);
        at += size;
    }
}

static void
check_round_trip(const struct tg_ws_piece *piece, const char *p, size_t n)
{
    static const char mask[4] = {1, 2, 4, 8};
    char bytes[TG_WS_HEAD_MAX + MESSAGE_MAX];
    struct tg_ws_reader reader;
    struct tg_ws_piece again;
    size_t used = 0;
    const size_t head = tg_ws_write_head(bytes, piece->opcode, piece->compressed, n, mask);
    if (n > 0) {
        memcpy(bytes + head, p, n);
    }
    tg_ws_mask(bytes + head, n, mask, 0);
    tg_ws_reader_init(&reader, true, true, MESSAGE_MAX);
    MUST(tg_ws_read(&reader, bytes, head + n, &used, &again) == TG_OK && used == head + n && again.end);
    MUST(again.opcode == piece->opcode && again.compressed == piece->compressed && again.data.n == n);
    MUST(n == 0 || memcmp(again.data.p, p, n) == 0);
}

static void
take(struct outcome *out, const struct tg_ws_reader *reader, const struct tg_ws_piece *piece)
{
    if (piece->opcode >= TG_WS_CLOSE) {
        MUST(piece->end && !piece->compressed && piece->data.n <= TG_WS_CONTROL_MAX);
        if (piece->opcode == TG_WS_CLOSE) {
            MUST(reader->code == TG_WS_NO_CODE || tg_ws_is_code(reader->code));
            check_text(piece->data.p, piece->data.n);
        } else {
            check_round_trip(piece, piece->data.p, piece->data.n);
        }
        mix(out, piece->data.p, piece->data.n);
        out->messages++;
        return;
    }
    MUST(piece->opcode == TG_WS_TEXT || piece->opcode == TG_WS_BINARY);
    MUST(piece->data.n <= MESSAGE_MAX - out->size);
    memcpy(out->message + out->size, piece->data.p, piece->data.n);
    out->size += piece->data.n;
    if (piece->end) {
        if (piece->opcode == TG_WS_TEXT && !piece->compressed) {
            check_text(out->message, out->size);
        }
        check_round_trip(piece, out->message, out->size);
        mix(out, out->message, out->size);
        mix(out, &piece->opcode, 1);
        out->messages++;
        out->size = 0;
    }
}

/* Each piece stands in memory of its own size, so that a byte read beyond it is seen. */
static void
read_all(const char *p, size_t n, unsigned how, size_t step, struct outcome *out)
{
    struct tg_ws_reader reader;
    *out = (struct outcome){.rc = TG_AGAIN};
    tg_ws_reader_init(&reader, (how & MASKED) != 0, (how & DEFLATE) != 0, MESSAGE_MAX);
    for (size_t at = 0; at < n && out->rc == TG_AGAIN; at += step) {
        const size_t size = step < n - at ? step : n - at;
        char *bytes = malloc(size);
        size_t done = 0;
        MUST(bytes != NULL);
        memcpy(bytes, p + at, size);
        do {
            struct tg_ws_piece piece;
            size_t used = 0;
            out->rc = tg_ws_read(&reader, bytes + done, size - done, &used, &piece);
            done += used;
            MUST(done <= size && (out->rc != TG_AGAIN || done == size));
            if (out->rc == TG_OK) {
                take(out, &reader, &piece);
            }
        } while (out->rc == TG_OK);
        free(bytes);
    }
    /* A close frame may be the last of a piece, or not. */
    out->rc = reader.closed && out->rc != TG_EPROTOCOL ? TG_ECLOSED : out->rc;
    out->code = reader.code;
    MUST(out->rc != TG_EPROTOCOL || (reader.why != NULL && tg_ws_is_code(reader.code)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct outcome whole;
    static struct outcome pieces;
    if (n < 3 || n > INPUT_MAX) {
        return 0;
    }
    read_all((const char *)bytes + 2, n - 2, bytes[0], n, &whole);
    read_all((const char *)bytes + 2, n - 2, bytes[0], bytes[1] % 16 + 1, &pieces);
    MUST(whole.rc == pieces.rc && whole.code == pieces.code);
    MUST(whole.messages == pieces.messages && whole.hash == pieces.hash);
    return 0;
}
