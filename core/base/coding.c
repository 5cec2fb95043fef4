#define ZSTD_STATIC_LINKING_ONLY /* an allocator of ours; the shared library has these functions too */
#define ZLIB_CONST
#include "base/coding.h"

#include <brotli/decode.h>
#include <brotli/encode.h>
#include <setjmp.h>
#include <stdalign.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/mem.h"

/*
 * An encoder shall hold less than 5 MiB: what a larger window saves of a page is little, and a worker has thousands of
 * bodies at once. Brotli's tables would be 32 MiB at quality 9, and both it and zstd take more unless they are told
 * that the body is a small one.
 */
enum {
    ZLIB_WINDOW = 15,
    ZLIB_GZIP = 16, /* added to the window: gzip's wrapping and nothing else */
    ZLIB_MEMORY = 8,
    ZLIB_LEVEL = 6,
    BROTLI_WINDOW = 18,
    BROTLI_LEVEL = 4,
    BROTLI_LEVEL_MAX = 6,
    ZSTD_WINDOW = 18,
    ZSTD_LEVEL = 3,
    LEVEL_MAX = 9
};

struct piece;

struct method {
    bool (*open)(struct tg_coding *coding, int level);
    enum tg_rc (*step)(struct tg_coding *coding, struct tg_coding_io *io);
    void (*close)(struct tg_coding *coding);
};

struct tg_coding {
    const struct method *method;
    enum tg_coding_kind kind;
    bool decode;
    bool begun;       /* a decoder has seen a byte */
    bool whole;       /* a decoder stands behind the end of a member, where the body may end */
    bool more;        /* there was more to put out */
    bool ended;       /* the last call was made */
    enum tg_rc error; /* which ended it */
    struct tg_coding_limits limits;
    uint64_t in; /* bytes so far */
    uint64_t out;
    size_t memory;
    struct piece *pieces; /* of memory */
    jmp_buf *escape;      /* where to go from an allocation that fails; NULL: back, with nothing */
    union {
        z_stream zlib;
        BrotliDecoderState *brotli_decoder;
        BrotliEncoderState *brotli_encoder;
        ZSTD_DCtx *zstd_decoder;
        ZSTD_CCtx *zstd_encoder;
    };
};

const struct tg_coding_limits tg_coding_limits_default = {
    .output_max = 10UL * 1024 * 1024, .ratio_max = 100, .ratio_from = 1024UL * 1024};

/* ------------------------------------------------------------------ memory */

/* Stands before each piece that a library has asked for. */
struct piece {
    alignas(max_align_t) struct piece *next;
    struct piece **link; /* to this one */
    size_t n;
};

static void *
take(void *arg, size_t n)
{
    struct tg_coding *coding = arg;
    struct piece *piece = n <= TG_CODING_MEMORY_MAX - coding->memory ? tg_mem_alloc(sizeof(struct piece) + n) : NULL;
    if (piece == NULL) {
        if (coding->escape != NULL) {
            longjmp(*coding->escape, 1);
        }
        return NULL;
    }
    *piece = (struct piece){.next = coding->pieces, .link = &coding->pieces, .n = n};
    if (piece->next != NULL) {
        piece->next->link = &piece->next;
    }
    coding->pieces = piece;
    coding->memory += n;
    return piece + 1;
}

static void *
take_items(void *arg, unsigned items, unsigned size)
{
    return take(arg, (size_t)items * size);
}

static void
give(void *arg, void *p)
{
    if (p != NULL) {
        struct tg_coding *coding = arg;
        struct piece *piece = (struct piece *)p - 1;
        *piece->link = piece->next;
        if (piece->next != NULL) {
            piece->next->link = piece->link;
        }
        coding->memory -= piece->n;
        tg_mem_free(piece);
    }
}

/* ------------------------------------------------------------------ gzip and deflate */

static int
window_of(const struct tg_coding *coding)
{
    return coding->kind == TG_CODING_GZIP ? ZLIB_WINDOW + ZLIB_GZIP : ZLIB_WINDOW;
}

