/*
 * handover.h - what an old master leaves to a new one across exec: descriptors, named in an environment variable.
 *
 * Owns: on the reading side every descriptor that nobody has taken. Used by: fleet.c (listening sockets, dictionaries)
 * and upgrade.c. Does not know: when one gives way to the other.
 * The text is read by other versions of this program: words and their order stay, and a reader skips lines that it
 * does not know.
 *
 *     1 PID                        version; the process that it is meant for
 *     report FD                    to the old master
 *     control FD PATH
 *     listen ADDRESS PORT FD ...   of slot 0, 1, ...
 *     dict FD NAME
 */
#ifndef TG_PROCESS_HANDOVER_H
#define TG_PROCESS_HANDOVER_H

#include "process/generation.h"
#include "zone/scoreboard.h"

/* The environment's strings have at most 128 KiB each. */
enum { TG_HANDOVER_TEXT = 120 * 1024, TG_HANDOVER_PATH = 128 };

struct tg_handover_writer {
    char text[TG_HANDOVER_TEXT];
    size_t n; /* TG_HANDOVER_TEXT: it did not fit */
};

struct tg_handover_listen {
    char address[TG_LISTENER_ADDRESS];
    unsigned port;
    int fds[TG_WORKERS_MAX]; /* by slot; -1: none, or taken */
};

struct tg_handover_dict {
    char name[64];
    int fd; /* -1: taken */
};

struct tg_handover {
    int report;  /* -1: none */
    int control; /* -1: none */
    char control_path[TG_HANDOVER_PATH];
    struct tg_handover_listen listens[TG_LISTENERS_MAX];
    unsigned listen_count;
    struct tg_handover_dict dicts[TG_GENERATION_DICTS];
    unsigned dict_count;
};

/* In the child that will exec. The first two never fail; what did not fit is told by the last. */
void tg_handover_begin(struct tg_handover_writer *writer);
void tg_handover_put(struct tg_handover_writer *writer, const char *format, ...) TG_PRINTF(2, 3);
/* Puts the descriptor, which outlives the exec from now on. */
void tg_handover_put_fd(struct tg_handover_writer *writer, int fd);
/* Sets the environment variable. TG_ELIMIT, TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_handover_end(const struct tg_handover_writer *writer, struct tg_err *err);

/*
 * Reads the variable and removes it. TG_OK: *out is the caller's, or NULL when nobody hands anything over to this very
 * process. TG_EINVAL: another version wrote it. The descriptors that it names are closed at the next exec.
 */
TG_MUST_CHECK enum tg_rc tg_handover_read(struct tg_handover **out, struct tg_err *err);
/* Takes what is there for this address, this slot; -1: nothing is. `handover` may be NULL. */
int tg_handover_take_listen(struct tg_handover *handover, const char *address, unsigned port, unsigned slot);
int tg_handover_take_dict(struct tg_handover *handover, const char *name);
/* Closes the sockets and dictionaries that nobody has taken. `handover` may be NULL. */
void tg_handover_close_rest(struct tg_handover *handover);

#endif
