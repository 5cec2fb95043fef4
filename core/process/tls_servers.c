#include "process/tls_servers.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "vm/bundle.h"

struct making {
    struct tg_tls_server **servers;
    const struct tg_generation *generation;
    const struct tg_tickets *tickets;
    struct tg_host *host;
    struct tg_err *err;
    enum tg_rc rc;
    struct tg_map *names; /* of entries of the bundle, to their places from 1 on */
    struct tg_slice *entries;
    unsigned count;
};

void
tg_tls_servers_drop(struct tg_tls_server *servers[TG_LISTENERS_MAX])
{
    for (unsigned i = 0; i < TG_LISTENERS_MAX; i++) {
        tg_tls_server_unref(servers[i]);
        servers[i] = NULL;
    }
}

static bool
count_entry(void *arg, struct tg_slice name, struct tg_slice data)
{
    unsigned *count = arg;
    (void)name;
    (void)data;
    (*count)++;
    return true;
}

static bool
note_entry(void *arg, struct tg_slice name, struct tg_slice data)
{
    struct making *making = arg;
    making->entries[making->count++] = data;
    if (tg_map_add(making->names, name.p, name.n, making->count) == TG_ENOMEM) {
        making->rc = tg_err_set(making->err, TG_ENOMEM, "memory is short");
    }
    return making->rc == TG_OK;
}

/* All entries of the bundle by name: a search from its begin for each of thousands would take seconds. */
static void
note_entries(struct making *making)
{
    unsigned count = 0;
    const struct tg_slice bytes = making->generation->bytes;
    making->names = tg_map_new();
    enum tg_rc rc = tg_bundle_each(bytes, count_entry, &count);
    making->entries = rc == TG_OK ? tg_mem_alloc((count + 1) * sizeof *making->entries) : NULL;
    if (making->names == NULL || making->entries == NULL) {
        making->rc = tg_err_set(making->err, TG_ENOMEM, "memory is short");
        return;
    }
    rc = tg_bundle_each(bytes, note_entry, making);
    if (rc != TG_OK && making->rc == TG_OK) {
        making->rc = tg_err_set(making->err, rc, "the bundle is broken");
    }
}

/* The entry `prefix`tls:ORDINAL:..., which is there whenever a line speaks of it. */
static struct tg_slice
find(const struct making *making, const char *prefix, const char *name)
{
    char full[128];
    const int n = snprintf(full, sizeof full, "%stls:%s", prefix, name);
    const unsigned index = tg_map_find(making->names, full, (size_t)n);
    return index > 0 ? making->entries[index - 1] : (struct tg_slice){0};
}

static struct tg_slice
find_either(const struct making *making, const char *name)
{
    const struct tg_slice data = find(making, "", name);
    return data.n > 0 ? data : find(making, "secret:", name);
}

/* What runtime/ocsp.lua has kept: the dictionary forgets a response when it does not hold any more. */
static bool
find_response(void *arg, const unsigned char id[TG_OCSP_ID], struct tg_slice *response)
{
    struct tg_host *host = arg;
    struct tg_dict_value value;
    const int index = tg_host_find_dict(host, tg_slice_of("@ocsp", 5));
    if (index < 0 || tg_dict_get(host->dicts[index].dict, (const char *)id, TG_OCSP_ID, tg_loop_now(host->proxy->loop),
                                 &value) != TG_OK) {
        return false;
    }
    *response = tg_slice_of(value.p, value.n);
    return value.type == TG_DICT_STRING;
}

static enum tg_rc
make_server(struct making *making, struct tg_tls_server **server, unsigned ordinal, const char *words)
{
    unsigned tls12 = 0;
    unsigned http2 = 0;
    unsigned strict = 0;
    unsigned tickets = 0;
    unsigned kernel = 0;
    (void)sscanf(words, "server tls12=%u http2=%u strict_sni=%u tickets=%u ktls=%u", &tls12, &http2, &strict, &tickets,
                 &kernel);
    const struct tg_tls_server_options options = {.ordinal = ordinal,
                                                  .tls12 = tls12 != 0,
                                                  .http2 = http2 != 0,
                                                  .strict_sni = strict != 0,
                                                  .tickets = tickets != 0,
                                                  .kernel = kernel != 0,
                                                  .keys = making->tickets,
                                                  .response = find_response,
                                                  .response_arg = making->host};
    *server = tg_tls_server_new(&options);
    return *server == NULL ? tg_err_set(making->err, TG_ENOMEM, "TLS cannot be set up") : TG_OK;
}

static enum tg_rc
begin_site(struct making *making, struct tg_tls_server *server, unsigned ordinal, unsigned site,
           enum tg_tls_client_auth auth)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%u:%u:client_ca", ordinal, site);
    const struct tg_slice client_ca = find(making, "", name);
    (void)snprintf(name, sizeof name, "%u:%u:client_crl", ordinal, site);
    return tg_tls_server_site(server, auth, client_ca, find(making, "", name), making->err);
}

static enum tg_rc
add_certificate(struct making *making, struct tg_tls_server *server, unsigned ordinal, unsigned site, unsigned number,
                bool fetched)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%u:%u:%u:certificate", ordinal, site, number);
    struct tg_tls_server_certificate certificate = {.chain = find_either(making, name), .fetched = fetched};
    (void)snprintf(name, sizeof name, "%u:%u:%u:key", ordinal, site, number);
    certificate.key = find(making, "secret:", name);
    (void)snprintf(name, sizeof name, "%u:%u:%u:names", ordinal, site, number);
    certificate.names = find_either(making, name);
    (void)snprintf(name, sizeof name, "%u:%u:%u:ocsp", ordinal, site, number);
    certificate.ocsp = find_either(making, name);
    return tg_tls_server_add(server, &certificate, making->err);
}

/* "ORDINAL server ...", then for each site "ORDINAL site N AUTH", then for each of it "ORDINAL certificate N K
 * FETCHED". */
static bool
take_line(void *arg, struct tg_slice rest)
{
    struct making *making = arg;
    const struct tg_manifest *manifest = making->generation->manifest;
    unsigned ordinal = 0;
    unsigned a = 0;
    unsigned b = 0;
    unsigned fetched = 0;
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
    } else if (sscanf(text + used, "certificate %u %u %u", &a, &b, &fetched) == 3) {
        making->rc = add_certificate(making, *server, ordinal, a, b, fetched != 0);
    }
    return making->rc == TG_OK;
}

enum tg_rc
tg_tls_servers_make(struct tg_tls_server *servers[TG_LISTENERS_MAX], const struct tg_generation *generation,
                    const struct tg_tickets *tickets, struct tg_host *host, struct tg_err *err)
{
    struct making making = {servers, generation, tickets, host, err, TG_OK, NULL, NULL, 0};
    memset(servers, 0, TG_LISTENERS_MAX * sizeof *servers);
    note_entries(&making);
    if (making.rc == TG_OK) {
        tg_manifest_each(generation, "tls", take_line, &making);
    }
    tg_map_free(making.names);
    tg_mem_free(making.entries);
    if (making.rc != TG_OK) {
        tg_tls_servers_drop(servers);
    }
    return making.rc;
}