static int
call_zlib(z_stream *zlib, struct tg_coding_io *io, int (*function)(z_stream *zlib, int flush), int flush)
{
    zlib->next_in = (const Bytef *)io->in;
    zlib->avail_in = (uInt)io->in_n;
    zlib->next_out = (Bytef *)io->out;
    zlib->avail_out = (uInt)io->out_n;
    const int result = function(zlib, flush);
    io->in = (const char *)zlib->next_in;
    io->in_n = zlib->avail_in;
    io->out = (char *)zlib->next_out;
    io->out_n = zlib->avail_out;
    return result;
}

static bool
open_inflate(struct tg_coding *coding, int level)
{
    (void)level;
    coding->zlib = (z_stream){.zalloc = take_items, .zfree = give, .opaque = coding};
    return inflateInit2(&coding->zlib, window_of(coding)) == Z_OK;
}

/*
 * Before the first byte of a body or of a further member. A deflate body without zlib's wrapping is told by its first
 * byte: for 8 in the low half (RFC 1950, section 2.2) it would begin with a stored block and padding that is not zero.
 */
static enum tg_rc
begin_inflate(struct tg_coding *coding, char first)
{
    if (coding->whole && coding->kind != TG_CODING_GZIP) {
        return TG_EPROTOCOL;
    }
    const bool raw = coding->kind == TG_CODING_DEFLATE && ((unsigned char)first & 0x8f) != Z_DEFLATED;
    coding->begun = true;
    coding->whole = false;
    return inflateReset2(&coding->zlib, raw ? -ZLIB_WINDOW : window_of(coding)) == Z_OK ? TG_OK : TG_ENOMEM;
}

static enum tg_rc
step_inflate(struct tg_coding *coding, struct tg_coding_io *io)
{
    do {
        if (!coding->begun || coding->whole) {
            const enum tg_rc rc = io->in_n == 0 ? TG_OK : begin_inflate(coding, *io->in);
            if (rc != TG_OK || io->in_n == 0) {
                return rc;
            }
        }
        switch (call_zlib(&coding->zlib, io, inflate, Z_NO_FLUSH)) {
        case Z_STREAM_END:
            coding->whole = true;
            break;
        case Z_OK:
        case Z_BUF_ERROR: /* nothing was to be done */
            break;
        case Z_MEM_ERROR:
            return TG_ENOMEM;
        default:
            return TG_EPROTOCOL;
        }
    } while (io->in_n > 0 && io->out_n > 0);
    return io->out_n == 0 ? TG_AGAIN : TG_OK;
}

static void
close_inflate(struct tg_coding *coding)
{
    (void)inflateEnd(&coding->zlib);
}

static bool
open_deflate(struct tg_coding *coding, int level)
{
    coding->zlib = (z_stream){.zalloc = take_items, .zfree = give, .opaque = coding};
    return deflateInit2(&coding->zlib, level == 0 ? ZLIB_LEVEL : level, Z_DEFLATED, window_of(coding), ZLIB_MEMORY,
                        Z_DEFAULT_STRATEGY) == Z_OK;
}

static enum tg_rc
step_deflate(struct tg_coding *coding, struct tg_coding_io *io)
{
    const int result = call_zlib(&coding->zlib, io, deflate, io->last ? Z_FINISH : Z_SYNC_FLUSH);
    if (result == Z_STREAM_END) {
        return TG_OK;
    }
    TG_ASSERT(result == Z_OK || result == Z_BUF_ERROR);
    return io->out_n == 0 ? TG_AGAIN : TG_OK;
}

static void
close_deflate(struct tg_coding *coding)
{
    (void)deflateEnd(&coding->zlib);
}

/* ------------------------------------------------------------------ brotli */

