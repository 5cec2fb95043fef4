/*
 * fuzz_h1.c - a client's bytes through the codec, cut where the fuzzer chooses.
 *
 * Oracles beside the sanitizers: where the bytes are cut changes nothing; what was accepted is written as a request
 * that is accepted again with the same parts; a normal form is its own normal form.
 */
#include "fuzz.h"
#include "http/body.h"
#include "http/h1_write.h"
#include "http/target.h"

static const struct tg_h1_limits limits = {8192, 8192, 32768, 100};
static char block[256 * 1024];

static enum tg_rc
scan_in_pieces(struct tg_h1_scan *scan, const char *p, size_t n, size_t step, const struct tg_h1_fault **fault)
{
    enum tg_rc rc = TG_AGAIN;
    for (size_t at = 0; rc == TG_AGAIN && at < n;) {
        at = step < n - at ? at + step : n;
        rc = tg_h1_scan(scan, p, at, &limits, true, fault);
    }
    return rc;
}

static void
check_written(const struct tg_message *message, const struct tg_target *target, struct tg_arena *arena)
{
    const struct tg_h1_fault *fault = NULL;
    const struct tg_h1_forward forward = {.authority = target->authority.n > 0 ? target->authority : TG_SLICE("x"),
                                          .client_ip = TG_SLICE("::1"),
                                          .proto = TG_SLICE("http")};
    const struct tg_h1_frame frame = {.framing = message->framing, .length = message->content_length};
    struct tg_slice head;
    struct tg_message again;
    struct tg_target same;
    if (tg_h1_write_request(message, target->raw_path, target->query, target->query_present, &forward, &frame, &head) !=
        TG_OK) {
        return;
    }
    tg_message_init(&again, arena);
    enum tg_rc rc = tg_h1_parse_request(&again, head.p, head.n, &fault);
    MUST(rc == TG_OK || rc == TG_ENOMEM);
    if (rc == TG_OK && tg_target_parse(&same, &again, arena, &fault) == TG_OK) {
        MUST(again.framing == message->framing && again.content_length == message->content_length);
        MUST(tg_slice_is(again.method, message->method.p, message->method.n));
        MUST(target->asterisk || tg_slice_is(same.raw_path, target->raw_path.p, target->raw_path.n));
        MUST(target->asterisk || tg_slice_is(same.path, target->path.p, target->path.n));
    }
}

static size_t
decode_in_pieces(const struct tg_message *message, const char *p, size_t n, size_t step, char *out, enum tg_rc *rc,
                 bool *done)
{
    struct tg_body body;
    const struct tg_h1_fault *fault = NULL;
    size_t length = 0;
    *rc = TG_OK;
    tg_body_init(&body, message->framing, message->content_length);
    for (size_t at = 0; at < n && !body.done && *rc == TG_OK;) {
        char piece[512];
        size_t size = step < n - at ? step : n - at;
        size = size < sizeof piece ? size : sizeof piece;
        struct tg_slice data = {0};
        size_t used = 0;
        memcpy(piece, p + at, size);
        *rc = tg_body_decode(&body, piece, size, &data, &used, &fault);
        if (*rc == TG_OK && data.n > 0) {
            memcpy(out + length, data.p, data.n);
            length += data.n;
        }
        at += used;
    }
    *done = body.done;
    tg_body_fini(&body);
    return length;
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    struct tg_h1_scan whole = {0};
    struct tg_message message;
    struct tg_target target;
    struct tg_arena arena;
    if (n < 2 || n > 40000) {
        return 0;
    }
    const size_t step = bytes[0] + 1U;
    const char *p = (const char *)bytes + 1;
    n--;
    const enum tg_rc rc = scan_in_pieces(&scan, p, n, step, &fault);
    const enum tg_rc at_once = tg_h1_scan(&whole, p, n, &limits, true, &fault);
    MUST(rc == at_once && (rc != TG_OK || (scan.pos == whole.pos && scan.start == whole.start)));
    if (rc != TG_OK) {
        return 0;
    }
    tg_arena_init(&arena, block, sizeof block, 1U << 20);
    tg_message_init(&message, &arena);
    if (tg_h1_parse_request(&message, p + scan.start, scan.pos - scan.start, &fault) == TG_OK) {
        if (tg_target_parse(&target, &message, &arena, &fault) == TG_OK) {
            check_written(&message, &target, &arena);
        }
        char *one = malloc(n + 1);
        char *two = malloc(n + 1);
        enum tg_rc rc_one;
        enum tg_rc rc_two;
        bool done_one;
        bool done_two;
        const size_t length = decode_in_pieces(&message, p + scan.pos, n - scan.pos, step, one, &rc_one, &done_one);
        const size_t other = decode_in_pieces(&message, p + scan.pos, n - scan.pos, 1, two, &rc_two, &done_two);
        MUST(done_one == done_two);
        MUST(!done_one || (rc_one == TG_OK && length == other && memcmp(one, two, length) == 0));
        free(one);
        free(two);
    }
    tg_arena_reset(&arena);
    return 0;
}
