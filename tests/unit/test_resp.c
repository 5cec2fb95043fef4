#include "unit.h"

#include <stdio.h>

#include "base/mem.h"
#include "net/resp.h"

/* The flat list as text: N nil, 12 a number, "x" a string, +x a status, -x an error, [2 a list of two. */
static void
show(const struct tg_resp_reply *reply, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < reply->count; i++) {
        const struct tg_abi_redis_value *value = &reply->values[i];
        const char *text = reply->bytes + (size_t)value->number;
        const int length = (int)value->size;
        switch ((enum tg_abi_redis_type)value->type) {
        case TG_REDIS_NIL:
            n += (size_t)snprintf(out + n, size - n, "N ");
            break;
        case TG_REDIS_NUMBER:
            n += (size_t)snprintf(out + n, size - n, "%.0f ", value->number);
            break;
        case TG_REDIS_STRING:
            n += (size_t)snprintf(out + n, size - n, "\"%.*s\" ", length, text);
            break;
        case TG_REDIS_STATUS:
            n += (size_t)snprintf(out + n, size - n, "+%.*s ", length, text);
            break;
        case TG_REDIS_ERROR:
            n += (size_t)snprintf(out + n, size - n, "-%.*s ", length, text);
            break;
        case TG_REDIS_LIST:
            n += (size_t)snprintf(out + n, size - n, "[%d ", length);
            break;
        }
    }
}

static void
replies_become_flat_lists_wherever_they_are_cut(void **state)
{
    static const struct {
        const char *bytes;
        const char *expected;
    } table[] = {
        {"+OK\r\n", "+OK "},
        {"-ERR no\r\n", "-ERR no "},
        {":-12\r\n", "-12 "},
        {":9007199254740992\r\n", "9007199254740992 "},
        {":9007199254740993\r\n", "\"9007199254740993\" "},
        {":-9223372036854775807\r\n", "\"-9223372036854775807\" "},
        {"$-1\r\n", "N "},
        {"$0\r\n\r\n", "\"\" "},
        {"*-1\r\n", "N "},
        {"*0\r\n", "[0 "},
        {"*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n+x\r\n", "[3 \"a\" [2 1 N +x "},
        {"*6\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n", "[6 1 2 3 4 5 6 "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const size_t n = strlen(table[i].bytes);
        for (size_t cut = 1; cut <= n; cut++) {
            struct tg_resp resp;
            struct tg_resp_reply reply;
            char text[200];
            tg_resp_reply_init(&reply);
            assert_int_equal(tg_resp_init(&resp), TG_OK);
            for (size_t at = 0; at < n; at += cut) {
                assert_int_equal(tg_resp_feed(&resp, table[i].bytes + at, cut < n - at ? cut : n - at), TG_OK);
                assert_int_equal(tg_resp_next(&resp, &reply), at + cut < n ? TG_AGAIN : TG_OK);
            }
            show(&reply, text, sizeof text);
            assert_string_equal(text, table[i].expected);
            tg_resp_reply_fini(&reply);
            tg_resp_fini(&resp);
        }
    }
}

static void
what_is_no_reply_ends_the_stream(void **state)
{
    static const char *const table[] = {"HTTP/1.1 400\r\n", "$x\r\n", "*2\r\n$1\r\na\r\n!\r\n"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_resp resp;
        struct tg_resp_reply reply;
        tg_resp_reply_init(&reply);
        assert_int_equal(tg_resp_init(&resp), TG_OK);
        assert_int_equal(tg_resp_feed(&resp, table[i], strlen(table[i])), TG_OK);
        assert_int_equal(tg_resp_next(&resp, &reply), TG_EPROTOCOL);
        tg_resp_reply_fini(&reply);
        tg_resp_fini(&resp);
    }
}

static void
what_is_too_large_is_read_to_its_end_and_not_kept(void **state)
{
    static char chunk[64 * 1024];
    struct tg_resp resp;
    struct tg_resp_reply reply;
    (void)state;
    memset(chunk, 'x', sizeof chunk);
    tg_resp_reply_init(&reply);
    assert_int_equal(tg_resp_init(&resp), TG_OK);
    assert_int_equal(tg_resp_feed(&resp, "*300\r\n", 6), TG_OK);
    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(tg_resp_next(&resp, &reply), TG_AGAIN);
        assert_int_equal(tg_resp_feed(&resp, "$65536\r\n", 8), TG_OK);
        assert_int_equal(tg_resp_feed(&resp, chunk, sizeof chunk), TG_OK);
        assert_int_equal(tg_resp_feed(&resp, "\r\n", 2), TG_OK);
    }
    assert_int_equal(tg_resp_feed(&resp, "+next\r\n", 7), TG_OK);
    assert_int_equal(tg_resp_next(&resp, &reply), TG_OK);
    assert_int_equal(reply.rc, TG_ELIMIT);
    assert_int_equal(reply.count, 0);
    tg_resp_reply_fini(&reply);
    assert_int_equal(tg_resp_next(&resp, &reply), TG_OK);
    assert_int_equal(reply.values[0].type, TG_REDIS_STATUS);
    tg_resp_reply_fini(&reply);
    assert_int_equal(tg_resp_feed(&resp, "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", 44),
                     TG_OK);
    assert_int_equal(tg_resp_next(&resp, &reply), TG_ELIMIT);
    tg_resp_reply_fini(&reply);
    tg_resp_fini(&resp);
}

static void
one_without_memory_is_not_kept(void **state)
{
    struct tg_resp resp;
    struct tg_resp_reply reply;
    (void)state;
    tg_resp_reply_init(&reply);
    assert_int_equal(tg_resp_init(&resp), TG_OK);
    assert_int_equal(tg_resp_feed(&resp, "*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n", 24), TG_OK);
    tg_mem_fail_at(1);
    assert_int_equal(tg_resp_next(&resp, &reply), TG_OK);
    tg_mem_fail_at(0);
    assert_int_equal(reply.rc, TG_ENOMEM);
    tg_resp_reply_fini(&reply);
    tg_resp_fini(&resp);
}

static void
commands_are_written_as_lists(void **state)
{
    const char *const words[] = {"SET", "", "0123456789"};
    const size_t lengths[] = {3, 0, 10};
    const size_t too_long[] = {3, TG_RESP_MAX, 10};
    char out[64];
    (void)state;
    const size_t n = tg_resp_size(3, lengths);
    assert_int_equal(tg_resp_write(out, 3, words, lengths) - out, n);
    assert_memory_equal(out, "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$10\r\n0123456789\r\n", n);
    assert_int_equal(tg_resp_size(3, too_long), 0);
}

/* The slots are those that `CLUSTER KEYSLOT` of a real server says. */
static void
keys_have_the_slots_that_redis_says(void **state)
{
    static const struct {
        const char *key;
        unsigned slot;
    } table[] = {
        {"foo", 12182},
        {"123456789", 12739},
        {"", 0},
        {"{user1000}.following", 3443},
        {"user1000", 3443},
        {"foo{}{bar}", 8363},
        {"foo{{bar}}zap", 4015},
        {"foo{bar}{zap}", 5061},
        {"{", 4092},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(tg_resp_slot(table[i].key, strlen(table[i].key)), table[i].slot);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_become_flat_lists_wherever_they_are_cut),
        cmocka_unit_test(what_is_no_reply_ends_the_stream),
        cmocka_unit_test(what_is_too_large_is_read_to_its_end_and_not_kept),
        cmocka_unit_test(one_without_memory_is_not_kept),
        cmocka_unit_test(commands_are_written_as_lists),
        cmocka_unit_test(keys_have_the_slots_that_redis_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
