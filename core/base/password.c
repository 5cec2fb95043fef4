#include "base/password.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "base/argon2.h"
#include "base/base64.h"

enum {
    BCRYPT_SIZE = 60,
    COST_DEFAULT = 12,       /* 180 ms */
    ROUNDS_DEFAULT = 500000, /* 100 ms */
    MD5_SIZE = 16,
    SHA1_SIZE = 20,
    APR1_ROUNDS = 1000,
    APR1_SALT_MAX = 8
};

/* As all of crypt's: its own order, six bits a character, the lowest first. */
static const char crypt_digits[65] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static const struct scheme {
    const char *prefix;
    size_t tail; /* characters behind the last $; 0: it has none */
} schemes[] = {{"$2a$", 0}, {"$2b$", 0}, {"$2y$", 0}, {"$5$", 43}, {"$6$", 86}, {"$apr1$", 22}, {"{SHA}", 28}};

enum { SCHEMES = sizeof schemes / sizeof schemes[0] };

static bool
begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static enum tg_rc
judge_bcrypt(const char *hash)
{
    if (strlen(hash) != BCRYPT_SIZE || hash[4] < '0' || hash[4] > '9' || hash[5] < '0' || hash[5] > '9' ||
        hash[6] != '$') {
        return TG_EINVAL;
    }
    const int cost = (hash[4] - '0') * 10 + hash[5] - '0';
    return cost < TG_PASSWORD_COST_MIN ? TG_EINVAL : cost > TG_PASSWORD_COST_MAX ? TG_ELIMIT : TG_OK;
}

static enum tg_rc
judge_rounds(const char *hash)
{
    char *end = NULL;
    if (!begins_with(hash + 3, "rounds=")) {
        return TG_OK;
    }
    const unsigned long rounds = strtoul(hash + 10, &end, 10);
    return end == hash + 10 || *end != '$' ? TG_EINVAL : rounds > TG_PASSWORD_ROUNDS_MAX ? TG_ELIMIT : TG_OK;
}

/* Only whole hashes of the known schemes: libcrypt itself would take older ones, and a salt alone. */
static enum tg_rc
judge(const char *hash)
{
    if (begins_with(hash, "$argon2")) {
        return tg_argon2_judge(hash);
    }
    for (unsigned i = 0; i < SCHEMES; i++) {
        const struct scheme *scheme = &schemes[i];
        if (!begins_with(hash, scheme->prefix)) {
            continue;
        }
        if (scheme->tail == 0) {
            return judge_bcrypt(hash);
        }
        const char *last = strrchr(hash, hash[0] == '{' ? '}' : '$');
        if (strlen(last + 1) != scheme->tail) {
            return TG_EINVAL;
        }
        return hash[1] == '5' || hash[1] == '6' ? judge_rounds(hash) : TG_OK;
    }
    return TG_EINVAL;
}

static bool
take_text(struct tg_password *password, struct tg_slice text)
{
    const size_t most = begins_with(password->hash, "$2") ? TG_PASSWORD_BCRYPT_MAX : TG_PASSWORD_MAX;
    if (text.n > most || memchr(text.p, '\0', text.n) != NULL) {
        return false;
    }
    memcpy(password->text, text.p, text.n);
    return true;
}

enum tg_rc
tg_password_judge(struct tg_slice hash)
{
    char text[CRYPT_OUTPUT_SIZE] = {0};
    if (hash.n >= sizeof text || memchr(hash.p, '\0', hash.n) != NULL) {
        return TG_EINVAL;
    }
    memcpy(text, hash.p, hash.n);
    return judge(text);
}

enum tg_rc
tg_password_check(struct tg_password *password, struct tg_slice hash, struct tg_slice text)
{
    const enum tg_rc rc = tg_password_judge(hash);
    if (rc != TG_OK) {
        return rc;
    }
    memcpy(password->hash, hash.p, hash.n);
    password->quick = hash.p[0] == '{';
    return take_text(password, text) ? TG_OK : TG_EDENIED;
}

enum tg_rc
tg_password_make(struct tg_password *password, enum tg_abi_password_kind kind, unsigned cost, struct tg_slice text)
{
    static const char *const prefixes[] = {
        [TG_PASSWORD_BCRYPT] = "$2b$", [TG_PASSWORD_SHA256] = "$5$", [TG_PASSWORD_SHA512] = "$6$"};
    const bool is_bcrypt = kind == TG_PASSWORD_BCRYPT;
    if (cost == 0) {
        cost = is_bcrypt ? COST_DEFAULT : ROUNDS_DEFAULT;
    }
    if (is_bcrypt ? cost < TG_PASSWORD_COST_MIN || cost > TG_PASSWORD_COST_MAX
                  : cost < TG_PASSWORD_ROUNDS_MIN || cost > TG_PASSWORD_ROUNDS_MAX) {
        return TG_ELIMIT;
    }
    password->makes = true;
    /* Without bytes of ours it takes the kernel's random ones. */
    if (crypt_gensalt_rn(prefixes[kind], cost, NULL, 0, password->hash, sizeof password->hash) == NULL) {
        return TG_ESYSTEM;
    }
    return take_text(password, text) ? TG_OK : TG_EINVAL;
}

/* ------------------------------------------------------------------ htpasswd's own */

/* "{SHA}", as htpasswd -s and LDAP write it. */
static bool
compute_sha(const struct tg_password *password, char *out)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_MD *sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
    const bool ok = sha1 != NULL && EVP_Digest(password->text, strlen(password->text), digest, NULL, sha1, NULL) == 1;
    EVP_MD_free(sha1);
    memcpy(out, "{SHA}", 5);
    *tg_base64_encode(out + 5, digest, SHA1_SIZE, TG_BASE64_PLAIN) = '\0';
    return ok;
}

