#include "unit.h"

#include <netinet/in.h>
#include <stdio.h>

#include "net/proxy_protocol.h"

enum { VERDICT = 256, HEADER = 1024 };

/* The result as one line, so that a table holds it. */
static void
say(char *out, enum tg_rc rc, const struct tg_proxy_protocol *header, const char *why)
{
    static const char *const kinds[] = {"local", "unknown", "unix"};
    char source[TG_ADDRESS_TEXT];
    char destination[TG_ADDRESS_TEXT];
    if (rc == TG_AGAIN) {
        (void)snprintf(out, VERDICT, "again");
    } else if (rc == TG_EPROTOCOL) {
        (void)snprintf(out, VERDICT, "%s", why);
    } else if (header->kind != TG_PROXY_PROTOCOL_ADDRESSES) {
        (void)snprintf(out, VERDICT, "%s", kinds[header->kind]);
    } else {
        (void)tg_address_text(&header->source, source);
        (void)tg_address_text(&header->destination, destination);
        (void)snprintf(out, VERDICT, "%d %s %u to %s %u", header->source.sa.ss_family == AF_INET6 ? 6 : 4, source,
                       tg_address_port(&header->source), destination, tg_address_port(&header->destination));
    }
}

/* From memory that ends where the bytes do: one read too many is seen. */
static enum tg_rc
parse(struct tg_proxy_protocol *header, const void *bytes, size_t n, const char **why)
{
    char *copy = malloc(n == 0 ? 1 : n);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    const enum tg_rc rc = tg_proxy_protocol_parse(header, copy, n, why);
    assert_memory_equal(copy, bytes, n);
    free(copy);
    return rc;
}

/* `out` is what is said of all bytes. Of each beginning the same is said, or that more is needed: there is no other. */
static size_t
judge(char *out, const void *bytes, size_t n)
{
    struct tg_proxy_protocol whole = {.length = 0};
    const char *why = NULL;
    bool decided = false;
    const enum tg_rc final = parse(&whole, bytes, n, &why);
    say(out, final, &whole, why);
    for (size_t k = 0; k <= n; k++) {
        static const struct tg_proxy_protocol untouched = {.length = 77};
        struct tg_proxy_protocol header = untouched;
        char verdict[VERDICT];
        const enum tg_rc rc = parse(&header, bytes, k, &why);
        say(verdict, rc, &header, why);
        if (rc == TG_AGAIN && !decided) {
            assert_true(k < n || strcmp(out, "again") == 0);
        } else {
            assert_string_equal(verdict, out);
            decided = true;
        }
        if (rc == TG_OK) {
            assert_int_equal(header.length, whole.length);
            assert_true(header.length <= k);
        } else {
            assert_memory_equal(&header, &untouched, sizeof header);
        }
    }
    return whole.length;
}

/* The header is all of `bytes`, or it is refused; either way, what the client sends behind it changes nothing. */
static void
expect(const char *expected, const void *bytes, size_t n)
{
    static const char client[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    char verdict[VERDICT];
    char more[HEADER];
    const size_t length = judge(verdict, bytes, n);
    assert_string_equal(verdict, expected);
    assert_true(length == 0 || length == n);
    if (strcmp(expected, "again") != 0) {
        assert_true(n + sizeof client <= sizeof more);
        memcpy(more, bytes, n);
        memcpy(more + n, client, sizeof client);
        assert_int_equal(judge(verdict, more, n + sizeof client), length);
        assert_string_equal(verdict, expected);
    }
}

struct row {
    const char *bytes;
    size_t n;
    const char *expected;
};

#define BYTES(literal) (literal), sizeof(literal) - 1

static void
expect_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        expect(rows[i].expected, rows[i].bytes, rows[i].n);
    }
}

