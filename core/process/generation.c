#include "process/generation.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "vm/bundle.h"
#include "vm/compile.h"

enum { COMPILE_NICE = 5 /* who serves comes first, but it has only so much time */ };

/* Takes the first line off the text. */
static bool
next_line(struct tg_slice *text, struct tg_slice *line)
{
    if (text->n == 0) {
        return false;
    }
    const char *lf = memchr(text->p, '\n', text->n);
    *line = tg_slice_of(text->p, lf == NULL ? text->n : (size_t)(lf - text->p));
    const size_t taken = line->n + (lf != NULL);
    *text = tg_slice_of(text->p + taken, text->n - taken);
    return true;
}

void
tg_manifest_each(const struct tg_generation *generation, const char *word, tg_manifest_cb line, void *arg)
{
    struct tg_slice text;
    struct tg_slice found;
    const size_t n = strlen(word);
    if (tg_bundle_find(generation->bytes, "manifest", &text) != TG_OK) {
        return;
    }
    while (next_line(&text, &found)) {
        if (found.n > n && memcmp(found.p, word, n) == 0 && found.p[n] == ' ' &&
            !line(arg, tg_slice_of(found.p + n + 1, found.n - n - 1))) {
            return;
        }
    }
}

struct named {
    unsigned index;
    struct tg_slice name;
};

static bool
compare_index(void *arg, struct tg_slice rest)
{
    struct named *named = arg;
    char *end = NULL;
    if (strtoul(rest.p, &end, 10) != named->index || end >= rest.p + rest.n) {
        return true;
    }
    named->name = tg_slice_of(end + 1, (size_t)(rest.p + rest.n - end - 1));
    return false;
}

struct tg_slice
tg_manifest_name(const struct tg_generation *generation, const char *word, unsigned index)
{
    struct named named = {index, TG_SLICE("?")};
    tg_manifest_each(generation, word, compare_index, &named);
    return named.name;
}

struct tg_slice
tg_generation_pushed(const struct tg_generation *generation)
{
    struct tg_slice pushed = {0};
    return tg_bundle_find(generation->bytes, "pushed", &pushed) == TG_OK ? pushed : (struct tg_slice){0};
}

#define NUMBER(name, member)                                                                                           \
    {                                                                                                                  \
        name "=", offsetof(struct tg_downstream_config, member)                                                        \
    }

static const struct {
    const char *name;
    size_t offset; /* of an unsigned */
} numbers[] = {
    NUMBER("request_line", limits.line),
    NUMBER("field", limits.field),
    NUMBER("head", limits.head),
    NUMBER("fields", limits.fields),
    NUMBER("handshakes", handshakes),
    NUMBER("handshake_timeout", handshake_timeout),
    NUMBER("plain_text", plain_text),
    NUMBER("header_timeout", header_timeout),
    NUMBER("body_timeout", body_timeout),
    NUMBER("send_timeout", send_timeout),
    NUMBER("keepalive_timeout", keepalive_timeout),
    NUMBER("keepalive_requests", keepalive_requests),
    NUMBER("http2", http2),
    NUMBER("streams", streams),
    NUMBER("resets", resets),
    NUMBER("controls", controls),
    NUMBER("body_rate", body_rate),
    NUMBER("client_connections", client_connections),
    NUMBER("proxy_protocol", proxy_protocol),
    NUMBER("trust", trust),
    NUMBER("own", own),
};

static void
take_setting(struct tg_downstream_config *config, const char *word)
{
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const size_t n = strlen(numbers[i].name);
        if (strncmp(word, numbers[i].name, n) == 0) {
            const unsigned value = (unsigned)strtoul(word + n, NULL, 10);
            memcpy((char *)config + numbers[i].offset, &value, sizeof value);
            return;
        }
    }
    if (strncmp(word, "underscores=", 12) == 0) {
        config->reading.underscores = (uint8_t)strtoul(word + 12, NULL, 10);
    } else if (strcmp(word, "keep_slashes=1") == 0) {
        config->reading.keep_slashes = true;
    }
}

