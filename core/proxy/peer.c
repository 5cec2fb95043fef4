#include "proxy/peer.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/slice.h"

enum { STALE_FOR = 5 * 60 * 1000, RETRY_AFTER = 5000 };

enum tg_rc
tg_peers_init(struct tg_peers *peers, struct tg_loop *loop)
{
    *peers = (struct tg_peers){.loop = loop};
    peers->resolver = tg_resolver_new(loop);
    return peers->resolver == NULL ? TG_ENOMEM : TG_OK;
}

static void
peer_free(struct tg_peer *peer)
{
    if (peer != NULL) {
        tg_pool_fini(&peer->pool);
        tg_mem_free(peer->host);
        tg_mem_free(peer->addresses);
        tg_mem_free(peer);
    }
}

void
tg_peers_fini(struct tg_peers *peers)
{
    for (unsigned i = 0; i < peers->count; i++) {
        peer_free(peers->list[i]);
    }
    tg_news_close(&peers->news);
    tg_mem_free(peers->list);
    tg_resolver_free(peers->resolver);
    *peers = (struct tg_peers){0};
}

static bool
is_among(const struct tg_address *address, const struct tg_address *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (list[i].len == address->len && memcmp(&list[i].sa, &address->sa, address->len) == 0) {
            return true;
        }
    }
    return false;
}

static enum tg_rc
keep_addresses(struct tg_peer *peer, const struct tg_address *addresses, unsigned count)
{
    struct tg_address *copy = tg_mem_alloc(count * sizeof *copy);
    if (copy == NULL) {
        return TG_ENOMEM;
    }
    memcpy(copy, addresses, count * sizeof *copy);
    bool gone = false;
    for (unsigned i = 0; i < peer->count; i++) {
        gone = gone || !is_among(&peer->addresses[i], copy, count);
    }
    if (gone) {
        tg_pool_renew(&peer->pool);
    }
    tg_mem_free(peer->addresses);
    peer->addresses = copy;
    peer->count = count;
    peer->next = 0;
    return TG_OK;
}

static struct tg_peer *
peer_new(struct tg_peers *peers, struct tg_slice host, unsigned port, const struct tg_pool_limits *limits)
{
    struct tg_address address;
    struct tg_peer *peer = tg_mem_new(struct tg_peer);
    if (peer == NULL) {
        return NULL;
    }
    tg_pool_init(&peer->pool, peers->loop, limits, &peers->connections);
    peer->port = port;
    peer->host = tg_mem_text(host.p, host.n);
    if (peer->host == NULL) {
        goto fail;
    }
    peer->own = peer->host[0] == '@';
    if (peer->own) {
        peer->fresh_until = UINT64_MAX;
        peer->count = 1; /* and no address: none is asked for */
    } else if (tg_address_parse(&address, peer->host, port) == TG_OK ||
               (peer->host[0] == '/' && tg_address_of_path(&address, peer->host) == TG_OK)) {
        peer->fresh_until = UINT64_MAX;
        if (keep_addresses(peer, &address, 1) != TG_OK) {
            goto fail;
        }
    }
    return peer;

fail:
    peer_free(peer);
    return NULL;
}

static enum tg_rc
intern(struct tg_peers *peers, const struct tg_peer_key *key, const struct tg_pool_limits *limits, bool guarded,
       unsigned *index)
{
    const struct tg_slice host = key->host;
    struct tg_tls_client *tls = key->tls > 0 ? peers->tls[key->tls - 1] : NULL;
    for (unsigned i = 0; i < peers->count; i++) {
        struct tg_peer *peer = peers->list[i];
        if (peer->port == key->port && peer->tls == tls && peer->asked_http2 == key->http2 &&
            peer->guarded == guarded && strlen(peer->host) == host.n &&
            tg_slice_same_text(peer->host, host.p, host.n)) {
            peer->pool.limits = *limits;
            *index = i;
            return TG_OK;
        }
    }
    if (peers->count == TG_PEERS_MAX || (guarded && peers->guarded == TG_PEERS_GUARDED)) {
        return TG_ELIMIT;
    }
    if (peers->count == peers->capacity) {
        const unsigned capacity = peers->capacity == 0 ? 16 : peers->capacity * 2;
        struct tg_peer **list = tg_mem_resize(peers->list, capacity * sizeof(struct tg_peer *));
        if (list == NULL) {
            return TG_ENOMEM;
        }
        peers->list = list;
        peers->capacity = capacity;
    }
    struct tg_peer *peer = peer_new(peers, host, key->port, limits);
    if (peer == NULL) {
        return TG_ENOMEM;
    }
    peer->tls = tls;
    peer->http2 = peer->asked_http2 = key->http2;
    peer->queue_last = &peer->queue;
    peer->guarded = guarded;
    peers->guarded += guarded;
    *index = peers->count;
    peers->list[peers->count++] = peer;
    return TG_OK;
}

