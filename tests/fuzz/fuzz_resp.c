/*
 * fuzz_resp.c - what a Redis server says, cut where the first byte says.
 *
 * Oracles: where it is cut changes nothing; a list is as long as it says, and every text stands within the bytes of its
 * reply; what is said as a command, of the texts of a reply, is read as a list of these texts.
 */
#include <string.h>

#include "fuzz.h"
#include "net/resp.h"

enum { INPUT_MAX = 16 * 1024, WORDS_MAX = 16 };

struct outcome {
    enum tg_rc rc;
    unsigned replies;
    uint64_t hash;
};

static void
mix(struct outcome *out, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out->hash = (out->hash ^ ((const unsigned char *)p)[i]) * 1099511628211ULL;
    }
}

/* Where the value at `at` ends. */
static unsigned
walk(const struct tg_resp_reply *reply, unsigned at)
{
    MUST(at < reply->count);
    const struct tg_abi_redis_value *value = &reply->values[at++];
    if (value->type == TG_REDIS_LIST) {
        for (unsigned i = 0; i < value->size; i++) {
            at = walk(reply, at);
        }
    } else if (value->type != TG_REDIS_NIL && value->type != TG_REDIS_NUMBER) {
        MUST(value->number >= 0 && (size_t)value->number + value->size <= reply->used);
    }
    return at;
}

static void
check_round_trip(const struct tg_resp_reply *reply)
{
    const char *words[WORDS_MAX];
    size_t lengths[WORDS_MAX];
    static char text[INPUT_MAX * 2];
    struct tg_resp resp;
    struct tg_resp_reply again;
    unsigned count = 0;
    for (unsigned i = 0; i < reply->count && count < WORDS_MAX; i++) {
        if (reply->values[i].type == TG_REDIS_STRING) {
            words[count] = reply->bytes + (size_t)reply->values[i].number;
            lengths[count++] = reply->values[i].size;
        }
    }
    const size_t n = tg_resp_size(count, lengths);
    if (n > sizeof text) {
        return;
    }
    MUST(tg_resp_write(text, count, words, lengths) == text + n);
    tg_resp_reply_init(&again);
    MUST(tg_resp_init(&resp) == TG_OK && tg_resp_feed(&resp, text, n) == TG_OK && tg_resp_next(&resp, &again) == TG_OK);
    MUST(again.count == count + 1 && again.values[0].size == count);
    for (unsigned i = 0; i < count; i++) {
        MUST(again.values[i + 1].size == lengths[i]);
        MUST(memcmp(again.bytes + (size_t)again.values[i + 1].number, words[i], lengths[i]) == 0);
    }
    tg_resp_reply_fini(&again);
    tg_resp_fini(&resp);
}

static void
take(struct outcome *out, const struct tg_resp_reply *reply)
{
    out->replies++;
    MUST(reply->rc == TG_OK || (reply->rc == TG_ELIMIT && reply->count == 0));
    if (reply->rc == TG_OK) {
        MUST(walk(reply, 0) == reply->count);
        check_round_trip(reply);
    }
    mix(out, reply->values, reply->count * sizeof *reply->values);
    mix(out, reply->bytes, reply->used);
}

/* Each piece stands in memory of its own size, so that a byte read beyond it is seen. */
static void
read_all(const char *p, size_t n, size_t step, struct outcome *out)
{
    struct tg_resp resp;
    struct tg_resp_reply reply;
    *out = (struct outcome){.rc = TG_AGAIN};
    tg_resp_reply_init(&reply);
    MUST(tg_resp_init(&resp) == TG_OK);
    for (size_t at = 0; at < n && out->rc == TG_AGAIN; at += step) {
        const size_t size = step < n - at ? step : n - at;
        char *piece = malloc(size);
        MUST(piece != NULL);
        memcpy(piece, p + at, size);
        MUST(tg_resp_feed(&resp, piece, size) == TG_OK);
        free(piece);
        while ((out->rc = tg_resp_next(&resp, &reply)) == TG_OK) {
            take(out, &reply);
            tg_resp_reply_fini(&reply);
        }
    }
    tg_resp_reply_fini(&reply);
    tg_resp_fini(&resp);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 2 || n > INPUT_MAX) {
        return 0;
    }
    struct outcome whole;
    struct outcome pieces;
    read_all((const char *)bytes + 1, n - 1, n, &whole);
    read_all((const char *)bytes + 1, n - 1, bytes[0] % 16 + 1, &pieces);
    MUST(whole.rc == pieces.rc && whole.replies == pieces.replies && whole.hash == pieces.hash);
    return 0;
}