/* "ordinal address port name=number ..."; times in milliseconds */
static bool
take_listen(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    struct tg_manifest_listen listen = {0};
    struct tg_downstream_config *config = &listen.config;
    char text[1024];
    char *state = NULL;
    int used = 0;
    (void)snprintf(text, sizeof text, "%.*s", (int)rest.n, rest.p);
    if (sscanf(text, "%u %111s %u%n", &config->ordinal, listen.address, &config->port, &used) != 3 ||
        manifest->listen_count == TG_LISTENERS_MAX) {
        return true;
    }
    for (char *word = strtok_r(text + used, " ", &state); word != NULL; word = strtok_r(NULL, " ", &state)) {
        take_setting(config, word);
    }
    manifest->listens[manifest->listen_count++] = listen;
    return true;
}

/* "ordinal network": of a listener that stands before it. */
static bool
take_trusted(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    unsigned ordinal = 0;
    char network[TG_ADDRESS_TEXT];
    char text[256];
    struct tg_err err = {0};
    (void)snprintf(text, sizeof text, "%.*s", (int)rest.n, rest.p);
    if (sscanf(text, "%u %63s", &ordinal, network) != 2) {
        return true;
    }
    for (unsigned i = 0; i < manifest->listen_count; i++) {
        struct tg_cidr_list *list = &manifest->trusted[i];
        if (manifest->listens[i].config.ordinal == ordinal) {
            if (list->max == 0) {
                tg_cidr_list_init(list, TG_TRUSTED_MAX);
            }
            if (tg_cidr_list_add(list, network, strlen(network), &err) != TG_OK) {
                tg_log(TG_LOG_ERROR, "trusted_proxies: %s", err.text);
            }
        }
    }
    return true;
}

/* "memory connections lua_memory" */
static bool
take_limits(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    char text[64];
    (void)snprintf(text, sizeof text, "%.*s", (int)rest.n, rest.p);
    (void)sscanf(text, "%zu %u %zu", &manifest->memory, &manifest->connections, &manifest->lua_memory);
    return true;
}

static bool
take_dict(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    struct tg_manifest_dict dict = {0};
    char text[256];
    (void)snprintf(text, sizeof text, "%.*s", (int)rest.n, rest.p);
    if (sscanf(text, "%63s %zu", dict.name, &dict.size) == 2 && manifest->dict_count < TG_GENERATION_DICTS) {
        manifest->dicts[manifest->dict_count++] = dict;
    }
    return true;
}

static bool
take_resolvers(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    (void)snprintf(manifest->resolvers, sizeof manifest->resolvers, "%.*s", (int)rest.n, rest.p);
    return true;
}

static bool
take_canary(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    (void)snprintf(manifest->canary, sizeof manifest->canary, "%.*s", (int)rest.n, rest.p);
    return true;
}

/* "ktls 1" */
static bool
take_kernel_tls(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    (void)rest;
    manifest->kernel_tls = true;
    return false;
}

/* "source KIND" */
static bool
take_source(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    (void)rest;
    manifest->layered = true;
    return false;
}

static bool
take_log(void *arg, struct tg_slice rest)
{
    struct tg_manifest *manifest = arg;
    (void)snprintf(manifest->log_level, sizeof manifest->log_level, "%.*s", (int)rest.n, rest.p);
    return true;
}

/* There may be many lines, of routes: each is looked at once. */
static void
read_manifest(struct tg_generation *generation)
{
    static const struct {
        struct tg_slice word;
        tg_manifest_cb take;
    } words[] = {
        {TG_SLICE("listen "), take_listen},
        {TG_SLICE("trust "), take_trusted},
        {TG_SLICE("limits "), take_limits},
        {TG_SLICE("dict "), take_dict},
        {TG_SLICE("log "), take_log},
        {TG_SLICE("canary "), take_canary},
        {TG_SLICE("resolver "), take_resolvers},
        {TG_SLICE("source "), take_source},
        {TG_SLICE("ktls "), take_kernel_tls},
    };
    struct tg_slice line;
    struct tg_slice text;
    if (tg_bundle_find(generation->bytes, "manifest", &text) != TG_OK) {
        return;
    }
    while (next_line(&text, &line)) {
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            const size_t n = words[i].word.n;
            if (line.n >= n && memcmp(line.p, words[i].word.p, n) == 0) {
                (void)words[i].take(generation->manifest, tg_slice_of(line.p + n, line.n - n));
                break;
            }
        }
    }
}

