#include "net/proxy_protocol.h"

#include <netinet/in.h>
#include <string.h>

enum {
    V2_SIGNATURE = 12,
    V2_FIXED = 16,
    V2_INET = 12,   /* 2 * 4 + 2 * 2 */
    V2_INET6 = 36,  /* 2 * 16 + 2 * 2 */
    V2_UNIX = 216,  /* 2 * 108 */
    TLV_FIXED = 3,  /* type, length */
    TLV_CRC32C = 3, /* section 2.2.3 */
    CRC32C_SIZE = 4
};

/* Version and command, family and transport: section 2.2. */
enum { V2_LOCAL = 0x20, V2_PROXY = 0x21, V2_UNSPEC = 0x00, V2_TCP4 = 0x11, V2_TCP6 = 0x21, V2_UNIX_STREAM = 0x31 };

static const char v1_prefix[] = "PROXY ";
static const char v2_signature[] = "\r\n\r\n\0\r\nQUIT\n";

static enum tg_rc
refuse(const char **why, const char *text)
{
    *why = text;
    return TG_EPROTOCOL;
}

/*
 * The line up to its CRLF. Decoding waits for it (section 2.1); that it will not come is said as soon as it is known.
 */
static enum tg_rc
find_line(const char *p, size_t n, size_t *length, const char **why)
{
    for (size_t i = 0; i < n && i < TG_PROXY_PROTOCOL_V1_MAX; i++) {
        if (p[i] == '\n') {
            return refuse(why, "v1: LF without CR");
        }
        if (p[i] != '\r') {
            continue;
        }
        if (i + 1 == TG_PROXY_PROTOCOL_V1_MAX) {
            break;
        }
        if (i + 1 == n) {
            return TG_AGAIN;
        }
        if (p[i + 1] != '\n') {
            return refuse(why, "v1: CR without LF");
        }
        *length = i;
        return TG_OK;
    }
    return n < TG_PROXY_PROTOCOL_V1_MAX ? TG_AGAIN : refuse(why, "v1: line longer than 107 bytes");
}

