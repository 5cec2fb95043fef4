/*
 * our.c - prints how the core reads each of many inputs, one line of JSON for each; run by test_differential.py.
 *
 * An input comes from stdin behind its length (four bytes, the highest first). It is read as proxy/request.c reads a
 * connection: one request after the other, until one is refused, one ends the connection, or more bytes are needed.
 * Bytes are printed in hexadecimal, so that nothing of an input has to be escaped.
 */
#include <stdio.h>

#include "http/body.h"
#include "http/target.h"

enum { BLOCK = 64 * 1024, ARENA_MAX = 1024 * 1024 };

/* The defaults of a listener. */
static const struct tg_h1_limits limits = {8192, 8192, 32768, 100};
static char block[BLOCK];

/* How the reading of a request ended. IDLE and HEAD: before its first byte, within its head. */
enum state { WHOLE, IDLE, HEAD, BODY, CLOSED, REFUSED, BROKEN };
static const char *const names[] = {"whole", "idle", "head", "body", "closed", "refused", "broken"};

struct reading {
    struct tg_arena arena;
    struct tg_message message;
    struct tg_target target;
    struct tg_slice data;            /* of the body, decoded so far */
    const struct tg_h1_fault *fault; /* REFUSED */
    size_t used;
    bool trailers; /* BODY: nothing but the trailer section is not whole */
};

static void
print_hex(const char *key, struct tg_slice bytes)
{
    printf("\"%s\":\"", key);
    for (size_t i = 0; i < bytes.n; i++) {
        printf("%02x", (unsigned char)bytes.p[i]);
    }
    printf("\"");
}

static void
print_request(const struct reading *r, size_t end)
{
    const struct tg_message *m = &r->message;
    printf("{");
    print_hex("method", m->method);
    printf(",");
    print_hex("target", m->target);
    printf(",\"minor\":%u,\"framing\":%u,\"keep\":%d,\"trailers\":%d,\"end\":%zu,", m->version_minor, m->framing,
           m->keep_alive, r->trailers, end);
    print_hex("body", r->data);
    printf(",\"fields\":[");
    for (unsigned i = 0; i < m->count; i++) {
        printf("%s{", i == 0 ? "" : ",");
        print_hex("name", tg_slice_of(m->fields[i].name, m->fields[i].name_len));
        printf(",");
        print_hex("value", tg_slice_of(m->fields[i].value, m->fields[i].value_len));
        printf("}");
    }
    printf("]}");
}

static enum state
ended(enum tg_rc rc)
{
    return rc == TG_EPROTOCOL ? REFUSED : BROKEN;
}

static bool
is_blank_lines(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\r' && p[i] != '\n') {
            return false;
        }
    }
    return true;
}

static enum state
read_request(struct reading *r, char *p, size_t n)
{
    struct tg_h1_scan scan = {0};
    struct tg_body body;
    enum tg_rc rc = tg_h1_scan(&scan, p, n, &limits, true, &r->fault);
    if (rc == TG_AGAIN) {
        return is_blank_lines(p, n) ? IDLE : HEAD;
    }
    if (rc == TG_OK) {
        rc = tg_h1_parse_request(&r->message, p + scan.start, scan.pos - scan.start, &r->fault);
    }
    if (rc == TG_OK) {
        rc = tg_target_parse(&r->target, &r->message, &r->arena, &r->fault);
    }
    if (rc != TG_OK) {
        return ended(rc);
    }
    tg_body_init(&body, r->message.framing, r->message.content_length);
    r->used = scan.pos;
    if (!body.done && n > scan.pos) {
        size_t used = 0;
        rc = tg_body_decode(&body, p + scan.pos, n - scan.pos, &r->data, &used, &r->fault);
        r->used += used;
    }
    const bool done = body.done;
    r->trailers = !done && body.trailer_len > 0;
    tg_body_fini(&body);
    return rc != TG_OK ? ended(rc) : !done ? BODY : r->message.keep_alive ? WHOLE : CLOSED;
}

/* Prints the requests of one input, then how it ended. */
static void
read_input(char *p, size_t n)
{
    struct reading r;
    enum state state = WHOLE;
    size_t at = 0;
    unsigned count = 0;
    printf("{\"requests\":[");
    while (state == WHOLE) {
        memset(&r, 0, sizeof r);
        tg_arena_init(&r.arena, block, sizeof block, ARENA_MAX);
        tg_message_init(&r.message, &r.arena);
        state = at == n ? IDLE : read_request(&r, p + at, n - at);
        at += r.used;
        if (state == WHOLE || state == CLOSED || state == BODY) {
            printf("%s", count++ == 0 ? "" : ",");
            print_request(&r, at);
        }
        tg_arena_fini(&r.arena);
    }
    printf("],\"state\":\"%s\",\"status\":%u,\"why\":\"%s\"}\n", names[state], state == REFUSED ? r.fault->status : 0U,
           state == REFUSED ? r.fault->text : "");
}

int
main(void)
{
    unsigned char head[4];
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        const size_t n = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        /* As large as the input, so that AddressSanitizer sees a read behind its end. */
        char *p = tg_mem_alloc(n + (n == 0));
        if (p == NULL || fread(p, 1, n, stdin) != n) {
            return 1;
        }
        read_input(p, n);
        tg_mem_free(p);
    }
    return ferror(stdin) != 0;
}
