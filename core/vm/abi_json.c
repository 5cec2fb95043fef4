/*
 * The border: JSON texts. Contracts are in abi.h.
 */
#include "base/json.h"

#include "base/json_items.h"
#include "base/json_read.h"
#include "base/json_text.h"
#include "base/mem.h"
#include "base/xml.h"
#include "base/yaml.h"
#include "vm/coroutine.h"

enum { XML_MAX = 16 * 1024 * 1024, QUOTED_MAX = 4096, KEEP = 1024 * 1024, WRITTEN_MAX = 256 * 1024 * 1024 };

/* Lua writes one text at a time: nothing of the user's runs while it does. */
static struct tg_json_text written = {.max = WRITTEN_MAX};

int
tg_abi_json_check(const char *p, size_t n)
{
    struct tg_json_report report;
    const enum tg_rc rc = tg_json_check(p, n, &report);
    if (rc != TG_OK && report.what != NULL) {
        tg_abi_vm.out = tg_slice_of(report.what, strlen(report.what));
        tg_abi_vm.number = (double)(report.at - p);
    }
    return rc;
}

int
tg_abi_json_find(const char *p, size_t n, const char *name, size_t name_len)
{
    struct tg_slice found;
    const enum tg_rc rc = tg_json_find(tg_slice_of(p, n), name, name_len, &found);
    if (rc == TG_OK) {
        tg_abi_vm.out = found;
        tg_abi_vm.number = (double)(found.p - p);
    }
    return rc;
}

int
tg_abi_json_next(const char *p, size_t n, size_t at, struct tg_slice *name)
{
    struct tg_json_step step;
    enum tg_rc rc = tg_json_open(&step, tg_slice_of(p, n));
    if (rc != TG_OK || at > n) {
        return TG_EINVAL;
    }
    step.next = at == 0 ? step.next : p + at;
    rc = tg_json_next(&step);
    if (rc == TG_OK) {
        *name = step.name;
        tg_abi_vm.out = step.value;
        tg_abi_vm.number = (double)(step.next - p);
    }
    return rc;
}

static struct tg_json_reader reader;

void
tg_abi_json_read_from(const char *p, size_t n)
{
    if (reader.room_n > KEEP) {
        tg_json_reader_fini(&reader);
    }
    tg_json_reader_init(&reader, tg_slice_of(p, n));
}

int
tg_abi_json_read(void)
{
    const enum tg_rc rc = tg_json_read(&reader);
    tg_abi_vm.out = reader.text;
    tg_abi_vm.number = reader.number;
    return rc != TG_OK ? (int)rc : (int)reader.token;
}

void
tg_abi_json_begin(void)
{
    tg_json_text_clear(&written, KEEP);
}

int
tg_abi_json_put(const char *p, size_t n)
{
    return tg_json_put(&written, p, n);
}

int
tg_abi_json_put_string(const char *p, size_t n)
{
    return tg_json_put_string(&written, p, n);
}

int
tg_abi_json_put_number(double number)
{
    return tg_json_put_number(&written, number);
}

void
tg_abi_json_end(void)
{
    tg_abi_vm.out = tg_slice_of(written.p, written.n);
}

int
tg_abi_json_string(const char *p, size_t n)
{
    static struct tg_json_text text = {.max = (size_t)2 * QUOTED_MAX};
    tg_json_text_clear(&text, 4 * (size_t)QUOTED_MAX);
    const enum tg_rc rc = tg_json_put_string_cut(&text, p, n, QUOTED_MAX);
    tg_abi_vm.out = tg_slice_of(text.p, text.n);
    return rc;
}

int
tg_abi_yaml_to_json(const char *p, size_t n)
{
    static char *last;
    static struct tg_err err;
    struct tg_slice json = {NULL, 0};
    const enum tg_rc rc = tg_yaml_to_json(p, n, &json, &err);
    tg_mem_free(last);
    last = (char *)(uintptr_t)json.p;
    tg_abi_vm.out = rc == TG_OK ? json : tg_slice_of(err.text, strlen(err.text));
    return rc;
}

int
tg_abi_xml_to_json(const char *p, size_t n)
{
    static struct tg_json_text text = {.max = XML_MAX};
    static struct tg_err err;
    tg_json_text_clear(&text, KEEP);
    err.text[0] = '\0';
    const enum tg_rc rc = tg_xml_to_json(p, n, &text, &err);
    tg_abi_vm.out = rc == TG_OK ? tg_slice_of(text.p, text.n) : tg_slice_of(err.text, strlen(err.text));
    return rc;
}

struct tg_abi_items *
tg_abi_items_new(const char *path, size_t n)
{
    struct tg_json_items *items = tg_mem_new(struct tg_json_items);
    if (items != NULL && tg_json_items_init(items, tg_slice_of(path, n)) != TG_OK) {
        tg_mem_free(items);
        return NULL;
    }
    return (struct tg_abi_items *)items;
}

void
tg_abi_items_free(struct tg_abi_items *items)
{
    tg_mem_free(items);
}

int
tg_abi_items_take(struct tg_abi_items *abi, const char *p, size_t n)
{
    struct tg_json_items *items = (struct tg_json_items *)abi;
    size_t used = 0;
    const enum tg_rc rc = tg_json_items_take(items, tg_slice_of(p, n), &used, &tg_abi_vm.out);
    tg_abi_vm.number = (double)used;
    tg_abi_vm.type = items->in_item;
    return rc;
}
