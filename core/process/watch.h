/*
 * watch.h - tells when a file of the configuration was saved (inotify).
 *
 * Owns: the inotify descriptor. Used by: master.c. Watches folders, not files: editors replace files by renaming.
 */
#ifndef TG_PROCESS_WATCH_H
#define TG_PROCESS_WATCH_H

#include "net/loop.h"
#include "process/generation.h"

struct tg_watch;
typedef void (*tg_watch_cb)(void *arg);

/*
 * `changed` is called once when nothing was saved for a moment (30 ms). `any`: all that looks like configuration
 * counts, not only the files that were added, and folders that come and go. While Git writes to a work tree that a
 * watched folder is in, nothing is settled. NULL and `err`.
 */
struct tg_watch *tg_watch_new(struct tg_loop *loop, bool any, tg_watch_cb changed, void *arg, struct tg_err *err);
void tg_watch_free(struct tg_watch *watch);
/* In a forked process: closes the descriptor. NULL is allowed. */
void tg_watch_forget(struct tg_watch *watch);
/* Adds a folder: the files in it that look like configuration. One that is there, or does not exist, is left alone. */
void tg_watch_folder(struct tg_watch *watch, const char *path);
/* Adds a file, whatever it is called, and its folder. */
void tg_watch_file(struct tg_watch *watch, const char *path);
/* Adds the files of which the generation says that they are live; with `plugin_dirs` (NULL at its end) also those that
 * it was made of, their folders and these. `watch` NULL: nothing. */
void tg_watch_generation(struct tg_watch *watch, const struct tg_generation *generation,
                         const char *const *plugin_dirs);

#endif