/* A port: 0 to 65535 in decimal digits without leading zeros. */
static bool
parse_port(const char *text, unsigned *port)
{
    const size_t n = strlen(text);
    unsigned value = 0;
    if (n == 0 || n > 5 || (n > 1 && text[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *port = value;
    return value <= 65535;
}

/*
 * Source, destination and their ports, each after one space. `line` is a copy that is cut into texts.
 * IPv6 with a dotted end (::ffff:192.0.2.1) is taken: so do senders behind dual-stack sockets write their IPv4 clients.
 */
static enum tg_rc
parse_v1_addresses(struct tg_proxy_protocol *header, char *line, int family, const char **why)
{
    char *fields[4];
    unsigned source_port = 0;
    unsigned destination_port = 0;
    for (size_t i = 0; i < 4; i++) {
        char *space = strchr(line, ' ');
        if ((space == NULL) != (i == 3)) {
            return refuse(why, "v1: not four fields with one space between");
        }
        fields[i] = line;
        if (space != NULL) {
            *space = '\0';
            line = space + 1;
        }
    }
    if (!parse_port(fields[2], &source_port) || !parse_port(fields[3], &destination_port)) {
        return refuse(why, "v1: bad port");
    }
    if (tg_address_parse(&header->source, fields[0], source_port) != TG_OK ||
        tg_address_parse(&header->destination, fields[1], destination_port) != TG_OK) {
        return refuse(why, "v1: bad address");
    }
    if (header->source.sa.ss_family != family || header->destination.sa.ss_family != family) {
        return refuse(why, "v1: address of another family");
    }
    return TG_OK;
}

/* Section 2.1. `p` begins with v1_prefix. */
static enum tg_rc
parse_v1(struct tg_proxy_protocol *header, const char *p, size_t n, const char **why)
{
    static const char unknown[] = "UNKNOWN";
    char line[TG_PROXY_PROTOCOL_V1_MAX];
    size_t length = 0;
    enum tg_rc rc = find_line(p, n, &length, why);
    if (rc != TG_OK) {
        return rc;
    }
    header->length = length + 2;
    p += sizeof v1_prefix - 1;
    length -= sizeof v1_prefix - 1;
    memcpy(line, p, length);
    line[length] = '\0';
    const size_t word = strcspn(line, " ");
    if (word == sizeof unknown - 1 && memcmp(line, unknown, word) == 0 && (word == length || line[word] == ' ')) {
        header->kind = TG_PROXY_PROTOCOL_UNKNOWN;
        return TG_OK;
    }
    if (memchr(line, '\0', length) != NULL) {
        return refuse(why, "v1: NUL in the line");
    }
    if (word != 4 || memcmp(line, "TCP", 3) != 0 || (line[3] != '4' && line[3] != '6')) {
        return refuse(why, "v1: neither TCP4, TCP6 nor UNKNOWN");
    }
    header->kind = TG_PROXY_PROTOCOL_ADDRESSES;
    return parse_v1_addresses(header, line + word + (line[word] == ' '), line[3] == '4' ? AF_INET : AF_INET6, why);
}

static unsigned
number16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static uint32_t
number32(const uint8_t *p)
{
    return (uint32_t)number16(p) << 16 | number16(p + 2);
}

/*
 * CRC32c of the header as if the four bytes at `hole` were zero (section 2.2.3; polynomial of RFC 4960, appendix B,
 * reflected). Bit by bit: once a connection over a hundred bytes, no table is worth its cache lines.
 */
static uint32_t
crc32c_without(const uint8_t *p, size_t n, size_t hole)
{
    uint32_t crc = 0xffffffffU;
    for (size_t i = 0; i < n; i++) {
        crc ^= i - hole < CRC32C_SIZE ? 0 : p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0x82f63b78U & (0U - (crc & 1)));
        }
    }
    return ~crc;
}

/* The vectors behind the addresses must fill the header; none but the checksum is read. */
static enum tg_rc
check_tlvs(const uint8_t *p, size_t n, size_t at, const char **why)
{
    size_t checksum = 0;
    while (at < n) {
        if (n - at < TLV_FIXED || n - at - TLV_FIXED < number16(p + at + 1)) {
            return refuse(why, "v2: TLV beyond the end");
        }
        if (p[at] == TLV_CRC32C) {
            if (number16(p + at + 1) != CRC32C_SIZE) {
                return refuse(why, "v2: checksum not of 4 bytes");
            }
            if (checksum != 0) { /* which of the two would be zero while the other is computed? */
                return refuse(why, "v2: two checksums");
            }
            checksum = at + TLV_FIXED;
        }
        at += TLV_FIXED + number16(p + at + 1);
    }
    /* Network order, as HAProxy sends and reads it; the section says no more than "32-bit number". */
    if (checksum != 0 && crc32c_without(p, n, checksum) != number32(p + checksum)) {
        return refuse(why, "v2: wrong checksum");
    }
    return TG_OK;
}

static void
set_v4(struct tg_address *address, const uint8_t *bytes, const uint8_t *port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->sa;
    v4->sin_family = AF_INET;
    memcpy(&v4->sin_addr, bytes, 4);
    memcpy(&v4->sin_port, port, 2);
    address->len = sizeof *v4;
}

static void
set_v6(struct tg_address *address, const uint8_t *bytes, const uint8_t *port)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->sa;
    v6->sin6_family = AF_INET6;
    memcpy(&v6->sin6_addr, bytes, 16);
    memcpy(&v6->sin6_port, port, 2);
    address->len = sizeof *v6;
}

/* The 14th byte. A receiver may reject what it does not implement: UDP, and one half UNSPEC, do not reach a TCP port.
 */
