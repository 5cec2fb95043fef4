/*
 * The border: signed tokens. Contracts are in abi.h.
 */
#include "base/base64.h"
#include "base/json_read.h"
#include "base/jws.h"
#include "base/key.h"
#include "base/mem.h"
#include "http/authorization.h"
#include "vm/coroutine.h"

enum { ROOM = 16 * 1024 };

/* Of the payload that was read last, by one of the generations, which ask by its number: what another one has read is
 * none of theirs. What is larger than most gets memory of its own, until the next one. */
static double number;
static char small_room[ROOM];
static char *large_room;
static struct tg_jws_claims claims;
static struct tg_json_reader reader;

int
tg_abi_jws_open(const char *p, size_t n, size_t max, struct tg_abi_jws *jws)
{
    static char signature[TG_BASE64_BYTES(TG_BASE64_ROOM(TG_KEY_SIGNATURE_MAX))];
    return n > max ? TG_ELIMIT : tg_jws_split(tg_slice_of(p, n), signature, sizeof signature, jws);
}

int
tg_abi_jws_open_field(struct tg_abi_exchange *x, int side, const char *name, size_t name_len, size_t max,
                      struct tg_abi_jws *jws)
{
    const int rc = tg_abi_field_get(x, side, name, name_len);
    if (rc != TG_OK) {
        return rc;
    }
    struct tg_slice token = tg_abi_vm.out;
    if (tg_slice_is_text(tg_slice_of(name, name_len), "authorization", 13)) {
        if (!tg_authorization_is(token, TG_SLICE("bearer"), &token)) {
            return TG_ENONE;
        }
    }
    return tg_abi_jws_open(token.p, token.n, max, jws);
}

int
tg_abi_jws_read(const struct tg_abi_jws *jws)
{
    const size_t n = TG_BASE64_BYTES(jws->payload.n);
    tg_mem_free(large_room);
    large_room = n <= sizeof small_room ? NULL : tg_mem_alloc(n);
    char *room = n <= sizeof small_room ? small_room : large_room;
    tg_abi_vm.number = ++number;
    const enum tg_rc rc = room == NULL ? TG_ENOMEM : tg_jws_read(jws->payload, room, &claims);
    if (rc != TG_OK) {
        claims = (struct tg_jws_claims){.count = 0};
    }
    tg_abi_vm.out = claims.text;
    return rc;
}

int
tg_abi_jws_claim(double of, const char *name, size_t name_len)
{
    struct tg_slice value;
    if (of != number) {
        return TG_ESTALE;
    }
    if (claims.text.n == 0 || tg_jws_claim(&claims, tg_slice_of(name, name_len), &value) != TG_OK) {
        return TG_JSON_END;
    }
    tg_json_reader_init(&reader, value);
    const enum tg_rc rc = tg_json_read(&reader);
    tg_abi_vm.out = reader.text;
    tg_abi_vm.number = reader.number;
    return rc != TG_OK ? (int)rc : (int)reader.token;
}

int
tg_abi_authorization(const char *p, size_t n, const char *scheme, size_t scheme_len)
{
    return tg_authorization_is(tg_slice_of(p, n), tg_slice_of(scheme, scheme_len), &tg_abi_vm.out) ? TG_OK : TG_ENONE;
}
