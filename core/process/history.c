#include "process/history.h"

#include <stdio.h>
#include <string.h>

#include "base/json_text.h"
#include "base/mem.h"
#include "vm/bundle.h"

enum { SOURCES_MAX = 16 * 1024 * 1024 };

struct tg_generation *
tg_history_add(struct tg_generation *newest, struct tg_generation *generation, unsigned most)
{
    unsigned count = 1;
    generation->next = newest;
    for (struct tg_generation *old = generation; old != NULL; old = old->next, count++) {
        if (count == most) {
            tg_generation_free(old->next);
            old->next = NULL;
        }
    }
    return generation;
}

struct tg_generation *
tg_history_find(struct tg_generation *newest, const char *id)
{
    struct tg_generation *one = newest;
    while (one != NULL && strncmp(one->id, id, strlen(id)) != 0) {
        one = one->next;
    }
    return one;
}

/* "file:gateway.lua" and "plugin:x" of the names of sources; empty: it is none. */
static struct tg_slice
source_name(struct tg_slice name)
{
    static const char prefix[] = "source:";
    const size_t n = sizeof prefix - 1;
    return name.n > n && memcmp(name.p, prefix, n) == 0 ? tg_slice_of(name.p + n, name.n - n) : (struct tg_slice){0};
}

struct comparison {
    const struct tg_generation *other;
    const char *missing; /* what it is when the other has none */
    bool changes;        /* tell also what is different */
    char *out;
    size_t n;
    size_t size;
};

static void
tell(struct comparison *comparison, const char *what, struct tg_slice name)
{
    const char *colon = memchr(name.p, ':', name.n);
    const bool plugin = name.n > 7 && memcmp(name.p, "plugin:", 7) == 0;
    const int skip = colon == NULL ? 0 : (int)(colon + 1 - name.p);
    const int n =
        snprintf(comparison->out + comparison->n, comparison->size - comparison->n, "%s%s %s%.*s",
                 comparison->n > 0 ? ", " : "", what, plugin ? "plugin " : "", (int)name.n - skip, name.p + skip);
    if (n > 0 && comparison->n + (size_t)n < comparison->size) {
        comparison->n += (size_t)n;
    } else {
        comparison->out[comparison->n] = '\0';
    }
}

static bool
compare(void *arg, struct tg_slice name, struct tg_slice data)
{
    struct comparison *comparison = arg;
    const struct tg_slice source = source_name(name);
    struct tg_slice other;
    char key[512];
    if (source.n == 0 || name.n >= sizeof key) {
        return true;
    }
    (void)snprintf(key, sizeof key, "%.*s", (int)name.n, name.p);
    if (tg_bundle_find(comparison->other->bytes, key, &other) != TG_OK) {
        tell(comparison, comparison->missing, source);
    } else if (comparison->changes && (other.n != data.n || memcmp(other.p, data.p, data.n) != 0)) {
        tell(comparison, "changed", source);
    }
    return true;
}

void
tg_history_change(const struct tg_generation *before, const struct tg_generation *after, char *out, size_t size)
{
    struct comparison comparison = {.other = before, .missing = "added", .changes = true, .out = out, .size = size};
    out[0] = '\0';
    if (tg_bundle_each(after->bytes, compare, &comparison) != TG_OK) {
        return;
    }
    comparison.other = after;
    comparison.missing = "removed";
    comparison.changes = false;
    if (tg_bundle_each(before->bytes, compare, &comparison) != TG_OK) {
        out[0] = '\0';
    }
}

struct writing {
    struct tg_json_text text;
    bool any;
    enum tg_rc rc;
};

static void
put(struct writing *writing, const char *text)
{
    writing->rc = writing->rc != TG_OK ? writing->rc : tg_json_put(&writing->text, text, strlen(text));
}

static void
put_string(struct writing *writing, struct tg_slice value)
{
    writing->rc = writing->rc != TG_OK ? writing->rc : tg_json_put_string(&writing->text, value.p, value.n);
}

static bool
write_source(void *arg, struct tg_slice name, struct tg_slice data)
{
    struct writing *writing = arg;
    const struct tg_slice source = source_name(name);
    if (source.n > 0) {
        put(writing, writing->any ? "," : "");
        put_string(writing, source);
        put(writing, ":");
        put_string(writing, data);
        writing->any = true;
    }
    return writing->rc == TG_OK;
}

char *
tg_history_sources(const struct tg_generation *generation)
{
    struct writing writing = {.text = {.max = SOURCES_MAX}};
    put(&writing, "{");
    const enum tg_rc rc = tg_bundle_each(generation->bytes, write_source, &writing);
    put(&writing, "}\n");
    writing.rc = writing.rc != TG_OK ? writing.rc : tg_json_put(&writing.text, "", 1);
    if (rc != TG_OK || writing.rc != TG_OK) {
        tg_mem_free(writing.text.p);
        return NULL;
    }
    return writing.text.p;
}
