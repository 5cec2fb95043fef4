/*
 * fuzz_config.c - a configuration through tg_compile: JSON when it begins with a brace or a bracket, YAML with "---",
 * else Lua.
 *
 * Oracles: what is refused names the file and a line, or a path into the file, in every message, and leaves nothing in
 * the bundle; what is accepted loads, gives the same generation again, and, in JSON, says nothing twice; all memory of
 * the Lua state is given back and no descriptor stays open; a good configuration is as good after a bad one.
 *
 * LuaJIT is not instrumented, so the lines of Lua that run are reported to the fuzzer. The compiler of traces is off,
 * since it skips hooks: in the gateway the process is the limit of a script that never ends; here it is a hook.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <glob.h>
#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fuzz.h"
#include "process/generation.h"
#include "vm/compile.h"
#include "vm/load.h"

enum { INPUT_MAX = 16 * 1024, EDGES = 16 * 1024, MEMORY_MAX = 128 * 1024 * 1024, STEP = 1000, STEPS_MAX = 6000 };

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t edges[EDGES];

static const char *const plugin_dirs[] = {"plugins", NULL};
static char folder[] = "build/fuzz/config-XXXXXX"; /* a crash leaves it, for `make clean` */

static const char good[] = "listen { port = 8080 }\n"
                           "upstream \"a\" { targets = { \"http://127.0.0.1:9000\" } }\n"
                           "route \"r\" { path = \"/*\", to = \"a\", use = { \"correlation-id\" } }\n";

/* ------------------------------------------------------------------ the Lua states, watched */

static size_t memory_used;
static unsigned steps;
static bool cut; /* what the input asked for was too much: its message is not its own */
static unsigned last_line;

/* All of a state's memory is given back at once, so nothing is reused before: LuaJIT is not instrumented, and the
 * sanitizer's own allocator would only be slow. */
