#include "net/redis_link.h"

#include <errno.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"

enum {
    CHUNK = 16 * 1024, /* hiredis moves what it holds after each KiB that it has parsed: it gets little at once */
    READS = 64,        /* a turn */
    OUT_KEPT = 64 * 1024 /* bytes */,
    SILENCE = 15 * 1000 /* milliseconds: after these a subscription is asked whether it lives */
};

/* The resolver cannot be called off: its answer finds nobody when the link has been closed meanwhile. */
struct tg_redis_lookup {
    struct tg_redis_link *link;
};

static void drive(struct tg_redis_link *link);

static void
fail(struct tg_redis_link *link, enum tg_rc rc, const char *why)
{
    link->owed = link->pending > 0 || link->state != TG_REDIS_OPEN;
    tg_redis_link_close(link, rc);
    link->server->hooks->closed(link, rc, why);
}

static void
on_ready(struct tg_transport *transport)
{
    drive((struct tg_redis_link *)transport);
}

static void
on_task(struct tg_task *task)
{
    drive((struct tg_redis_link *)((char *)task - offsetof(struct tg_redis_link, task)));
}

static enum tg_rc append(struct tg_redis_link *link, unsigned count, const char *const *words, const size_t *lengths,
                         bool joined);

static void
on_deadline(struct tg_deadline *deadline)
{
    struct tg_redis_link *link = (struct tg_redis_link *)((char *)deadline - offsetof(struct tg_redis_link, deadline));
    static const char *const ping[] = {"PING"};
    static const size_t length = 4;
    if (link->state != TG_REDIS_OPEN) {
        fail(link, TG_ECONNECT, "no connection in time");
    } else if (link->transport.readable) {
        tg_deadline_set(link->server->loop, &link->deadline, SILENCE); /* it is our side that is slow */
    } else if (link->asked || append(link, 1, ping, &length, false) != TG_OK) {
        fail(link, TG_ETIMEOUT, "nothing is heard any more");
    } else {
        link->asked = true;
        tg_deadline_set(link->server->loop, &link->deadline, SILENCE);
    }
}

void
tg_redis_link_init(struct tg_redis_link *link, struct tg_redis_server *server)
{
    *link = (struct tg_redis_link){
        .transport = {.fd = -1}, .server = server, .task = {.run = on_task}, .deadline = {.expired = on_deadline}};
    link->last = &link->first;
}

void
tg_redis_link_close(struct tg_redis_link *link, enum tg_rc rc)
{
    if (link->state == TG_REDIS_CLOSED) {
        return;
    }
    link->state = TG_REDIS_CLOSED;
    tg_transport_close(&link->transport);
    tg_deadline_remove(&link->deadline);
    tg_task_remove(link->server->loop, &link->task);
    tg_resp_fini(&link->resp);
    tg_resp_reply_fini(&link->said);
    tg_mem_free(link->out);
    link->out = NULL;
    link->used = link->sent = link->size = 0;
    if (link->lookup != NULL) {
        link->lookup->link = NULL;
        link->lookup = NULL;
    }
    if (link->subscriber != NULL) {
        tg_redis_command_end(link->subscriber, rc);
        link->subscriber = NULL;
    }
    while (link->first != NULL) {
        struct tg_redis_command *command = link->first;
        link->first = command->next;
        tg_redis_command_end(command, rc);
        tg_redis_command_dequeue(command);
    }
    link->last = &link->first;
    link->pending = 0;
}

/* ---------------------------------------------------------------- opening */

static void
note_errno(struct tg_redis_link *link)
{
    char text[128];
    (void)snprintf(link->why, sizeof link->why, "%s", strerror_r(errno, text, sizeof text));
}

/* Tries the next address; false: there is none left. */
static bool
connect_next(struct tg_redis_link *link)
{
    while (link->tried < link->count) {
        const struct tg_address *address = &link->addresses[link->tried++];
        const int fd = socket(address->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            note_errno(link);
            continue;
        }
        if (connect(fd, (const struct sockaddr *)&address->sa, address->len) < 0 && errno != EINPROGRESS) {
            note_errno(link);
            close(fd);
            continue;
        }
        if (tg_transport_open(&link->transport, link->server->loop, fd, on_ready) == TG_OK) {
            return true;
        }
        note_errno(link);
    }
    return false;
}

