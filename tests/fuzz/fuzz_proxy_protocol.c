/*
 * fuzz_proxy_protocol.c - what stands before the client's bytes, cut at each place.
 *
 * Oracles beside the sanitizers: where the bytes are cut changes nothing; nothing behind the header is looked at; the
 * addresses that were accepted are written in both versions and accepted again as the same.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/proxy_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void
must(bool condition)
{
    if (!condition) {
        abort();
    }
}

static bool
same_addresses(const struct tg_proxy_protocol *a, const struct tg_proxy_protocol *b)
{
    return memcmp(&a->source.sa, &b->source.sa, sizeof a->source.sa) == 0 &&
           memcmp(&a->destination.sa, &b->destination.sa, sizeof a->destination.sa) == 0 &&
           a->source.len == b->source.len && a->destination.len == b->destination.len;
}

static void
check_cuts(const char *p, size_t n, enum tg_rc rc, const struct tg_proxy_protocol *whole, const char *why)
{
    bool decided = false;
    for (size_t k = 0; k <= n; k++) {
        struct tg_proxy_protocol header = {.length = 0};
        const char *reason = NULL;
        const enum tg_rc cut = tg_proxy_protocol_parse(&header, p, k, &reason);
        if (cut == TG_AGAIN && !decided) {
            continue;
        }
        decided = true;
        must(cut == rc);
        must(rc != TG_OK || (k >= whole->length && header.length == whole->length && header.kind == whole->kind &&
                             same_addresses(&header, whole)));
        must(rc != TG_EPROTOCOL || (reason != NULL && strcmp(reason, why) == 0));
    }
    must(decided == (rc != TG_AGAIN));
    must(rc != TG_OK ||
         tg_proxy_protocol_parse(&(struct tg_proxy_protocol){0}, p, whole->length - 1, &why) == TG_AGAIN);
}

static const void *
bytes_of(const struct tg_address *address, size_t *n)
{
    if (address->sa.ss_family == AF_INET) {
        *n = 4;
        return &((const struct sockaddr_in *)&address->sa)->sin_addr;
    }
    must(address->sa.ss_family == AF_INET6);
    *n = 16;
    return &((const struct sockaddr_in6 *)&address->sa)->sin6_addr;
}

static void
accepted_as_the_same(const struct tg_proxy_protocol *header, const char *p, size_t n)
{
    struct tg_proxy_protocol again;
    const char *why = NULL;
    must(tg_proxy_protocol_parse(&again, p, n, &why) == TG_OK);
    must(again.kind == TG_PROXY_PROTOCOL_ADDRESSES && again.length == n && same_addresses(header, &again));
}

static void
check_written(const struct tg_proxy_protocol *header)
{
    static const char fixed[] = "\r\n\r\n\0\r\nQUIT\n\x21";
    size_t size = 0;
    size_t other = 0;
    char source[INET6_ADDRSTRLEN];
    char destination[INET6_ADDRSTRLEN];
    char out[TG_PROXY_PROTOCOL_V1_MAX + 1];
    const void *from = bytes_of(&header->source, &size);
    const void *to = bytes_of(&header->destination, &other);
    const unsigned ports[] = {tg_address_port(&header->source), tg_address_port(&header->destination)};
    must(size == other);
    must(inet_ntop(header->source.sa.ss_family, from, source, sizeof source) != NULL);
    must(inet_ntop(header->destination.sa.ss_family, to, destination, sizeof destination) != NULL);
    const int length = snprintf(out, sizeof out, "PROXY TCP%c %s %s %u %u\r\n", size == 4 ? '4' : '6', source,
                                destination, ports[0], ports[1]);
    must(length > 0 && length <= TG_PROXY_PROTOCOL_V1_MAX);
    accepted_as_the_same(header, out, (size_t)length);

    memcpy(out, fixed, 13);
    out[13] = size == 4 ? 0x11 : 0x21;
    out[14] = 0;
    out[15] = (char)(2 * size + 4);
    memcpy(out + 16, from, size);
    memcpy(out + 16 + size, to, size);
    for (size_t i = 0; i < 2; i++) {
        out[16 + 2 * size + 2 * i] = (char)(ports[i] >> 8);
        out[17 + 2 * size + 2 * i] = (char)ports[i];
    }
    accepted_as_the_same(header, out, 20 + 2 * size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tg_proxy_protocol header = {.length = 0};
    const char *why = NULL;
    if (n > 2UL * TG_PROXY_PROTOCOL_MAX) {
        return 0;
    }
    const char *p = (const char *)bytes;
    const enum tg_rc rc = tg_proxy_protocol_parse(&header, p, n, &why);
    must(rc == TG_OK || rc == TG_AGAIN || rc == TG_EPROTOCOL);
    must(rc != TG_AGAIN || n < TG_PROXY_PROTOCOL_MAX);
    must(rc != TG_OK || (header.length > 0 && header.length <= n && header.length <= TG_PROXY_PROTOCOL_MAX));
    check_cuts(p, n, rc, &header, why);
    if (rc == TG_OK && header.kind == TG_PROXY_PROTOCOL_ADDRESSES) {
        check_written(&header);
    }
    return 0;
}
