/*
 * The border: random bytes, digests, texts of bytes, keys and passwords. Contracts are in abi.h.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/base64.h"
#include "base/digest.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/key.h"
#include "base/log.h"
#include "base/password.h"
#include "base/seal.h"
#include "http/trace_context.h"
#include "vm/coroutine.h"
#include "vm/ids.h"

enum {
    ROOM = 16 * 1024,
    RANDOM_MAX = 1024 * 1024,
    PASSWORD_THREADS = 2,
    PASSWORDS_WAITING = 64, /* for some seconds */
    ID_MAX = 128
};

/* ------------------------------------------------------------------ where results lie */

/* What is larger gets memory of its own, until the next call of one of these functions. */
static char small_room[ROOM];
static char *large_room;

/* NULL when memory is short. */
static char *
take_room(size_t n)
{
    tg_mem_free(large_room);
    large_room = n <= sizeof small_room ? NULL : tg_mem_alloc(n);
    return n <= sizeof small_room ? small_room : large_room;
}

static int
put_out(const char *p, size_t n)
{
    tg_abi_vm.out = tg_slice_of(p, n);
    return TG_OK;
}

void
tg_abi_forget(void)
{
    const struct tg_slice out = tg_abi_vm.out;
    if (out.p == small_room || (out.p == large_room && large_room != NULL)) {
        OPENSSL_cleanse((char *)(uintptr_t)out.p, out.n);
    }
    (void)take_room(0);
}

/* ------------------------------------------------------------------ random bytes */

static int
put_id(int version)
{
    char *text = take_room(TG_ID_MAX);
    return put_out(text, tg_ids_write(text, version, 0));
}

int
tg_abi_uuid(void)
{
    return put_id(4);
}

int
tg_abi_uuid7(void)
{
    return put_id(7);
}

int
tg_abi_random_id(void)
{
    return put_id(0);
}

int
tg_abi_id(struct tg_abi_exchange *x, int version)
{
    if (x->id.n > 0) {
        return put_out(x->id.p, x->id.n);
    }
    char *text = tg_arena_alloc(&tg_exchange_of(x)->arena, TG_ID_MAX);
    if (text == NULL) {
        return TG_ENOMEM;
    }
    x->id = tg_slice_of(text, tg_ids_write(text, version, (uint64_t)(x->started * 1e3)));
    return put_out(text, x->id.n);
}

int
tg_abi_correlate(struct tg_abi_exchange *x, const char *name, size_t name_len, int keep, int version)
{
    if (keep && tg_abi_field_get(x, TG_SIDE_REQUEST, name, name_len) == TG_OK && tg_abi_vm.out.n <= ID_MAX &&
        tg_is_token(tg_abi_vm.out.p, tg_abi_vm.out.n)) {
        return tg_abi_set_id(x, tg_abi_vm.out.p, tg_abi_vm.out.n);
    }
    const int rc = tg_abi_id(x, version);
    return rc != TG_OK ? rc : tg_abi_field_set(x, TG_SIDE_REQUEST, name, name_len, x->id.p, x->id.n);
}

int
tg_abi_trace_join(struct tg_abi_exchange *x)
{
    if (x->joined != 0 && tg_abi_field_get(x, TG_SIDE_REQUEST, "traceparent", 11) == TG_OK) {
        x->joined = 0;
        tg_abi_vm.number = tg_traceparent_share(tg_abi_vm.out.p);
        return TG_AGAIN + 255;
    }
    if (tg_abi_field_get(x, TG_SIDE_REQUEST, "traceparent", 11) == TG_OK) {
        const struct tg_slice text = tg_abi_vm.out;
        const int flags = tg_abi_trace_read(text.p, text.n);
        if (flags >= 0) {
            return flags;
        }
    }
    (void)tg_abi_trace_make();
    const int rc = tg_abi_field_set(x, TG_SIDE_REQUEST, "traceparent", 11, tg_abi_vm.out.p, tg_abi_vm.out.n);
    const int gone = tg_abi_field_remove(x, TG_SIDE_REQUEST, "tracestate", 10);
    return rc != TG_OK ? rc : gone == TG_OK || gone == TG_ENONE ? TG_AGAIN + 255 : gone;
}

