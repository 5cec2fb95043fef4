#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#include "base/mem.h"
#include "net/cidr.h"

static enum tg_rc
add(struct tg_cidr_list *list, const char *text)
{
    struct tg_err err = {{0}};
    const enum tg_rc rc = tg_cidr_list_add(list, text, strlen(text), &err);
    assert_true((rc == TG_OK || rc == TG_ENOMEM) == (err.text[0] == '\0'));
    return rc;
}

/* Both ways in must agree. */
static bool
match(const struct tg_cidr_list *list, const char *text)
{
    struct tg_address address;
    const bool matched = tg_cidr_list_match_text(list, text, strlen(text));
    assert_int_equal(tg_address_parse(&address, text, 1234), TG_OK);
    assert_int_equal(tg_cidr_list_match(list, &address), matched);
    return matched;
}

static void
a_network_holds_its_addresses_and_no_other(void **state)
{
    static const struct {
        const char *network;
        const char *in[4];
        const char *out[6];
    } table[] = {
        {"10.0.0.0/8",
         {"10.0.0.0", "10.255.255.255", "10.1.2.3", "::ffff:10.1.2.3"},
         {"9.255.255.255", "11.0.0.0", "::10.1.2.3", "::ffff:11.0.0.0", "a00::", "2001:db8::"}},
        {"192.0.2.1", {"192.0.2.1", "::ffff:c000:201"}, {"192.0.2.0", "192.0.2.2", "::c000:201", "::1"}},
        {"192.0.2.1/32", {"192.0.2.1"}, {"192.0.2.0", "192.0.2.2"}},
        {"192.0.2.128/25", {"192.0.2.128", "192.0.2.255"}, {"192.0.2.127", "192.0.3.0", "192.0.1.128"}},
        {"192.0.2.254/31", {"192.0.2.254", "192.0.2.255"}, {"192.0.2.253", "192.0.3.0"}},
        {"172.16.0.0/12", {"172.16.0.0", "172.31.255.255"}, {"172.15.255.255", "172.32.0.0"}},
        {"128.0.0.0/1", {"128.0.0.0", "255.255.255.255"}, {"127.255.255.255", "8000::", "ffff::"}},
        {"0.0.0.0/0", {"0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"}, {"::", "::1", "ffff::", "::1.2.3.4"}},
        {"::/0", {"::", "::1", "ffff::", "::1.2.3.4"}, {"0.0.0.0", "1.2.3.4", "::ffff:1.2.3.4"}},
        {"::1", {"::1", "0:0:0:0:0:0:0:1"}, {"::", "::2", "0.0.0.1", "1::1"}},
        {"::1/128", {"::1"}, {"::", "::2", "::8000:0:0:1"}},
        {"2001:db8::/32", {"2001:db8::", "2001:db8:ffff:ffff::1", "2001:DB8::1"}, {"2001:db7::1", "2001:db9::"}},
        {"2001:db8::/33", {"2001:db8:7fff::"}, {"2001:db8:8000::"}},
        {"2001:db8::8/125", {"2001:db8::8", "2001:db8::f"}, {"2001:db8::7", "2001:db8::10"}},
        {"2001:db8::/127", {"2001:db8::", "2001:db8::1"}, {"2001:db8::2", "2001:db7:ffff::1"}},
        {"::ffff:10.0.0.0/104", {"10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"}, {"11.0.0.0", "::10.1.2.3"}},
        {"::ffff:0:0/96", {"0.0.0.0", "255.255.255.255"}, {"::", "::fffe:0:1", "::1:0:0:0"}},
        {"::ffff:1.2.3.4", {"1.2.3.4"}, {"1.2.3.5", "::102:304"}},
        {"::/80", {"::", "::ffff", "::fffe:1.2.3.4"}, {"1.2.3.4", "::1:0:0:0"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_cidr_list list;
        tg_cidr_list_init(&list, 1);
        assert_int_equal(add(&list, table[i].network), TG_OK);
        for (size_t k = 0; k < 4 && table[i].in[k] != NULL; k++) {
            assert_true(match(&list, table[i].in[k]));
        }
        for (size_t k = 0; k < 6 && table[i].out[k] != NULL; k++) {
            assert_false(match(&list, table[i].out[k]));
        }
        tg_cidr_list_fini(&list);
    }
}

static void
what_is_not_a_network_is_refused_and_says_what_it_is_not(void **state)
{
    static const struct {
        const char *text;
        const char *expected; /* a part of the error */
    } table[] = {
        {"", "expected an address"},
        {"/", "expected an address"},
        {"/8", "expected an address"},
        {"unix", "expected an address"},
        {"localhost", "expected an address"},
        {"10.0.0/8", "expected an address"},
        {"10/8", "expected an address"},
        {"010.0.0.0/8", "expected an address"},
        {" 10.0.0.0/8", "expected an address"},
        {"10.0.0.0 /8", "expected an address"},
        {"[::1]", "expected an address"},
        {"fe80::1%eth0", "expected an address"},
        {"10.0.0.0-10.0.0.9", "expected an address"},
        {"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", "expected an address"},
        {"10.0.0.0/", "0 to 32"},
        {"10.0.0.0/33", "0 to 32"},
        {"10.0.0.0/08", "0 to 32"},
        {"0.0.0.0/00", "0 to 32"},
        {"10.0.0.0/+8", "0 to 32"},
        {"10.0.0.0/-8", "0 to 32"},
        {"10.0.0.0/8 ", "0 to 32"},
        {"10.0.0.0/8/8", "0 to 32"},
        {"10.0.0.0/a", "0 to 32"},
        {"10.0.0.0/255.0.0.0", "0 to 32"},
        {"10.0.0.0/4294967304", "0 to 32"},
        {"::/129", "0 to 128"},
        {"::/1000", "0 to 128"},
        {"::ffff:10.0.0.0/8", "96 to 128"},
        {"::ffff:0:0/95", "96 to 128"},
        {"10.0.0.1/8", "expected \"10.0.0.0/8\""},
        {"192.0.2.129/25", "expected \"192.0.2.128/25\""},
        {"1.2.3.4/0", "expected \"0.0.0.0/0\""},
        {"2001:db8::1/32", "expected \"2001:db8::/32\""},
        {"2001:db8:8000::/32", "expected \"2001:db8::/32\""},
        {"::3/127", "expected \"::2/127\""},
        {"::ffff:10.0.0.1/104", "expected \"10.0.0.0/8\""},
    };
    (void)state;
    struct tg_cidr_list list;
    tg_cidr_list_init(&list, 100);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_err err = {{0}};
        assert_int_equal(tg_cidr_list_add(&list, table[i].text, strlen(table[i].text), &err), TG_EINVAL);
        assert_non_null(strstr(err.text, table[i].expected));
        assert_int_equal(tg_cidr_list_add(&list, table[i].text, strlen(table[i].text), NULL), TG_EINVAL);
        assert_int_equal(list.count, 0);
    }
    /* What stands before a NUL would be a network. */
    assert_int_equal(tg_cidr_list_add(&list, "10.0.0.0\0x", 10, NULL), TG_EINVAL);
    assert_int_equal(tg_cidr_list_add(&list, "10.0.0.0/8\0x", 12, NULL), TG_EINVAL);
    assert_int_equal(tg_cidr_list_add(&list, NULL, 0, NULL), TG_EINVAL);
    tg_cidr_list_fini(&list);
}

static void
only_the_length_ends_a_text(void **state)
{
    (void)state;
    struct tg_cidr_list list;
    tg_cidr_list_init(&list, 4);
    assert_int_equal(tg_cidr_list_add(&list, "10.0.0.0/8, 11.0.0.0/8", 10, NULL), TG_OK);
    assert_true(tg_cidr_list_match_text(&list, "10.1.1.1, 1.1.1.1", 8));
    assert_false(tg_cidr_list_match_text(&list, "10.1.1.1, 1.1.1.1", 9));
    assert_false(tg_cidr_list_match_text(&list, "10.1.1.1\0", 9));
    assert_false(tg_cidr_list_match_text(&list, "", 0));
    assert_false(tg_cidr_list_match_text(&list, NULL, 0));
    assert_false(tg_cidr_list_match_text(&list, "unix", 4));
    assert_false(tg_cidr_list_match_text(&list, "10.0.0.0/8", 10));
    tg_cidr_list_fini(&list);
}

static void
what_is_not_ip_is_in_no_network(void **state)
{
    (void)state;
    struct tg_cidr_list list;
    struct tg_address address = {.len = sizeof(struct sockaddr_un)};
    tg_cidr_list_init(&list, 4);
    assert_false(match(&list, "1.2.3.4"));
    assert_int_equal(add(&list, "0.0.0.0/0"), TG_OK);
    assert_int_equal(add(&list, "::/0"), TG_OK);
    assert_int_equal(list.count, 2);
    address.sa.ss_family = AF_UNIX;
    assert_false(tg_cidr_list_match(&list, &address));
    address.sa.ss_family = AF_UNSPEC;
    assert_false(tg_cidr_list_match(&list, &address));
    tg_cidr_list_fini(&list);
}

/* In whichever order: what is held by another takes no place. */
static void
a_network_within_another_takes_no_place(void **state)
{
    static const char *const table[] = {"10.0.0.0/8",     "10.0.0.0/9",          "10.128.0.0/9", "10.0.0.0",
                                        "10.255.255.255", "::ffff:10.2.0.0/112", "10.0.0.0/8"};
    enum { N = sizeof table / sizeof table[0] };
    (void)state;
    for (size_t start = 0; start < N; start++) {
        for (size_t step = 1; step < N; step++) {
            struct tg_cidr_list list;
            tg_cidr_list_init(&list, N + 2);
            assert_int_equal(add(&list, "9.255.255.255"), TG_OK);
            assert_int_equal(add(&list, "11.0.0.0"), TG_OK);
            for (size_t i = 0; i < N; i++) {
                assert_int_equal(add(&list, table[(start + i * step) % N]), TG_OK);
            }
            assert_int_equal(list.count, 3);
            assert_true(match(&list, "10.77.1.1") && match(&list, "9.255.255.255") && match(&list, "11.0.0.0"));
            assert_false(match(&list, "11.0.0.1") || match(&list, "9.255.255.254"));
            tg_cidr_list_fini(&list);
        }
    }
}

static unsigned
next_random(unsigned *seed)
{
    *seed = *seed * 1664525U + 1013904223U;
    return *seed >> 8;
}

/* The sorted list against the plainest one: each network asked in turn. Few bits vary, so that much overlaps. */
static void
a_long_list_answers_as_its_networks_one_by_one(void **state)
{
    enum { N = 200, QUESTIONS = 2000 };
    unsigned seed = 1;
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct tg_cidr_list list;
        uint32_t network[N];
        uint32_t mask[N];
        unsigned found = 0;
        tg_cidr_list_init(&list, N);
        for (int i = 0; i < N; i++) {
            char text[64];
            struct in_addr v4;
            const unsigned bits = 16 + next_random(&seed) % 17;
            mask[i] = 0xffffffffU << (32 - bits);
            network[i] = (0x0a000000U | (next_random(&seed) % 64) << 16 | next_random(&seed) % 0x10000) & mask[i];
            v4.s_addr = htonl(network[i]);
            assert_non_null(inet_ntop(AF_INET, &v4, text, sizeof text));
            (void)snprintf(text + strlen(text), 8, "/%u", bits);
            assert_int_equal(add(&list, text), TG_OK);
        }
        assert_in_range(list.count, N / 10, N - 1);
        for (int i = 0; i < QUESTIONS; i++) {
            struct tg_address address = {.len = sizeof(struct sockaddr_in)};
            struct sockaddr_in *v4 = (struct sockaddr_in *)&address.sa;
            const uint32_t asked = network[next_random(&seed) % N] ^ next_random(&seed) % 1024;
            bool expected = false;
            v4->sin_family = AF_INET;
            v4->sin_addr.s_addr = htonl(asked);
            for (int k = 0; k < N && !expected; k++) {
                expected = (asked & mask[k]) == network[k];
            }
            assert_int_equal(tg_cidr_list_match(&list, &address), expected);
            found += expected;
        }
        assert_true(found > QUESTIONS / 10 && found < QUESTIONS);
        tg_cidr_list_fini(&list);
    }
}

