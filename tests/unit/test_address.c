#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include "net/address.h"

static void
literals_are_read_and_written(void **state)
{
    static const struct {
        const char *text;
        int family;
        const char *written;
    } table[] = {
        {"0.0.0.0", AF_INET, "0.0.0.0"},
        {"127.0.0.1", AF_INET, "127.0.0.1"},
        {"255.255.255.255", AF_INET, "255.255.255.255"},
        {"::", AF_INET6, "::"},
        {"::1", AF_INET6, "::1"},
        {"2001:DB8:0:0:0:0:0:1", AF_INET6, "2001:db8::1"},
        {"fe80::1:2:3:4", AF_INET6, "fe80::1:2:3:4"},
        {"1:2:3:4:5:6:7:8", AF_INET6, "1:2:3:4:5:6:7:8"},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AF_INET6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"64:ff9b::192.0.2.1", AF_INET6, "64:ff9b::c000:201"},
        /* What a dual-stack socket calls an IPv4 client is written as plugins and logs know it. */
        {"::ffff:192.0.2.1", AF_INET6, "192.0.2.1"},
        {"::ffff:c000:201", AF_INET6, "192.0.2.1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_address address;
        char text[TG_ADDRESS_TEXT];
        assert_int_equal(tg_address_parse(&address, table[i].text, 8080), TG_OK);
        assert_int_equal(address.sa.ss_family, table[i].family);
        assert_int_equal(address.len,
                         table[i].family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        assert_int_equal(tg_address_port(&address), 8080);
        assert_int_equal(tg_address_text(&address, text), strlen(table[i].written));
        assert_string_equal(text, table[i].written);
    }
}

static void
a_path_is_a_socket(void **state)
{
    (void)state;
    struct tg_address address;
    char path[200];
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = '\0';
    assert_int_equal(tg_address_of_path(&address, "/run/app.sock"), TG_OK);
    assert_int_equal(address.sa.ss_family, AF_UNIX);
    assert_true(tg_address_is_private(&address));
    assert_int_equal(tg_address_of_path(&address, ""), TG_EINVAL);
    assert_int_equal(tg_address_of_path(&address, path), TG_EINVAL);
    assert_int_equal(tg_address_parse(&address, "/run/app.sock", 1), TG_EINVAL);
}

static void
what_is_not_a_literal_is_refused(void **state)
{
    static const char *const table[] = {"",
                                        " ",
                                        "localhost",
                                        "1",
                                        "1.2.3",
                                        "1.2.3.4.5",
                                        "1.2.3.",
                                        ".1.2.3",
                                        "1.2.3.4 ",
                                        " 1.2.3.4",
                                        "1.2.3.256",
                                        "01.2.3.4",
                                        "1.2.3.04",
                                        "0x1.2.3.4",
                                        "1.2.3.-4",
                                        "1.2.3.+4",
                                        "1..2.3",
                                        "1.2.3.4/8",
                                        "1.2.3.4:80",
                                        ":",
                                        ":::",
                                        "::1::",
                                        "1::2::3",
                                        "[::1]",
                                        "::1%lo",
                                        "::g",
                                        "12345::",
                                        "1:2:3:4:5:6:7",
                                        "1:2:3:4:5:6:7:8:9",
                                        "::1.2.3",
                                        "::1.2.3.4:5",
                                        "1:2:3:4:5:6:7:8::",
                                        "/tmp/socket"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_address address;
        assert_int_equal(tg_address_parse(&address, table[i], 80), TG_EINVAL);
    }
}

/* The text is made by hand, for speed: the C library is the judge, for each value of each byte. */
static void
every_byte_of_an_ipv4_address_is_written_as_by_inet_ntop(void **state)
{
    (void)state;
    for (int place = 0; place < 4; place++) {
        for (int value = 0; value < 256; value++) {
            struct tg_address address = {.len = sizeof(struct sockaddr_in)};
            struct sockaddr_in *v4 = (struct sockaddr_in *)&address.sa;
            uint8_t bytes[4] = {9, 10, 99, 100};
            char text[TG_ADDRESS_TEXT];
            char expected[INET_ADDRSTRLEN];
            bytes[place] = (uint8_t)value;
            v4->sin_family = AF_INET;
            memcpy(&v4->sin_addr, bytes, sizeof bytes);
            assert_non_null(inet_ntop(AF_INET, bytes, expected, sizeof expected));
            assert_int_equal(tg_address_text(&address, text), strlen(expected));
            assert_string_equal(text, expected);
        }
    }
}

static void
ports_are_kept_in_host_order(void **state)
{
    static const unsigned table[] = {0, 1, 80, 255, 256, 8080, 0x1234, 65535};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_address address;
        assert_int_equal(tg_address_parse(&address, "192.0.2.1", table[i]), TG_OK);
        assert_int_equal(tg_address_port(&address), table[i]);
        assert_int_equal(ntohs(((struct sockaddr_in *)&address.sa)->sin_port), table[i]);
        assert_int_equal(tg_address_parse(&address, "::1", table[i]), TG_OK);
        assert_int_equal(tg_address_port(&address), table[i]);
        assert_int_equal(ntohs(((struct sockaddr_in6 *)&address.sa)->sin6_port), table[i]);
    }
}

static void
another_family_has_no_text_and_no_port(void **state)
{
    (void)state;
    static const sa_family_t table[] = {AF_UNSPEC, AF_UNIX};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_address address = {.len = sizeof(sa_family_t)};
        char text[TG_ADDRESS_TEXT] = "before";
        memset(&address.sa, 'x', sizeof address.sa);
        address.sa.ss_family = table[i];
        assert_int_equal(tg_address_text(&address, text), 0);
        assert_string_equal(text, "");
        assert_int_equal(tg_address_port(&address), 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(literals_are_read_and_written),
        cmocka_unit_test(a_path_is_a_socket),
        cmocka_unit_test(what_is_not_a_literal_is_refused),
        cmocka_unit_test(every_byte_of_an_ipv4_address_is_written_as_by_inet_ntop),
        cmocka_unit_test(ports_are_kept_in_host_order),
        cmocka_unit_test(another_family_has_no_text_and_no_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
