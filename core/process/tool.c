#include "process/tool.h"

#include <stdio.h>

#include "vm/compile.h"

int
tg_tool_run(const char *name, const char *const *plugin_dirs, int argc, char **argv)
{
    struct tg_err err = {0};
    char module[64];
    (void)plugin_dirs;
    (void)snprintf(module, sizeof module, "tool.%s", name);
    const int status = tg_compile_run(module, argc, argv, &err);
    if (status < 0) {
        (void)fprintf(stderr, "tidegate %s: %s\n", name, err.text);
        return 1;
    }
    return status;
}