static enum tg_rc
append(struct tg_cidr_list *list, const char *text)
{
    struct tg_err err = {{0}};
    const enum tg_rc rc = tg_cidr_list_append(list, text, strlen(text), &err);
    assert_true((rc == TG_OK || rc == TG_ENOMEM) == (err.text[0] == '\0'));
    return rc;
}

static void
networks_added_at_once_make_the_same_list(void **state)
{
    enum { N = 400 };
    unsigned seed = 7;
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct tg_cidr_list one_by_one;
        struct tg_cidr_list at_once;
        tg_cidr_list_init(&one_by_one, N);
        tg_cidr_list_init(&at_once, N);
        tg_cidr_list_settle(&at_once);
        assert_int_equal(at_once.count, 0);
        for (unsigned i = 0; i < N; i++) {
            char text[64];
            const unsigned bits = 20 + next_random(&seed) % 13;
            const unsigned random = (next_random(&seed) & 0xfffU) << (bits == 32 ? 0 : 32 - bits);
            const unsigned v4 = 0x0a000000U | (random & 0xffffffU & ~(unsigned)((1ULL << (32 - bits)) - 1));
            (void)snprintf(text, sizeof text, i % 3 == 0 ? "::ffff:%u.%u.%u.%u/%u" : "%u.%u.%u.%u/%u", v4 >> 24,
                           v4 >> 16 & 255, v4 >> 8 & 255, v4 & 255, i % 3 == 0 ? bits + 96 : bits);
            if (i % 5 == 0) {
                (void)snprintf(text, sizeof text, "2001:db8:%x::/48", next_random(&seed) % 40);
            }
            assert_int_equal(add(&one_by_one, text), TG_OK);
            assert_int_equal(append(&at_once, text), TG_OK);
        }
        assert_int_equal(at_once.count, N);
        tg_cidr_list_settle(&at_once);
        assert_in_range(at_once.count, 20, N - 20);
        assert_int_equal(at_once.count, one_by_one.count);
        for (unsigned i = 0; i < at_once.count; i++) {
            assert_memory_equal(at_once.networks[i].key, one_by_one.networks[i].key, TG_CIDR_KEY);
            assert_int_equal(at_once.networks[i].bits, one_by_one.networks[i].bits);
        }
        tg_cidr_list_fini(&one_by_one);
        tg_cidr_list_fini(&at_once);
    }
}

