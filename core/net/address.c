#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

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
