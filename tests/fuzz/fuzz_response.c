/*
 * fuzz_response.c - an upstream's bytes: what is accepted is written as a response that is accepted again.
 */
#include "fuzz.h"
#include "http/h1_parse.h"
#include "http/h1_write.h"

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const struct tg_h1_limits limits = {8192, 32 * 1024, 64 * 1024, 200};
    static char block[256 * 1024];
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    struct tg_message message;
    struct tg_message again;
    struct tg_arena arena;
    struct tg_slice head;
    const char *p = (const char *)bytes;
    if (tg_h1_scan(&scan, p, n, &limits, false, &fault) != TG_OK) {
        return 0;
    }
    tg_arena_init(&arena, block, sizeof block, 1U << 20);
    tg_message_init(&message, &arena);
    tg_message_init(&again, &arena);
    if (tg_h1_parse_response(&message, p, scan.pos, false, &fault) == TG_OK) {
        const struct tg_h1_frame frame = {.framing = message.framing, .length = message.content_length};
        if (tg_h1_write_response(&message, &frame, TG_SLICE("Thu, 01 Jan 1970 00:00:00 GMT"), &head) == TG_OK) {
            const enum tg_rc rc = tg_h1_parse_response(&again, head.p, head.n, false, &fault);
            MUST(rc == TG_OK || rc == TG_ENOMEM);
            if (rc == TG_OK) {
                MUST(again.status == message.status && again.framing == message.framing);
                /* A length that delimits nothing, as with 204, does not go on. */
                MUST(again.framing != TG_FRAMING_LENGTH || again.content_length == message.content_length);
            }
        }
    }
    tg_arena_reset(&arena);
    return 0;
}