static void
a_network_that_cannot_be_appended_leaves_the_list_as_it_is(void **state)
{
    (void)state;
    struct tg_cidr_list list;
    tg_cidr_list_init(&list, 2);
    assert_int_equal(append(&list, "10.0.0.1/8"), TG_EINVAL);
    tg_mem_fail_at(1);
    assert_int_equal(append(&list, "10.0.0.0/8"), TG_ENOMEM);
    tg_mem_fail_at(0);
    assert_int_equal(list.count, 0);
    assert_int_equal(append(&list, "10.0.0.0/8"), TG_OK);
    assert_int_equal(append(&list, "10.0.0.0/8"), TG_OK);
    assert_int_equal(append(&list, "10.0.0.0/8"), TG_ELIMIT);
    tg_cidr_list_settle(&list);
    assert_int_equal(list.count, 1);
    assert_true(match(&list, "10.1.2.3"));
    tg_cidr_list_fini(&list);
}

static void
a_full_list_stays_as_it_is(void **state)
{
    (void)state;
    struct tg_cidr_list list;
    tg_cidr_list_init(&list, 3);
    assert_int_equal(add(&list, "10.0.0.1"), TG_OK);
    assert_int_equal(add(&list, "10.0.0.2"), TG_OK);
    assert_int_equal(add(&list, "10.0.0.3"), TG_OK);
    assert_int_equal(list.capacity, 3);
    assert_int_equal(add(&list, "10.0.0.4"), TG_ELIMIT);
    assert_false(match(&list, "10.0.0.4"));
    assert_int_equal(add(&list, "10.0.0.2"), TG_OK);
    assert_int_equal(add(&list, "10.0.0.2/31"), TG_OK); /* takes the place of two */
    assert_int_equal(list.count, 2);
    assert_int_equal(add(&list, "10.0.0.4"), TG_OK);
    assert_true(match(&list, "10.0.0.1") && match(&list, "10.0.0.2") && match(&list, "10.0.0.3"));
    tg_cidr_list_fini(&list);
    tg_cidr_list_init(&list, 0);
    assert_int_equal(add(&list, "10.0.0.1"), TG_ELIMIT);
    tg_cidr_list_fini(&list);
}

