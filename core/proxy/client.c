#include "proxy/client.h"

#include <string.h>
#include <sys/random.h>

#include "base/map.h"
#include "base/mem.h"

enum { BUCKETS_MIN = 256, KEY = 9 };

struct tg_client {
    struct tg_client *next;
    uint32_t hash;
    uint32_t open;
    unsigned char key[KEY]; /* the family's mark, then what counts of the address */
};

static void
key_of(const struct tg_address *address, unsigned char key[KEY])
{
    memset(key, 0, KEY);
    if (address->sa.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &address->sa, sizeof in);
        memcpy(key + 1, &in.sin_addr, 4);
        return;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &address->sa, sizeof in6);
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        memcpy(key + 1, in6.sin6_addr.s6_addr + 12, 4);
        return;
    }
    key[0] = 6;
    memcpy(key + 1, in6.sin6_addr.s6_addr, 8);
}

/* Without memory for more buckets the chains grow longer, no more. */
static void
grow(struct tg_clients *clients)
{
    const unsigned count = clients->bucket_count == 0 ? BUCKETS_MIN : clients->bucket_count * 2;
    struct tg_client **buckets = tg_mem_zero(count * sizeof(struct tg_client *));
    if (buckets == NULL) {
        return;
    }
    if (clients->bucket_count == 0) {
        const ssize_t random = getrandom(&clients->seed, sizeof clients->seed, 0);
        (void)random; /* a seed of 0 still works */
    }
    for (unsigned i = 0; i < clients->bucket_count; i++) {
        while (clients->buckets[i] != NULL) {
            struct tg_client *client = clients->buckets[i];
            clients->buckets[i] = client->next;
            client->next = buckets[client->hash & (count - 1)];
            buckets[client->hash & (count - 1)] = client;
        }
    }
    tg_mem_free(clients->buckets);
    clients->buckets = buckets;
    clients->bucket_count = count;
}

struct tg_client *
tg_client_enter(struct tg_clients *clients, const struct tg_address *address, unsigned *open)
{
    unsigned char key[KEY];
    if (clients->count >= clients->bucket_count) {
        grow(clients);
    }
    if (clients->bucket_count == 0) {
        return NULL;
    }
    key_of(address, key);
    const uint32_t hash = (uint32_t)tg_hash(clients->seed, (const char *)key, KEY);
    struct tg_client **bucket = &clients->buckets[hash & (clients->bucket_count - 1)];
    struct tg_client *client = *bucket;
    while (client != NULL && (client->hash != hash || memcmp(client->key, key, KEY) != 0)) {
        client = client->next;
    }
    if (client == NULL) {
        client = tg_mem_new(struct tg_client);
        if (client == NULL) {
            return NULL;
        }
        client->hash = hash;
        memcpy(client->key, key, KEY);
        client->next = *bucket;
        *bucket = client;
        clients->count++;
    }
    *open = ++client->open;
    return client;
}

void
tg_client_leave(struct tg_clients *clients, struct tg_client *client)
{
    if (client == NULL || --client->open > 0) {
        return;
    }
    struct tg_client **link = &clients->buckets[client->hash & (clients->bucket_count - 1)];
    while (*link != client) {
        link = &(*link)->next;
    }
    *link = client->next;
    clients->count--;
    tg_mem_free(client);
}
