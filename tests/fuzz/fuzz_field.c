/*
 * fuzz_field.c - a field's name, and after the first newline its value, through the validators, the setters and the
 * codec.
 *
 * Oracles: the grammar of RFC 9110 (sections 5.5 and 5.6.2), byte by byte, agrees with the validators, with what the
 * setters take and with what the parser accepts; what a setter took is one line when it is written, and is read again
 * as it was; what it refused left the message as it was.
 */
#include <ctype.h>
#include <stdbool.h>
#include <strings.h>

#include "fuzz.h"
#include "http/h1_parse.h"
#include "http/h1_write.h"

enum { INPUT_MAX = 4000 };

static const struct tg_h1_limits limits = {8192, 8192, 32768, 100};
static char block[64 * 1024];

/* ------------------------------------------------------------------ the reference */

static bool
is_token(struct tg_slice text)
{
    for (size_t i = 0; i < text.n; i++) {
        const char c = text.p[i];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return text.n > 0;
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool
is_value(struct tg_slice text)
{
    for (size_t i = 0; i < text.n; i++) {
        const unsigned char c = (unsigned char)text.p[i];
        if (c == 127 || (c < 32 && c != '\t')) {
            return false;
        }
    }
    return text.n == 0 || (!is_blank(text.p[0]) && !is_blank(text.p[text.n - 1]));
}

static struct tg_slice
trim(struct tg_slice text)
{
    while (text.n > 0 && is_blank(text.p[0])) {
        text.p++;
        text.n--;
    }
    while (text.n > 0 && is_blank(text.p[text.n - 1])) {
        text.n--;
    }
    return text;
}

struct known {
    const char *name;
    enum tg_field_id id;
    bool ours; /* written by the codec alone: no setter takes it */
};

static const struct known known[] = {
    {"host", TG_FIELD_HOST, true},
    {"content-length", TG_FIELD_CONTENT_LENGTH, true},
    {"transfer-encoding", TG_FIELD_TRANSFER_ENCODING, true},
    {"connection", TG_FIELD_CONNECTION, true},
    {"keep-alive", TG_FIELD_KEEP_ALIVE, true},
    {"proxy-connection", TG_FIELD_PROXY_CONNECTION, true},
    {"te", TG_FIELD_TE, true},
    {"trailer", TG_FIELD_TRAILER, true},
    {"upgrade", TG_FIELD_UPGRADE, true},
    {"expect", TG_FIELD_EXPECT, true},
    {"http2-settings", TG_FIELD_HTTP2_SETTINGS, true},
    {"proxy", TG_FIELD_PROXY, true},
    {"proxy-authenticate", TG_FIELD_PROXY_AUTHENTICATE, true},
    {"proxy-authorization", TG_FIELD_PROXY_AUTHORIZATION, true},
    {"x-forwarded-for", TG_FIELD_X_FORWARDED_FOR, false},
    {"x-forwarded-proto", TG_FIELD_X_FORWARDED_PROTO, false},
    {"x-forwarded-host", TG_FIELD_X_FORWARDED_HOST, false},
    {"x-forwarded-port", TG_FIELD_X_FORWARDED_PORT, false},
    {"x-real-ip", TG_FIELD_X_REAL_IP, false},
    {"forwarded", TG_FIELD_FORWARDED, false},
    {"via", TG_FIELD_VIA, false},
    {"date", TG_FIELD_DATE, false},
    {"server", TG_FIELD_SERVER, false},
    {"authorization", TG_FIELD_AUTHORIZATION, false},
    {"cookie", TG_FIELD_COOKIE, false},
    {"set-cookie", TG_FIELD_SET_COOKIE, false},
    {"content-type", TG_FIELD_CONTENT_TYPE, false},
};

static const struct known *
look_up(struct tg_slice name)
{
    static const struct known other = {"", TG_FIELD_OTHER, false};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i].name) == name.n && strncasecmp(known[i].name, name.p, name.n) == 0) {
            return &known[i];
        }
    }
    return &other;
}

/* ------------------------------------------------------------------ the oracles */

static bool
same(const char *p, size_t n, struct tg_slice text)
{
    return n == text.n && (n == 0 || memcmp(p, text.p, n) == 0);
}

static void
check_validators(struct tg_slice text)
{
    MUST(tg_is_token(text.p, text.n) == is_token(text));
    MUST(tg_is_value(text.p, text.n) == is_value(text));
    for (size_t i = 0; i < text.n; i++) {
        const struct tg_slice byte = {text.p + i, 1};
        const int lower = is_token(byte) ? tolower((unsigned char)*byte.p) : 0;
        MUST(tg_token_byte[(unsigned char)*byte.p] == lower);
    }
}

/* A name is the same name in any case. */
static void
check_name(struct tg_slice name)
{
    static char swapped[INPUT_MAX];
    const uint32_t hash = tg_field_hash(name.p, name.n);
    const struct known *field = look_up(name);
    for (size_t i = 0; i < name.n; i++) {
        const int c = (unsigned char)name.p[i];
        swapped[i] = (char)(isupper(c) ? tolower(c) : toupper(c));
    }
    MUST(tg_field_hash(swapped, name.n) == hash);
    MUST(tg_field_id_of(name.p, name.n, hash) == field->id);
    MUST(tg_field_id_of(swapped, name.n, hash) == field->id);
    MUST(((tg_field_flags_of(field->id) & (TG_FIELD_HOP | TG_FIELD_FRAMING)) != 0) == field->ours);
}

static size_t
count_lines(struct tg_slice text)
{
    size_t lines = 0;
    for (size_t i = 0; i < text.n; i++) {
        lines += text.p[i] == '\n';
    }
    return lines;
}

