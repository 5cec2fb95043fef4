#include "process/tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "http/body.h"
#include "http/h1_write.h"
#include "process/control.h"
#include "vm/compile.h"

/*
 * Functions for specs. They block, which is all right here: a spec is a straight story, and nothing else runs in this
 * process. Gateways and origins are processes of their own.
 */

enum { ORIGINS_MAX = 4096, MESSAGE_MAX = 1024 * 1024, ARGUMENTS_MAX = 32, STOP_TIME = 5000 /* milliseconds */ };

static uint32_t *requests; /* of each origin; shared with them */
static unsigned origins;
static const char *const *tool_plugin_dirs;

static void
sleep_milliseconds(long milliseconds)
{
    const struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    (void)nanosleep(&pause, NULL);
}

/* sleep(seconds) */
static int
tool_sleep(lua_State *L)
{
    sleep_milliseconds((long)(luaL_checknumber(L, 1) * 1000));
    return 0;
}

/* A socket that listens on a free port of the loopback. */
static int
listen_free(unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 128) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

/* free_port() -> a port on which nobody listens */
static int
tool_free_port(lua_State *L)
{
    unsigned port = 0;
    const int fd = listen_free(&port);
    if (fd < 0) {
        return luaL_error(L, "no free port");
    }
    close(fd);
    lua_pushinteger(L, (lua_Integer)port);
    return 1;
}

/* spawn(log, program, arguments ...) -> process id; output goes to the file `log` */
static int
tool_spawn(lua_State *L)
{
    char *argv[ARGUMENTS_MAX + 1] = {0};
    const char *log = luaL_checkstring(L, 1);
    const int count = lua_gettop(L) - 1;
    luaL_argcheck(L, count > 0 && count <= ARGUMENTS_MAX, 2, "a program and its arguments");
    for (int i = 0; i < count; i++) {
        argv[i] = (char *)(uintptr_t)luaL_checkstring(L, i + 2);
    }
    (void)fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        (void)dup2(fd, STDOUT_FILENO);
        (void)dup2(fd, STDERR_FILENO);
        (void)execv(argv[0], argv);
        _exit(127);
    }
    lua_pushinteger(L, pid);
    return 1;
}

/* stop(process id, signal = TERM) -> exit status, or nil and the signal that ended it */
static int
tool_stop(lua_State *L)
{
    const pid_t pid = (pid_t)luaL_checkinteger(L, 1);
    const int number = (int)luaL_optinteger(L, 2, SIGTERM);
    int status = 0;
    (void)kill(pid, number);
    for (int waited = 0; waitpid(pid, &status, WNOHANG) == 0; waited += 10) {
        if (waited >= STOP_TIME) {
            (void)kill(pid, SIGKILL);
        }
        sleep_milliseconds(10);
    }
    if (WIFEXITED(status)) {
        lua_pushinteger(L, WEXITSTATUS(status));
        return 1;
    }
    lua_pushnil(L);
    lua_pushinteger(L, WTERMSIG(status));
    return 2;
}

/* exchange(port, bytes, seconds) -> all that comes back until the end, or nil and why */
static int
tool_exchange(lua_State *L)
{
    size_t n = 0;
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)luaL_checkinteger(L, 1)),
                                        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const char *bytes = luaL_checklstring(L, 2, &n);
    const double seconds = luaL_optnumber(L, 3, 10);
    const struct timeval wait = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 || send(fd, bytes, n, MSG_NOSIGNAL) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(errno));
        close(fd);
        return 2;
    }
    luaL_Buffer all;
    luaL_buffinit(L, &all);
    for (;;) {
        char *p = luaL_prepbuffer(&all);
        const ssize_t got = recv(fd, p, LUAL_BUFFERSIZE, 0);
        if (got <= 0) {
            break;
        }
        luaL_addsize(&all, (size_t)got);
    }
    close(fd);
    luaL_pushresult(&all);
    return 1;
}

