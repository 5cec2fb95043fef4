/*
 * fuzz_coding.c - a coded body; the first byte tells the coding and the sizes of the pieces.
 *
 * Oracles: where it is cut, and how much room there is, changes nothing; what is accepted is what the library makes of
 * it in one go; what was decoded comes back when it is encoded and decoded again, and so does the input itself.
 */
#include <brotli/decode.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/coding.h"
#include "fuzz.h"

enum { INPUT_MAX = 16 * 1024, OUTPUT_MAX = 256 * 1024 };

struct outcome {
    enum tg_rc rc;
    size_t n;
    char data[OUTPUT_MAX + INPUT_MAX];
};

static const struct tg_coding_limits limits = {.output_max = OUTPUT_MAX};

/* Each piece, and each room, stands in memory of its own size, so that a byte beyond it is seen. */
static enum tg_rc
run_piece(struct tg_coding *coding, const char *p, size_t n, bool last, size_t room, struct outcome *out)
{
    char *piece = malloc(n + 1);
    char *buffer = malloc(room);
    enum tg_rc rc = TG_AGAIN;
    MUST(piece != NULL && buffer != NULL);
    memcpy(piece + 1, p, n);
    struct tg_coding_io io = {piece + 1, n, NULL, 0, last};
    while (rc == TG_AGAIN) {
        io.out = buffer;
        io.out_n = room;
        rc = tg_coding_run(coding, &io);
        const size_t put = room - io.out_n;
        MUST(put <= room && io.in_n <= n && io.out == buffer + put && io.in == piece + 1 + n - io.in_n);
        MUST(rc != TG_AGAIN || put > 0 || io.in_n == 0);
        MUST(put <= sizeof out->data - out->n);
        memcpy(out->data + out->n, buffer, put);
        out->n += put;
    }
    MUST(rc < 0 || io.in_n == 0);
    MUST(tg_coding_memory(coding) <= TG_CODING_MEMORY_MAX + 4096);
    free(piece);
    free(buffer);
    return rc;
}

static void
run(enum tg_coding_kind kind, bool decode, const char *p, size_t n, size_t step, struct outcome *out)
{
    struct tg_coding *coding = tg_coding_new(kind, decode, (int)(step % 10), &limits);
    MUST(coding != NULL);
    const size_t room = step < TG_CODING_ROOM_MIN ? TG_CODING_ROOM_MIN : 2 * step;
    out->rc = TG_OK;
    out->n = 0;
    for (size_t at = 0; at < n && out->rc == TG_OK;) {
        const size_t size = step < n - at ? step : n - at;
        out->rc = run_piece(coding, p + at, size, false, room, out);
        at += size;
    }
    if (out->rc == TG_OK) {
        out->rc = run_piece(coding, "", 0, true, room, out);
    }
    MUST(out->rc == TG_OK || out->rc == TG_EPROTOCOL || out->rc == TG_ELIMIT);
    MUST(out->rc != TG_OK || !decode || out->n <= OUTPUT_MAX);
    tg_coding_free(coding);
}

/* All members of it, or the one without wrapping. */
static size_t
inflate_at_once(const char *p, size_t n, int window, char *out, size_t room)
{
    z_stream z = {0};
    int result = Z_OK;
    MUST(inflateInit2(&z, window) == Z_OK);
    z.next_in = (Bytef *)(uintptr_t)p;
    z.avail_in = (uInt)n;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)room;
    do {
        result = inflate(&z, Z_FINISH);
    } while (result == Z_STREAM_END && z.avail_in > 0 && inflateReset(&z) == Z_OK);
    const size_t length = room - z.avail_out;
    MUST(result == Z_STREAM_END);
    MUST(inflateEnd(&z) == Z_OK);
    return length;
}

/*
 * zstd compares the length that a frame states with what came out of it when it has the whole frame at once, and
 * forgets to when the frame comes in pieces and ends with an empty block. Who lies about it harms nobody.
 */
static bool
states_another_length(enum tg_coding_kind kind, const char *p, size_t n, const struct outcome *found)
{
    const unsigned long long stated = kind == TG_CODING_ZSTD ? ZSTD_getFrameContentSize(p, n) : 0;
    return kind == TG_CODING_ZSTD && stated != ZSTD_CONTENTSIZE_UNKNOWN && stated != found->n;
}

static void
check_at_once(enum tg_coding_kind kind, const char *p, size_t n, const struct outcome *found)
{
    static char out[OUTPUT_MAX + INPUT_MAX];
    size_t length = sizeof out;
    switch (kind) {
    case TG_CODING_GZIP:
        length = inflate_at_once(p, n, 31, out, sizeof out);
        break;
    case TG_CODING_DEFLATE:
        length = inflate_at_once(p, n, ((unsigned char)*p & 0x8f) == 8 ? 15 : -15, out, sizeof out);
        break;
    case TG_CODING_BROTLI:
        MUST(BrotliDecoderDecompress(n, (const uint8_t *)p, &length, (uint8_t *)out) == BROTLI_DECODER_RESULT_SUCCESS);
        break;
    case TG_CODING_ZSTD:
        if (states_another_length(kind, p, n, found)) {
            return;
        }
        length = ZSTD_decompress(out, sizeof out, p, n);
        MUST(!ZSTD_isError(length));
        break;
    }
    MUST(length == found->n && memcmp(out, found->data, length) == 0);
}

static void
check_round_trip(enum tg_coding_kind kind, const char *p, size_t n, size_t step)
{
    static struct outcome coded;
    static struct outcome again;
    run(kind, false, p, n, step, &coded);
    MUST(coded.rc == TG_OK);
    run(kind, true, coded.data, coded.n, step + 1, &again);
    MUST(again.rc == TG_OK && again.n == n && memcmp(again.data, p, n) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct outcome whole;
    static struct outcome cut;
    if (n < 1 || n > INPUT_MAX) {
        return 0;
    }
    const enum tg_coding_kind kind = (enum tg_coding_kind)(bytes[0] & 3);
    const char *p = (const char *)bytes + 1;
    const size_t steps[] = {1, (bytes[0] >> 2) + 2};
    n--;
    run(kind, true, p, n, OUTPUT_MAX, &whole);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        run(kind, true, p, n, steps[i], &cut);
        /* Of what is refused, the cuts decide how much comes out before, and so which of two faults is met first. */
        if (whole.rc != TG_OK && cut.rc == TG_OK && states_another_length(kind, p, n, &cut)) {
            continue;
        }
        MUST((cut.rc == TG_OK) == (whole.rc == TG_OK));
        MUST(cut.rc != TG_OK || (cut.n == whole.n && memcmp(cut.data, whole.data, cut.n) == 0));
    }
    if (whole.rc == TG_OK) {
        check_at_once(kind, p, n, &whole);
        if (whole.n <= INPUT_MAX) {
            check_round_trip(kind, whole.data, whole.n, steps[1]);
        }
    }
    check_round_trip(kind, p, n, steps[1] * 16);
    return 0;
}
