#include "process/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static bool
read_text(const char *path, char *out, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const ssize_t n = read(fd, out, size - 1);
    close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* A number of bytes in a file; SIZE_MAX when there is none ("max"). */
static size_t
read_limit(const char *folder, const char *name)
{
    char path[4352];
    char text[64];
    (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", folder, name);
    if (!read_text(path, text, sizeof text) || text[0] < '0' || text[0] > '9') {
        return SIZE_MAX;
    }
    return strtoull(text, NULL, 10);
}

/* The least limit of the process's cgroup and of those above it: version 2 ("0::/path"), or the memory controller's. */
static size_t
cgroup_limit(void)
{
    char text[4096];
    char *state = NULL;
    size_t least = SIZE_MAX;
    if (!read_text("/proc/self/cgroup", text, sizeof text)) {
        return least;
    }
    for (char *line = strtok_r(text, "\n", &state); line != NULL; line = strtok_r(NULL, "\n", &state)) {
        const bool second = strncmp(line, "0::", 3) == 0;
        char *folder = second ? line + 3 : strstr(line, ":memory:");
        if (folder == NULL) {
            continue;
        }
        folder += second ? 0 : strlen(":memory:");
        for (char *end = folder + strlen(folder);; end = strrchr(folder, '/')) {
            if (end == NULL) {
                break;
            }
            *end = '\0';
            char version1[4096];
            (void)snprintf(version1, sizeof version1, "/memory%.4000s", folder);
            const size_t limit =
                second ? read_limit(folder, "memory.max") : read_limit(version1, "memory.limit_in_bytes");
            least = limit < least ? limit : least;
        }
    }
    return least;
}

size_t
tg_memory_share(unsigned workers)
{
    const size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    const size_t cgroup = cgroup_limit();
    return (cgroup < machine ? cgroup : machine) / (workers == 0 ? 1 : workers);
}

size_t
tg_memory_used(void)
{
    char text[128];
    unsigned long all;
    unsigned long resident;
    unsigned long shared;
    if (!read_text("/proc/self/statm", text, sizeof text) ||
        sscanf(text, "%lu %lu %lu", &all, &resident, &shared) != 3 || resident < shared) {
        return 0;
    }
    return (resident - shared) * (size_t)sysconf(_SC_PAGESIZE);
}

enum tg_pressure
tg_memory_pressure(size_t used, size_t max)
{
    const size_t percent = max / 100;
    if (percent == 0 || used < percent * 85) {
        return TG_PRESSURE_NONE;
    }
    return used < percent * 92 ? TG_PRESSURE_CLOSE : used < percent * 95 ? TG_PRESSURE_SHED : TG_PRESSURE_STOP;
}

unsigned
tg_memory_connections(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > 10000000) {
        return 1000000;
    }
    const rlim_t share = limit.rlim_cur / 10 * 8;
    return share > 512 ? (unsigned)share - 256 : (unsigned)(limit.rlim_cur / 2);
}
