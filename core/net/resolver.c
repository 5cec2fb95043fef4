#include "net/resolver.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <event2/event.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

enum { SOCKETS_MAX = 64, QUERY_TIMEOUT = 2000, QUERY_TRIES = 2, TTL_MIN = 1, TTL_MAX = 300 };

struct watch {
    struct tg_resolver *resolver;
    struct event *event;
    ares_socket_t fd;
};

struct tg_resolver {
    struct tg_loop *loop;
    ares_channel channel;
    struct event *timer;
    struct watch watches[SOCKETS_MAX];
    bool closing;
    bool changed;      /* `servers` is not in use yet */
    char servers[512]; /* empty: the system's */
    struct ares_addr_port_node *system;
};

struct query {
    struct tg_resolver *resolver;
    struct tg_task task; /* an answer from a file comes inside ares_getaddrinfo: it is told in the next turn */
    tg_resolver_cb done;
    void *arg;
    struct tg_resolved result;
};

static void
arm_timer(struct tg_resolver *resolver)
{
    struct timeval wait;
    if (ares_timeout(resolver->channel, NULL, &wait) != NULL) {
        (void)event_add(resolver->timer, &wait);
    } else {
        (void)event_del(resolver->timer);
    }
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct watch *watch = arg;
    struct tg_resolver *resolver = watch->resolver;
    ares_process_fd(resolver->channel, (what & EV_READ) != 0 ? fd : ARES_SOCKET_BAD,
                    (what & EV_WRITE) != 0 ? fd : ARES_SOCKET_BAD);
    arm_timer(resolver);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct tg_resolver *resolver = arg;
    (void)fd;
    (void)what;
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer(resolver);
}

/* c-ares tells which of its sockets it wants to hear of. */
static void
on_interest(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct tg_resolver *resolver = arg;
    struct watch *spare = NULL;
    struct watch *watch = NULL;
    for (int i = 0; i < SOCKETS_MAX; i++) {
        struct watch *candidate = &resolver->watches[i];
        if (candidate->event != NULL && candidate->fd == fd) {
            watch = candidate;
        } else if (candidate->event == NULL) {
            spare = candidate;
        }
    }
    if (watch != NULL) {
        event_free(watch->event);
        watch->event = NULL;
        spare = watch;
    }
    if ((readable == 0 && writable == 0) || spare == NULL) {
        return; /* without a place the query ends by its timeout */
    }
    const short what = (short)((readable != 0 ? EV_READ : 0) | (writable != 0 ? EV_WRITE : 0) | EV_PERSIST);
    *spare = (struct watch){.resolver = resolver, .fd = fd};
    spare->event = event_new(tg_loop_base(resolver->loop), fd, what, on_socket, spare);
    if (spare->event != NULL) {
        (void)event_add(spare->event, NULL);
    }
}

struct tg_resolver *
tg_resolver_new(struct tg_loop *loop)
{
    struct tg_resolver *resolver = tg_mem_new(struct tg_resolver);
    if (resolver == NULL) {
        return NULL;
    }
    struct ares_options options;
    memset(&options, 0, sizeof options);
    options.timeout = QUERY_TIMEOUT;
    options.tries = QUERY_TRIES;
    options.sock_state_cb = on_interest;
    options.sock_state_cb_data = resolver;
    resolver->loop = loop;
    resolver->timer = event_new(tg_loop_base(loop), -1, 0, on_timer, resolver);
    if (resolver->timer == NULL || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS ||
        ares_init_options(&resolver->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB) !=
            ARES_SUCCESS) {
        tg_resolver_free(resolver);
        return NULL;
    }
    if (ares_get_servers_ports(resolver->channel, &resolver->system) != ARES_SUCCESS) {
        resolver->system = NULL;
    }
    return resolver;
}

void
tg_resolver_use(struct tg_resolver *resolver, const char *servers)
{
    if (strcmp(servers, resolver->servers) != 0) {
        (void)snprintf(resolver->servers, sizeof resolver->servers, "%s", servers);
        resolver->changed = true;
    }
}

