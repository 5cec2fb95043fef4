#include "net/redis.h"

#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"

enum {
    SPREAD = 64,         /* commands on a connection before another one is used: together they are cheaper */
    BACKOFF = 10,        /* milliseconds between two attempts to connect, doubled with each that fails */
    SILENT_FOR = 1000,   /* milliseconds: a connection that owes for so long is given up */
    NODE_NAME = 255 + 10 /* bytes */
};

struct node {
    struct tg_redis_server server; /* first: links lead back to the node */
    struct tg_redis *redis;
    struct tg_redis_link *links;
    unsigned index;
    unsigned assigned;        /* slots */
    unsigned mirrored;        /* slots whose replica it is */
    unsigned own;             /* connections that belong to a command or a subscription */
    unsigned failures;        /* in a row */
    unsigned rounds;          /* how often the breaker has been opened in a row */
    bool open;                /* the breaker: nothing goes there but a probe */
    uint64_t not_before;      /* milliseconds: of the next attempt to connect */
    struct tg_deadline retry; /* of the probe */
    struct tg_redis_command *probe;
    char why[TG_REDIS_WHY];
    char name[NODE_NAME];
};

struct tg_redis {
    struct tg_redis_commands commands; /* first: commands lead back to the client */
    struct tg_loop *loop;
    struct tg_resolver *resolver;
    struct tg_tls_client *tls;
    struct tg_abi_redis_settings settings;
    char *texts; /* of the settings */
    tg_redis_command_cb done;
    struct tg_abi_redis_counts counts;
    struct node *nodes[TG_REDIS_NODES];
    unsigned count; /* indices in use, also of nodes that are gone */
    unsigned turn;  /* of the node that gets the next command without a key */
    unsigned slot_count;
    uint16_t *slots;    /* index of a node and 1; 0: unknown */
    uint16_t *replicas; /* the same, behind `slots`; 0: none */
};

static struct node *
node_of(const struct tg_redis_link *link)
{
    return (struct node *)link->server;
}

/* Up to a quarter less or more, so that gateways do not come all at once. */
static uint64_t
jitter(struct tg_redis *redis, uint64_t milliseconds)
{
    uint64_t x = tg_loop_micros(redis->loop) + (uint64_t)(uintptr_t)redis;
    x ^= x >> 12;
    x *= 0x9e3779b97f4a7c15ULL;
    return milliseconds - milliseconds / 4 + (x >> 32) % (milliseconds / 2 + 1);
}

/* ---------------------------------------------------------------- the breaker */

static void
close_links(struct node *node, enum tg_rc rc)
{
    for (unsigned i = 0; i < node->redis->settings.connections; i++) {
        tg_redis_link_close(&node->links[i], rc);
    }
}

static void
let_go_of_probe(struct node *node)
{
    if (node->probe != NULL) {
        struct tg_redis_command *probe = node->probe;
        node->probe = NULL;
        tg_redis_command_disown(probe);
    }
}

static void
open_breaker(struct node *node, enum tg_rc rc)
{
    struct tg_redis *redis = node->redis;
    uint64_t wait = TG_REDIS_OPEN_MIN;
    for (unsigned i = 0; i < node->rounds && wait < TG_REDIS_OPEN_MAX; i++) {
        wait *= 2;
    }
    wait = wait < TG_REDIS_OPEN_MAX ? wait : TG_REDIS_OPEN_MAX;
    if (node->rounds++ == 0) {
        tg_log(TG_LOG_WARN, "redis %.*s: %s has failed %d times: it is not asked for a while (%s)",
               (int)redis->settings.name.n, redis->settings.name.p, node->name, TG_REDIS_FAILURES, node->why);
    }
    redis->counts.open += !node->open;
    node->open = true;
    let_go_of_probe(node);
    close_links(node, rc);
    tg_deadline_set(redis->loop, &node->retry, jitter(redis, wait));
}

static void
close_breaker(struct node *node)
{
    struct tg_redis *redis = node->redis;
    redis->counts.open--;
    node->open = false;
    node->failures = 0;
    node->rounds = 0;
    let_go_of_probe(node);
    tg_log(TG_LOG_INFO, "redis %.*s: %s answers again", (int)redis->settings.name.n, redis->settings.name.p,
           node->name);
}