static enum tg_rc
read_family(unsigned family, enum tg_proxy_protocol_kind *kind, size_t *size, const char **why)
{
    *kind = TG_PROXY_PROTOCOL_ADDRESSES;
    switch (family) {
    case V2_UNSPEC:
        *kind = TG_PROXY_PROTOCOL_UNKNOWN;
        *size = 0;
        return TG_OK;
    case V2_TCP4:
        *size = V2_INET;
        return TG_OK;
    case V2_TCP6:
        *size = V2_INET6;
        return TG_OK;
    case V2_UNIX_STREAM:
        *kind = TG_PROXY_PROTOCOL_UNIX;
        *size = V2_UNIX;
        return TG_OK;
    default:
        return refuse(why, "v2: family or transport not of a stream");
    }
}

/* Section 2.2. `p` begins with v2_signature as far as it goes. */
static enum tg_rc
parse_v2(struct tg_proxy_protocol *header, const uint8_t *p, size_t n, const char **why)
{
    size_t size = 0;
    enum tg_rc rc = TG_OK;
    if (n > V2_SIGNATURE && p[12] != V2_LOCAL && p[12] != V2_PROXY) {
        return refuse(why, p[12] >> 4 == 2 ? "v2: unknown command" : "v2: unknown version");
    }
    header->kind = TG_PROXY_PROTOCOL_LOCAL;
    if (n > V2_SIGNATURE + 1 && p[12] == V2_PROXY) { /* of LOCAL the family is ignored */
        rc = read_family(p[13], &header->kind, &size, why);
        if (rc != TG_OK) {
            return rc;
        }
    }
    if (n < V2_FIXED) {
        return TG_AGAIN;
    }
    header->length = V2_FIXED + number16(p + 14);
    if (header->length > TG_PROXY_PROTOCOL_MAX) {
        return refuse(why, "v2: header longer than 536 bytes");
    }
    if (header->length < V2_FIXED + size) {
        return refuse(why, "v2: header shorter than its addresses");
    }
    if (n < header->length) {
        return TG_AGAIN;
    }
    /* Where TLVs would begin is not known without a family: the block is skipped as a whole, as it must be for LOCAL.
     */
    if (header->kind == TG_PROXY_PROTOCOL_LOCAL || header->kind == TG_PROXY_PROTOCOL_UNKNOWN) {
        return TG_OK;
    }
    rc = check_tlvs(p, header->length, V2_FIXED + size, why);
    if (rc == TG_OK && size == V2_INET) {
        set_v4(&header->source, p + V2_FIXED, p + V2_FIXED + 8);
        set_v4(&header->destination, p + V2_FIXED + 4, p + V2_FIXED + 10);
    } else if (rc == TG_OK && size == V2_INET6) {
        set_v6(&header->source, p + V2_FIXED, p + V2_FIXED + 32);
        set_v6(&header->destination, p + V2_FIXED + 16, p + V2_FIXED + 34);
    }
    return rc;
}

static bool
begins_with(const char *p, size_t n, const char *prefix, size_t size)
{
    return memcmp(p, prefix, n < size ? n : size) == 0;
}

enum tg_rc
tg_proxy_protocol_parse(struct tg_proxy_protocol *header, const char *p, size_t n, const char **why)
{
    struct tg_proxy_protocol parsed = {0};
    enum tg_rc rc = TG_AGAIN;
    if (n == 0) {
        return TG_AGAIN;
    }
    if (begins_with(p, n, v1_prefix, sizeof v1_prefix - 1)) {
        rc = parse_v1(&parsed, p, n, why);
    } else if (begins_with(p, n, v2_signature, V2_SIGNATURE)) {
        rc = parse_v2(&parsed, (const uint8_t *)p, n, why);
    } else {
        return refuse(why, "neither a v1 nor a v2 header");
    }
    if (rc == TG_OK) {
        *header = parsed;
    }
    return rc;
}