/* c-ares refuses while questions are open: then the next one tries again. */
static void
change_servers(struct tg_resolver *resolver)
{
    const int rc = resolver->servers[0] != '\0' ? ares_set_servers_ports_csv(resolver->channel, resolver->servers)
                                                : ares_set_servers_ports(resolver->channel, resolver->system);
    resolver->changed = rc == ARES_ENOTIMP;
    if (rc != ARES_SUCCESS && rc != ARES_ENOTIMP) {
        tg_log(TG_LOG_ERROR, "resolver %s: %s", resolver->servers, ares_strerror(rc));
    }
}

void
tg_resolver_free(struct tg_resolver *resolver)
{
    if (resolver == NULL) {
        return;
    }
    resolver->closing = true;
    if (resolver->system != NULL) {
        ares_free_data(resolver->system);
    }
    if (resolver->channel != NULL) {
        ares_destroy(resolver->channel);
    }
    for (int i = 0; i < SOCKETS_MAX; i++) {
        if (resolver->watches[i].event != NULL) {
            event_free(resolver->watches[i].event);
        }
    }
    if (resolver->timer != NULL) {
        event_free(resolver->timer);
    }
    tg_mem_free(resolver);
}

static void
tell(struct tg_task *task)
{
    struct query *query = (struct query *)((char *)task - offsetof(struct query, task));
    query->done(query->arg, &query->result);
    tg_mem_free(query);
}

/* The families take turns, beginning with the one that the system prefers (RFC 8305, section 4). */
static void
interleave(struct tg_resolved *result)
{
    for (unsigned i = 1; i < result->count; i++) {
        const sa_family_t before = result->addresses[i - 1].sa.ss_family;
        unsigned k = i;
        while (k < result->count && result->addresses[k].sa.ss_family == before) {
            k++;
        }
        if (k == result->count) {
            return;
        }
        const struct tg_address other = result->addresses[k];
        memmove(&result->addresses[i + 1], &result->addresses[i], (k - i) * sizeof other);
        result->addresses[i] = other;
    }
}

static void
on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct query *query = arg;
    struct tg_resolved *result = &query->result;
    (void)timeouts;
    result->ttl = TTL_MAX;
    for (struct ares_addrinfo_node *node = info == NULL ? NULL : info->nodes; node != NULL; node = node->ai_next) {
        if (result->count < TG_RESOLVER_ADDRESSES && node->ai_addrlen <= sizeof result->addresses[0].sa) {
            struct tg_address *address = &result->addresses[result->count++];
            memcpy(&address->sa, node->ai_addr, node->ai_addrlen);
            address->len = node->ai_addrlen;
            if (node->ai_ttl >= 0 && (unsigned)node->ai_ttl < result->ttl) {
                result->ttl = (unsigned)node->ai_ttl;
            }
        }
    }
    if (info != NULL) {
        ares_freeaddrinfo(info);
    }
    interleave(result);
    result->ttl = result->ttl < TTL_MIN ? TTL_MIN : result->ttl;
    result->rc = status == ARES_SUCCESS && result->count > 0 ? TG_OK : TG_EDNS;
    result->why = ares_strerror(status);
    if (query->resolver->closing) {
        tg_mem_free(query);
    } else {
        tg_task_queue(query->resolver->loop, &query->task);
    }
}

enum tg_rc
tg_resolver_start(struct tg_resolver *resolver, const char *name, unsigned port, tg_resolver_cb done, void *arg)
{
    if (resolver->changed) {
        change_servers(resolver);
    }
    const struct ares_addrinfo_hints hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NUMERICSERV};
    char service[8];
    struct query *query = tg_mem_new(struct query);
    if (query == NULL) {
        return TG_ENOMEM;
    }
    *query = (struct query){.resolver = resolver, .done = done, .arg = arg, .task = {.run = tell}};
    (void)snprintf(service, sizeof service, "%u", port % 65536);
    ares_getaddrinfo(resolver->channel, name, service, &hints, on_answer, query);
    arm_timer(resolver);
    return TG_OK;
}