/* Windows above 16 MiB, which are not RFC 7932, are refused as long as nobody allows them. */
static bool
open_brotli_decoder(struct tg_coding *coding, int level)
{
    (void)level;
    coding->brotli_decoder = BrotliDecoderCreateInstance(take, give, coding);
    return coding->brotli_decoder != NULL;
}

static enum tg_rc
step_brotli_decoder(struct tg_coding *coding, struct tg_coding_io *io)
{
    BrotliDecoderState *decoder = coding->brotli_decoder;
    if (coding->whole) {
        return io->in_n > 0 ? TG_EPROTOCOL : TG_OK;
    }
    coding->begun = true;
    switch (BrotliDecoderDecompressStream(decoder, &io->in_n, (const uint8_t **)&io->in, &io->out_n,
                                          (uint8_t **)&io->out, NULL)) {
    case BROTLI_DECODER_RESULT_SUCCESS:
        coding->whole = true;
        return io->in_n > 0 ? TG_EPROTOCOL : TG_OK;
    case BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT:
        return BrotliDecoderHasMoreOutput(decoder) ? TG_AGAIN : TG_OK;
    case BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT:
        return TG_AGAIN;
    default:
        break;
    }
    const BrotliDecoderErrorCode code = BrotliDecoderGetErrorCode(decoder);
    const bool memory =
        code <= BROTLI_DECODER_ERROR_ALLOC_CONTEXT_MODES && code >= BROTLI_DECODER_ERROR_ALLOC_BLOCK_TYPE_TREES;
    return memory ? TG_ENOMEM : TG_EPROTOCOL;
}

static void
close_brotli_decoder(struct tg_coding *coding)
{
    BrotliDecoderDestroyInstance(coding->brotli_decoder);
}

static bool
open_brotli_encoder(struct tg_coding *coding, int level)
{
    const int quality = level == 0 ? BROTLI_LEVEL : level < BROTLI_LEVEL_MAX ? level : BROTLI_LEVEL_MAX;
    coding->brotli_encoder = BrotliEncoderCreateInstance(take, give, coding);
    return coding->brotli_encoder != NULL &&
           BrotliEncoderSetParameter(coding->brotli_encoder, BROTLI_PARAM_QUALITY, (uint32_t)quality) &&
           BrotliEncoderSetParameter(coding->brotli_encoder, BROTLI_PARAM_LGWIN, BROTLI_WINDOW) &&
           BrotliEncoderSetParameter(coding->brotli_encoder, BROTLI_PARAM_SIZE_HINT, 1 << BROTLI_WINDOW);
}

static enum tg_rc
call_brotli_encoder(struct tg_coding *coding, struct tg_coding_io *io)
{
    BrotliEncoderState *encoder = coding->brotli_encoder;
    const BrotliEncoderOperation operation = io->last ? BROTLI_OPERATION_FINISH : BROTLI_OPERATION_FLUSH;
    if (!BrotliEncoderCompressStream(encoder, operation, &io->in_n, (const uint8_t **)&io->in, &io->out_n,
                                     (uint8_t **)&io->out, NULL)) {
        return TG_ENOMEM;
    }
    const bool done = io->last ? BrotliEncoderIsFinished(encoder) : !BrotliEncoderHasMoreOutput(encoder);
    return done && io->in_n == 0 ? TG_OK : TG_AGAIN;
}

/*
 * As it is built, the library's encoder ends the process when it gets no memory. So it is left in the middle, and what
 * it held, all of which it had from `take`, is freed without asking it.
 */
static enum tg_rc
step_brotli_encoder(struct tg_coding *coding, struct tg_coding_io *io)
{
    jmp_buf escape;
    enum tg_rc rc = TG_ENOMEM;
    coding->escape = &escape;
    if (setjmp(escape) == 0) {
        rc = call_brotli_encoder(coding, io);
    } else {
        coding->brotli_encoder = NULL;
        while (coding->pieces != NULL) {
            give(coding, coding->pieces + 1);
        }
    }
    coding->escape = NULL;
    return rc;
}