/* One turn of the thousand: what goes in, and in which order, depends on the number of the turn. */
static bool
stir(EVP_MD_CTX *context, const EVP_MD *md5, unsigned turn, struct tg_slice text, struct tg_slice salt,
     unsigned char *digest)
{
    bool ok = EVP_DigestInit_ex2(context, md5, NULL) == 1;
    ok = ok && ((turn & 1) != 0 ? EVP_DigestUpdate(context, text.p, text.n)
                                : EVP_DigestUpdate(context, digest, MD5_SIZE)) == 1;
    ok = ok && (turn % 3 == 0 || EVP_DigestUpdate(context, salt.p, salt.n) == 1);
    ok = ok && (turn % 7 == 0 || EVP_DigestUpdate(context, text.p, text.n) == 1);
    ok = ok && ((turn & 1) != 0 ? EVP_DigestUpdate(context, digest, MD5_SIZE)
                                : EVP_DigestUpdate(context, text.p, text.n)) == 1;
    return ok && EVP_DigestFinal_ex(context, digest, NULL) == 1;
}

/* Before the turns: the digest of text, magic, salt, and of the digest of text, salt, text as long as the text is. */
static bool
begin_apr1(EVP_MD_CTX *context, const EVP_MD *md5, struct tg_slice text, struct tg_slice salt, unsigned char *digest)
{
    static const unsigned char zero = 0;
    bool ok = EVP_DigestInit_ex2(context, md5, NULL) == 1 && EVP_DigestUpdate(context, text.p, text.n) == 1 &&
              EVP_DigestUpdate(context, salt.p, salt.n) == 1 && EVP_DigestUpdate(context, text.p, text.n) == 1 &&
              EVP_DigestFinal_ex(context, digest, NULL) == 1;
    ok = ok && EVP_DigestInit_ex2(context, md5, NULL) == 1 && EVP_DigestUpdate(context, text.p, text.n) == 1 &&
         EVP_DigestUpdate(context, "$apr1$", 6) == 1 && EVP_DigestUpdate(context, salt.p, salt.n) == 1;
    for (size_t left = text.n; ok && left > 0; left -= left < MD5_SIZE ? left : MD5_SIZE) {
        ok = EVP_DigestUpdate(context, digest, left < MD5_SIZE ? left : MD5_SIZE) == 1;
    }
    for (size_t bits = text.n; ok && bits > 0; bits >>= 1) {
        ok = EVP_DigestUpdate(context, (bits & 1) != 0 ? (const void *)&zero : text.p, 1) == 1;
    }
    return ok && EVP_DigestFinal_ex(context, digest, NULL) == 1;
}

static void
put_apr1(char *out, const unsigned char *digest)
{
    static const unsigned char order[6][3] = {{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}, {0, 0, 11}};
    for (unsigned i = 0; i < 6; i++) {
        unsigned bits = digest[order[i][2]];
        if (i < 5) {
            bits |= (unsigned)digest[order[i][0]] << 16 | (unsigned)digest[order[i][1]] << 8;
        }
        for (unsigned k = 0; k < (i < 5 ? 4 : 2); k++, bits >>= 6) {
            *out++ = crypt_digits[bits & 63];
        }
    }
    *out = '\0';
}

/* Poul-Henning Kamp's MD5-crypt with Apache's magic in place of $1$; libcrypt knows only the latter. */
static bool
compute_apr1(const struct tg_password *password, char *out)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    const struct tg_slice text = tg_slice_of(password->text, strlen(password->text));
    const char *begin = password->hash + 6;
    size_t n = strcspn(begin, "$");
    n = n > APR1_SALT_MAX ? APR1_SALT_MAX : n;
    const struct tg_slice salt = tg_slice_of(begin, n);
    EVP_MD *md5 = EVP_MD_fetch(NULL, "MD5", NULL);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool ok = md5 != NULL && context != NULL && begin_apr1(context, md5, text, salt, digest);
    for (unsigned turn = 0; ok && turn < APR1_ROUNDS; turn++) {
        ok = stir(context, md5, turn, text, salt, digest);
    }
    memcpy(out, password->hash, 6 + n);
    out[6 + n] = '$';
    put_apr1(out + 7 + n, digest);
    OPENSSL_cleanse(digest, sizeof digest);
    EVP_MD_CTX_free(context);
    EVP_MD_free(md5);
    return ok;
}

/* ------------------------------------------------------------------ running */

static bool
compute(struct tg_password *password, char *out)
{
    if (password->hash[0] == '{') {
        return compute_sha(password, out);
    }
    if (begins_with(password->hash, "$apr1$")) {
        return compute_apr1(password, out);
    }
    const char *made = crypt_rn(password->text, password->hash, &password->data, (int)sizeof password->data);
    if (made == NULL) {
        return false;
    }
    memcpy(out, made, strlen(made) + 1);
    return true;
}

enum tg_rc
tg_password_run(struct tg_password *password)
{
    char made[CRYPT_OUTPUT_SIZE] = {0};
    if (begins_with(password->hash, "$argon2")) {
        return tg_argon2_verify(password->hash, tg_slice_of(password->text, strlen(password->text)));
    }
    const bool ok = compute(password, made);
    const size_t n = strlen(made);
    enum tg_rc rc = TG_EINVAL;
    ERR_clear_error();
    if (ok && password->makes) {
        memcpy(password->hash, made, n + 1);
        rc = TG_OK;
    } else if (ok) {
        rc = n == strlen(password->hash) && CRYPTO_memcmp(made, password->hash, n) == 0 ? TG_OK : TG_EDENIED;
    }
    OPENSSL_cleanse(made, sizeof made);
    return rc;
}

void
tg_password_wipe(struct tg_password *password)
{
    OPENSSL_cleanse(password, sizeof *password);
}