static void
on_resolved(void *arg, const struct tg_resolved *result)
{
    struct tg_redis_lookup *lookup = arg;
    struct tg_redis_link *link = lookup->link;
    tg_mem_free(lookup);
    if (link == NULL) {
        return;
    }
    link->lookup = NULL;
    if (result->rc == TG_OK) { /* else those that it had before may still be right */
        link->count = result->count;
        memcpy(link->addresses, result->addresses, result->count * sizeof *result->addresses);
    }
    if (link->count == 0) {
        fail(link, TG_EDNS, result->why);
        return;
    }
    link->state = TG_REDIS_CONNECTING;
    drive(link);
}

static void
resolve(struct tg_redis_link *link)
{
    struct tg_redis_lookup *lookup = tg_mem_new(struct tg_redis_lookup);
    if (lookup == NULL) {
        return; /* ends by its deadline */
    }
    lookup->link = link;
    if (tg_resolver_start(link->server->resolver, link->server->host, link->server->port, on_resolved, lookup) !=
        TG_OK) {
        tg_mem_free(lookup);
        return;
    }
    link->lookup = lookup;
}

static bool
is_path(struct tg_redis_link *link, const char *host)
{
    struct tg_address *address = &link->addresses[0];
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    if (host[0] != '/' || strlen(host) >= sizeof local.sun_path) {
        return false;
    }
    memcpy(local.sun_path, host, strlen(host) + 1);
    memcpy(&address->sa, &local, sizeof local);
    address->len = sizeof local;
    return true;
}

/* What is said first. Nobody waits for these replies but the link. */
static enum tg_rc
write_greeting(struct tg_redis_link *link)
{
    const struct tg_abi_redis_settings *settings = link->server->settings;
    char number[16];
    enum tg_rc rc = TG_OK;
    link->greetings = 0;
    if (settings->password.n > 0) {
        const bool named = settings->username.n > 0;
        const char *const words[] = {"AUTH", named ? settings->username.p : settings->password.p, settings->password.p};
        const size_t lengths[] = {4, named ? settings->username.n : settings->password.n, settings->password.n};
        rc = append(link, named ? 3 : 2, words, lengths, false);
        link->greetings++;
    }
    if (settings->db != 0 && rc == TG_OK) {
        const char *const words[] = {"SELECT", number};
        const size_t lengths[] = {6, (size_t)snprintf(number, sizeof number, "%u", settings->db)};
        rc = append(link, 2, words, lengths, false);
        link->greetings++;
    }
    if (settings->cluster != 0 && rc == TG_OK) {
        /* A master stays what it is; a replica answers instead of naming its master. */
        static const char *const words[] = {"READONLY"};
        static const size_t lengths[] = {8};
        rc = append(link, 1, words, lengths, false);
        link->greetings++;
    }
    if (rc == TG_OK) {
        const char *const words[] = {"CLIENT", "SETNAME", settings->name.p};
        const size_t lengths[] = {6, 7, settings->name.n};
        rc = append(link, 3, words, lengths, false);
        link->greetings++;
    }
    link->greeting = link->used;
    return rc;
}

void
tg_redis_link_open(struct tg_redis_link *link)
{
    const struct tg_redis_server *server = link->server;
    TG_ASSERT(link->state == TG_REDIS_CLOSED);
    link->state = TG_REDIS_CONNECTING;
    link->tried = 0;
    link->why[0] = '\0';
    link->asked = false;
    link->heard = tg_loop_now(server->loop);
    tg_resp_reply_init(&link->said);
    tg_deadline_set(server->loop, &link->deadline, server->settings->connect_timeout);
    /* Without memory it ends by its deadline, as if the server were away. */
    if (tg_resp_init(&link->resp) != TG_OK || write_greeting(link) != TG_OK) {
        link->count = 0;
    } else if (is_path(link, server->host) ||
               tg_address_parse(&link->addresses[0], server->host, server->port) == TG_OK) {
        link->count = 1;
    } else {
        link->state = TG_REDIS_RESOLVING;
        resolve(link);
        return;
    }
    tg_task_queue(server->loop, &link->task);
}

