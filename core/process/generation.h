/*
 * generation.h - a generation as the processes hand it around: a sealed bundle, its hash, and what it says of itself.
 *
 * Owns: the memory file of the bundle. Used by: master.c, which makes and keeps them, and worker.c, which loads them.
 * Does not know: Lua. The code of a bundle is compiled by a child, so that no script can hurt the master.
 */
#ifndef TG_PROCESS_GENERATION_H
#define TG_PROCESS_GENERATION_H

#include <sys/types.h>

#include "base/slice.h"
#include "net/listener.h"
#include "process/privilege.h"
#include "proxy/downstream.h"

enum { TG_GENERATION_ID = 13, TG_GENERATION_DICTS = 128, TG_COMPILE_TIMEOUT = 10 /* seconds */, TG_TRUSTED_MAX = 4096 };

struct tg_manifest_listen {
    char address[TG_LISTENER_ADDRESS]; /* of IP; or a path, which has no port */
    struct tg_downstream_config config;
};

struct tg_manifest_dict {
    char name[64];
    size_t size;
};

/* What the master needs to know of a configuration. */
struct tg_manifest {
    struct tg_manifest_listen listens[TG_LISTENERS_MAX];
    unsigned listen_count;
    struct tg_manifest_dict dicts[TG_GENERATION_DICTS];
    unsigned dict_count;
    struct tg_cidr_list trusted[TG_LISTENERS_MAX]; /* by listener, as `listens` */
    size_t memory;                                 /* bytes of a worker; 0: what the machine or its cgroup has */
    unsigned connections;                          /* of a worker; 0: by its descriptors */
    size_t lua_memory;                             /* bytes of a worker's Lua state */
    char resolvers[512];                           /* "address:port,..."; empty: the system's */
    char log_level[8];
    bool kernel_tls;  /* somebody asks for it */
    bool layered;     /* its files come on top of those of the disk */
    char canary[256]; /* words of how a reload to it is tried; empty: it is not */
};

struct tg_generation {
    struct tg_generation *next; /* the one before it */
    int fd;                     /* of the sealed memory file */
    uint64_t serial;
    char id[TG_GENERATION_ID]; /* begin of the SHA-256 of the bundle, NUL-terminated */
    struct tg_slice bytes;     /* mapped */
    struct tg_manifest *manifest;
    double committed; /* wall clock */
    char by[64];      /* who has asked for it */
    char change[256]; /* what it changes, in a line */
};

/* What a child needs to compile a configuration. */
struct tg_source {
    const char *entry;
    const char *const *plugin_dirs; /* NULL at its end */
    const struct tg_privilege *privilege;
    struct tg_slice pushed; /* files as a JSON object by name; empty: none */
    bool layered;           /* they come on top of those of the disk, not in their place */
};

/* A child that compiles. */
struct tg_compiler {
    pid_t pid;   /* 0: none */
    int bundle;  /* memory file that it writes */
    int message; /* read end of its errors */
};

/* Starts the child, which may take over what it has made for the generation `before` (or NULL). TG_ESYSTEM and `err`.
 */
TG_MUST_CHECK enum tg_rc tg_compiler_start(struct tg_compiler *compiler, const struct tg_source *source,
                                           const struct tg_generation *before, struct tg_err *err);
/* The child has ended with `status` (of waitpid): the generation, or NULL and `err`. The compiler is free again. */
struct tg_generation *tg_compiler_finish(struct tg_compiler *compiler, int status, struct tg_err *err);
/* Ends the child, if there is one. It is still to be reaped, as nobody's; the compiler is free again. */
void tg_compiler_cancel(struct tg_compiler *compiler);
/* Both, waiting for at most TG_COMPILE_TIMEOUT. */
struct tg_generation *tg_generation_compile(const struct tg_source *source, struct tg_err *err);

/* Maps the bundle in `fd`, which is then the generation's. `known`: its id, where that was made already; NULL: it is
 * made, which takes some time. NULL and `err`; the descriptor is closed. */
struct tg_generation *tg_generation_open(int fd, const char *known, struct tg_err *err);
/* NULL is allowed. */
void tg_generation_free(struct tg_generation *generation);

/* Calls back for each line of the manifest that begins with `word` and a space, with what follows; until false. */
typedef bool (*tg_manifest_cb)(void *arg, struct tg_slice rest);
void tg_manifest_each(const struct tg_generation *generation, const char *word, tg_manifest_cb line, void *arg);
/* The files that came on top of those of the disk, as tg_source has them; empty: none did. */
struct tg_slice tg_generation_pushed(const struct tg_generation *generation);
/* The text of line "word INDEX text", or "?" when there is none. */
struct tg_slice tg_manifest_name(const struct tg_generation *generation, const char *word, unsigned index);

#endif
