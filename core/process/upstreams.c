#include "process/upstreams.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64, REASON = 160, CUT = 96 };
static const uint64_t FOR_GOOD = 365ULL * 86400 * 1000; /* milliseconds */

struct show {
    const struct tg_upstreams *upstreams;
    const char *only; /* empty: all */
    char *out;
    size_t n;
    size_t size; /* less what the last line needs */
    unsigned left_out;
    unsigned peers;
    unsigned up;
};

static void put(struct show *show, const char *format, ...) TG_PRINTF(2, 3);

static void
put(struct show *show, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(show->out + show->n, show->size - show->n, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= show->size - show->n) {
        show->out[show->n] = '\0';
        show->left_out++;
    } else {
        show->n += (size_t)n;
    }
}

static double
seconds_until_breaker(const struct show *show, const struct tg_abi_cell *cell)
{
    const double left = cell->breaker_until * 0.032 - (double)show->upstreams->now / 1000;
    return left > 0 ? left : 0;
}

/* What of a breaker there is to say; empty: it is closed. */
static void
describe_breaker(const struct show *show, const struct tg_abi_cell *cell, char out[REASON])
{
    out[0] = '\0';
    switch (cell->breaker & 3) {
    case TG_BREAKER_OPEN:
        (void)snprintf(out, REASON, "breaker open for %.1f s", seconds_until_breaker(show, cell));
        break;
    case TG_BREAKER_HALF_OPEN:
    case TG_BREAKER_FAILED:
        (void)snprintf(out, REASON, "breaker half-open, %u of %u probes went well", cell->breaker >> 24,
                       cell->breaker >> 16 & 255);
        break;
    default:
        break;
    }
}

/* Why the peer gets no requests; "up" when it does. */
static bool
describe_peer(const struct show *show, const struct tg_abi_cell *cell, char out[REASON])
{
    const double ejected = cell->ejected_until - (double)show->upstreams->now / 1000;
    if ((cell->flags & TG_CELL_DOWN) != 0) {
        (void)snprintf(out, REASON, "down (by hand)");
    } else if ((cell->flags & TG_CELL_DRAIN) != 0) {
        (void)snprintf(out, REASON, "drained (by hand)");
    } else if ((cell->flags & TG_CELL_UNHEALTHY) != 0) {
        (void)snprintf(out, REASON, "unhealthy (its checks fail)");
    } else if (ejected > 0) {
        (void)snprintf(out, REASON, "ejected for %.1f s (%u in a row)", ejected, cell->ejections);
    } else {
        describe_breaker(show, cell, out);
        if (out[0] == '\0') {
            (void)snprintf(out, REASON, "up");
            return true;
        }
    }
    return false;
}

static void
count_peer(void *arg, const char *key, struct tg_abi_cell *cell)
{
    struct show *show = arg;
    char reason[REASON];
    (void)key;
    show->peers++;
    show->up += describe_peer(show, cell, reason);
}

static void
put_peer(void *arg, const char *key, struct tg_abi_cell *cell)
{
    struct show *show = arg;
    char reason[REASON];
    const char *name = strchr(key + 2, ':');
    (void)describe_peer(show, cell, reason);
    put(show, "  peer %s  %s, in flight %u, %.1f ms, requests %llu, failed %llu\n", name == NULL ? key : name + 1,
        reason, cell->in_flight, (double)cell->latency * 1000, (unsigned long long)cell->requests,
        (unsigned long long)cell->failures);
}

static void
put_upstream(void *arg, const char *key, struct tg_abi_cell *cell)
{
    struct show *show = arg;
    char peers[NAME_MAX_BYTES + 4];
    char breaker[REASON];
    const char *name = key + 2;
    if (show->only[0] != '\0' && strcmp(show->only, name) != 0) {
        return;
    }
    (void)snprintf(peers, sizeof peers, "p:%s:", name);
    show->peers = show->up = 0;
    tg_cells_each(show->upstreams->cells, tg_cells_mark(show->upstreams->generation), peers, count_peer, show);
    describe_breaker(show, cell, breaker);
    put(show, "upstream    %s: %u of %u peer%s up", name, show->up, show->peers, show->peers == 1 ? "" : "s");
    if (breaker[0] != '\0') {
        put(show, ", %s", breaker);
    }
    if (cell->limit != 0) {
        put(show, ", limit %u", cell->limit);
    }
    if (cell->waiting != 0) {
        put(show, ", %u waiting", cell->waiting);
    }
    if (cell->retries != 0) {
        put(show, ", retries %llu", (unsigned long long)cell->retries);
    }
    put(show, "\n");
    tg_cells_each(show->upstreams->cells, tg_cells_mark(show->upstreams->generation), peers, put_peer, show);
}

static void
put_route(void *arg, const char *key, struct tg_abi_cell *cell)
{
    struct show *show = arg;
    char breaker[REASON];
    describe_breaker(show, cell, breaker);
    if (show->only[0] != '\0' && strcmp(show->only, key + 2) != 0) {
        return;
    }
    put(show, "route       %s: %s, in flight %u, waiting %u\n", key + 2,
        breaker[0] == '\0' ? "breaker closed" : breaker, cell->in_flight, cell->waiting);
}

size_t
tg_upstreams_show(const struct tg_upstreams *upstreams, const char *name, char *out, size_t size)
{
    struct show show = {.upstreams = upstreams, .only = name, .out = out, .size = size - CUT};
    const uint64_t mark = tg_cells_mark(upstreams->generation);
    out[0] = '\0';
    tg_cells_each(upstreams->cells, mark, "u:", put_upstream, &show);
    if (name[0] == '\0') {
        tg_cells_each(upstreams->cells, mark, "r:", put_route, &show);
    }
    if (show.left_out > 0) {
        show.size = size;
        put(&show, "and %u more (see: tidegate upstream NAME)\n", show.left_out);
    }
    return show.n;
}