int
tg_abi_trace_make(void)
{
    char *text = take_room(TG_TRACEPARENT_LEN);
    tg_abi_vm.number = tg_ids_traceparent(text);
    return put_out(text, TG_TRACEPARENT_LEN);
}

int
tg_abi_trace_read(const char *p, size_t n)
{
    uint8_t flags;
    const enum tg_rc rc = tg_traceparent_parse(p, n, &flags);
    if (rc != TG_OK) {
        return rc;
    }
    tg_abi_vm.number = tg_traceparent_share(p);
    return flags;
}

/* It may become a key. */
int
tg_abi_random(size_t n)
{
    char *bytes = n > RANDOM_MAX ? NULL : take_room(n);
    if (bytes == NULL) {
        return n > RANDOM_MAX ? TG_ELIMIT : TG_ENOMEM;
    }
    tg_ids_random(bytes, n);
    return put_out(bytes, n);
}

/* ------------------------------------------------------------------ digests */

int
tg_abi_digest(int digest, const char *p, size_t n)
{
    const enum tg_abi_digest algorithm = (enum tg_abi_digest)digest;
    if (digest < 0 || digest >= TG_DIGEST_COUNT) {
        return TG_EINVAL;
    }
    char *out = take_room(TG_DIGEST_MAX);
    const enum tg_rc rc = tg_digest(algorithm, p, n, (unsigned char *)out);
    return rc != TG_OK ? (int)rc : put_out(out, tg_digest_size(algorithm));
}

int
tg_abi_slow_hash(const char *p, size_t n)
{
    enum { COST = 1 << 14, BLOCK = 8, MEMORY_MAX = 32 * 1024 * 1024, SIZE = 32 };
    /* Always the same, so that the same configuration has the same hash wherever it runs. */
    static const unsigned char salt[] = "tidegate";
    static char text[SIZE * 2];
    unsigned char hash[SIZE];
    if (EVP_PBE_scrypt(p, n, salt, sizeof salt, COST, BLOCK, 1, MEMORY_MAX, hash, sizeof hash) != 1) {
        return TG_ESYSTEM;
    }
    (void)tg_hex_encode(text, hash, sizeof hash);
    tg_abi_vm.out = tg_slice_of(text, sizeof text);
    return TG_OK;
}

int
tg_abi_hmac(int digest, const char *key, size_t key_len, const char *p, size_t n)
{
    const enum tg_abi_digest algorithm = (enum tg_abi_digest)digest;
    if (digest < 0 || digest >= TG_DIGEST_COUNT) {
        return TG_EINVAL;
    }
    char *out = take_room(TG_DIGEST_MAX);
    const enum tg_rc rc = tg_digest_hmac(algorithm, key, key_len, p, n, (unsigned char *)out);
    return rc != TG_OK ? (int)rc : put_out(out, tg_digest_size(algorithm));
}

int
tg_abi_equal(const char *a, const char *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0 ? TG_OK : TG_EDENIED;
}

uint32_t
tg_abi_hash32(const char *p, size_t n)
{
    return tg_hash32(p, n);
}

/* ------------------------------------------------------------------ texts */

int
tg_abi_hex(const char *p, size_t n)
{
    char *out = n > SIZE_MAX / 2 ? NULL : take_room(n * 2);
    return out == NULL ? (int)TG_ENOMEM : put_out(out, (size_t)(tg_hex_encode(out, p, n) - out));
}

int
tg_abi_unhex(const char *p, size_t n)
{
    char *out = take_room(n / 2);
    const enum tg_rc rc = out == NULL ? TG_ENOMEM : tg_hex_decode(out, p, n);
    return rc != TG_OK ? (int)rc : put_out(out, n / 2);
}

int
tg_abi_base64(const char *p, size_t n, int url)
{
    char *out = n > SIZE_MAX / 2 ? NULL : take_room(TG_BASE64_ROOM(n));
    if (out == NULL) {
        return TG_ENOMEM;
    }
    const char *end = tg_base64_encode(out, p, n, url != 0 ? TG_BASE64_URL : TG_BASE64_PLAIN);
    return put_out(out, (size_t)(end - out));
}

