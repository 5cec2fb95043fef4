#include "vm/host.h"

#include <stdio.h>

struct tg_host *tg_host;

enum tg_rc
tg_host_add_dict(struct tg_host *host, const char *name, int fd)
{
    for (unsigned i = 0; i < host->dict_count; i++) {
        if (strcmp(host->dicts[i].name, name) == 0) {
            return TG_OK;
        }
    }
    if (host->dict_count == TG_HOST_DICTS) {
        return TG_ELIMIT;
    }
    struct tg_host_dict *entry = &host->dicts[host->dict_count];
    entry->dict = tg_dict_open(fd);
    if (entry->dict == NULL) {
        return TG_ENOMEM;
    }
    (void)snprintf(entry->name, sizeof entry->name, "%s", name);
    host->dict_count++;
    return TG_OK;
}