static void
count_failure(struct node *node, enum tg_rc rc, const char *why)
{
    struct tg_redis *redis = node->redis;
    (void)snprintf(node->why, sizeof node->why, "%s", why);
    node->failures++;
    if (node->open || node->failures >= TG_REDIS_FAILURES) {
        open_breaker(node, rc);
    } else {
        node->not_before = tg_loop_now(redis->loop) + jitter(redis, (uint64_t)BACKOFF << node->failures);
    }
}

static void
on_retry(struct tg_deadline *deadline)
{
    struct node *node = (struct node *)((char *)deadline - offsetof(struct node, retry));
    tg_redis_link_open(&node->links[0]);
}

static void
on_opened(struct tg_redis_link *link)
{
    static const char *const ping[] = {"PING"};
    static const size_t length = 4;
    struct node *node = node_of(link);
    node->redis->counts.connections++;
    if (!node->open || link->subscriber != NULL) {
        return;
    }
    node->probe = tg_redis_command_new(&node->redis->commands, node->redis, node->redis->settings.timeout);
    if (node->probe != NULL && tg_redis_link_send(link, node->probe, 1, ping, &length, false) != TG_OK) {
        let_go_of_probe(node);
    }
    if (node->probe == NULL) {
        count_failure(node, TG_ENOMEM, "memory is short");
    }
}

static void
on_closed(struct tg_redis_link *link, enum tg_rc rc, const char *why)
{
    struct node *node = node_of(link);
    const bool known = node->open && link != &node->links[0]; /* by then only the probe tells something new */
    /* A server may close a connection on which nothing is under way, or that of a subscriber that is too slow. */
    if (!known && (rc != TG_ERESET || link->owed)) {
        count_failure(node, rc, why);
    }
}

static bool
is_loading(const struct tg_redis_command *command)
{
    const struct tg_resp_reply *reply = &command->reply;
    return reply->count > 0 && reply->values[0].type == TG_REDIS_ERROR && reply->values[0].size >= 7 &&
           memcmp(reply->bytes, "LOADING", 7) == 0;
}

static void
on_answered(struct tg_redis_link *link, struct tg_redis_command *command)
{
    struct node *node = node_of(link);
    struct tg_redis *redis = node->redis;
    redis->counts.commands++;
    redis->counts.seconds += (double)(tg_loop_now(redis->loop) + command->timeout - command->at) / 1000;
    if (!node->open) {
        node->failures = 0;
    } else if (is_loading(command)) {
        count_failure(node, TG_ERESET, "it loads its data");
    } else {
        close_breaker(node);
    }
}

static const struct tg_redis_link_hooks hooks = {on_opened, on_closed, on_answered};

/* Only what the configured time is too short for says something of the server, or that nothing at all is heard. */
static void
on_late(struct tg_redis_command *command)
{
    struct tg_redis_link *link = command->link;
    struct node *node = node_of(link);
    const bool silent = tg_redis_link_is_silent(link, SILENT_FOR);
    const bool counts = silent || command->timeout >= node->redis->settings.timeout;
    if (silent) {
        tg_redis_link_close(link, TG_ETIMEOUT);
    }
    if (counts) {
        count_failure(node, TG_ETIMEOUT, "no answer in time");
    }
}

static void
on_done(struct tg_redis_command *command)
{
    const struct tg_redis *redis = (const struct tg_redis *)command->commands;
    if (command->owner != redis) { /* else it is a probe, whose link tells */
        redis->done(command);
    }
}

/* ---------------------------------------------------------------- servers */

static void
node_free(struct node *node)
{
    if (node == NULL) {
        return;
    }
    if (node->links != NULL) {
        node->redis->counts.open -= node->open;
        let_go_of_probe(node);
        close_links(node, TG_ECANCELLED);
    }
    tg_deadline_remove(&node->retry);
    tg_tls_memory_clear(&node->server.session);
    tg_mem_free(node->links);
    tg_mem_free(node->server.host);
    tg_mem_free(node);
}