/* Reads one request into `data` and parses it. TG_OK, or anything else when there is none. */
static enum tg_rc
read_request(int fd, char *data, struct tg_message *message, struct tg_slice *body)
{
    static const struct tg_h1_limits limits = {8192, 8192, 65536, 200};
    const struct tg_h1_fault *fault = NULL;
    struct tg_h1_scan scan = {0};
    size_t filled = 0;
    enum tg_rc rc = TG_AGAIN;
    while (rc == TG_AGAIN) {
        const ssize_t got = recv(fd, data + filled, MESSAGE_MAX - filled, 0);
        if (got <= 0) {
            return TG_ECLOSED;
        }
        filled += (size_t)got;
        rc = tg_h1_scan(&scan, data, filled, &limits, true, &fault);
    }
    rc = rc == TG_OK ? tg_h1_parse_request(message, data + scan.start, scan.pos - scan.start, &fault) : rc;
    if (rc != TG_OK) {
        return rc;
    }
    struct tg_body framing;
    tg_body_init(&framing, message->framing, message->content_length);
    char *raw = data + scan.pos;
    size_t n = filled - scan.pos;
    *body = tg_slice_of(raw, 0);
    while (!framing.done) {
        struct tg_slice piece = {0};
        size_t used = 0;
        if (n == 0) {
            const ssize_t got = recv(fd, raw, (size_t)(data + MESSAGE_MAX - raw), 0);
            if (got <= 0) {
                return TG_ECLOSED;
            }
            n = (size_t)got;
        }
        if (tg_body_decode(&framing, raw, n, &piece, &used, &fault) != TG_OK) {
            return TG_EPROTOCOL;
        }
        memmove((char *)(uintptr_t)body->p + body->n, piece.p, piece.n);
        body->n += piece.n;
        raw += used;
        n -= used;
    }
    tg_body_fini(&framing);
    return TG_OK;
}

/* handler request: { method, target, headers, body } */
static void
push_request(lua_State *L, const struct tg_message *message, struct tg_slice body)
{
    lua_pushvalue(L, 1); /* handler */
    lua_newtable(L);     /* handler request */
    lua_pushlstring(L, message->method.p, message->method.n);
    lua_setfield(L, -2, "method");
    lua_pushlstring(L, message->target.p, message->target.n);
    lua_setfield(L, -2, "target");
    lua_pushlstring(L, body.p, body.n);
    lua_setfield(L, -2, "body");
    lua_newtable(L); /* handler request headers */
    for (unsigned i = 0; i < message->count; i++) {
        char name[256];
        const struct tg_field *field = &message->fields[i];
        const size_t n = field->name_len < sizeof name ? field->name_len : sizeof name;
        for (size_t k = 0; k < n; k++) {
            name[k] = tg_lower(field->name[k]);
        }
        lua_pushlstring(L, name, n);
        lua_pushlstring(L, field->value, field->value_len);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "headers"); /* handler request */
}

/* Answers one request: handler(request) -> status, body, header lines. */
static void
answer(lua_State *L, int fd, char *data, unsigned origin)
{
    static char block[16 * 1024];
    struct tg_arena arena;
    struct tg_message message;
    struct tg_slice body = {0};
    tg_arena_init(&arena, block, sizeof block, MESSAGE_MAX);
    tg_message_init(&message, &arena);
    if (read_request(fd, data, &message, &body) == TG_OK) {
        __atomic_add_fetch(&requests[origin], 1, __ATOMIC_RELAXED);
        push_request(L, &message, body);
        if (lua_pcall(L, 1, 3, 0) == 0) { /* status body headers */
            size_t n = 0;
            const char *text = lua_tolstring(L, -2, &n);
            const char *headers = lua_tostring(L, -1);
            (void)dprintf(fd, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n",
                          (int)lua_tointeger(L, -3), tg_h1_reason((unsigned)lua_tointeger(L, -3)), n,
                          headers == NULL ? "" : headers);
            (void)send(fd, text == NULL ? "" : text, n, MSG_NOSIGNAL);
        } else {
            (void)fprintf(stderr, "origin: %s\n", lua_tostring(L, -1));
        }
        lua_settop(L, 1);
    }
    tg_arena_fini(&arena);
}