static void
lines_of_version_1_tell_the_client(void **state)
{
    static const struct row rows[] = {
        {BYTES("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"), "4 192.168.0.1 56324 to 192.168.0.11 443"},
        {BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
         "4 255.255.255.255 65535 to 255.255.255.255 65535"},
        {BYTES("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), "4 0.0.0.0 0 to 0.0.0.0 0"},
        {BYTES("PROXY TCP6 2001:db8::1 2001:DB8::2 1 10\r\n"), "6 2001:db8::1 1 to 2001:db8::2 10"},
        {BYTES("PROXY TCP6 :: ::1 1 2\r\n"), "6 :: 1 to ::1 2"},
        {BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "65535 65535\r\n"),
         "6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 to ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535"},
        {BYTES("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2\r\n"), "6 192.0.2.1 1 to 192.0.2.2 2"},
        {BYTES("PROXY UNKNOWN\r\n"), "unknown"},
        {BYTES("PROXY UNKNOWN \r\n"), "unknown"},
        {BYTES("PROXY UNKNOWN 1.2.3.4 ::1 x\0y  \xff\r\n"), "unknown"},
        {BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "65535 65535\r\n"),
         "unknown"},
        /* Sent by HAProxy. */
        {BYTES("PROXY TCP4 127.0.0.1 127.0.0.1 57012 36015\r\n"), "4 127.0.0.1 57012 to 127.0.0.1 36015"},
        {BYTES("PROXY TCP6 ::1 ::1 40380 43419\r\n"), "6 ::1 40380 to ::1 43419"},
    };
    (void)state;
    expect_rows(rows, sizeof rows / sizeof rows[0]);
}

