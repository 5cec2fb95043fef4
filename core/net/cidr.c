#include "net/cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    FAMILY_BITS = 8,
    V4 = 4,
    V6 = 6,
    V4_BITS = 32,
    V6_BITS = 128,
    MAPPED_BITS = 96, /* ::ffff:0:0/96, RFC 4291, section 2.5.5.2 */
    FIRST_CAPACITY = 8,
    TEXT = 50 /* bytes of the longest network: 45 of an address, "/128", NUL */
};

void
tg_cidr_list_init(struct tg_cidr_list *list, unsigned max)
{
    *list = (struct tg_cidr_list){.max = max};
}

void
tg_cidr_list_fini(struct tg_cidr_list *list)
{
    tg_mem_free(list->networks);
    tg_cidr_list_init(list, list->max);
}

/* The network of one that is the address. */
static bool
network_of(struct tg_cidr *network, const struct tg_address *address)
{
    *network = (struct tg_cidr){0};
    if (address->sa.ss_family == AF_INET) {
        network->key[0] = V4;
        network->bits = FAMILY_BITS + V4_BITS;
        memcpy(network->key + 1, &((const struct sockaddr_in *)&address->sa)->sin_addr, 4);
        return true;
    }
    if (address->sa.ss_family != AF_INET6) {
        return false;
    }
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&address->sa)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(v6)) {
        network->key[0] = V4;
        network->bits = FAMILY_BITS + V4_BITS;
        memcpy(network->key + 1, v6->s6_addr + 12, 4);
        return true;
    }
    network->key[0] = V6;
    network->bits = FAMILY_BITS + V6_BITS;
    memcpy(network->key + 1, v6->s6_addr, 16);
    return true;
}

/* Zeroes what lies behind the first `bits`. */
static void
cut(uint8_t *key, unsigned bits)
{
    const unsigned whole = bits / 8;
    if (whole < TG_CIDR_KEY) {
        key[whole] &= (uint8_t)(0xff00U >> bits % 8);
        memset(key + whole + 1, 0, TG_CIDR_KEY - whole - 1);
    }
}

static bool
holds(const struct tg_cidr *network, const uint8_t *key)
{
    const unsigned whole = network->bits / 8;
    const unsigned rest = network->bits % 8;
    return memcmp(network->key, key, whole) == 0 &&
           (rest == 0 || ((network->key[whole] ^ key[whole]) & (0xff00U >> rest)) == 0);
}