/* serve(handler) -> process id, port, number: an origin in a process of its own, which has a copy of all this one knows
 */
static int
tool_serve(lua_State *L)
{
    unsigned port = 0;
    luaL_checktype(L, 1, LUA_TFUNCTION);
    const int listener = listen_free(&port);
    if (listener < 0 || origins == ORIGINS_MAX) {
        return luaL_error(L, "no more origins");
    }
    const unsigned origin = origins++;
    (void)fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        char *data = tg_mem_alloc(MESSAGE_MAX);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        lua_settop(L, 1);
        for (;;) {
            const int fd = accept(listener, NULL, NULL);
            if (fd >= 0 && data != NULL) {
                answer(L, fd, data, origin);
                (void)shutdown(fd, SHUT_WR);
                close(fd);
            }
        }
    }
    close(listener);
    lua_pushinteger(L, pid);
    lua_pushinteger(L, (lua_Integer)port);
    lua_pushinteger(L, (lua_Integer)origin);
    return 3;
}

/* requests(number) -> how many that origin has got */
static int
tool_requests(lua_State *L)
{
    const unsigned origin = (unsigned)luaL_checkinteger(L, 1);
    lua_pushinteger(L, origin < ORIGINS_MAX ? (lua_Integer)requests[origin] : 0);
    return 1;
}

/* folder() -> a new empty folder */
static int
tool_folder(lua_State *L)
{
    char path[] = "/tmp/tidegate-test-XXXXXX";
    if (mkdtemp(path) == NULL) {
        return luaL_error(L, "no folder: %s", strerror(errno));
    }
    lua_pushstring(L, path);
    return 1;
}

/* remove_folder(path) */
static int
tool_remove_folder(lua_State *L)
{
    (void)rmdir(luaL_checkstring(L, 1));
    return 0;
}

/* ask(path of a control socket, line) -> what the master says, or nil, an error and the exit status */
static int
tool_ask(lua_State *L)
{
    int status;
    char *text = tg_control_text(luaL_checkstring(L, 1), luaL_checkstring(L, 2), &status);
    if (status != 0) {
        lua_pushnil(L);
    }
    lua_pushstring(L, text == NULL ? "tidegate: memory is short\n" : text);
    lua_pushinteger(L, status);
    tg_mem_free(text);
    return status == 0 ? 2 : 3;
}

static void
provide(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"sleep", tool_sleep},
        {"free_port", tool_free_port},
        {"spawn", tool_spawn},
        {"stop", tool_stop},
        {"exchange", tool_exchange},
        {"serve", tool_serve},
        {"requests", tool_requests},
        {"folder", tool_folder},
        {"remove_folder", tool_remove_folder},
        {"ask", tool_ask},
        {NULL, NULL},
    };
    for (const luaL_Reg *function = functions; function->name != NULL; function++) {
        lua_pushcfunction(L, function->func);
        lua_setfield(L, -2, function->name);
    }
    lua_newtable(L); /* core dirs */
    for (int i = 0; tool_plugin_dirs[i] != NULL; i++) {
        lua_pushstring(L, tool_plugin_dirs[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "plugin_dirs");
}

int
tg_tool_run(const char *name, const char *const *plugin_dirs, int argc, char **argv)
{
    struct tg_err err = {0};
    char module[64];
    tool_plugin_dirs = plugin_dirs;
    requests = mmap(NULL, ORIGINS_MAX * sizeof *requests, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (requests == MAP_FAILED) {
        return 1;
    }
    (void)snprintf(module, sizeof module, "tool.%s", name);
    const int status = tg_compile_run(module, provide, argc, argv, &err);
    if (status < 0) {
        (void)fprintf(stderr, "tidegate %s: %s\n", name, err.text);
        return 1;
    }
    return status;
}
