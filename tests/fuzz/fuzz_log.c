/*
 * fuzz_log.c - text as a record of the error log, as lines of an access log ('s' before it), or as a JSON string ('j').
 *
 * Oracles: one record out for one in. Of the error log, a record is what begins without a blank: later lines of a
 * traceback are indented, so that no text can feign a record. A sink's record is a line. What comes out is what a slow
 * escaper makes of the text, and a JSON string is read back as the text, less what is no UTF-8.
 */
#include <fcntl.h>
#include <sanitizer/common_interface_defs.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sink.h"
#include "fuzz.h"
#include "vm/host.h"

enum { INPUT_MAX = 40 * 1024, OUT_MAX = 8 * INPUT_MAX, LOG_LINE = 16 * 1024, JSON_CUT = 4096 };

struct text {
    size_t n;
    char p[OUT_MAX];
};

/* What a descriptor of a memory file has got; the file is empty again. */
static void
take_file(int fd, struct text *out)
{
    const ssize_t n = pread(fd, out->p, sizeof out->p, 0);
    MUST(n >= 0 && (size_t)n < sizeof out->p);
    out->n = (size_t)n;
    MUST(ftruncate(fd, 0) == 0);
}

static void
put(struct text *out, const char *p, size_t n)
{
    memcpy(out->p + out->n, p, n);
    out->n += n;
}

/* ------------------------------------------------------------------ the error log */

static void
escape_slowly(const char *p, size_t n, struct text *out)
{
    char hex[8];
    out->n = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)p[i];
        if (c == '\n') {
            put(out, "\n    ", 5);
        } else if (c == '\t') {
            put(out, " ", 1);
        } else if (c < 32 || c == 127) {
            put(out, hex, (size_t)snprintf(hex, sizeof hex, "\\x%02x", c));
        } else {
            put(out, p + i, 1);
        }
    }
}

/* "2031-01-31T00:00:00.000Z warn [fuzz] ", with digits for zeros; its length. */
static size_t
check_prefix(const struct text *line, const char *level)
{
    static const char form[] = "0000-00-00T00:00:00.000Z ";
    char rest[32];
    const size_t n = (size_t)snprintf(rest, sizeof rest, "%s [fuzz] ", level);
    MUST(line->n >= sizeof form - 1 + n);
    for (size_t i = 0; i < sizeof form - 1; i++) {
        MUST(form[i] == '0' ? line->p[i] >= '0' && line->p[i] <= '9' : line->p[i] == form[i]);
    }
    MUST(memcmp(line->p + sizeof form - 1, rest, n) == 0);
    return sizeof form - 1 + n;
}

static void
check_record(const struct text *got, const char *level, const char *p, size_t n)
{
    static struct text expected;
    const size_t prefix = check_prefix(got, level);
    MUST(got->n <= LOG_LINE && got->p[got->n - 1] == '\n');
    size_t records = 1;
    for (size_t i = 1; i < got->n; i++) {
        const unsigned char c = (unsigned char)got->p[i];
        MUST((c >= 32 && c != 127) || c == '\n');
        records += got->p[i - 1] == '\n' && memcmp(got->p + i, "    ", got->n - i < 4 ? got->n - i : 4) != 0;
    }
    MUST(records == 1);
    escape_slowly(p, n, &expected);
    const size_t body = got->n - prefix - 1;
    MUST(body <= expected.n && memcmp(got->p + prefix, expected.p, body) == 0);
    MUST(body == expected.n || got->n > LOG_LINE - 16);
}

static void
check_error_log(const char *p, size_t n, unsigned level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    static struct text got;
    static int file = -1;
    static int terminal = -1;
    if (file < 0) {
        file = memfd_create("log", MFD_CLOEXEC);
        terminal = dup(STDERR_FILENO);
        MUST(file >= 0 && terminal >= 0 && fcntl(file, F_SETFL, O_APPEND) == 0);
        /* The sanitizers' reports are not what is captured. */
        __sanitizer_set_report_fd((void *)(intptr_t)terminal);
    }
    tg_log_set(TG_LOG_INFO, "fuzz");
    (void)dup2(file, STDERR_FILENO);
    tg_log_bytes((enum tg_log_level)level, p, n);
    (void)dup2(terminal, STDERR_FILENO);
    take_file(file, &got);
    MUST((got.n == 0) == (level < TG_LOG_INFO));
    if (got.n > 0) {
        check_record(&got, names[level], p, n);
    }
}

/* ------------------------------------------------------------------ lines of a sink */