static struct tg_slice
write_head(struct tg_message *message)
{
    const struct tg_h1_frame frame = {.framing = TG_FRAMING_NONE};
    struct tg_slice head;
    message->status = 200;
    MUST(tg_h1_write_response(message, &frame, TG_SLICE("Thu, 01 Jan 1970 00:00:00 GMT"), &head) == TG_OK);
    return head;
}

static void
check_written(struct tg_message *message, struct tg_slice name, struct tg_slice value, struct tg_arena *arena)
{
    struct tg_message plain;
    struct tg_message again;
    struct tg_h1_scan scan = {0};
    const struct tg_h1_fault *fault = NULL;
    unsigned from = 0;
    tg_message_init(&plain, arena);
    tg_message_init(&again, arena);
    MUST(tg_message_add(&plain, name, TG_SLICE("y")) == TG_OK);
    const struct tg_slice head = write_head(message);
    MUST(count_lines(head) == count_lines(write_head(&plain)));
    MUST(tg_h1_scan(&scan, head.p, head.n, &limits, false, &fault) == TG_OK && scan.pos == head.n);
    MUST(tg_h1_parse_response(&again, head.p, head.n, false, &fault) == TG_OK);
    const struct tg_field *field = tg_message_find(&again, name.p, name.n, &from);
    MUST(field != NULL && same(field->value, field->value_len, value));
}

/* A setter takes the one grammar, and a refusal changes nothing. */
static void
check_setters(struct tg_slice name, struct tg_slice value, struct tg_arena *arena)
{
    struct tg_message message;
    unsigned from = 0;
    const bool allowed = is_token(name) && is_value(value) && !look_up(name)->ours;
    tg_message_init(&message, arena);
    MUST((tg_message_add(&message, name, value) == TG_OK) == allowed);
    MUST(message.count == (allowed ? 1 : 0));
    MUST((tg_message_set(&message, name, value) == TG_OK) == allowed);
    MUST(message.count == (allowed ? 1 : 0));
    if (allowed) {
        const struct tg_field *field = tg_message_find(&message, name.p, name.n, &from);
        MUST(field != NULL && same(field->value, field->value_len, value) && same(field->name, field->name_len, name));
        check_written(&message, name, value, arena);
    }
    const bool removable = name.n > 0 && (tg_field_flags_of(look_up(name)->id) & TG_FIELD_FRAMING) == 0;
    MUST((tg_message_remove(&message, name.p, name.n) == TG_OK) == removable);
    MUST(message.count == 0);
}

/* The parser accepts the same grammar, with blanks around the value. Fields that frame have rules of their own. */
static void
check_parser(struct tg_slice name, struct tg_slice value, struct tg_arena *arena)
{
    static const char start[] = "GET / HTTP/1.1\r\nHost: h\r\n";
    static char head[INPUT_MAX + 64];
    struct tg_h1_scan scan = {0};
    struct tg_message message;
    const struct tg_h1_fault *fault = NULL;
    unsigned from = 0;
    const size_t line = sizeof start - 1;
    const size_t end = line + name.n + 1 + value.n;
    memcpy(head, start, line);
    memcpy(head + line, name.p, name.n);
    head[line + name.n] = ':';
    memcpy(head + line + name.n + 1, value.p, value.n);
    memcpy(head + end, "\r\n\r\n", 4);
    const char *colon = memchr(head + line, ':', end - line);
    const struct tg_slice field_name = {head + line, (size_t)(colon - head) - line};
    const struct tg_slice field_value = trim(tg_slice_of(colon + 1, (size_t)(head + end - colon - 1)));
    if (memchr(head + line, '\n', end - line) != NULL || look_up(field_name)->ours) {
        return;
    }
    tg_message_init(&message, arena);
    MUST(tg_h1_scan(&scan, head, end + 4, &limits, true, &fault) == TG_OK && scan.pos == end + 4);
    const bool accepted = tg_h1_parse_request(&message, head, end + 4, &fault) == TG_OK;
    MUST(accepted == (is_token(field_name) && is_value(field_value)));
    if (accepted) {
        /* A second spelling of a dash to some upstreams: such a field is left out. */
        const bool dropped = memchr(field_name.p, '_', field_name.n) != NULL;
        const struct tg_field *field = tg_message_find(&message, field_name.p, field_name.n, &from);
        MUST((field == NULL) == dropped);
        MUST(dropped || same(field->value, field->value_len, field_value));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tg_arena arena;
    if (n > INPUT_MAX) {
        return 0;
    }
    const uint8_t *newline = n == 0 ? NULL : memchr(bytes, '\n', n);
    const size_t name_len = newline == NULL ? n : (size_t)(newline - bytes);
    const size_t value_len = newline == NULL ? 0 : n - name_len - 1;
    /* In memory of their own size: a byte read beyond them is seen. */
    char *name = malloc(name_len);
    char *value = malloc(value_len);
    MUST(name != NULL && value != NULL);
    memcpy(name, bytes, name_len);
    memcpy(value, bytes + n - value_len, value_len);
    const struct tg_slice texts[2] = {{name, name_len}, {value, value_len}};
    tg_arena_init(&arena, block, sizeof block, 1U << 20);
    for (unsigned i = 0; i < 2; i++) {
        check_validators(texts[i]);
        check_name(texts[i]);
        check_setters(texts[i], texts[1 - i], &arena);
        check_parser(texts[i], texts[1 - i], &arena);
    }
    tg_arena_fini(&arena);
    free(name);
    free(value);
    return 0;
}