static struct node *
node_new(struct tg_redis *redis, struct tg_slice host, unsigned port)
{
    struct node *node = tg_mem_new(struct node);
    if (node == NULL) {
        return NULL;
    }
    node->redis = redis;
    node->retry.expired = on_retry;
    node->server = (struct tg_redis_server){.loop = redis->loop,
                                            .resolver = redis->resolver,
                                            .settings = &redis->settings,
                                            .hooks = &hooks,
                                            .host = tg_mem_text(host.p, host.n),
                                            .port = port,
                                            .tls = redis->tls};
    node->links = tg_mem_zero(redis->settings.connections * sizeof(struct tg_redis_link));
    if (node->links == NULL || node->server.host == NULL) {
        tg_mem_free(node->links);
        node->links = NULL;
        node_free(node);
        return NULL;
    }
    for (unsigned i = 0; i < redis->settings.connections; i++) {
        tg_redis_link_init(&node->links[i], &node->server);
    }
    const char *form = port == 0 ? "%.*s" : memchr(host.p, ':', host.n) != NULL ? "[%.*s]:%u" : "%.*s:%u";
    (void)snprintf(node->name, sizeof node->name, form, (int)host.n, host.p, port);
    return node;
}

static const struct node *
find_node(const struct tg_redis *redis, unsigned index)
{
    return index < redis->count ? redis->nodes[index] : NULL;
}

int
tg_redis_node(struct tg_redis *redis, struct tg_slice host, unsigned port)
{
    unsigned free = redis->count;
    for (unsigned i = 0; i < redis->count; i++) {
        const struct node *node = redis->nodes[i];
        if (node == NULL) {
            free = i;
        } else if (node->server.port == port && strlen(node->server.host) == host.n &&
                   memcmp(node->server.host, host.p, host.n) == 0) {
            return (int)i;
        }
    }
    if (free == TG_REDIS_NODES) {
        return TG_ELIMIT;
    }
    struct node *node = node_new(redis, host, port);
    if (node == NULL) {
        return TG_ENOMEM;
    }
    node->index = free;
    redis->nodes[free] = node;
    redis->count += free == redis->count;
    return (int)free;
}

enum tg_rc
tg_redis_assign(struct tg_redis *redis, unsigned first, unsigned last, unsigned index)
{
    if (first > last || last >= redis->slot_count || find_node(redis, index) == NULL) {
        return TG_EINVAL;
    }
    for (unsigned slot = first; slot <= last; slot++) {
        if (redis->slots[slot] != 0) {
            redis->nodes[redis->slots[slot] - 1]->assigned--;
        }
        redis->slots[slot] = (uint16_t)(index + 1);
    }
    redis->nodes[index]->assigned += last - first + 1;
    return TG_OK;
}

enum tg_rc
tg_redis_assign_replica(struct tg_redis *redis, unsigned first, unsigned last, int index)
{
    if (first > last || last >= redis->slot_count || (index >= 0 && find_node(redis, (unsigned)index) == NULL)) {
        return TG_EINVAL;
    }
    for (unsigned slot = first; slot <= last; slot++) {
        if (redis->replicas[slot] != 0) {
            redis->nodes[redis->replicas[slot] - 1]->mirrored--;
        }
        redis->replicas[slot] = (uint16_t)(index + 1);
    }
    if (index >= 0) {
        redis->nodes[index]->mirrored += last - first + 1;
    }
    return TG_OK;
}

int
tg_redis_node_of(const struct tg_redis *redis, unsigned slot)
{
    return slot < redis->slot_count && redis->slots[slot] != 0 ? redis->slots[slot] - 1 : (int)TG_ENONE;
}

void
tg_redis_settle(struct tg_redis *redis)
{
    for (unsigned i = 0; i < redis->count; i++) {
        const struct node *node = redis->nodes[i];
        unsigned pending = 0;
        for (unsigned k = 0; node != NULL && k < redis->settings.connections; k++) {
            pending += node->links[k].pending;
        }
        if (node != NULL && node->assigned == 0 && node->mirrored == 0 && node->own == 0 &&
            (pending == 0 || node->open)) {
            node_free(redis->nodes[i]);
            redis->nodes[i] = NULL;
        }
    }
}

struct tg_slice
tg_redis_node_name(const struct tg_redis *redis, unsigned index)
{
    const struct node *node = find_node(redis, index);
    return node == NULL ? (struct tg_slice){0} : tg_slice_of(node->name, strlen(node->name));
}

struct tg_slice
tg_redis_node_why(const struct tg_redis *redis, unsigned index)
{
    const struct node *node = find_node(redis, index);
    return node == NULL ? (struct tg_slice){0} : tg_slice_of(node->why, strlen(node->why));
}

