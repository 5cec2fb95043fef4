#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum tg_rc
tg_address_parse(struct tg_address *address, const char *text, unsigned port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->sa;
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        address->len = sizeof *v4;
        return TG_OK;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        address->len = sizeof *v6;
        return TG_OK;
    }
    return TG_EINVAL;
}

enum tg_rc
tg_address_of_path(struct tg_address *address, const char *path)
{
    struct sockaddr_un *local = (struct sockaddr_un *)&address->sa;
    const size_t n = strlen(path);
    if (n == 0 || n >= sizeof local->sun_path) {
        return TG_EINVAL;
    }
    memset(address, 0, sizeof *address);
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, path, n + 1);
    address->len = sizeof *local;
    return TG_OK;
}

/* inet_ntop goes through a format: this is on the path of each request. */
static size_t
text_of_v4(const unsigned char *byte, char *out)
{
    char *p = out;
    for (int i = 0; i < 4; i++) {
        if (i > 0) {
            *p++ = '.';
        }
        if (byte[i] >= 100) {
            *p++ = (char)('0' + byte[i] / 100);
        }
        if (byte[i] >= 10) {
            *p++ = (char)('0' + byte[i] / 10 % 10);
        }
        *p++ = (char)('0' + byte[i] % 10);
    }
    *p = '\0';
    return (size_t)(p - out);
}

size_t
tg_address_text(const struct tg_address *address, char *out)
{
    if (address->sa.ss_family == AF_INET) {
        return text_of_v4((const unsigned char *)&((const struct sockaddr_in *)&address->sa)->sin_addr, out);
    }
    if (address->sa.ss_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&address->sa)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(v6)) {
            return text_of_v4(v6->s6_addr + 12, out);
        }
        if (inet_ntop(AF_INET6, v6, out, TG_ADDRESS_TEXT) != NULL) {
            return strlen(out);
        }
    }
    out[0] = '\0';
    return 0;
}

unsigned
tg_address_port(const struct tg_address *address)
{
    if (address->sa.ss_family == AF_INET) {
        return ntohs(((const struct sockaddr_in *)&address->sa)->sin_port);
    }
    if (address->sa.ss_family == AF_INET6) {
        return ntohs(((const struct sockaddr_in6 *)&address->sa)->sin6_port);
    }
    return 0;
}

static bool
is_private_v4(const unsigned char *a)
{
    static const struct {
        unsigned char bytes[4];
        unsigned char bits;
    } networks[] = {{{0}, 8},         {{10}, 8},       {{100, 64}, 10},      {{127}, 8},
                    {{169, 254}, 16}, {{172, 16}, 12}, {{192, 0, 0}, 24},    {{192, 0, 2}, 24},
                    {{192, 168}, 16}, {{198, 18}, 15}, {{198, 51, 100}, 24}, {{203, 0, 113}, 24},
                    {{224}, 3}};
    const uint32_t address = ((uint32_t)a[0] << 24) | ((uint32_t)a[1] << 16) | ((uint32_t)a[2] << 8) | a[3];
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
        const unsigned char *n = networks[i].bytes;
        const uint32_t network = ((uint32_t)n[0] << 24) | ((uint32_t)n[1] << 16) | ((uint32_t)n[2] << 8) | n[3];
        if (((address ^ network) >> (32 - networks[i].bits)) == 0) {
            return true;
        }
    }
    return false;
}

bool
tg_address_is_private(const struct tg_address *address)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const unsigned char translated[12] = {0, 0x64, 0xff, 0x9b};
    if (address->sa.ss_family == AF_INET) {
        return is_private_v4((const unsigned char *)&((const struct sockaddr_in *)&address->sa)->sin_addr);
    }
    if (address->sa.ss_family != AF_INET6) {
        return true;
    }
    const unsigned char *a = ((const struct sockaddr_in6 *)&address->sa)->sin6_addr.s6_addr;
    if (memcmp(a, mapped, sizeof mapped) == 0 || memcmp(a, translated, sizeof translated) == 0) {
        return is_private_v4(a + 12);
    }
    if (a[0] == 0x20 && a[1] == 0x02) {
        return is_private_v4(a + 2);
    }
    /* What is given out of 2000::/3 is the Internet; all else is local, reserved or multicast. */
    return (a[0] & 0xe0) != 0x20 || (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8);
}
