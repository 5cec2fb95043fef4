/*
 * pid_file.h - a file that says which process is the master.
 *
 * Owns: the file, as long as this process's number stands in it. Used by: master.c. It is no lock: that is the control
 * socket.
 */
#ifndef TG_PROCESS_PID_FILE_H
#define TG_PROCESS_PID_FILE_H

#include "base/rc.h"

/* Writes our number beside `path` and renames it, so that nobody reads half of it. TG_ESYSTEM and `err`. */
TG_MUST_CHECK enum tg_rc tg_pid_file_write(const char *path, struct tg_err *err);
/* Removes the file, unless another process has written its own since. */
void tg_pid_file_remove(const char *path);

#endif