static void
close_brotli_encoder(struct tg_coding *coding)
{
    BrotliEncoderDestroyInstance(coding->brotli_encoder);
}

/* ------------------------------------------------------------------ zstd */

static bool
open_zstd_decoder(struct tg_coding *coding, int level)
{
    (void)level;
    coding->zstd_decoder = ZSTD_createDCtx_advanced((ZSTD_customMem){take, give, coding});
    return coding->zstd_decoder != NULL &&
           !ZSTD_isError(ZSTD_DCtx_setParameter(coding->zstd_decoder, ZSTD_d_windowLogMax, TG_CODING_ZSTD_WINDOW));
}

/* The library may also read what was written before the format was settled, with code that nobody looks at any more. */
static bool
may_begin_frame(char first)
{
    const unsigned char byte = (unsigned char)first;
    return byte == (ZSTD_MAGICNUMBER & 0xff) || (byte & 0xf0) == (ZSTD_MAGIC_SKIPPABLE_START & 0xff);
}

static enum tg_rc
step_zstd_decoder(struct tg_coding *coding, struct tg_coding_io *io)
{
    do {
        if (!coding->begun || coding->whole) {
            if (io->in_n == 0) {
                return TG_OK;
            }
            if (!may_begin_frame(*io->in)) {
                return TG_EPROTOCOL;
            }
            coding->begun = true;
            coding->whole = false;
        }
        ZSTD_inBuffer in = {io->in, io->in_n, 0};
        ZSTD_outBuffer out = {io->out, io->out_n, 0};
        const size_t result = ZSTD_decompressStream(coding->zstd_decoder, &out, &in);
        if (ZSTD_isError(result)) {
            return ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation ? TG_ENOMEM : TG_EPROTOCOL;
        }
        coding->whole = result == 0;
        io->in += in.pos;
        io->in_n -= in.pos;
        io->out += out.pos;
        io->out_n -= out.pos;
    } while (io->in_n > 0 && io->out_n > 0);
    return io->out_n == 0 ? TG_AGAIN : TG_OK;
}

static void
close_zstd_decoder(struct tg_coding *coding)
{
    (void)ZSTD_freeDCtx(coding->zstd_decoder);
}

static bool
open_zstd_encoder(struct tg_coding *coding, int level)
{
    ZSTD_CCtx *encoder = ZSTD_createCCtx_advanced((ZSTD_customMem){take, give, coding});
    coding->zstd_encoder = encoder;
    return encoder != NULL &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(encoder, ZSTD_c_compressionLevel, level == 0 ? ZSTD_LEVEL : level)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(encoder, ZSTD_c_windowLog, ZSTD_WINDOW)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(encoder, ZSTD_c_srcSizeHint, 1 << ZSTD_WINDOW));
}

static enum tg_rc
step_zstd_encoder(struct tg_coding *coding, struct tg_coding_io *io)
{
    ZSTD_inBuffer in = {io->in, io->in_n, 0};
    ZSTD_outBuffer out = {io->out, io->out_n, 0};
    const size_t left = ZSTD_compressStream2(coding->zstd_encoder, &out, &in, io->last ? ZSTD_e_end : ZSTD_e_flush);
    if (ZSTD_isError(left)) {
        return TG_ENOMEM;
    }
    io->in += in.pos;
    io->in_n -= in.pos;
    io->out += out.pos;
    io->out_n -= out.pos;
    return left == 0 && io->in_n == 0 ? TG_OK : TG_AGAIN;
}

static void
close_zstd_encoder(struct tg_coding *coding)
{
    (void)ZSTD_freeCCtx(coding->zstd_encoder);
}

/* ------------------------------------------------------------------ all of them */

static const struct method decoders[] = {
    [TG_CODING_GZIP] = {open_inflate, step_inflate, close_inflate},
    [TG_CODING_DEFLATE] = {open_inflate, step_inflate, close_inflate},
    [TG_CODING_BROTLI] = {open_brotli_decoder, step_brotli_decoder, close_brotli_decoder},
    [TG_CODING_ZSTD] = {open_zstd_decoder, step_zstd_decoder, close_zstd_decoder},
};