void
tg_generation_free(struct tg_generation *generation)
{
    if (generation == NULL) {
        return;
    }
    if (generation->bytes.p != NULL) {
        (void)munmap((void *)(uintptr_t)generation->bytes.p, generation->bytes.n);
    }
    if (generation->fd >= 0) {
        close(generation->fd);
    }
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        tg_cidr_list_fini(&generation->manifest->trusted[i]);
    }
    tg_mem_free(generation->manifest);
    tg_mem_free(generation);
}

static bool
begins_with(struct tg_slice name, const char *text)
{
    const size_t n = strlen(text);
    return name.n >= n && memcmp(name.p, text, n) == 0;
}

/*
 * Bytecode differs from one compilation to the next: what counts is the text beside it, and the rest. Of secrets there
 * is a hash that takes its time, the entry "secrets": the id is no secret, and somebody could try words against it.
 */
static bool
hash_entry(void *arg, struct tg_slice name, struct tg_slice data)
{
    EVP_MD_CTX *digest = arg;
    if (!begins_with(name, "plugin:") && !begins_with(name, "file:") && !begins_with(name, "secret:")) {
        const uint64_t sizes[2] = {name.n, data.n};
        (void)EVP_DigestUpdate(digest, sizes, sizeof sizes);
        (void)EVP_DigestUpdate(digest, name.p, name.n);
        (void)EVP_DigestUpdate(digest, data.p, data.n);
    }
    return true;
}

static enum tg_rc
hash_bytes(struct tg_generation *generation)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    enum tg_rc rc = digest != NULL && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 ? TG_OK : TG_ENOMEM;
    if (rc == TG_OK) {
        rc = tg_bundle_each(generation->bytes, hash_entry, digest);
    }
    if (rc == TG_OK && EVP_DigestFinal_ex(digest, hash, NULL) != 1) {
        rc = TG_ESYSTEM;
    }
    EVP_MD_CTX_free(digest);
    for (unsigned i = 0; i < (TG_GENERATION_ID - 1) / 2 && rc == TG_OK; i++) {
        (void)snprintf(generation->id + (size_t)i * 2, 3, "%02x", hash[i]);
    }
    return rc;
}

struct tg_generation *
tg_generation_open(int fd, const char *known, struct tg_err *err)
{
    struct stat st;
    struct tg_generation *generation = tg_mem_new(struct tg_generation);
    if (generation == NULL || (generation->manifest = tg_mem_new(struct tg_manifest)) == NULL) {
        (void)tg_err_set(err, TG_ENOMEM, "memory is short");
        close(fd);
        tg_mem_free(generation);
        return NULL;
    }
    generation->fd = fd;
    if (fstat(fd, &st) < 0 || st.st_size == 0) {
        (void)tg_err_set(err, TG_EINVAL, "the bundle is empty");
        goto fail;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        (void)tg_err_errno(err, "map the bundle");
        goto fail;
    }
    generation->bytes = tg_slice_of(p, (size_t)st.st_size);
    if (known != NULL) {
        (void)snprintf(generation->id, sizeof generation->id, "%s", known);
    } else if (hash_bytes(generation) != TG_OK) {
        (void)tg_err_set(err, TG_EINVAL, "the bundle is broken");
        goto fail;
    }
    read_manifest(generation);
    return generation;

fail:
    tg_generation_free(generation);
    return NULL;
}