int
tg_abi_unbase64(const char *p, size_t n, int url)
{
    size_t out_n = 0;
    char *out = n > SIZE_MAX / 2 ? NULL : take_room(TG_BASE64_BYTES(n));
    if (out == NULL) {
        return TG_ENOMEM;
    }
    const enum tg_rc rc = tg_base64_decode(out, &out_n, p, n, url != 0 ? TG_BASE64_URL : TG_BASE64_PLAIN);
    return rc != TG_OK ? (int)rc : put_out(out, out_n);
}

int
tg_abi_seal(const char *key, size_t key_len, const char *p, size_t n, const char *bound, size_t bound_len)
{
    char *out = n > SIZE_MAX / 2 ? NULL : take_room(n + TG_SEAL_EXTRA);
    if (out == NULL) {
        return TG_ENOMEM;
    }
    const enum tg_rc rc =
        tg_seal(tg_slice_of(key, key_len), tg_slice_of(p, n), tg_slice_of(bound, bound_len), (unsigned char *)out);
    return rc != TG_OK ? (int)rc : put_out(out, n + TG_SEAL_EXTRA);
}

int
tg_abi_unseal(const char *key, size_t key_len, const char *p, size_t n, const char *bound, size_t bound_len)
{
    char *out = take_room(n);
    if (out == NULL) {
        return TG_ENOMEM;
    }
    const enum tg_rc rc =
        tg_seal_open(tg_slice_of(key, key_len), tg_slice_of(p, n), tg_slice_of(bound, bound_len), (unsigned char *)out);
    return rc != TG_OK ? (int)rc : put_out(out, n - TG_SEAL_EXTRA);
}

/* ------------------------------------------------------------------ keys */

static struct tg_abi_key *
hand_out(enum tg_rc rc, struct tg_key *key, const char *why)
{
    if (rc == TG_OK) {
        return (struct tg_abi_key *)key;
    }
    why = rc == TG_ENOMEM ? "memory is short" : why;
    (void)put_out(why, strlen(why));
    return NULL;
}

struct tg_abi_key *
tg_abi_key_read(const char *p, size_t n, const char *password, size_t password_len)
{
    struct tg_key *key = NULL;
    const char *why = "";
    const enum tg_rc rc = tg_key_read(tg_slice_of(p, n), tg_slice_of(password, password_len), &key, &why);
    return hand_out(rc, key, why);
}

struct tg_abi_key *
tg_abi_key_make(int kind, uint32_t bits, const struct tg_slice *parts)
{
    struct tg_key *key = NULL;
    const char *why = "its kind is unknown";
    enum tg_rc rc = TG_EINVAL;
    if (kind >= TG_KEY_RSA && kind <= TG_KEY_OCT) {
        rc = tg_key_make((enum tg_abi_key_kind)kind, bits, parts, &key, &why);
    }
    return hand_out(rc, key, why);
}

void
tg_abi_key_free(struct tg_abi_key *key)
{
    tg_key_free((struct tg_key *)key);
}

int
tg_abi_key_part(struct tg_abi_key *key, int part)
{
    size_t n = 0;
    if (key->kind == TG_KEY_OCT) {
        const struct tg_slice secret = tg_key_secret((const struct tg_key *)key);
        return put_out(secret.p, secret.n);
    }
    char *out = take_room(TG_KEY_PART_MAX);
    const enum tg_rc rc = tg_key_part((const struct tg_key *)key, (enum tg_abi_key_part)part, (unsigned char *)out, &n);
    return rc != TG_OK ? (int)rc : put_out(out, n);
}

int
tg_abi_key_sign(struct tg_abi_key *key, int algorithm, const char *p, size_t n)
{
    size_t out_n = 0;
    char *out = take_room(TG_KEY_SIGNATURE_MAX);
    const enum tg_rc rc = tg_key_sign((struct tg_key *)key, (enum tg_abi_signature)algorithm, tg_slice_of(p, n),
                                      (unsigned char *)out, &out_n);
    return rc != TG_OK ? (int)rc : put_out(out, out_n);
}