static void
a_line_of_another_form_is_refused(void **state)
{
    static const struct row rows[] = {
        {BYTES(""), "again"},
        {BYTES("P"), "again"},
        {BYTES("PROXY "), "again"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r"), "again"},
        {BYTES("PROXY nonsense that only its end decides"), "again"},
        {BYTES("GET / HTTP/1.1\r\n\r\n"), "neither a v1 nor a v2 header"},
        {BYTES("\x16\x03\x01\x02\x00"), "neither a v1 nor a v2 header"},
        {BYTES("\r\n\r\nGET"), "neither a v1 nor a v2 header"},
        {BYTES("PROXX"), "neither a v1 nor a v2 header"},
        {BYTES("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), "neither a v1 nor a v2 header"},
        {BYTES(" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), "neither a v1 nor a v2 header"},
        {BYTES("PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n"), "neither a v1 nor a v2 header"},
        {BYTES("PROXY\r\n"), "neither a v1 nor a v2 header"},
        {BYTES("PROXY \r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY TCP44 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY TCP 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY UNKNOWNX\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY UNKNOW\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY unknown\r\n"), "v1: neither TCP4, TCP6 nor UNKNOWN"},
        {BYTES("PROXY UNKNOWN\0\r\n"), "v1: NUL in the line"},
        {BYTES("PROXY TCP4\0 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: NUL in the line"},
        {BYTES("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n"), "v1: NUL in the line"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\0\r\n"), "v1: NUL in the line"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), "v1: LF without CR"},
        {BYTES("PROXY UNKNOWN\n"), "v1: LF without CR"},
        {BYTES("PROXY TCP4 1.2.3.4\n5.6.7.8 1 2\r\n"), "v1: LF without CR"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rG"), "v1: CR without LF"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n"), "v1: CR without LF"},
        {BYTES("PROXY UNKNOWN a\rb\r\n"), "v1: CR without LF"},
        {BYTES("PROXY TCP4\r\n"), "v1: not four fields with one space between"},
        {BYTES("PROXY TCP4 \r\n"), "v1: not four fields with one space between"},
        {BYTES("PROXY TCP4 1.2.3.4\r\n"), "v1: not four fields with one space between"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), "v1: not four fields with one space between"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"), "v1: not four fields with one space between"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"), "v1: not four fields with one space between"},
        {BYTES("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n"), "v1: not four fields with one space between"},
    };
    (void)state;
    expect_rows(rows, sizeof rows / sizeof rows[0]);
}

static void
a_line_with_another_port_or_address_is_refused(void **state)
{
    static const struct row rows[] = {
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 02\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 00\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 100000\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 4294967297 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1\t 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 0x1 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 http 2\r\n"), "v1: bad port"},
        {BYTES("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP4 1.2.3.4 5.6.7.08 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP4 1.2.3.4\t 5.6.7.8 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP4 localhost 5.6.7.8 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP6 ::1%lo ::1 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP6 [::1] ::1 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP6 ::1 1::2::3 1 2\r\n"), "v1: bad address"},
        {BYTES("PROXY TCP4 ::1 ::1 1 2\r\n"), "v1: address of another family"},
        {BYTES("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"), "v1: address of another family"},
        {BYTES("PROXY TCP4 1.2.3.4 ::1 1 2\r\n"), "v1: address of another family"},
        {BYTES("PROXY TCP6 1.2.3.4 ::1 1 2\r\n"), "v1: address of another family"},
        {BYTES("PROXY TCP4 ::ffff:1.2.3.4 5.6.7.8 1 2\r\n"), "v1: address of another family"},
    };
    (void)state;
    expect_rows(rows, sizeof rows / sizeof rows[0]);
}

static void
a_line_has_at_most_107_bytes(void **state)
{
    static const char prefix[] = "PROXY UNKNOWN ";
    char line[130];
    (void)state;
    for (size_t n = 100; n < sizeof line; n++) {
        memset(line, 'x', n);
        memcpy(line, prefix, sizeof prefix - 1);
        expect(n < TG_PROXY_PROTOCOL_V1_MAX ? "again" : "v1: line longer than 107 bytes", line, n);
        memcpy(line + n - 2, "\r\n", 2);
        expect(n <= TG_PROXY_PROTOCOL_V1_MAX ? "unknown" : "v1: line longer than 107 bytes", line, n);
    }
}

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TCP4 "\x0a\x01\x02\x03\xc0\x00\x02\x01\xdc\x04\x01\xbb"
#define TCP4_SAID "4 10.1.2.3 56324 to 192.0.2.1 443"
#define ONE "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"

static void
headers_of_version_2_tell_the_client(void **state)
{
    static const struct row rows[] = {
        {BYTES(SIGNATURE "\x21\x11\x00\x0c" TCP4), TCP4_SAID},
        {BYTES(SIGNATURE "\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x05" ONE "\x00\x50\xff\xff"),
         "6 2001:db8::5 80 to ::1 65535"},
        {BYTES(SIGNATURE "\x20\x00\x00\x00"), "local"},
        {BYTES(SIGNATURE "\x20\x11\x00\x0c" TCP4), "local"},
        {BYTES(SIGNATURE "\x20\xff\x00\x03xyz"), "local"},
        {BYTES(SIGNATURE "\x20\x11\x00\x01x"), "local"},
        {BYTES(SIGNATURE "\x21\x00\x00\x00"), "unknown"},
        {BYTES(SIGNATURE "\x21\x00\x00\x05\x03\xff\xffxy"), "unknown"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0f" TCP4 "\x04\x00\x00"), TCP4_SAID},
        {BYTES(SIGNATURE "\x21\x11\x00\x15" TCP4 "\x04\x00\x01x\xe0\x00\x02yz"), TCP4_SAID},
        {BYTES(SIGNATURE "\x21\x11\x00\x12" TCP4 "\x05\x00\x00\x05\x00\x00"), TCP4_SAID},
        /* The vectors within that of TLS are its own: it is not read. */
        {BYTES(SIGNATURE "\x21\x11\x00\x17" TCP4 "\x20\x00\x08\x01\0\0\0\0\x21\xff\xff"), TCP4_SAID},
        /* Sent by HAProxy: plain, with checksum and unique id, and to check the health of a server. */
        {BYTES(SIGNATURE "\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x01\xcc\x94\xdf\x2f"),
         "4 127.0.0.1 52372 to 127.0.0.1 57135"},
        {BYTES(SIGNATURE "\x21\x21\x00\x24" ONE ONE "\xca\xcc\xdd\xd5"), "6 ::1 51916 to ::1 56789"},
        {BYTES(SIGNATURE "\x21\x11\x00\x19\x7f\0\0\x01\x7f\0\0\x01\xaa\0\x98\x97"
                         "\x03\0\x04\x0f\xe5\x1d\xc4\x05\0\x03"
                         "abc"),
         "4 127.0.0.1 43520 to 127.0.0.1 39063"},
        {BYTES(SIGNATURE "\x21\x21\x00\x31" ONE ONE "\xe9\xb2\xc2\x8d\x03\0\x04\xbf\xff\xdf\x35\x05\0\x03"
                         "abc"),
         "6 ::1 59826 to ::1 49805"},
        {BYTES(SIGNATURE "\x20\x00\x00\x07\x03\0\x04\xa9\xb8\x7e\x8f"), "local"},
    };
    (void)state;
    expect_rows(rows, sizeof rows / sizeof rows[0]);
}

static void
another_header_of_version_2_is_refused(void **state)
{
    static const struct row rows[] = {
        {BYTES("\r"), "again"},
        {BYTES(SIGNATURE), "again"},
        {BYTES(SIGNATURE "\x21"), "again"},
        {BYTES(SIGNATURE "\x21\x11"), "again"},
        {BYTES(SIGNATURE "\x21\x11\x00"), "again"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0c"), "again"},
        {BYTES(SIGNATURE "\x20\xff\x00\x01"), "again"},
        {BYTES("\r\n\r\n\0\r\nQUIT\r"), "neither a v1 nor a v2 header"},
        {BYTES("\r\n\r\n\x01"), "neither a v1 nor a v2 header"},
        {BYTES(SIGNATURE "\x11"), "v2: unknown version"},
        {BYTES(SIGNATURE "\x01\x11\x00\x0c" TCP4), "v2: unknown version"},
        {BYTES(SIGNATURE "\x31\x11\x00\x0c" TCP4), "v2: unknown version"},
        {BYTES(SIGNATURE "\xa1\x11\x00\x0c" TCP4), "v2: unknown version"},
        {BYTES(SIGNATURE "\x22"), "v2: unknown command"},
        {BYTES(SIGNATURE "\x2f\x11\x00\x0c" TCP4), "v2: unknown command"},
        {BYTES(SIGNATURE "\x21\x12"), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\x22"), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\x32"), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\x10"), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\x01"), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\x13\x00\x0c" TCP4), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\x41\x00\x0c" TCP4), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\xff\x00\x0c" TCP4), "v2: family or transport not of a stream"},
        {BYTES(SIGNATURE "\x21\x11\x00\x00"), "v2: header shorter than its addresses"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0b" TCP4), "v2: header shorter than its addresses"},
        {BYTES(SIGNATURE "\x21\x21\x00\x0c" TCP4), "v2: header shorter than its addresses"},
        {BYTES(SIGNATURE "\x21\x21\x00\x23"), "v2: header shorter than its addresses"},
        {BYTES(SIGNATURE "\x21\x31\x00\xd7"), "v2: header shorter than its addresses"},
        {BYTES(SIGNATURE "\x21\x11\x02\x09"), "v2: header longer than 536 bytes"},
        {BYTES(SIGNATURE "\x20\x00\x02\x09"), "v2: header longer than 536 bytes"},
        {BYTES(SIGNATURE "\x21\x00\xff\xff"), "v2: header longer than 536 bytes"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0d" TCP4 "\x04"), "v2: TLV beyond the end"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0e" TCP4 "\x04\x00"), "v2: TLV beyond the end"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0f" TCP4 "\x04\x00\x01"), "v2: TLV beyond the end"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0f" TCP4 "\x04\xff\xff"), "v2: TLV beyond the end"},
        {BYTES(SIGNATURE "\x21\x11\x00\x12" TCP4 "\x04\x00\x04xyz"), "v2: TLV beyond the end"},
        {BYTES(SIGNATURE "\x21\x11\x00\x13" TCP4 "\x04\x00\x03xyz\x04"), "v2: TLV beyond the end"},
        {BYTES(SIGNATURE "\x21\x11\x00\x0f" TCP4 "\x03\x00\x00"), "v2: checksum not of 4 bytes"},
        {BYTES(SIGNATURE "\x21\x11\x00\x12" TCP4 "\x03\x00\x03xyz"), "v2: checksum not of 4 bytes"},
        {BYTES(SIGNATURE "\x21\x11\x00\x14" TCP4 "\x03\x00\x05vwxyz"), "v2: checksum not of 4 bytes"},
        {BYTES(SIGNATURE "\x21\x11\x00\x13" TCP4 "\x03\x00\x04\0\0\0\0"), "v2: wrong checksum"},
        {BYTES(SIGNATURE "\x21\x11\x00\x1a" TCP4 "\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0"), "v2: two checksums"},
        /* That of HAProxy above with its bytes turned round. */
        {BYTES(SIGNATURE "\x21\x11\x00\x19\x7f\0\0\x01\x7f\0\0\x01\xaa\0\x98\x97"
                         "\x03\0\x04\xc4\x1d\xe5\x0f\x05\0\x03"
                         "abc"),
         "v2: wrong checksum"},
    };
    (void)state;
    expect_rows(rows, sizeof rows / sizeof rows[0]);
}

static void
the_other_families_are_read_as_far_as_they_are_long(void **state)
{
    char header[16 + 216 + 3] = SIGNATURE "\x21\x31\x00\xd8";
    (void)state;
    memcpy(header + 16, "/run/client", 11);
    memcpy(header + 16 + 108, "/run/server", 11);
    expect("unix", header, 16 + 216);
    header[15] = (char)0xdb;
    memcpy(header + 16 + 216, "\x04\0\0", 3);
    expect("unix", header, sizeof header);
    header[sizeof header - 1] = 1;
    expect("v2: TLV beyond the end", header, sizeof header);
}

static void
a_header_has_at_most_536_bytes(void **state)
{
    char header[TG_PROXY_PROTOCOL_MAX + 1] = SIGNATURE "\x21\x11\x02\x08" TCP4 "\x04\x01\xf9";
    (void)state;
    memset(header + 31, 'x', sizeof header - 31);
    expect(TCP4_SAID, header, TG_PROXY_PROTOCOL_MAX);
    header[15]++;
    header[30]++;
    expect("v2: header longer than 536 bytes", header, TG_PROXY_PROTOCOL_MAX + 1);
    header[12] = 0x20;
    expect("v2: header longer than 536 bytes", header, TG_PROXY_PROTOCOL_MAX + 1);
}

/* Each bit of what the checksum guards, and of the checksum itself. The bytes between would undo it, not break it. */
static void
a_bit_that_tips_over_is_seen_by_the_checksum(void **state)
{
    static const char sent[] = SIGNATURE "\x21\x11\x00\x19\x7f\0\0\x01\x7f\0\0\x01\xaa\0\x98\x97"
                                         "\x03\0\x04\x0f\xe5\x1d\xc4\x05\0\x03"
                                         "abc";
    static const struct {
        size_t from, to;
    } guarded[] = {{16, 28}, {31, 36}, {38, 41}};
    char header[sizeof sent - 1];
    (void)state;
    assert_int_equal(sizeof header, 41);
    for (size_t range = 0; range < 3; range++) {
        for (size_t bit = guarded[range].from * 8; bit < guarded[range].to * 8; bit++) {
            memcpy(header, sent, sizeof header);
            header[bit / 8] = (char)(header[bit / 8] ^ 1 << bit % 8);
            expect("v2: wrong checksum", header, sizeof header);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_version_1_tell_the_client),
        cmocka_unit_test(a_line_of_another_form_is_refused),
        cmocka_unit_test(a_line_with_another_port_or_address_is_refused),
        cmocka_unit_test(a_line_has_at_most_107_bytes),
        cmocka_unit_test(headers_of_version_2_tell_the_client),
        cmocka_unit_test(another_header_of_version_2_is_refused),
        cmocka_unit_test(the_other_families_are_read_as_far_as_they_are_long),
        cmocka_unit_test(a_header_has_at_most_536_bytes),
        cmocka_unit_test(a_bit_that_tips_over_is_seen_by_the_checksum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