/* The socket is connected: TLS comes first, if it is spoken. */
static void
shake_hands(struct tg_redis_link *link)
{
    struct tg_redis_server *server = link->server;
    const char *why = "memory is short";
    char text[TG_REDIS_WHY];
    enum tg_rc rc = TG_OK;
    if (link->state == TG_REDIS_CONNECTING) {
        link->state = TG_REDIS_HANDSHAKE;
        rc = tg_tls_client_open(server->tls, &link->transport, server->host, &server->session);
    }
    if (rc == TG_OK) {
        rc = tg_tls_handshake(tg_tls_of(&link->transport), &why);
    }
    if (rc == TG_OK && (rc = tg_tls_client_judge(server->tls, tg_tls_of(&link->transport))) != TG_OK) {
        why = "its key is not one of those that are pinned";
    }
    if (rc == TG_OK) {
        link->state = TG_REDIS_GREETING;
    } else if (rc != TG_AGAIN) {
        tg_tls_memory_clear(&server->session);
        (void)snprintf(text, sizeof text, "TLS: %s", why);
        fail(link, TG_ETLS, text);
    }
}

static void
go_on_connecting(struct tg_redis_link *link)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (link->transport.fd >= 0) {
        (void)getsockopt(link->transport.fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error == 0) {
            if (link->transport.writable && link->server->tls != NULL) {
                shake_hands(link);
            } else if (link->transport.writable) {
                link->state = TG_REDIS_GREETING;
            }
            return;
        }
        errno = error;
        note_errno(link);
        tg_transport_close(&link->transport);
    }
    if (!connect_next(link)) {
        fail(link, TG_ECONNECT, link->why[0] != '\0' ? link->why : "memory is short");
    }
}

/* ---------------------------------------------------------------- writing */

static enum tg_rc
make_room(struct tg_redis_link *link, size_t n, bool joined)
{
    if (link->used + n <= link->size) {
        return TG_OK;
    }
    if (link->used - link->sent + n > TG_RESP_MAX && !joined) {
        return TG_EBUSY;
    }
    if (link->sent > 0) {
        link->used -= link->sent;
        link->greeting -= link->sent < link->greeting ? link->sent : link->greeting;
        memmove(link->out, link->out + link->sent, link->used);
        link->sent = 0;
    }
    size_t size = link->size == 0 ? 4096 : link->size;
    while (size < link->used + n) {
        size *= 2;
    }
    char *out = size == link->size ? link->out : tg_mem_resize(link->out, size);
    if (out == NULL) {
        return TG_ENOMEM;
    }
    link->out = out;
    link->size = size;
    return TG_OK;
}

static enum tg_rc
append(struct tg_redis_link *link, unsigned count, const char *const *words, const size_t *lengths, bool joined)
{
    const size_t n = tg_resp_size(count, lengths);
    if (n == 0) {
        return TG_ELIMIT;
    }
    const enum tg_rc rc = make_room(link, n, joined);
    if (rc != TG_OK) {
        return rc;
    }
    (void)tg_resp_write(link->out + link->used, count, words, lengths);
    link->used += n;
    if (link->state == TG_REDIS_OPEN) {
        tg_task_queue(link->server->loop, &link->task);
    }
    return TG_OK;
}

enum tg_rc
tg_redis_link_send(struct tg_redis_link *link, struct tg_redis_command *command, unsigned count,
                   const char *const *words, const size_t *lengths, bool joined)
{
    TG_ASSERT(link->state != TG_REDIS_CLOSED);
    if (link->pending >= TG_REDIS_PENDING && !joined) {
        return TG_EBUSY;
    }
    const enum tg_rc rc = append(link, count, words, lengths, joined);
    if (rc != TG_OK) {
        return rc;
    }
    if (link->pending++ == 0) {
        link->heard = tg_loop_now(link->server->loop);
    }
    command->link = link;
    command->next = NULL;
    *link->last = command;
    link->last = &command->next;
    return TG_OK;
}

