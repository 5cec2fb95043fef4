#include "net/pool.h"

#include "base/mem.h"

void
tg_pool_init(struct tg_pool *pool, struct tg_loop *loop, const struct tg_pool_limits *limits,
             struct tg_pool_totals *totals)
{
    *pool = (struct tg_pool){.loop = loop, .limits = *limits, .totals = totals};
}

static void
unlink_idle(struct tg_pool_link *link)
{
    *link->link = link->next;
    if (link->next != NULL) {
        link->next->link = link->link;
    }
    link->link = NULL;
    link->pool->idle_count--;
    link->pool->totals->idle--;
}

void
tg_pool_link_close(struct tg_pool_link *link)
{
    if (link->link != NULL) {
        unlink_idle(link);
    }
    tg_deadline_remove(&link->idle);
    if (!link->single) {
        link->pool->open--;
        link->pool->totals->open--;
    }
    tg_transport_close(&link->transport);
    if (link->gone != NULL) {
        link->gone(link);
    } else {
        tg_mem_free(link);
    }
}

void
tg_pool_fini(struct tg_pool *pool)
{
    while (pool->idle != NULL) {
        tg_pool_link_close(pool->idle);
    }
}

void
tg_pool_renew(struct tg_pool *pool)
{
    pool->epoch++;
    tg_pool_fini(pool);
}

/*
 * An idle connection has nothing to say: what comes is its end, or bytes that belong to no request. But TLS has things
 * to say for itself: those are nothing to look at.
 */
static void
on_idle_event(struct tg_transport *transport)
{
    if (transport->layer != NULL && !transport->failed && tg_transport_peek(transport) == TG_AGAIN) {
        return;
    }
    if (transport->ended || transport->readable || transport->failed) {
        tg_pool_link_close((struct tg_pool_link *)transport);
    }
}

static void
on_idle_expired(struct tg_deadline *deadline)
{
    tg_pool_link_close((struct tg_pool_link *)((char *)deadline - offsetof(struct tg_pool_link, idle)));
}

static bool
is_old(const struct tg_pool_link *link)
{
    const struct tg_pool *pool = link->pool;
    return pool->limits.age != 0 && tg_loop_now(pool->loop) - link->made >= pool->limits.age;
}

struct tg_pool_link *
tg_pool_take(struct tg_pool *pool, tg_transport_cb ready, void *owner)
{
    while (pool->idle != NULL) {
        struct tg_pool_link *link = pool->idle;
        unlink_idle(link);
        tg_deadline_clear(&link->idle);
        /* What has arrived since the loop last looked must not be taken for the answer to the next request. */
        if (is_old(link) || tg_transport_peek(&link->transport) != TG_AGAIN) {
            tg_pool_link_close(link);
            continue;
        }
        link->transport.ready = ready;
        link->owner = owner;
        link->requests++;
        return link;
    }
    return NULL;
}

struct tg_pool_link *
tg_pool_link_new(struct tg_pool *pool, int fd, tg_transport_cb ready, void *owner)
{
    struct tg_pool_link *link = tg_mem_new(struct tg_pool_link);
    if (link == NULL) {
        (void)evutil_closesocket(fd);
        return NULL;
    }
    *link = (struct tg_pool_link){.pool = pool,
                                  .owner = owner,
                                  .requests = 1,
                                  .epoch = pool->epoch,
                                  .made = tg_loop_now(pool->loop),
                                  .idle = {.expired = on_idle_expired}};
    if (tg_transport_open(&link->transport, pool->loop, fd, ready) != TG_OK) {
        tg_mem_free(link);
        return NULL;
    }
    pool->open++;
    pool->totals->open++;
    return link;
}

void
tg_pool_give(struct tg_pool_link *link)
{
    struct tg_pool *pool = link->pool;
    struct tg_transport *transport = &link->transport;
    if (transport->layer != NULL && !link->single && transport->readable && tg_transport_peek(transport) == TG_AGAIN) {
        transport->readable = false;
    }
    if (link->single || link->epoch != pool->epoch || pool->idle_count >= pool->limits.idle_max || transport->ended ||
        transport->failed || transport->readable ||
        (pool->limits.requests != 0 && link->requests >= pool->limits.requests) || is_old(link)) {
        tg_pool_link_close(link);
        return;
    }
    link->owner = NULL;
    link->transport.ready = on_idle_event;
    link->next = pool->idle;
    link->link = &pool->idle;
    if (pool->idle != NULL) {
        pool->idle->link = &link->next;
    }
    pool->idle = link;
    pool->idle_count++;
    pool->totals->idle++;
    tg_deadline_set(pool->loop, &link->idle, pool->limits.idle_timeout);
}