/* ------------------------------------------------------------------ services */

struct services_query {
    struct tg_resolver *resolver;
    struct tg_task task;
    tg_services_cb done;
    void *arg;
    struct tg_services result;
};

static void
tell_services(struct tg_task *task)
{
    struct services_query *query = (struct services_query *)((char *)task - offsetof(struct services_query, task));
    query->done(query->arg, &query->result);
    tg_mem_free(query);
}

/* The shortest time to live of the answer's records, which c-ares does not tell of SRV. */
static unsigned
shortest_ttl(const unsigned char *packet, int length)
{
    char *name = NULL;
    long used = 0;
    unsigned ttl = TTL_MAX;
    if (length < HFIXEDSZ || ares_expand_name(packet + HFIXEDSZ, packet, length, &name, &used) != ARES_SUCCESS) {
        return TTL_MIN;
    }
    ares_free_string(name);
    const unsigned char *p = packet + HFIXEDSZ + used + QFIXEDSZ;
    const unsigned char *end = packet + length;
    for (unsigned left = (unsigned)packet[6] << 8 | packet[7]; left > 0; left--) {
        if (p >= end || ares_expand_name(p, packet, length, &name, &used) != ARES_SUCCESS) {
            break;
        }
        ares_free_string(name);
        p += used;
        if (end - p < RRFIXEDSZ) {
            break;
        }
        const unsigned its = (unsigned)p[4] << 24 | (unsigned)p[5] << 16 | (unsigned)p[6] << 8 | p[7];
        ttl = its < ttl ? its : ttl;
        p += RRFIXEDSZ + ((unsigned)p[8] << 8 | p[9]);
    }
    return ttl < TTL_MIN ? TTL_MIN : ttl;
}

static void
keep_services(struct tg_services *result, const struct ares_srv_reply *list)
{
    for (; list != NULL && result->count < TG_RESOLVER_SERVICES; list = list->next) {
        struct tg_service *service = &result->services[result->count];
        const size_t n = strlen(list->host);
        /* A lone dot says that there is no such service. */
        if (n == 0 || n >= sizeof service->host || list->port == 0) {
            continue;
        }
        memcpy(service->host, list->host, n + 1);
        if (service->host[n - 1] == '.') {
            service->host[n - 1] = '\0';
        }
        service->port = list->port;
        service->priority = list->priority;
        service->weight = list->weight;
        result->count++;
    }
}

static void
on_services(void *arg, int status, int timeouts, unsigned char *packet, int length)
{
    struct services_query *query = arg;
    struct tg_services *result = &query->result;
    struct ares_srv_reply *list = NULL;
    (void)timeouts;
    if (status == ARES_SUCCESS && (status = ares_parse_srv_reply(packet, length, &list)) == ARES_SUCCESS) {
        result->ttl = shortest_ttl(packet, length);
        keep_services(result, list);
        ares_free_data(list);
    }
    result->rc = result->count > 0 ? TG_OK : TG_EDNS;
    result->why = status == ARES_SUCCESS ? "there is no such service" : ares_strerror(status);
    if (query->resolver->closing) {
        tg_mem_free(query);
    } else {
        tg_task_queue(query->resolver->loop, &query->task);
    }
}

enum tg_rc
tg_resolver_services(struct tg_resolver *resolver, const char *name, tg_services_cb done, void *arg)
{
    if (resolver->changed) {
        change_servers(resolver);
    }
    struct services_query *query = tg_mem_new(struct services_query);
    if (query == NULL) {
        return TG_ENOMEM;
    }
    *query = (struct services_query){.resolver = resolver, .done = done, .arg = arg, .task = {.run = tell_services}};
    ares_query(resolver->channel, name, ns_c_in, ns_t_srv, on_services, query);
    arm_timer(resolver);
    return TG_OK;
}
