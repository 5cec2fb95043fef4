#include "base/argon2.h"

#include <argon2.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"

enum { SALT_MIN = 8, SALT_MAX = 64, TAG_MIN = 16, TAG_MAX = 64 };

struct hash {
    argon2_type type;
    unsigned memory; /* KiB */
    unsigned passes;
    unsigned lanes;
    char salt[TG_BASE64_BYTES(TG_BASE64_ROOM(SALT_MAX))];
    size_t salt_n;
    char tag[TG_BASE64_BYTES(TG_BASE64_ROOM(TAG_MAX))];
    size_t tag_n;
};

/* Base64 without padding. */
static bool
decode(const char *text, size_t n, char *out, size_t *out_n, size_t min, size_t max)
{
    char padded[TG_BASE64_ROOM(SALT_MAX) + 4];
    if (n == 0 || n % 4 == 1 || n > TG_BASE64_ROOM(max)) {
        return false;
    }
    memcpy(padded, text, n);
    for (; n % 4 != 0; n++) {
        padded[n] = '=';
    }
    return tg_base64_decode(out, out_n, padded, n, TG_BASE64_PLAIN) == TG_OK && *out_n >= min && *out_n <= max;
}

/* One text for each hash: numbers are as they would be written. */
static enum tg_rc
read_hash(const char *text, struct hash *hash)
{
    char again[96];
    *hash = (struct hash){.type = strncmp(text, "$argon2i$", 9) == 0 ? Argon2_i : Argon2_id};
    const char *name = argon2_type2string(hash->type, 0);
    const size_t n = strlen(name);
    if (text[0] != '$' || strncmp(text + 1, name, n) != 0 ||
        sscanf(text + 1 + n, "$v=19$m=%9u,t=%9u,p=%9u", &hash->memory, &hash->passes, &hash->lanes) != 3) {
        return TG_EINVAL;
    }
    const int head =
        snprintf(again, sizeof again, "$%s$v=19$m=%u,t=%u,p=%u$", name, hash->memory, hash->passes, hash->lanes);
    const char *salt = text + head;
    const char *tag = strncmp(text, again, (size_t)head) == 0 ? strchr(salt, '$') : NULL;
    if (tag == NULL || !decode(salt, (size_t)(tag - salt), hash->salt, &hash->salt_n, SALT_MIN, SALT_MAX) ||
        !decode(tag + 1, strlen(tag + 1), hash->tag, &hash->tag_n, TAG_MIN, TAG_MAX) || hash->passes == 0 ||
        hash->lanes == 0 || hash->memory < 8 * hash->lanes) {
        return TG_EINVAL;
    }
    return hash->memory > TG_ARGON2_MEMORY_MAX || hash->lanes > TG_ARGON2_LANES_MAX ||
                   hash->passes > TG_ARGON2_WORK_MAX / hash->memory
               ? TG_ELIMIT
               : TG_OK;
}

enum tg_rc
tg_argon2_judge(const char *text)
{
    struct hash hash;
    return read_hash(text, &hash);
}

enum tg_rc
tg_argon2_verify(const char *text, struct tg_slice password)
{
    struct hash hash;
    unsigned char made[TAG_MAX];
    enum tg_rc rc = read_hash(text, &hash);
    if (rc != TG_OK) {
        return rc;
    }
    argon2_context context = {.out = made,
                              .outlen = (uint32_t)hash.tag_n,
                              .pwd = (uint8_t *)(uintptr_t)password.p,
                              .pwdlen = (uint32_t)password.n,
                              .salt = (uint8_t *)hash.salt,
                              .saltlen = (uint32_t)hash.salt_n,
                              .t_cost = hash.passes,
                              .m_cost = hash.memory,
                              .lanes = hash.lanes,
                              .threads = 1,
                              .version = ARGON2_VERSION_13,
                              .flags = ARGON2_DEFAULT_FLAGS};
    const int result = argon2_ctx(&context, hash.type);
    if (result == ARGON2_OK) {
        rc = CRYPTO_memcmp(made, hash.tag, hash.tag_n) == 0 ? TG_OK : TG_EDENIED;
    } else {
        rc = result == ARGON2_MEMORY_ALLOCATION_ERROR ? TG_ENOMEM : TG_EINVAL;
    }
    OPENSSL_cleanse(made, sizeof made);
    return rc;
}