/* The number of networks that do not begin behind `key`: the last of them is the only one that may hold it. */
static unsigned
count_up_to(const struct tg_cidr_list *list, const uint8_t *key)
{
    unsigned low = 0;
    unsigned high = list->count;
    while (low < high) {
        const unsigned middle = low + (high - low) / 2;
        if (memcmp(list->networks[middle].key, key, TG_CIDR_KEY) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool
list_holds(const struct tg_cidr_list *list, const uint8_t *key)
{
    const unsigned at = count_up_to(list, key);
    return at > 0 && holds(&list->networks[at - 1], key);
}

static bool
parse_address(struct tg_address *address, const char *p, size_t n)
{
    char text[TG_ADDRESS_TEXT];
    if (n >= sizeof text || memchr(p, '\0', n) != NULL) {
        return false;
    }
    memcpy(text, p, n);
    text[n] = '\0';
    return tg_address_parse(address, text, 0) == TG_OK;
}

/* -1: not a decimal number without sign and leading zeros, or larger than `max`. */
static int
parse_bits(const char *p, size_t n, unsigned max)
{
    unsigned bits = 0;
    if (n == 0 || n > 3 || (n > 1 && p[0] == '0')) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return -1;
        }
        bits = bits * 10 + (unsigned)(p[i] - '0');
    }
    return bits <= max ? (int)bits : -1;
}

/* `network` as text; of a mapped one the IPv4 network that it is. */
static void
text_of(const struct tg_cidr *network, char out[static TEXT])
{
    char text[INET6_ADDRSTRLEN] = "";
    (void)inet_ntop(network->key[0] == V4 ? AF_INET : AF_INET6, network->key + 1, text, sizeof text);
    (void)snprintf(out, TEXT, "%s/%d", text, network->bits - FAMILY_BITS);
}

static enum tg_rc
parse(struct tg_cidr *network, const char *text, size_t n, struct tg_err *err)
{
    const char *slash = n == 0 ? NULL : memchr(text, '/', n);
    const size_t length = slash == NULL ? n : (size_t)(slash - text);
    const int shown = n < TEXT ? (int)n : TEXT;
    struct tg_address address;
    if (n == 0 || !parse_address(&address, text, length) || !network_of(network, &address)) {
        return tg_err_set(err, TG_EINVAL, "found \"%.*s\", expected an address or a network (\"10.0.0.0/8\")", shown,
                          text == NULL ? "" : text);
    }
    if (slash == NULL) {
        return TG_OK;
    }
    const bool mapped = address.sa.ss_family == AF_INET6 && network->key[0] == V4;
    const int most = address.sa.ss_family == AF_INET6 ? V6_BITS : V4_BITS;
    const int least = mapped ? MAPPED_BITS : 0;
    const int bits = parse_bits(slash + 1, n - length - 1, (unsigned)most);
    if (bits < least) {
        return tg_err_set(err, TG_EINVAL, "found \"%.*s\", expected a prefix of %d to %d bits", shown, text, least,
                          most);
    }
    struct tg_cidr whole = *network;
    whole.bits = (uint8_t)(FAMILY_BITS + bits - least);
    cut(whole.key, whole.bits);
    if (memcmp(whole.key, network->key, TG_CIDR_KEY) != 0) {
        char expected[TEXT];
        text_of(&whole, expected);
        return tg_err_set(err, TG_EINVAL, "found \"%.*s\" with bits behind the prefix, expected \"%s\"", shown, text,
                          expected);
    }
    *network = whole;
    return TG_OK;
}

static enum tg_rc
make_room(struct tg_cidr_list *list, struct tg_err *err)
{
    if (list->count >= list->max) {
        return tg_err_set(err, TG_ELIMIT, "found more than %u networks", list->max);
    }
    if (list->count < list->capacity) {
        return TG_OK;
    }
    unsigned capacity = list->capacity == 0 ? FIRST_CAPACITY : list->capacity * 2;
    if (capacity > list->max) {
        capacity = list->max;
    }
    struct tg_cidr *networks = tg_mem_resize(list->networks, capacity * sizeof *networks);
    if (networks == NULL) {
        return TG_ENOMEM;
    }
    list->networks = networks;
    list->capacity = capacity;
    return TG_OK;
}

enum tg_rc
tg_cidr_list_add(struct tg_cidr_list *list, const char *text, size_t n, struct tg_err *err)
{
    struct tg_cidr network;
    enum tg_rc rc = parse(&network, text, n, err);
    if (rc != TG_OK) {
        return rc;
    }
    const unsigned at = count_up_to(list, network.key);
    if (at > 0 && list->networks[at - 1].bits <= network.bits && holds(&list->networks[at - 1], network.key)) {
        return TG_OK;
    }
    /* One that begins where this does is before `at`; what else it holds follows. */
    unsigned first = at;
    if (first > 0 && holds(&network, list->networks[first - 1].key)) {
        first--;
    }
    unsigned end = at;
    while (end < list->count && holds(&network, list->networks[end].key)) {
        end++;
    }
    if (first == end) {
        rc = make_room(list, err);
        if (rc != TG_OK) {
            return rc;
        }
    }
    if (list->count > end) {
        memmove(list->networks + first + 1, list->networks + end, (list->count - end) * sizeof network);
    }
    list->networks[first] = network;
    list->count = list->count - (end - first) + 1;
    return TG_OK;
}

enum tg_rc
tg_cidr_list_append(struct tg_cidr_list *list, const char *text, size_t n, struct tg_err *err)
{
    struct tg_cidr network;
    enum tg_rc rc = parse(&network, text, n, err);
    rc = rc == TG_OK ? make_room(list, err) : rc;
    if (rc == TG_OK) {
        list->networks[list->count++] = network;
    }
    return rc;
}

/* One that holds others comes before them. */
static int
compare(const void *a, const void *b)
{
    const struct tg_cidr *one = a;
    const struct tg_cidr *other = b;
    const int order = memcmp(one->key, other->key, TG_CIDR_KEY);
    return order != 0 ? order : (int)one->bits - (int)other->bits;
}

void
tg_cidr_list_settle(struct tg_cidr_list *list)
{
    unsigned kept = 0;
    if (list->count > 0) {
        qsort(list->networks, list->count, sizeof *list->networks, compare);
    }
    for (unsigned i = 0; i < list->count; i++) {
        if (kept == 0 || !holds(&list->networks[kept - 1], list->networks[i].key)) {
            list->networks[kept++] = list->networks[i];
        }
    }
    list->count = kept;
}

bool
tg_cidr_list_match(const struct tg_cidr_list *list, const struct tg_address *address)
{
    struct tg_cidr one;
    return list->count > 0 && network_of(&one, address) && list_holds(list, one.key);
}

bool
tg_cidr_list_match_text(const struct tg_cidr_list *list, const char *text, size_t n)
{
    struct tg_address address;
    return n > 0 && parse_address(&address, text, n) && tg_cidr_list_match(list, &address);
}