/* ------------------------------------------------------------------ commands */

static bool
refuse(char *out, size_t size, const char *text, const char *what)
{
    (void)snprintf(out, size, "%s: %s\n", what, text);
    return false;
}

/* "up" also forgives what the peer has done so far. */
static void
bring_up(struct tg_abi_cell *peer, uint64_t now)
{
    double none = 0;
    double since = (double)now / 1000;
    __atomic_store(&peer->up_since, &since, __ATOMIC_RELAXED);
    (void)tg_cell_flag(peer, 0, TG_CELL_DOWN | TG_CELL_DRAIN);
    __atomic_store(&peer->ejected_until, &none, __ATOMIC_RELAXED);
    __atomic_store_n(&peer->ejections, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&peer->consecutive, 0, __ATOMIC_RELAXED);
    while (tg_cell_breaker_set(peer, __atomic_load_n(&peer->breaker, __ATOMIC_ACQUIRE), TG_BREAKER_CLOSED, 0) !=
           TG_OK) {
    }
}

/* An operator opens a breaker for good, or closes it; also that of an upstream that has none of its own: nothing asks
 * it then. */
static bool
set_breaker(const struct tg_upstreams *upstreams, const char *kind, const char *name, const char *verb)
{
    char key[TG_CELL_KEY_MAX + 1];
    const bool opens = strcmp(verb, "open") == 0;
    (void)snprintf(key, sizeof key, "%s:%s", kind, name);
    struct tg_abi_cell *cell = tg_cells_find(upstreams->cells, key, strlen(key));
    if (cell == NULL || cell->mark != tg_cells_mark(upstreams->generation)) {
        return false;
    }
    while (tg_cell_breaker_set(cell, __atomic_load_n(&cell->breaker, __ATOMIC_ACQUIRE),
                               opens ? TG_BREAKER_OPEN : TG_BREAKER_CLOSED,
                               upstreams->now + (opens ? FOR_GOOD : 0)) != TG_OK) {
    }
    return true;
}

static bool
change_peer(const struct tg_upstreams *upstreams, const char *name, const char *verb, const char *peer_name, char *out,
            size_t size)
{
    char key[TG_CELL_KEY_MAX + 1];
    (void)snprintf(key, sizeof key, "u:%s", name);
    struct tg_abi_cell *upstream = tg_cells_find(upstreams->cells, key, strlen(key));
    (void)snprintf(key, sizeof key, "p:%s:%s", name, peer_name);
    struct tg_abi_cell *peer = tg_cells_find(upstreams->cells, key, strlen(key));
    const uint64_t mark = tg_cells_mark(upstreams->generation);
    if (upstream == NULL || upstream->mark != mark) {
        return refuse(out, size, "there is no such upstream", name);
    }
    if (peer == NULL || peer->mark != mark) {
        return refuse(out, size, "it has no such peer", peer_name);
    }
    if (strcmp(verb, "up") == 0) {
        bring_up(peer, upstreams->now);
    } else if (strcmp(verb, "down") == 0) {
        (void)tg_cell_flag(peer, TG_CELL_DOWN, TG_CELL_DRAIN);
    } else if (strcmp(verb, "drain") == 0) {
        (void)tg_cell_flag(peer, TG_CELL_DRAIN, TG_CELL_DOWN);
    } else {
        return refuse(out, size, "not a command: up, down, drain", verb);
    }
    __atomic_fetch_add(&upstream->version, 1, __ATOMIC_RELEASE);
    (void)tg_upstreams_show(upstreams, name, out, size);
    return true;
}

bool
tg_upstreams_command(const struct tg_upstreams *upstreams, const char *line, char *out, size_t size)
{
    char name[NAME_MAX_BYTES] = "";
    char verb[16] = "";
    char peer[304] = "";
    const int words = sscanf(line, "%63s %15s %303s", name, verb, peer);
    if (words == 2 && (strcmp(verb, "open") == 0 || strcmp(verb, "close") == 0)) {
        if (!set_breaker(upstreams, "u", name, verb)) {
            return refuse(out, size, "there is no such upstream", name);
        }
        (void)tg_upstreams_show(upstreams, name, out, size);
        return true;
    }
    if (words >= 2) {
        return words == 3
                   ? change_peer(upstreams, name, verb, peer, out, size)
                   : refuse(out, size,
                            "a peer is needed: tidegate upstream NAME up|down|drain PEER, or NAME open|close", name);
    }
    if (tg_upstreams_show(upstreams, name, out, size) == 0 && name[0] != '\0') {
        return refuse(out, size, "there is no such upstream", name);
    }
    return true;
}

bool
tg_upstreams_route(const struct tg_upstreams *upstreams, const char *line, char *out, size_t size)
{
    char name[NAME_MAX_BYTES] = "";
    char verb[16] = "";
    char more[2] = "";
    struct show show = {.upstreams = upstreams, .only = name, .out = out, .size = size - CUT};
    const int words = sscanf(line, "%63s %15s %1s", name, verb, more);
    if (words >= 2 && (words > 2 || (strcmp(verb, "open") != 0 && strcmp(verb, "close") != 0))) {
        return refuse(out, size, "not a command: open, close", verb);
    }
    if (words == 2 && !set_breaker(upstreams, "r", name, verb)) {
        return refuse(out, size, "there is no such route that has a breaker or a bulkhead", name);
    }
    out[0] = '\0';
    tg_cells_each(upstreams->cells, tg_cells_mark(upstreams->generation), "r:", put_route, &show);
    return true;
}