const struct tg_abi_redis_counts *
tg_redis_counts(const struct tg_redis *redis)
{
    return &redis->counts;
}

/* ---------------------------------------------------------------- commands */

/* One for a command without a key: each in turn, and rather one that is alive. */
static struct node *
any_node(struct tg_redis *redis)
{
    struct node *found = NULL;
    for (unsigned i = 0; i < redis->count; i++) {
        struct node *node = redis->nodes[(redis->turn + i) % redis->count];
        if (node == NULL || (found != NULL && (node->open || (found->assigned > 0 && node->assigned == 0)))) {
            continue;
        }
        if (found == NULL || found->open || found->assigned == 0) {
            found = node;
        }
    }
    redis->turn = found == NULL ? 0 : found->index + 1;
    return found;
}

static struct node *
choose_node(struct tg_redis *redis, const struct tg_redis_request *request)
{
    if (request->node >= 0) {
        return (struct node *)(uintptr_t)find_node(redis, (unsigned)request->node);
    }
    const bool keyed = request->key > 0 && request->key < request->count;
    unsigned slot = 0;
    if (redis->settings.cluster != 0 && keyed) {
        slot = tg_resp_slot(request->words[request->key], request->lengths[request->key]);
    } else if (redis->settings.cluster != 0) {
        return any_node(redis);
    }
    if ((request->flags & TG_REDIS_REPLICA) != 0 && keyed && redis->replicas[slot] != 0) {
        struct node *replica = redis->nodes[redis->replicas[slot] - 1];
        if (!replica->open) {
            return replica;
        }
    }
    if (redis->slots[slot] != 0) {
        return redis->nodes[redis->slots[slot] - 1];
    }
    return redis->settings.cluster != 0 ? any_node(redis) : NULL;
}

/*
 * The connection that takes the next command: the first that is open and has little to do; else one more is opened, and
 * until it is, the one with the least to do. NULL: none is, and it is too early to try again.
 */
static struct tg_redis_link *
choose_link(struct node *node)
{
    struct tg_redis_link *closed = NULL;
    struct tg_redis_link *best = NULL;
    for (unsigned i = 0; i < node->redis->settings.connections; i++) {
        struct tg_redis_link *link = &node->links[i];
        if (link->state == TG_REDIS_CLOSED) {
            closed = closed == NULL ? link : closed;
            continue;
        }
        if (link->state == TG_REDIS_OPEN && link->pending < SPREAD) {
            return link;
        }
        const bool better = best == NULL || (link->state == TG_REDIS_OPEN && best->state != TG_REDIS_OPEN);
        if (better || (link->state == best->state && link->pending < best->pending)) {
            best = link;
        }
    }
    const bool spread = best == NULL || best->pending >= SPREAD;
    if (closed != NULL && spread && tg_loop_now(node->redis->loop) >= node->not_before) {
        tg_redis_link_open(closed);
        best = best == NULL ? closed : best;
    }
    return best;
}

/* A connection that the command alone has, and that ends with it. */
static enum tg_rc
give_own_link(struct node *node, struct tg_redis_command *command)
{
    if (node->own == TG_REDIS_OWN) {
        return TG_EBUSY;
    }
    command->own = tg_mem_new(struct tg_redis_link);
    if (command->own == NULL) {
        return TG_ENOMEM;
    }
    node->own++;
    tg_redis_link_init(command->own, &node->server);
    tg_redis_link_open(command->own);
    return TG_OK;
}

/* On `link`, or, when that is NULL, on one of its own. */
static struct tg_redis_command *
send_on(struct tg_redis_link *link, struct node *node, const struct tg_redis_request *request, enum tg_rc *rc)
{
    const bool joined = (request->flags & TG_REDIS_JOINED) != 0;
    struct tg_redis_command *command = tg_redis_command_new(&node->redis->commands, request->owner, request->timeout);
    if (command == NULL) {
        *rc = TG_ENOMEM;
        return NULL;
    }
    *rc = link == NULL ? give_own_link(node, command) : TG_OK;
    if (*rc == TG_OK) {
        link = link == NULL ? command->own : link;
        *rc = tg_redis_link_send(link, command, request->count, request->words, request->lengths, joined);
    }
    if (*rc == TG_OK) {
        return command;
    }
    tg_redis_let_go(command);
    if (joined) {
        tg_redis_link_close(link, *rc); /* half a transaction is on it, and must not take in what others send */
    }
    return NULL;
}