enum tg_rc
tg_peers_tls(struct tg_peers *peers, const struct tg_tls_client_options *options, unsigned *number, struct tg_err *err)
{
    for (unsigned i = 0; i < peers->tls_count; i++) {
        if (tg_tls_client_is(peers->tls[i], options)) {
            *number = i + 1;
            return TG_OK;
        }
    }
    if (peers->tls_count == TG_PEERS_TLS) {
        return tg_err_set(err, TG_ELIMIT, "there are more than %d ways to speak TLS", TG_PEERS_TLS);
    }
    struct tg_tls_client *client = tg_tls_client_new(options, err);
    if (client == NULL) {
        return TG_EINVAL;
    }
    peers->tls[peers->tls_count++] = client;
    *number = peers->tls_count;
    return TG_OK;
}

enum tg_rc
tg_peers_intern(struct tg_peers *peers, const struct tg_peer_key *key, const struct tg_pool_limits *limits,
                unsigned *index)
{
    return intern(peers, key, limits, false, index);
}

enum tg_rc
tg_peers_intern_guarded(struct tg_peers *peers, const struct tg_peer_key *key, const struct tg_pool_limits *limits,
                        unsigned *index)
{
    return intern(peers, key, limits, true, index);
}

struct lookup {
    struct tg_peers *peers;
    struct tg_peer *peer;
};

static void
on_resolved(void *arg, const struct tg_resolved *result)
{
    struct lookup *lookup = arg;
    struct tg_peer *peer = lookup->peer;
    const uint64_t now = tg_loop_now(lookup->peers->loop);
    enum tg_rc rc = result->rc;
    tg_mem_free(lookup);
    peer->resolving = false;
    if (rc == TG_OK) {
        rc = keep_addresses(peer, result->addresses, result->count);
    }
    if (rc == TG_OK) {
        peer->fresh_until = now + result->ttl * 1000ULL;
        peer->usable_until = peer->fresh_until + STALE_FOR;
    } else {
        tg_log(TG_LOG_WARN, "resolve %s: %s", peer->host, result->why);
        peer->fresh_until = now + RETRY_AFTER;
        if (now > peer->usable_until) {
            peer->count = 0;
        }
    }
    if (peer->count > 0) {
        rc = TG_OK;
    }
    struct tg_peer_wait *wait = peer->waiting;
    peer->waiting = NULL;
    while (wait != NULL) {
        struct tg_peer_wait *next = wait->next;
        wait->peer = NULL;
        wait->resolved(wait, rc);
        wait = next;
    }
}

static enum tg_rc
start_lookup(struct tg_peers *peers, struct tg_peer *peer)
{
    if (peer->resolving) {
        return TG_OK;
    }
    struct lookup *lookup = tg_mem_new(struct lookup);
    if (lookup == NULL) {
        return TG_ENOMEM;
    }
    *lookup = (struct lookup){peers, peer};
    enum tg_rc rc = tg_resolver_start(peers->resolver, peer->host, peer->port, on_resolved, lookup);
    if (rc != TG_OK) {
        tg_mem_free(lookup);
        return rc;
    }
    peer->resolving = true;
    return TG_OK;
}

enum tg_rc
tg_peer_resolve(struct tg_peers *peers, struct tg_peer *peer, struct tg_peer_wait *wait)
{
    const uint64_t now = tg_loop_now(peers->loop);
    if (now < peer->fresh_until) {
        return peer->count > 0 ? TG_OK : TG_EDNS; /* a failure is remembered, too */
    }
    enum tg_rc rc = start_lookup(peers, peer);
    if (peer->count > 0 && now < peer->usable_until) {
        return TG_OK; /* nobody waits for a refresh */
    }
    if (rc != TG_OK) {
        return rc;
    }
    wait->peer = peer;
    wait->next = peer->waiting;
    peer->waiting = wait;
    return TG_AGAIN;
}

void
tg_peer_refresh(struct tg_peers *peers, struct tg_peer *peer)
{
    if (tg_loop_now(peers->loop) >= peer->fresh_until) {
        (void)start_lookup(peers, peer); /* without memory the next request asks */
    }
}

void
tg_peer_wait_cancel(struct tg_peer_wait *wait)
{
    if (wait->peer == NULL) {
        return;
    }
    for (struct tg_peer_wait **p = &wait->peer->waiting; *p != NULL; p = &(*p)->next) {
        if (*p == wait) {
            *p = wait->next;
            break;
        }
    }
    wait->peer = NULL;
}