enum tg_rc
tg_redis_link_subscribe(struct tg_redis_link *link, struct tg_redis_command *subscriber, unsigned count,
                        const char *const *words, const size_t *lengths)
{
    const enum tg_rc rc = append(link, count, words, lengths, false);
    if (rc == TG_OK) {
        link->subscriber = subscriber;
    }
    return rc;
}

/* False: the connection broke. What it has said before it did is still to be read. */
static bool
write_out(struct tg_redis_link *link)
{
    for (;;) {
        const size_t end = link->state == TG_REDIS_OPEN ? link->used : link->greeting;
        if (link->sent == end) {
            break;
        }
        struct iovec v = {link->out + link->sent, end - link->sent};
        size_t sent = 0;
        const enum tg_rc rc = tg_transport_write(&link->transport, &v, 1, &sent);
        if (rc != TG_OK) {
            return rc == TG_AGAIN;
        }
        link->sent += sent;
    }
    if (link->sent == link->used) {
        link->sent = link->used = 0;
        link->greeting = 0;
        if (link->size > OUT_KEPT) {
            tg_mem_free(link->out);
            link->out = NULL;
            link->size = 0;
        }
    }
    return true;
}

/* ---------------------------------------------------------------- reading */

bool
tg_redis_link_is_silent(const struct tg_redis_link *link, uint64_t milliseconds)
{
    return link->pending > 0 && tg_loop_now(link->server->loop) - link->heard > milliseconds;
}

/* A reply to the greeting is whole. A server may refuse its last parts: to read from replicas, and the client's name.
 */
static void
take_greeting(struct tg_redis_link *link)
{
    const struct tg_resp_reply *said = &link->said;
    const unsigned optional = link->server->settings->cluster != 0 ? 2 : 1;
    link->greetings--;
    if (link->greetings >= optional && said->count > 0 && said->values[0].type == TG_REDIS_ERROR) {
        const int n = (int)(said->values[0].size < TG_REDIS_WHY ? said->values[0].size : TG_REDIS_WHY);
        char why[TG_REDIS_WHY + 1];
        (void)snprintf(why, sizeof why, "%.*s", n, said->bytes);
        fail(link, TG_ECONNECT, why);
        return;
    }
    tg_resp_reply_fini(&link->said);
    if (link->greetings == 0) {
        link->state = TG_REDIS_OPEN;
        tg_deadline_clear(&link->deadline);
        if (link->subscriber != NULL) {
            tg_deadline_set(link->server->loop, &link->deadline, SILENCE);
        }
        if (link->used > link->sent) {
            tg_task_queue(link->server->loop, &link->task);
        }
        link->server->hooks->opened(link);
    }
}

/* The reply of the first in the queue is whole. */
static void
take_reply(struct tg_redis_link *link)
{
    struct tg_redis_command *command = link->first;
    const bool in_time = command->abi.state == TG_CALL_RUNS;
    link->first = command->next;
    if (link->first == NULL) {
        link->last = &link->first;
    }
    link->pending--;
    tg_redis_command_end(command, TG_OK);
    if (in_time) {
        link->server->hooks->answered(link, command);
    }
    tg_redis_command_dequeue(command);
}

static void
fail_reading(struct tg_redis_link *link, enum tg_rc rc)
{
    if (rc == TG_ELIMIT) {
        if (link->first != NULL) {
            tg_redis_command_end(link->first, TG_ELIMIT);
        }
        fail(link, TG_ERESET, "a reply was too large, or nested too deep");
    } else {
        fail(link, rc, rc == TG_ENOMEM ? "memory is short" : "what came is not Redis's protocol");
    }
}