static void *
allocate(void *arg, void *p, size_t old, size_t size)
{
    static char *memory;
    static size_t taken;
    (void)arg;
    if (memory == NULL) {
        memory = mmap(NULL, MEMORY_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        MUST(memory != MAP_FAILED);
    }
    taken = memory_used == 0 ? 0 : taken;
    if (size <= old) {
        memory_used -= old - size;
        return size == 0 ? NULL : p;
    }
    if (size > MEMORY_MAX - taken) {
        cut = true;
        return NULL;
    }
    char *grown = memory + taken;
    taken += (size + 15) & ~(size_t)15;
    if (old > 0) {
        memcpy(grown, p, old);
    }
    memory_used += size - old;
    return grown;
}

static void
on_hook(lua_State *L, lua_Debug *ar)
{
    if (ar->event == LUA_HOOKCOUNT) {
        if (++steps < STEPS_MAX) {
            return;
        }
        /* From now on at every instruction: a pcall of the script must not go on. */
        cut = true;
        (void)lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
        lua_pushliteral(L, "too many instructions");
        (void)lua_error(L);
    }
    unsigned hash = (unsigned)ar->currentline;
    (void)lua_getinfo(L, "S", ar);
    if (strncmp(ar->source, "@lua/", 5) != 0 && strncmp(ar->source, "@plugins/", 9) != 0) {
        return;
    }
    for (const char *p = ar->source; *p != '\0'; p++) {
        hash = hash * 31 + (unsigned char)*p;
    }
    edges[(last_line * 7 + hash) % EDGES]++;
    last_line = hash;
}

static void *
next_of(const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    MUST(symbol != NULL);
    return symbol;
}

/* These three stand before the libraries' own for the code under test. */

lua_State *
luaL_newstate(void)
{
    return lua_newstate(allocate, NULL);
}

void
luaL_openlibs(lua_State *L)
{
    void (*open)(lua_State *) = NULL;
    *(void **)&open = next_of("luaL_openlibs");
    open(L);
    (void)luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    (void)lua_sethook(L, on_hook, LUA_MASKLINE | LUA_MASKCOUNT, STEP);
}

/* An input must not include the whole machine. */
int
glob(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *found)
{
    int (*real)(const char *, int, int (*)(const char *, int), glob_t *) = NULL;
    if (strncmp(pattern, folder, sizeof folder - 1) != 0 && strncmp(pattern, "plugins/", 8) != 0) {
        return GLOB_NOMATCH;
    }
    *(void **)&real = next_of("glob");
    return real(pattern, flags, on_error, found);
}

/* ------------------------------------------------------------------ files */

static const char *
path_of(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void
write_file(const char *name, const void *p, size_t n)
{
    const int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    MUST(close(fd) == 0);
}

static void
remove_folder(void)
{
    static const char *const names[] = {"gateway.lua", "gateway.json", "gateway.yaml",
                                        "good.lua",    "more.lua",     "more.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)unlink(path_of(names[i]));
    }
    (void)rmdir(folder);
}

/* ------------------------------------------------------------------ compiling */

struct result {
    enum tg_rc rc;
    size_t bundle_size;
    char id[TG_GENERATION_ID];
    struct tg_err err;
};

static int
lowest_free_descriptor(void)
{
    const int fd = dup(STDIN_FILENO);
    MUST(fd >= 0 && close(fd) == 0);
    return fd;
}

static bool
count_line(void *arg, struct tg_slice rest)
{
    (void)rest;
    ++*(size_t *)arg;
    return true;
}

static size_t
count_lines(const struct tg_generation *generation, const char *word)
{
    size_t n = 0;
    tg_manifest_each(generation, word, count_line, &n);
    return n;
}

/* The workers' part: the state that a generation runs in can be made of it. */
static void
check_loads(struct tg_slice bundle)
{
    struct tg_err err = {0};
    lua_State *L = tg_load_state(bundle, &err);
    MUST(L != NULL);
    MUST(tg_load_module(L, "abi", &err)); /* abi */
    lua_pushboolean(L, 1);                /* abi true: there is no worker around it */
    lua_setfield(L, -2, "validating");
    MUST(tg_load_module(L, "runtime.boot", &err));  /* abi boot */
    lua_getfield(L, -1, "start");                   /* abi boot start */
    lua_newtable(L);                                /* abi boot start core */
    lua_getfield(L, LUA_REGISTRYINDEX, "tidegate"); /* abi boot start core files */
    lua_setfield(L, -2, "files");
    lua_pushliteral(L, "id"); /* abi boot start core id */
    lua_setfield(L, -2, "id");
    const bool started = tg_load_call(L, 1, 3, &err);
    if (!started && !cut) {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    MUST(started || cut);
    lua_close(L);
}

static void
check_bundle(int fd, struct result *result)
{
    struct tg_generation *generation = tg_generation_open(fd, NULL, &result->err);
    MUST(generation != NULL);
    const struct tg_manifest *manifest = generation->manifest;
    MUST(manifest->listen_count > 0 && manifest->listen_count == count_lines(generation, "listen"));
    /* One is there without being asked for. */
    MUST(manifest->dict_count > 0 && manifest->dict_count == count_lines(generation, "dict"));
    MUST(manifest->log_level[0] != '\0' && count_lines(generation, "log") == 1);
    memcpy(result->id, generation->id, sizeof result->id);
    check_loads(generation->bytes);
    tg_generation_free(generation);
}

static void
compile(const char *name, struct result *result)
{
    struct stat st;
    const int before = lowest_free_descriptor();
    const int bundle = memfd_create("bundle", MFD_CLOEXEC);
    MUST(bundle >= 0);
    *result = (struct result){0};
    steps = 0;
    last_line = 0;
    cut = false;
    const struct tg_compile_source source = {.entry = path_of(name), .plugin_dirs = plugin_dirs};
    result->rc = tg_compile(&source, bundle, &result->err);
    MUST(memory_used == 0);
    MUST(fstat(bundle, &st) == 0);
    result->bundle_size = (size_t)st.st_size;
    if (result->rc == TG_OK) {
        MUST(result->err.text[0] == '\0');
        check_bundle(bundle, result);
    } else {
        MUST(result->bundle_size == 0);
        MUST(close(bundle) == 0);
    }
    MUST(memory_used == 0);
    MUST(lowest_free_descriptor() == before);
}

/* ------------------------------------------------------------------ what is refused */

static bool
begins(const char *p, const char *text)
{
    return strncmp(p, text, strlen(text)) == 0;
}

/* "gateway.lua:3", "gateway.json  route "x" › to", or a file alone if what is said of it is true of all of it. */
static bool
names_a_place(const char *head, const char *body)
{
    static const char *const files[] = {"gateway.lua", "gateway.json", "gateway.yaml",
                                        "more.lua",    "more.json",    "plugins/"};
    static const char *const of_all[] = {"found     no listener", "the file must hold", "found     bytecode",
                                         "malformed JSON: JSON parser does not support UTF-16", "the member \""};
    const char *p = NULL;
    for (size_t i = 0; i < sizeof files / sizeof files[0] && p == NULL; i++) {
        p = begins(head, files[i]) ? head + strlen(files[i]) : NULL;
    }
    if (p == NULL) {
        return false;
    }
    p += strcspn(p, ": \n");
    if ((p[0] == ':' && p[1] >= '1' && p[1] <= '9') || begins(p, "  ")) {
        return true;
    }
    for (size_t i = 0; i < sizeof of_all / sizeof of_all[0]; i++) {
        if (begins(body, of_all[i])) {
            return true;
        }
    }
    return false;
}

static bool
is_message(const char *text)
{
    const char *p = text;
    while (*p != '\0') {
        const char *newline = strchr(p, '\n');
        if (newline == NULL) {
            return begins(p, "... and ") && p != text;
        }
        if (!begins(newline + 1, "    ") || strchr(" \n", newline[5]) != NULL || !names_a_place(p, newline + 5)) {
            return false;
        }
        p = newline + 1;
        while (begins(p, "    ")) {
            p += strcspn(p, "\n");
            p += *p == '\n';
        }
    }
    return p != text;
}

static void
check_message(struct tg_err *err)
{
    char *last = strrchr(err->text, '\n');
    if (strlen(err->text) == sizeof err->text - 1 && last != NULL && !begins(last + 1, "    ")) {
        *last = '\0'; /* cut: a place without what is wrong there */
    }
    if (!is_message(err->text)) {
        (void)fprintf(stderr, "%s\n", err->text);
        MUST(!"the message names its place");
    }
}

/* ------------------------------------------------------------------ names in JSON */

struct json {
    const char *p;
    const char *end;
    char *pool; /* where the next name goes */
};

/* The string behind a quotation mark, its escapes resolved if they are ASCII. */
static struct tg_slice
read_string(struct json *in)
{
    static const char letters[] = "nrtbf";
    static const char meant[] = "\n\r\t\b\f";
    char *first = in->pool;
    while (in->p < in->end && *in->p != '"') {
        char c = *in->p++;
        if (c == '\\' && in->p < in->end) {
            c = *in->p++;
            const char *letter = c == '\0' ? NULL : strchr(letters, c);
            unsigned point = 0;
            if (letter != NULL) {
                c = meant[letter - letters];
            } else if (c == 'u' && in->end - in->p >= 4 && sscanf(in->p, "00%2x", &point) == 1 && point < 0x80) {
                c = (char)point;
                in->p += 4;
            }
        }
        *in->pool++ = c;
    }
    in->p += in->p < in->end;
    return tg_slice_of(first, (size_t)(in->pool - first));
}

/* Whether an object of well-formed JSON, from behind its first brace or bracket on, has two members of one name. */
static bool
repeats_a_name(struct json *in)
{
    struct tg_slice names[64];
    unsigned count = 0;
    bool found = false;
    while (in->p < in->end) {
        const char c = *in->p++;
        if (c == '{' || c == '[') {
            found = repeats_a_name(in) || found;
        } else if (c == '}' || c == ']') {
            break;
        } else if (c == '"') {
            const struct tg_slice name = read_string(in);
            in->p += strspn(in->p, " \t\r\n");
            for (unsigned i = 0; in->p[0] == ':' && i < count; i++) {
                found = found || tg_slice_is(names[i], name.p, name.n);
            }
            if (in->p[0] == ':' && count < sizeof names / sizeof names[0]) {
                names[count++] = name;
            }
        }
    }
    return found;
}

static void
check_names(const uint8_t *bytes, size_t n)
{
    static char text[INPUT_MAX + 1];
    static char pool[INPUT_MAX];
    memcpy(text, bytes, n);
    text[n] = '\0';
    struct json in = {text, text + n, pool};
    MUST(!repeats_a_name(&in));
}

/* ------------------------------------------------------------------ the target */

static void
begin(void)
{
    static const char more_lua[] = "upstream \"more\" { targets = { \"http://127.0.0.1:9001\" } }\n";
    static const char more_json[] = "{\"consumer\": {\"json\": {\"credentials\": {\"key\": \"k\"}}}}\n";
    MUST(mkdtemp(folder) != NULL);
    (void)atexit(remove_folder);
    write_file("good.lua", good, sizeof good - 1);
    write_file("more.lua", more_lua, sizeof more_lua - 1);
    write_file("more.json", more_json, sizeof more_json - 1);
    tg_log_set_level((enum tg_log_level)(TG_LOG_ERROR + 1)); /* what the input prints is not asked for */
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct result first;
    static struct result result;
    static struct result again;
    if (first.id[0] == '\0') {
        begin();
        compile("good.lua", &first);
        MUST(first.rc == TG_OK);
    }
    if (n == 0 || n > INPUT_MAX || memmem(bytes, n, "/dev", 4) != NULL || memmem(bytes, n, "/proc", 5) != NULL) {
        return 0; /* files without an end */
    }
    const bool is_json = bytes[0] == '{' || bytes[0] == '[';
    const bool is_yaml = n >= 3 && memcmp(bytes, "---", 3) == 0;
    const char *name = is_json ? "gateway.json" : is_yaml ? "gateway.yaml" : "gateway.lua";
    write_file(name, bytes, n);
    compile(name, &result);
    if (cut) {
        return 0;
    }
    if (result.rc != TG_OK) {
        check_message(&result.err);
    } else if (is_json) {
        check_names(bytes, n);
    }
    /* Not after every input: it takes longer than the rest. */
    if (tg_field_hash((const char *)bytes, n) % 4 == 0) {
        compile(result.rc == TG_OK ? name : "good.lua", &again);
        MUST(again.rc == TG_OK);
        MUST(strcmp(again.id, result.rc == TG_OK ? result.id : first.id) == 0);
    }
    return 0;
}