static const struct method encoders[] = {
    [TG_CODING_GZIP] = {open_deflate, step_deflate, close_deflate},
    [TG_CODING_DEFLATE] = {open_deflate, step_deflate, close_deflate},
    [TG_CODING_BROTLI] = {open_brotli_encoder, step_brotli_encoder, close_brotli_encoder},
    [TG_CODING_ZSTD] = {open_zstd_encoder, step_zstd_encoder, close_zstd_encoder},
};

enum tg_rc
tg_coding_find(const char *name, size_t n, enum tg_coding_kind *out)
{
    static const struct {
        struct tg_slice name;
        enum tg_coding_kind kind;
    } known[] = {
        {{"gzip", 4}, TG_CODING_GZIP}, {{"x-gzip", 6}, TG_CODING_GZIP}, {{"deflate", 7}, TG_CODING_DEFLATE},
        {{"br", 2}, TG_CODING_BROTLI}, {{"zstd", 4}, TG_CODING_ZSTD},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (tg_slice_is_text(known[i].name, name, n)) {
            *out = known[i].kind;
            return TG_OK;
        }
    }
    return TG_ENONE;
}

struct tg_coding *
tg_coding_new(enum tg_coding_kind kind, bool decode, int level, const struct tg_coding_limits *limits)
{
    struct tg_coding *coding = tg_mem_new(struct tg_coding);
    if (coding == NULL) {
        return NULL;
    }
    coding->method = decode ? &decoders[kind] : &encoders[kind];
    coding->kind = kind;
    coding->decode = decode;
    coding->limits = limits != NULL ? *limits : tg_coding_limits_default;
    if (!coding->method->open(coding, level < 0 ? 0 : level > LEVEL_MAX ? LEVEL_MAX : level)) {
        tg_coding_free(coding);
        return NULL;
    }
    return coding;
}

void
tg_coding_free(struct tg_coding *coding)
{
    if (coding != NULL) {
        coding->method->close(coding);
        TG_ASSERT(coding->memory == 0);
        tg_mem_free(coding);
    }
}

size_t
tg_coding_memory(const struct tg_coding *coding)
{
    return sizeof *coding + coding->memory;
}

static bool
is_too_much(const struct tg_coding *coding)
{
    const struct tg_coding_limits *limits = &coding->limits;
    return (limits->output_max != 0 && coding->out > limits->output_max) ||
           (limits->ratio_max != 0 && coding->out > limits->ratio_from && coding->out / limits->ratio_max > coding->in);
}

enum tg_rc
tg_coding_run(struct tg_coding *coding, struct tg_coding_io *io)
{
    struct tg_coding_io now = *io;
    enum tg_rc rc = coding->error;
    if (rc != TG_OK) {
        return rc;
    }
    if (coding->ended || io->in_n > TG_CODING_PIECE_MAX || io->out_n > TG_CODING_PIECE_MAX ||
        io->out_n < TG_CODING_ROOM_MIN) {
        return TG_EINVAL;
    }
    /* Without input there is something to do only when there was more to put out, or when an encoder shall end. */
    if (io->in_n > 0 || coding->more || (io->last && !coding->decode)) {
        rc = coding->method->step(coding, &now);
    }
    coding->in += io->in_n - now.in_n;
    coding->out += io->out_n - now.out_n;
    if (rc >= 0 && coding->decode && is_too_much(coding)) {
        rc = TG_ELIMIT;
    }
    if (rc == TG_OK && io->last && coding->decode && !coding->whole) {
        rc = TG_EPROTOCOL;
    }
    if (rc < 0) {
        coding->error = rc;
        return rc;
    }
    coding->more = rc == TG_AGAIN;
    coding->ended = rc == TG_OK && io->last;
    *io = now;
    return rc;
}
