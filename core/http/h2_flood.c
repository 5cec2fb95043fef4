#include "http/h2_flood.h"

/* RFC 9113, section 6. */
enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, PUSH_PROMISE = 5, PING = 6, WINDOW_UPDATE = 8, CONTINUATION = 9 };
enum { END_STREAM = 1, PADDED = 8 };
enum { HEADER = 9 };

/*
 * WINDOW_UPDATE and PING frames that come with each message: clients of gRPC send two or three. What they do not need
 * they may not save up, so that the budget does not grow with the streams that were ever opened.
 */
enum { HEAD_CREDIT = 4, HEAD_CREDIT_MAX = 400 };

/* Bytes of data for which a receiver may send one WINDOW_UPDATE: the eager ones send one for every 4 KiB they read. */
enum { BYTES_FOR_CREDIT = 2048 };

enum tg_limit
tg_h2_flood_control(struct tg_h2_flood *flood, uint64_t now_ms)
{
    if (now_ms - flood->second >= 1000) {
        flood->second = now_ms;
        flood->count = 0;
    }
    return ++flood->count > flood->controls ? TG_LIMIT_H2_CONTROLS : TG_LIMIT_NONE;
}

enum tg_limit
tg_h2_flood_reset(struct tg_h2_flood *flood, uint64_t now_ms)
{
    const uint64_t gone = (now_ms - flood->level_time) * flood->resets;
    flood->level_time = now_ms;
    flood->level = (flood->level > gone ? flood->level - gone : 0) + flood->reset_time;
    return flood->level > (uint64_t)flood->resets * flood->reset_time ? TG_LIMIT_H2_RESETS : TG_LIMIT_NONE;
}

void
tg_h2_flood_answered(struct tg_h2_flood *flood)
{
    flood->level = flood->level > flood->reset_time ? flood->level - flood->reset_time : 0;
}

void
tg_h2_flood_sent(struct tg_h2_flood *flood, size_t n)
{
    const uint32_t credit = flood->credit + 2 + (uint32_t)(n / BYTES_FOR_CREDIT);
    flood->credit = credit < TG_H2_CREDIT_MAX ? credit : TG_H2_CREDIT_MAX;
}

static uint32_t
payload_length(const uint8_t *header)
{
    return (uint32_t)header[0] << 16 | (uint32_t)header[1] << 8 | header[2];
}

/* Bytes of the header that must be there: one more where they tell how much of the payload is padding. */
static unsigned
header_length(const uint8_t *header, unsigned have)
{
    return have >= HEADER && header[3] == DATA && (header[4] & PADDED) != 0 && payload_length(header) > 0 ? HEADER + 1
                                                                                                          : HEADER;
}

static enum tg_limit
judge(struct tg_h2_flood *flood, uint64_t now_ms)
{
    const uint8_t *header = flood->header;
    const uint32_t length = payload_length(header);
    switch (header[3]) {
    case DATA: {
        const uint32_t padding = header_length(header, HEADER) > HEADER ? 1U + header[HEADER] : 0;
        const bool useful = length > padding || (header[4] & END_STREAM) != 0;
        return useful ? TG_LIMIT_NONE : tg_h2_flood_control(flood, now_ms);
    }
    case HEADERS:
        if (flood->credit < HEAD_CREDIT_MAX) {
            flood->credit += HEAD_CREDIT;
        }
        flood->blocks = 0;
        return TG_LIMIT_NONE;
    case PUSH_PROMISE:
        flood->blocks = 0;
        return TG_LIMIT_NONE;
    case CONTINUATION:
        if (++flood->blocks > TG_H2_CONTINUATIONS_MAX) {
            return TG_LIMIT_H2_CONTINUATIONS;
        }
        return length > 0 ? TG_LIMIT_NONE : tg_h2_flood_control(flood, now_ms);
    case RST_STREAM: /* whether it is of use, its reader knows */
        return TG_LIMIT_NONE;
    case PING:
    case WINDOW_UPDATE:
        if (flood->credit > 0) {
            flood->credit--;
            return TG_LIMIT_NONE;
        }
        return tg_h2_flood_control(flood, now_ms);
    default:
        return tg_h2_flood_control(flood, now_ms);
    }
}

size_t
tg_h2_flood_scan(struct tg_h2_flood *flood, const char *p, size_t n, uint64_t now_ms, enum tg_limit *limit)
{
    size_t i = flood->preface < n ? flood->preface : n;
    flood->preface -= (uint32_t)i;
    while (i < n) {
        if (flood->left > 0) {
            const size_t step = flood->left < n - i ? flood->left : n - i;
            flood->left -= (uint32_t)step;
            i += step;
            continue;
        }
        const size_t start = i; /* of the frame, as far as it is in these bytes */
        while (i < n && flood->have < header_length(flood->header, flood->have)) {
            flood->header[flood->have++] = (uint8_t)p[i++];
        }
        if (flood->have < header_length(flood->header, flood->have)) {
            break;
        }
        *limit = judge(flood, now_ms);
        if (*limit != TG_LIMIT_NONE) {
            return start;
        }
        flood->left = payload_length(flood->header) - (flood->have - HEADER);
        flood->have = 0;
    }
    return n;
}
