/*
 * control.h - the master's control socket: one line asked, an answer, the end.
 *
 * Owns: the socket and the connections on it. Used by: master.c (server) and main.c (client).
 * A Unix socket of mode 0600: who may connect may command.
 */
#ifndef TG_PROCESS_CONTROL_H
#define TG_PROCESS_CONTROL_H

#include "base/slice.h"
#include "net/loop.h"

enum { TG_CONTROL_WHO = 64 };

struct tg_control;
struct tg_control_client;

/* `line` is a command without its newline. The callee answers now or later, once, with tg_control_answer. */
typedef void (*tg_control_cb)(void *arg, struct tg_control_client *client, const char *line);

/* Listens at `path`. A socket that nobody answers on is replaced. NULL and `err`. */
struct tg_control *tg_control_open(struct tg_loop *loop, const char *path, tg_control_cb command, void *arg,
                                   struct tg_err *err);
/* The same with a socket `fd` that listens at `path` already and is another master's too: paused. `fd` is ours. */
struct tg_control *tg_control_adopt(struct tg_loop *loop, const char *path, int fd, tg_control_cb command, void *arg,
                                    struct tg_err *err);
/* For the next master. */
int tg_control_fd(const struct tg_control *control);
/* Accepts nobody, and leaves who comes in the kernel's queue; or accepts again. */
void tg_control_pause(struct tg_control *control, bool pause);
/* The next master has the socket: ours is closed. Clients that are connected are heard still. */
void tg_control_leave(struct tg_control *control);
/* Removes the socket, unless it is paused: then it is another master's. NULL is allowed. */
void tg_control_close(struct tg_control *control);
/* In a forked process: closes the descriptor and leaves the socket to its owner. */
void tg_control_forget(struct tg_control *control);

/* Sends "ok" or "error", a newline and `text`, and closes. The client may have gone: then nothing happens. */
void tg_control_answer(struct tg_control_client *client, bool ok, const char *text);

/* A connection that came another way; `fd` is the control's. */
void tg_control_join(struct tg_control *control, int fd);
/* Who asks: lasts until the answer. */
const char *tg_control_who(const struct tg_control_client *client);
/* The bytes that followed a command "... +BYTES"; empty: there were none. */
struct tg_slice tg_control_payload(const struct tg_control_client *client);

/*
 * Asks the master at `path`. What it says, NUL-terminated, to be freed with tg_mem_free; NULL: memory is short. *status
 * is 0 ok, 1 the master says no, 3 nobody answers there, which the text then tells.
 */
char *tg_control_text(const char *path, const char *line, int *status);
/*
 * Asks the master at `path`; prints its answer on standard output, or an error on standard error. Returns the exit
 * status: 0 ok, 1 the master says no, 3 nobody answers there.
 */
int tg_control_ask(const char *path, const char *line);

#endif
