#include "net/tickets.h"

#include <openssl/rand.h>
#include <string.h>
#include <sys/mman.h>

struct tg_tickets *
tg_tickets_new(void)
{
    struct tg_tickets *tickets = mmap(NULL, sizeof *tickets, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tickets == MAP_FAILED) {
        return NULL;
    }
    (void)mlock(tickets, sizeof *tickets);
    (void)madvise(tickets, sizeof *tickets, MADV_DONTDUMP);
    for (unsigned i = 0; i < TG_TICKETS_KEPT; i++) {
        tg_tickets_rotate(tickets, UINT64_MAX);
    }
    tickets->rotate_at = 0;
    return tickets;
}

void
tg_tickets_free(struct tg_tickets *tickets)
{
    if (tickets != NULL) {
        (void)munmap(tickets, sizeof *tickets);
    }
}

void
tg_tickets_rotate(struct tg_tickets *tickets, uint64_t now)
{
    struct tg_ticket_key fresh;
    if (tickets->rotate_at == 0 && now != UINT64_MAX) {
        tickets->rotate_at = now + TG_TICKETS_HOURS * 3600000ULL;
    }
    if (now < tickets->rotate_at || RAND_bytes((unsigned char *)&fresh, sizeof fresh) != 1) {
        return; /* without randomness the old key serves on */
    }
    atomic_fetch_add(&tickets->version, 1);
    memmove(&tickets->keys[1], &tickets->keys[0], (TG_TICKETS_KEPT - 1) * sizeof fresh);
    tickets->keys[0] = fresh;
    atomic_fetch_add(&tickets->version, 1);
    tickets->rotate_at = now + TG_TICKETS_HOURS * 3600000ULL;
}

enum tg_rc
tg_tickets_find(const struct tg_tickets *tickets, const unsigned char *name, struct tg_ticket_key *out, bool *old)
{
    struct tg_ticket_key keys[TG_TICKETS_KEPT];
    uint64_t before;
    do { /* the master writes for less than a microsecond, twice a day */
        before = atomic_load(&tickets->version);
        memcpy(keys, tickets->keys, sizeof keys);
        atomic_thread_fence(memory_order_acquire);
    } while ((before & 1) != 0 || before != atomic_load(&tickets->version));
    for (unsigned i = 0; i < TG_TICKETS_KEPT; i++) {
        if (name == NULL || memcmp(keys[i].name, name, TG_TICKET_NAME) == 0) {
            *out = keys[i];
            *old = i > 0;
            return TG_OK;
        }
    }
    return TG_ENONE;
}