static void
memory_that_is_short_loses_no_network(void **state)
{
    (void)state;
    struct tg_cidr_list list;
    unsigned failed = 0;
    tg_cidr_list_init(&list, 100);
    for (unsigned i = 0; i < 100; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "10.0.%u.0/24", 200 - 2 * i);
        tg_mem_fail_at(1);
        const enum tg_rc rc = add(&list, text);
        tg_mem_fail_at(0);
        if (rc != TG_OK) {
            failed++;
            assert_int_equal(rc, TG_ENOMEM);
            assert_int_equal(list.count, i);
            assert_int_equal(add(&list, text), TG_OK);
        }
    }
    assert_int_equal(list.count, 100);
    assert_in_range(failed, 2, 20);
    for (unsigned i = 0; i < 200; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "10.0.%u.7", i + 1);
        assert_int_equal(match(&list, text), i % 2 == 1);
    }
    tg_cidr_list_fini(&list);
    assert_int_equal(list.count, 0);
    assert_int_equal(list.max, 100);
    assert_false(match(&list, "10.0.2.7"));
    tg_cidr_list_fini(&list);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_holds_its_addresses_and_no_other),
        cmocka_unit_test(what_is_not_a_network_is_refused_and_says_what_it_is_not),
        cmocka_unit_test(only_the_length_ends_a_text),
        cmocka_unit_test(what_is_not_ip_is_in_no_network),
        cmocka_unit_test(a_network_within_another_takes_no_place),
        cmocka_unit_test(a_long_list_answers_as_its_networks_one_by_one),
        cmocka_unit_test(networks_added_at_once_make_the_same_list),
        cmocka_unit_test(a_network_that_cannot_be_appended_leaves_the_list_as_it_is),
        cmocka_unit_test(a_full_list_stays_as_it_is),
        cmocka_unit_test(memory_that_is_short_loses_no_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
