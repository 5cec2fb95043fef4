#include "net/resp.h"

#include <hiredis/read.h>
#include <stdio.h>

#include "base/mem.h"

enum { EXACT_BITS = 53, NUMBER_TEXT = 24 };

/* What hiredis gets as an object: it keeps none of ours. */
static char something;

void
tg_resp_reply_init(struct tg_resp_reply *reply)
{
    reply->values = reply->own_values;
    reply->values_max = TG_RESP_VALUES;
    reply->bytes = reply->own_bytes;
    reply->bytes_max = TG_RESP_BYTES;
    reply->count = 0;
    reply->used = 0;
    reply->rc = TG_OK;
}

void
tg_resp_reply_fini(struct tg_resp_reply *reply)
{
    if (reply->values != reply->own_values) {
        tg_mem_free(reply->values);
    }
    if (reply->bytes != reply->own_bytes) {
        tg_mem_free(reply->bytes);
    }
    tg_resp_reply_init(reply);
}

/* What cannot be kept is let go at once: its rest may be long. */
static void
give_up(struct tg_resp_reply *reply, enum tg_rc rc)
{
    tg_resp_reply_fini(reply);
    reply->rc = rc;
}

static bool
make_room(struct tg_resp_reply *reply, size_t n)
{
    const size_t size = ((size_t)reply->count + 1) * sizeof *reply->values + reply->used + n;
    if (size > TG_RESP_MAX) {
        give_up(reply, TG_ELIMIT);
        return false;
    }
    if (reply->count == reply->values_max) {
        const bool own = reply->values == reply->own_values;
        const unsigned max = reply->values_max * 4;
        struct tg_abi_redis_value *values = tg_mem_resize(own ? NULL : reply->values, max * sizeof *values);
        if (values == NULL) {
            give_up(reply, TG_ENOMEM);
            return false;
        }
        if (own) {
            memcpy(values, reply->own_values, sizeof reply->own_values);
        }
        reply->values = values;
        reply->values_max = max;
    }
    if (reply->used + n > reply->bytes_max) {
        const bool own = reply->bytes == reply->own_bytes;
        size_t max = reply->bytes_max * 4 < TG_RESP_MAX ? reply->bytes_max * 4 : TG_RESP_MAX;
        max = max < reply->used + n ? reply->used + n : max;
        char *bytes = tg_mem_resize(own ? NULL : reply->bytes, max);
        if (bytes == NULL) {
            give_up(reply, TG_ENOMEM);
            return false;
        }
        if (own) {
            memcpy(bytes, reply->own_bytes, sizeof reply->own_bytes);
        }
        reply->bytes = bytes;
        reply->bytes_max = max;
    }
    return true;
}

static void
add(const redisReadTask *task, enum tg_abi_redis_type type, const char *p, size_t n, double number)
{
    const struct tg_resp *resp = task->privdata;
    struct tg_resp_reply *reply = resp->into;
    if (reply == NULL || reply->rc != TG_OK || !make_room(reply, p == NULL ? 0 : n)) {
        return;
    }
    struct tg_abi_redis_value *value = &reply->values[reply->count++];
    *value = (struct tg_abi_redis_value){.type = type, .size = (uint32_t)n, .number = number};
    if (p != NULL) {
        value->number = (double)reply->used;
        if (n > 0) {
            memcpy(reply->bytes + reply->used, p, n);
        }
        reply->used += n;
    }
}

static void *
on_string(const redisReadTask *task, char *p, size_t n)
{
    const enum tg_abi_redis_type type = task->type == REDIS_REPLY_STATUS  ? TG_REDIS_STATUS
                                        : task->type == REDIS_REPLY_ERROR ? TG_REDIS_ERROR
                                                                          : TG_REDIS_STRING;
    add(task, type, p, n, 0);
    return &something;
}

/* A list that is too long for its elements alone is not even begun. */
static void *
on_array(const redisReadTask *task, int elements)
{
    const struct tg_resp *resp = task->privdata;
    if (resp->into != NULL && (size_t)elements > TG_RESP_MAX / sizeof(struct tg_abi_redis_value)) {
        give_up(resp->into, TG_ELIMIT);
    }
    add(task, TG_REDIS_LIST, NULL, (size_t)elements, 0);
    return &something;
}