/* Each record of the input ends at a byte 0x1e. */
static void
check_sink(const char *p, size_t n)
{
    static struct text got;
    static int file = -1;
    static char path[64];
    struct tg_err err;
    if (file < 0) {
        file = memfd_create("sink", MFD_CLOEXEC);
        MUST(file >= 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    struct tg_sink *sink = tg_sink_open(path, &err);
    MUST(sink != NULL);
    size_t records = 0;
    for (const char *at = p, *end = p + n; at <= end; records++) {
        const char *stop = at == end ? NULL : memchr(at, 0x1e, (size_t)(end - at));
        stop = stop == NULL ? end : stop;
        MUST(tg_sink_write(sink, at, (size_t)(stop - at)) == TG_OK);
        at = stop + 1;
    }
    MUST(tg_sink_dropped(sink) == 0);
    tg_sink_close(sink);
    take_file(file, &got);
    size_t lines = 0;
    size_t at = 0;
    for (size_t start = 0; start < got.n; lines++) {
        const char *end = memchr(got.p + start, '\n', got.n - start);
        MUST(end != NULL);
        const size_t length = (size_t)(end - got.p) - start;
        MUST(length < TG_SINK_LINE);
        /* A record without control bytes comes out as it is, but for its end. */
        for (size_t i = 0; i < length && at + i < n && p[at + i] >= 32 && p[at + i] != 127; i++) {
            MUST(got.p[start + i] == p[at + i]);
        }
        const char *stop = at < n ? memchr(p + at, 0x1e, n - at) : NULL;
        at = stop == NULL ? n : (size_t)(stop - p) + 1;
        start += length + 1;
    }
    MUST(lines == records);
}

/* ------------------------------------------------------------------ JSON strings */

/* The number of bytes of the code point at `p` in UTF-8 (RFC 3629), or 0. */
static size_t
point_length(const unsigned char *p, size_t n)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {{0, 0x7f}, {0x80, 0x7ff}, {0x800, 0xffff}, {0x10000, 0x10ffff}};
    const size_t length = p[0] < 0x80 ? 1 : p[0] >> 5 == 0x06 ? 2 : p[0] >> 4 == 0x0e ? 3 : p[0] >> 3 == 0x1e ? 4 : 0;
    if (length == 0 || length > n) {
        return 0;
    }
    uint32_t point = length == 1 ? p[0] : p[0] & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2) {
            return 0;
        }
        point = point << 6 | (p[i] & 0x3fU);
    }
    const bool surrogate = point >= 0xd800 && point <= 0xdfff;
    return point >= ranges[length - 1].first && point <= ranges[length - 1].last && !surrogate ? length : 0;
}

static void
repair(const char *p, size_t n, struct text *out)
{
    out->n = 0;
    for (size_t i = 0; i < n;) {
        const size_t length = point_length((const unsigned char *)p + i, n - i);
        put(out, length == 0 ? "\xef\xbf\xbd" : p + i, length == 0 ? 3 : length);
        i += length == 0 ? 1 : length;
    }
}

/* Reads the escapes that may stand in a JSON string. */
static void
unquote(struct tg_slice quoted, struct text *out)
{
    MUST(quoted.n >= 2 && quoted.p[0] == '"' && quoted.p[quoted.n - 1] == '"');
    out->n = 0;
    for (size_t i = 1; i < quoted.n - 1; i++) {
        const unsigned char c = (unsigned char)quoted.p[i];
        MUST(c >= 32 && c != 127 && c != '"');
        if (c != '\\') {
            put(out, quoted.p + i, 1);
            continue;
        }
        i++;
        if (quoted.p[i] != 'u') {
            MUST(quoted.p[i] == '"' || quoted.p[i] == '\\' || quoted.p[i] == 'n');
            put(out, quoted.p[i] == 'n' ? "\n" : quoted.p + i, 1);
            continue;
        }
        MUST(i + 4 < quoted.n - 1);
        const char digits[5] = {quoted.p[i + 1], quoted.p[i + 2], quoted.p[i + 3], quoted.p[i + 4], '\0'};
        char *end = NULL;
        const unsigned long point = strtoul(digits, &end, 16);
        MUST(end == digits + 4 && (point < 0x80 || point == 0xfffd));
        const char byte = (char)point;
        put(out, point < 0x80 ? &byte : "\xef\xbf\xbd", point < 0x80 ? 1 : 3);
        i += 4;
    }
}

static void
check_json_string(const char *p, size_t n)
{
    static struct text expected;
    static struct text got;
    MUST(tg_abi_json_string(p, n) == TG_OK);
    unquote(tg_abi_vm.out, &got);
    repair(p, n, &expected);
    MUST(got.n <= expected.n && memcmp(got.p, expected.p, got.n) == 0);
    MUST(got.n == expected.n || tg_abi_vm.out.n >= JSON_CUT);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n == 0 || n > INPUT_MAX) {
        return 0;
    }
    char *text = malloc(n - 1);
    MUST(text != NULL);
    memcpy(text, bytes + 1, n - 1);
    if (bytes[0] == 's') {
        check_sink(text, n - 1);
    } else if (bytes[0] == 'j') {
        check_json_string(text, n - 1);
    } else {
        check_error_log(text, n - 1, bytes[0] % 4);
    }
    free(text);
    return 0;
}