struct tg_redis_command *
tg_redis_send(struct tg_redis *redis, const struct tg_redis_request *request, enum tg_rc *rc, unsigned *index)
{
    *index = 0;
    if (request->after != NULL) {
        struct tg_redis_link *link = request->after->link;
        if (link == NULL) {
            *rc = TG_ECONNECT;
            return NULL;
        }
        *index = node_of(link)->index;
        return send_on(link, node_of(link), request, rc);
    }
    struct node *node = choose_node(redis, request);
    if (node == NULL) {
        *rc = TG_ENONE;
        return NULL;
    }
    *index = node->index;
    if (node->open) {
        *rc = TG_EOPEN;
        return NULL;
    }
    struct tg_redis_link *link = NULL;
    if ((request->flags & TG_REDIS_ALONE) == 0) {
        link = choose_link(node);
        if (link == NULL) {
            *rc = TG_ECONNECT;
            return NULL;
        }
    }
    return send_on(link, node, request, rc);
}

struct tg_redis_command *
tg_redis_subscribe(struct tg_redis *redis, const struct tg_redis_request *request, enum tg_rc *rc)
{
    struct node *node = choose_node(redis, request);
    *rc = node == NULL ? TG_ENONE : node->open ? TG_EOPEN : TG_ENOMEM;
    if (*rc != TG_ENOMEM) {
        return NULL;
    }
    struct tg_redis_command *command = tg_redis_command_new(&redis->commands, request->owner, 0);
    if (command == NULL) {
        return NULL;
    }
    *rc = give_own_link(node, command);
    if (*rc == TG_OK) {
        *rc = tg_redis_link_subscribe(command->own, command, request->count, request->words, request->lengths);
    }
    if (*rc != TG_OK) {
        tg_redis_let_go(command);
        return NULL;
    }
    return command;
}

void
tg_redis_let_go(struct tg_redis_command *command)
{
    struct tg_redis_link *link = command->own;
    if (link != NULL) {
        command->own = NULL;
        node_of(link)->own--;
        tg_redis_link_close(link, TG_ECANCELLED);
        tg_mem_free(link);
    }
    tg_redis_command_disown(command);
}

/* ---------------------------------------------------------------- the client */

static bool
copy_settings(struct tg_redis *redis, const struct tg_abi_redis_settings *settings)
{
    struct tg_slice *copies[] = {&redis->settings.name, &redis->settings.username, &redis->settings.password};
    redis->settings = *settings;
    redis->texts = tg_mem_alloc(settings->name.n + settings->username.n + settings->password.n + 1);
    char *end = redis->texts;
    for (unsigned i = 0; i < 3 && end != NULL; i++) {
        if (copies[i]->n > 0) {
            memcpy(end, copies[i]->p, copies[i]->n);
        }
        copies[i]->p = end;
        end += copies[i]->n;
    }
    return redis->texts != NULL;
}

struct tg_redis *
tg_redis_new(struct tg_loop *loop, struct tg_resolver *resolver, struct tg_tls_client *tls,
             const struct tg_abi_redis_settings *settings, tg_redis_command_cb done)
{
    struct tg_redis *redis = tg_mem_new(struct tg_redis);
    if (redis == NULL) {
        return NULL;
    }
    redis->loop = loop;
    redis->resolver = resolver;
    redis->tls = tls;
    redis->done = done;
    redis->slot_count = settings->cluster != 0 ? TG_RESP_SLOTS : 1;
    redis->slots = tg_mem_zero(2 * sizeof *redis->slots * redis->slot_count);
    redis->replicas = redis->slots + redis->slot_count;
    if (redis->slots == NULL || !copy_settings(redis, settings) ||
        tg_redis_commands_init(&redis->commands, loop, on_done, on_late) != TG_OK) {
        tg_mem_free(redis->slots);
        tg_mem_free(redis->texts);
        tg_mem_free(redis);
        return NULL;
    }
    return redis;
}

void
tg_redis_free(struct tg_redis *redis)
{
    if (redis == NULL) {
        return;
    }
    for (unsigned i = 0; i < redis->count; i++) {
        node_free(redis->nodes[i]);
    }
    tg_redis_commands_fini(&redis->commands);
    tg_mem_free(redis->slots);
    tg_mem_free(redis->texts);
    tg_mem_free(redis);
}