/* Never returns. What goes wrong is written to `message`. */
static _Noreturn void
compile_in_child(const struct tg_source *source, struct tg_slice kept, int bundle, int message)
{
    struct tg_err err = {0};
    enum tg_rc rc = tg_privilege_drop(source->privilege, &err);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* the kernel forgets it when the user changes */
    (void)setpriority(PRIO_PROCESS, 0, COMPILE_NICE);
    if (rc == TG_OK) {
        const struct tg_compile_source from = {source->entry,  source->plugin_dirs, kept,
                                               source->pushed, source->layered,     .ends = true};
        rc = tg_compile(&from, bundle, &err);
    }
    if (rc != TG_OK) {
        const ssize_t ignored = write(message, err.text, strlen(err.text));
        (void)ignored;
        _exit(1);
    }
    /* Sealed: what the workers load is what was hashed. */
    _exit(fcntl(bundle, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ? 2 : 0);
}

enum tg_rc
tg_compiler_start(struct tg_compiler *compiler, const struct tg_source *source, const struct tg_generation *before,
                  struct tg_err *err)
{
    struct tg_slice kept = {0};
    int ends[2];
    const int bundle = memfd_create("tidegate-bundle", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (bundle < 0) {
        return tg_err_errno(err, "memory file");
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        (void)tg_err_errno(err, "pipe");
        close(bundle);
        return TG_ESYSTEM;
    }
    const pid_t pid = fork();
    if (pid < 0) {
        (void)tg_err_errno(err, "fork");
        close(bundle);
        close(ends[0]);
        close(ends[1]);
        return TG_ESYSTEM;
    }
    if (pid == 0) {
        close(ends[0]);
        if (before != NULL && tg_bundle_find(before->bytes, "secret:self-signed", &kept) != TG_OK) {
            kept = (struct tg_slice){0};
        }
        compile_in_child(source, kept, bundle, ends[1]);
    }
    close(ends[1]);
    *compiler = (struct tg_compiler){pid, bundle, ends[0]};
    return TG_OK;
}

/* Asked here, where we may still be root: the kernel loads the module for nobody else. It is wanted, not needed. */
static void
look_for_kernel_tls(const struct tg_generation *generation)
{
    int why = 0;
    if (generation != NULL && generation->manifest->kernel_tls && !tg_tls_kernel(&why)) {
        tg_log(TG_LOG_WARN, "ktls: this kernel has no TLS (%s; modprobe tls): OpenSSL encrypts what is sent",
               strerror(why));
    }
}

struct tg_generation *
tg_compiler_finish(struct tg_compiler *compiler, int status, struct tg_err *err)
{
    /* The message fits into the pipe's buffer, so the child never waits for us to read it. */
    const ssize_t n = read(compiler->message, err->text, sizeof err->text - 1);
    const int bundle = compiler->bundle;
    err->text[n > 0 ? n : 0] = '\0';
    close(compiler->message);
    *compiler = (struct tg_compiler){0};
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        struct tg_generation *generation = tg_generation_open(bundle, NULL, err);
        look_for_kernel_tls(generation);
        return generation;
    }
    close(bundle);
    if (err->text[0] == '\0') {
        if (WIFSIGNALED(status)) {
            (void)tg_err_set(err, TG_ESCRIPT, "the configuration took longer than %d s to load, or crashed (signal %d)",
                             TG_COMPILE_TIMEOUT, WTERMSIG(status));
        } else {
            (void)tg_err_set(err, TG_ESCRIPT, "the configuration could not be loaded");
        }
    }
    return NULL;
}

void
tg_compiler_cancel(struct tg_compiler *compiler)
{
    if (compiler->pid != 0) {
        (void)kill(compiler->pid, SIGKILL);
        close(compiler->message);
        close(compiler->bundle);
        *compiler = (struct tg_compiler){0};
    }
}

struct tg_generation *
tg_generation_compile(const struct tg_source *source, struct tg_err *err)
{
    struct tg_compiler compiler;
    int status = 0;
    if (tg_compiler_start(&compiler, source, NULL, err) != TG_OK) {
        return NULL;
    }
    /* The pipe ends with the child. */
    struct pollfd end = {.fd = compiler.message, .events = 0};
    if (poll(&end, 1, TG_COMPILE_TIMEOUT * 1000) == 0) {
        (void)kill(compiler.pid, SIGKILL);
    }
    while (waitpid(compiler.pid, &status, 0) < 0 && errno == EINTR) {
    }
    return tg_compiler_finish(&compiler, status, err);
}
