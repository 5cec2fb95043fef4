/*
 * fuzz_json.c - any bytes.
 *
 * Oracles: what is well-formed is read to its end, and written again it is well-formed and the same; every member that
 * stepping shows is found by its name. What is malformed harms nobody, and its fault is within the text.
 */
#include "fuzz.h"

#include <stdlib.h>

#include "base/json.h"
#include "base/json_read.h"
#include "base/json_text.h"

static struct tg_json_reader reader;

/* Writes the tokens again; commas and colons are between them as the text had them, so only values are compared. */
static size_t
read_all(struct tg_slice text, bool checked, double *sum, size_t *bytes)
{
    size_t count = 0;
    tg_json_reader_init(&reader, text);
    while (tg_json_read(&reader) == TG_OK && reader.token != TG_JSON_END) {
        MUST(reader.p > text.p && reader.p <= text.p + text.n);
        MUST(++count <= text.n);
        /* A number above 2^53 may be written without a fraction: then it is one of the integers that are kept as text.
         */
        *sum +=
            reader.token == TG_JSON_NUMBER || reader.token == TG_JSON_INTEGER ? reader.number : (double)reader.token;
        *bytes += reader.token == TG_JSON_NAME || reader.token == TG_JSON_STRING ? reader.text.n : 0;
    }
    MUST(!checked || (reader.token == TG_JSON_END && reader.p == text.p + text.n));
    return count;
}

static void
rewrite(struct tg_slice text, struct tg_json_text *out)
{
    bool comma = false;
    tg_json_reader_init(&reader, text);
    for (;;) {
        enum tg_rc rc = tg_json_read(&reader);
        MUST(rc == TG_OK);
        const enum tg_json_token token = reader.token;
        if (token == TG_JSON_END) {
            return;
        }
        const bool closes = token == TG_JSON_OBJECT_END || token == TG_JSON_ARRAY_END;
        rc = comma && !closes ? tg_json_put(out, ",", 1) : TG_OK;
        MUST(rc == TG_OK);
        static const char *const words[] = {"", "{", "}", "[", "]", "", "", "", "", "true", "false", "null"};
        if (token == TG_JSON_NAME || token == TG_JSON_STRING) {
            rc = tg_json_put_string(out, reader.text.p, reader.text.n);
            rc = rc == TG_OK && token == TG_JSON_NAME ? tg_json_put(out, ":", 1) : rc;
        } else if (token == TG_JSON_NUMBER) {
            rc = tg_json_put_number(out, reader.number);
        } else {
            const struct tg_slice word =
                token == TG_JSON_INTEGER ? reader.text : tg_slice_of(words[token], strlen(words[token]));
            rc = tg_json_put(out, word.p, word.n);
        }
        MUST(rc == TG_OK);
        comma = token != TG_JSON_OBJECT && token != TG_JSON_ARRAY && token != TG_JSON_NAME;
    }
}

static void
check_steps(struct tg_slice value)
{
    struct tg_json_step step;
    if (tg_json_open(&step, value) != TG_OK) {
        return;
    }
    while (tg_json_next(&step) == TG_OK) {
        struct tg_slice found = {NULL, 0};
        if (step.object) {
            char *name = malloc(step.name.n + 1);
            MUST(name != NULL);
            const size_t n = tg_json_unescape(step.name, name);
            MUST(tg_json_find(value, name, n, &found) == TG_OK);
            MUST(found.p == step.value.p && found.n == step.value.n);
            free(name);
        }
        check_steps(step.value);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tg_json_report report;
    struct tg_json_text out = {.max = 1 << 24};
    double sum = 0;
    double again = 0;
    size_t bytes = 0;
    size_t bytes_again = 0;
    char *copy = malloc(size + 1); /* exact, so that one byte too far is seen */
    MUST(copy != NULL);
    memcpy(copy, data, size);
    const struct tg_slice text = tg_slice_of(copy, size);
    const enum tg_rc rc = tg_json_check(text.p, text.n, &report);
    MUST((rc == TG_OK) == (report.what == NULL));
    MUST(rc == TG_OK || (report.at >= copy && report.at <= copy + size));
    const size_t count = read_all(text, rc == TG_OK, &sum, &bytes);
    if (rc == TG_OK) {
        check_steps(text);
        rewrite(text, &out);
        MUST(tg_json_check(out.p, out.n, &report) == TG_OK);
        MUST(read_all(tg_slice_of(out.p, out.n), true, &again, &bytes_again) == count);
        MUST(again == sum && bytes == bytes_again);
    }
    tg_json_text_clear(&out, 0);
    free(copy);
    return 0;
}
