#include "process/tls_servers.h"

#include <stdio.h>
#include <string.h>

#include "vm/bundle.h"

struct making {
    struct tg_tls_server **servers;
    const struct tg_generation *generation;
    const struct tg_tickets *tickets;
    struct tg_err *err;
    enum tg_rc rc;
};

void
tg_tls_servers_drop(struct tg_tls_server *servers[TG_LISTENERS_MAX])
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        tg_tls_server_unref(servers[i]);
        servers[i] = NULL;
    }
}

/* The entry `prefix`tls:ORDINAL:..., which is there whenever a line speaks of it. */
static struct tg_slice
find(const struct tg_generation *generation, const char *prefix, const char *name)
{
    char full[128];
    struct tg_slice data = {0};
    (void)snprintf(full, sizeof full, "%stls:%s", prefix, name);
    return tg_bundle_find(generation->bytes, full, &data) == TG_OK ? data : (struct tg_slice){0};
}

static struct tg_slice
find_either(const struct tg_generation *generation, const char *name)
{
    const struct tg_slice data = find(generation, "", name);
    return data.n > 0 ? data : find(generation, "secret:", name);
}

static enum tg_rc
make_server(struct making *making, struct tg_tls_server **server, unsigned ordinal, const char *words)
{
    unsigned tls12 = 0;
    unsigned http2 = 0;
    unsigned strict = 0;
    unsigned tickets = 0;
    (void)sscanf(words, "server tls12=%u http2=%u strict_sni=%u tickets=%u", &tls12, &http2, &strict, &tickets);
    const struct tg_tls_server_options options = {.ordinal = ordinal,
                                                  .tls12 = tls12 != 0,
                                                  .http2 = http2 != 0,
                                                  .strict_sni = strict != 0,
                                                  .tickets = tickets != 0,
                                                  .keys = making->tickets};
    *server = tg_tls_server_new(&options);
    return *server == NULL ? tg_err_set(making->err, TG_ENOMEM, "TLS cannot be set up") : TG_OK;
}

static enum tg_rc
begin_site(struct making *making, struct tg_tls_server *server, unsigned ordinal, unsigned site,
           enum tg_tls_client_auth auth)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%u:%u:client_ca", ordinal, site);
    const struct tg_slice client_ca = find(making->generation, "", name);
    (void)snprintf(name, sizeof name, "%u:%u:client_crl", ordinal, site);
    return tg_tls_server_site(server, auth, client_ca, find(making->generation, "", name), making->err);
}

static enum tg_rc
add_certificate(struct making *making, struct tg_tls_server *server, unsigned ordinal, unsigned site, unsigned number)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%u:%u:%u:certificate", ordinal, site, number);
    const struct tg_slice certificate = find_either(making->generation, name);
    (void)snprintf(name, sizeof name, "%u:%u:%u:key", ordinal, site, number);
    const struct tg_slice key = find(making->generation, "secret:", name);
    (void)snprintf(name, sizeof name, "%u:%u:%u:ocsp", ordinal, site, number);
    return tg_tls_server_add(server, certificate, key, find_either(making->generation, name), making->err);
}

/* "ORDINAL server ...", then for each site "ORDINAL site N AUTH", then for each of it "ORDINAL certificate N K". */
static bool
take_line(void *arg, struct tg_slice rest)
{
    struct making *making = arg;
    const struct tg_manifest *manifest = making->generation->manifest;
    unsigned ordinal = 0;
    unsigned a = 0;
    unsigned b = 0;
    int used = 0;
    char text[128];
    struct tg_tls_server **server = NULL;
    (void)snprintf(text, sizeof text, "%.*s", (int)rest.n, rest.p);
    if (sscanf(text, "%u %n", &ordinal, &used) != 1) {
        return true;
    }
    for (unsigned i = 0; i < manifest->listen_count; i++) {
        if (manifest->listens[i].config.ordinal == ordinal) {
            server = &making->servers[i];
        }
    }
    if (server == NULL) {
        return true;
    }
    if (strncmp(text + used, "server ", 7) == 0) {
        making->rc = make_server(making, server, ordinal, text + used);
    } else if (sscanf(text + used, "site %u %u", &a, &b) == 2) {
        making->rc = begin_site(making, *server, ordinal, a, (enum tg_tls_client_auth)b);
    } else if (sscanf(text + used, "certificate %u %u", &a, &b) == 2) {
        making->rc = add_certificate(making, *server, ordinal, a, b);
    }
    return making->rc == TG_OK;
}

enum tg_rc
tg_tls_servers_make(struct tg_tls_server *servers[TG_LISTENERS_MAX], const struct tg_generation *generation,
                    const struct tg_tickets *tickets, struct tg_err *err)
{
    struct making making = {servers, generation, tickets, err, TG_OK};
    memset(servers, 0, TG_LISTENERS_MAX * sizeof *servers);
    tg_manifest_each(generation, "tls", take_line, &making);
    if (making.rc != TG_OK) {
        tg_tls_servers_drop(servers);
    }
    return making.rc;
}