static void *
on_integer(const redisReadTask *task, long long value)
{
    if (value >= -(1LL << EXACT_BITS) && value <= 1LL << EXACT_BITS) {
        add(task, TG_REDIS_NUMBER, NULL, 0, (double)value);
    } else {
        char text[NUMBER_TEXT];
        const int n = snprintf(text, sizeof text, "%lld", value);
        add(task, TG_REDIS_STRING, text, (size_t)n, 0);
    }
    return &something;
}

static void *
on_nil(const redisReadTask *task)
{
    add(task, TG_REDIS_NIL, NULL, 0, 0);
    return &something;
}

static void
on_free(void *object)
{
    (void)object;
}

static redisReplyObjectFunctions functions = {on_string, on_array, on_integer, on_nil, on_free};

enum tg_rc
tg_resp_init(struct tg_resp *resp)
{
    *resp = (struct tg_resp){.reader = redisReaderCreateWithFunctions(&functions)};
    if (resp->reader == NULL) {
        return TG_ENOMEM;
    }
    resp->reader->privdata = resp;
    return TG_OK;
}

void
tg_resp_fini(struct tg_resp *resp)
{
    if (resp->reader != NULL) {
        redisReaderFree(resp->reader);
        resp->reader = NULL;
    }
}

enum tg_rc
tg_resp_feed(struct tg_resp *resp, const char *p, size_t n)
{
    return redisReaderFeed(resp->reader, p, n) == REDIS_OK ? TG_OK : TG_ENOMEM;
}

enum tg_rc
tg_resp_next(struct tg_resp *resp, struct tg_resp_reply *into)
{
    redisReader *reader = resp->reader;
    void *object = NULL;
    resp->into = into;
    if (redisReaderGetReply(reader, &object) != REDIS_OK) {
        if (reader->err == REDIS_ERR_OOM) {
            return TG_ENOMEM;
        }
        return strstr(reader->errstr, "nested") != NULL ? TG_ELIMIT : TG_EPROTOCOL;
    }
    if (object != NULL) {
        return TG_OK;
    }
    return reader->len - reader->pos > TG_RESP_MAX ? TG_ELIMIT : TG_AGAIN; /* it holds one text at most */
}

static unsigned
digits_of(size_t n)
{
    unsigned digits = 1;
    for (; n >= 10; n /= 10) {
        digits++;
    }
    return digits;
}

size_t
tg_resp_size(unsigned count, const size_t *lengths)
{
    size_t size = 1 + digits_of(count) + 2;
    for (unsigned i = 0; i < count; i++) {
        if (lengths[i] > TG_RESP_MAX || size > TG_RESP_MAX) {
            return 0;
        }
        size += 1 + digits_of(lengths[i]) + 2 + lengths[i] + 2;
    }
    return size > TG_RESP_MAX ? 0 : size;
}

static char *
write_count(char *out, char mark, size_t n)
{
    const unsigned digits = digits_of(n);
    *out++ = mark;
    for (unsigned i = digits; i-- > 0; n /= 10) {
        out[i] = (char)('0' + n % 10);
    }
    out += digits;
    *out++ = '\r';
    *out++ = '\n';
    return out;
}

char *
tg_resp_write(char *out, unsigned count, const char *const *words, const size_t *lengths)
{
    out = write_count(out, '*', count);
    for (unsigned i = 0; i < count; i++) {
        out = write_count(out, '$', lengths[i]);
        if (lengths[i] > 0) {
            memcpy(out, words[i], lengths[i]);
        }
        out += lengths[i];
        *out++ = '\r';
        *out++ = '\n';
    }
    return out;
}

/* CRC16 of XMODEM, half a byte at a time. */
static unsigned
checksum(const char *p, size_t n)
{
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
                                       0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    unsigned crc = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned byte = (unsigned char)p[i];
        crc = (crc << 4 ^ table[(crc >> 12 ^ byte >> 4) & 15]) & 0xffff;
        crc = (crc << 4 ^ table[(crc >> 12 ^ byte) & 15]) & 0xffff;
    }
    return crc;
}

unsigned
tg_resp_slot(const char *key, size_t n)
{
    const char *open = memchr(key, '{', n);
    if (open != NULL) {
        const size_t rest = n - (size_t)(open + 1 - key);
        const char *close = memchr(open + 1, '}', rest);
        if (close != NULL && close > open + 1) {
            return checksum(open + 1, (size_t)(close - open - 1)) % TG_RESP_SLOTS;
        }
    }
    return checksum(key, n) % TG_RESP_SLOTS;
}