/* All replies that are whole. False: the link is closed. */
static bool
take_replies(struct tg_redis_link *link)
{
    for (;;) {
        struct tg_redis_command *command = link->first;
        struct tg_resp_reply *into = NULL;
        if (link->greetings > 0) {
            into = &link->said;
        } else if (link->subscriber != NULL) {
            return true;
        } else if (command != NULL && command->abi.state == TG_CALL_RUNS) {
            into = &command->reply;
        }
        const enum tg_rc rc = tg_resp_next(&link->resp, into);
        if (rc == TG_AGAIN) {
            return true;
        }
        if (rc != TG_OK) {
            fail_reading(link, rc);
            return false;
        }
        if (link->greetings > 0) {
            take_greeting(link);
        } else if (command != NULL) {
            take_reply(link);
        } else {
            fail(link, TG_EPROTOCOL, "a reply to nothing");
        }
        if (link->state == TG_REDIS_CLOSED) {
            return false;
        }
    }
}

/* TG_OK: something came. */
static enum tg_rc
read_chunk(struct tg_redis_link *link)
{
    char chunk[CHUNK];
    size_t got = 0;
    enum tg_rc rc = tg_transport_read(&link->transport, chunk, sizeof chunk, &got);
    if (rc == TG_OK) {
        link->heard = tg_loop_now(link->server->loop);
        link->asked = false;
        rc = tg_resp_feed(&link->resp, chunk, got);
    }
    return rc;
}

static void
lose(struct tg_redis_link *link, enum tg_rc rc)
{
    fail(link, rc == TG_ENOMEM ? TG_ENOMEM : TG_ERESET,
         rc == TG_ENOMEM    ? "memory is short"
         : rc == TG_ECLOSED ? "the server closed the connection"
                            : "the connection broke");
}

static void
read_in(struct tg_redis_link *link)
{
    for (unsigned reads = 0; reads < READS; reads++) {
        const enum tg_rc rc = read_chunk(link);
        if (rc == TG_AGAIN) {
            return;
        }
        if (rc != TG_OK) {
            lose(link, rc);
            return;
        }
        if (!take_replies(link)) {
            return;
        }
        if (link->subscriber != NULL && link->greetings == 0) {
            break;
        }
    }
    tg_task_queue(link->server->loop, &link->task); /* others have their turn */
}

enum tg_rc
tg_redis_link_next(struct tg_redis_link *link)
{
    struct tg_redis_command *subscriber = link->subscriber;
    if (subscriber == NULL) {
        return TG_ERESET;
    }
    if (link->state != TG_REDIS_OPEN) {
        return TG_AGAIN;
    }
    if (subscriber->abi.count > 0) {
        tg_resp_reply_fini(&subscriber->reply);
        subscriber->abi.count = 0;
    }
    for (;;) {
        enum tg_rc rc = tg_resp_next(&link->resp, &subscriber->reply);
        if (rc == TG_OK) {
            subscriber->abi.count = subscriber->reply.count;
            subscriber->abi.values = subscriber->reply.values;
            subscriber->abi.bytes = subscriber->reply.bytes;
            tg_deadline_set(link->server->loop, &link->deadline, SILENCE);
            return TG_OK;
        }
        if (rc != TG_AGAIN) {
            fail_reading(link, rc);
            return rc;
        }
        rc = read_chunk(link);
        if (rc == TG_AGAIN) {
            return TG_AGAIN;
        }
        if (rc != TG_OK) {
            lose(link, rc);
            return rc;
        }
    }
}

static void
drive(struct tg_redis_link *link)
{
    if (link->state == TG_REDIS_CONNECTING) {
        go_on_connecting(link);
    } else if (link->state == TG_REDIS_HANDSHAKE) {
        shake_hands(link);
    }
    if (link->state != TG_REDIS_GREETING && link->state != TG_REDIS_OPEN) {
        return;
    }
    const bool lost = !write_out(link);
    if (link->subscriber != NULL && link->state == TG_REDIS_OPEN && !lost) {
        /* What comes is read when its owner has taken what came before: a slow one slows the server, and no memory. */
        link->subscriber->commands->done(link->subscriber);
        return;
    }
    if (lost) {
        link->transport.readable = true;
    }
    read_in(link);
    if (lost && link->state != TG_REDIS_CLOSED) {
        lose(link, TG_ERESET);
    }
}