int
tg_abi_key_verify(struct tg_abi_key *key, int algorithm, const char *p, size_t n, const char *signature,
                  size_t signature_len)
{
    return tg_key_verify((struct tg_key *)key, (enum tg_abi_signature)algorithm, tg_slice_of(p, n),
                         tg_slice_of(signature, signature_len));
}

/* ------------------------------------------------------------------ passwords */

/* Freed by whoever holds it last: its coroutine, or the thread's room when that has gone. */
struct password_job {
    struct tg_job job;
    struct tg_coroutine *owner;
    enum tg_rc rc; /* TG_AGAIN until it is done */
    enum tg_rc worked;
    struct tg_password password;
};

static void
work(struct tg_job *job)
{
    struct password_job *self = (struct password_job *)job;
    self->worked = tg_password_run(&self->password);
}

static void
free_job(struct tg_job *job)
{
    struct password_job *self = (struct password_job *)job;
    tg_password_wipe(&self->password);
    tg_mem_free(self);
}

/* The owner lives: one that ends drops its job. */
static void
on_worked(struct tg_job *job)
{
    struct password_job *self = (struct password_job *)job;
    self->rc = self->worked;
    tg_coroutine_ready(self->owner);
}

static int
finish(struct password_job *self, enum tg_rc rc)
{
    if (rc == TG_OK && self->password.makes) {
        const size_t n = strlen(self->password.hash);
        char *out = take_room(sizeof self->password.hash);
        memcpy(out, self->password.hash, n);
        (void)put_out(out, n);
    }
    free_job(&self->job);
    return rc;
}

static struct tg_threads *
open_threads(void)
{
    static const struct tg_threads_limits limits = {PASSWORD_THREADS, PASSWORDS_WAITING};
    if (tg_host->threads == NULL) {
        tg_host->threads = tg_threads_new(tg_host->proxy->loop, &limits);
        if (tg_host->threads == NULL) {
            tg_log(TG_LOG_ERROR, "threads for passwords cannot be started: %s", strerror(errno));
        }
    }
    return tg_host->threads;
}

/* Takes `self` in any case; `rc` is that of its preparation. */
static int
start(struct password_job *self, enum tg_rc rc)
{
    struct tg_coroutine *co = tg_host == NULL ? NULL : tg_host->running;
    if (rc != TG_OK) {
        return finish(self, rc);
    }
    if (co == NULL || self->password.quick) {
        return finish(self, tg_password_run(&self->password));
    }
    struct tg_threads *threads = open_threads();
    self->job = (struct tg_job){.work = work, .done = on_worked, .free = free_job};
    self->owner = co;
    self->rc = TG_AGAIN;
    if (co->job != NULL) { /* given up by whoever waited for it here */
        tg_threads_drop(tg_host->threads, co->job);
        co->job = NULL;
    }
    rc = threads == NULL ? TG_ESYSTEM : tg_threads_start(threads, &self->job);
    if (rc != TG_OK) {
        return finish(self, rc);
    }
    co->job = &self->job;
    return TG_AGAIN;
}

int
tg_abi_password_judge(const char *hash, size_t hash_len)
{
    return tg_password_judge(tg_slice_of(hash, hash_len));
}

int
tg_abi_password_check(const char *hash, size_t hash_len, const char *p, size_t n)
{
    struct password_job *self = tg_mem_new(struct password_job);
    if (self == NULL) {
        return TG_ENOMEM;
    }
    return start(self, tg_password_check(&self->password, tg_slice_of(hash, hash_len), tg_slice_of(p, n)));
}

int
tg_abi_password_make(int kind, uint32_t cost, const char *p, size_t n)
{
    struct password_job *self = tg_mem_new(struct password_job);
    if (self == NULL) {
        return TG_ENOMEM;
    }
    return start(self, tg_password_make(&self->password, (enum tg_abi_password_kind)kind, cost, tg_slice_of(p, n)));
}

int
tg_abi_password_result(void)
{
    struct tg_coroutine *co = tg_host->running;
    struct password_job *self = co == NULL ? NULL : (struct password_job *)co->job;
    if (self == NULL) {
        return TG_EINVAL;
    }
    if (self->rc == TG_AGAIN) {
        return TG_AGAIN;
    }
    co->job = NULL;
    return finish(self, self->rc);
}
