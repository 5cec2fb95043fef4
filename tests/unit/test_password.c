#include "unit.h"

#include <stdio.h>

#include "base/mem.h"
#include "base/password.h"

static struct tg_slice
slice(const char *text)
{
    return tg_slice_of(text, strlen(text));
}

static enum tg_rc
verify(const char *hash, struct tg_slice text)
{
    struct tg_password *password = tg_mem_new(struct tg_password);
    assert_non_null(password);
    enum tg_rc rc = tg_password_check(password, slice(hash), text);
    rc = rc == TG_OK ? tg_password_run(password) : rc;
    tg_password_wipe(password);
    for (size_t i = 0; i < sizeof *password; i++) {
        assert_int_equal(((const unsigned char *)password)[i], 0);
    }
    tg_mem_free(password);
    return rc;
}

/* From crypt_blowfish, Drepper's specification, `openssl passwd` and the argon2 program. */
static void
hashes_of_others_match(void **state)
{
    static const char *const vectors[][2] = {
        {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
        {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"},
        {"$2b$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", "\xa3"},
        {"$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "\xff\xff\xa3"},
        {"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"},
        {"$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!"},
        {"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
         "Hello world!"},
        {"$apr1$rOioh4Wh$hXoBuL3MJyr0L1TXSH8VY1", "hamburger"},
        {"$apr1$12345678$sHuPAw7VA9xjRbJz7zKV7/", ""},
        {"{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password"},
        {"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"},
        {"$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc", "password"},
        {"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password"},
        {"$argon2i$v=19$m=256,t=2,p=2$c29tZXNhbHQ$T/XOJ2mh1/TIpJHfCdQan76Q5esCFVoT5MAeIM1Oq2E", "password"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        char other[64];
        const size_t n = strlen(vectors[i][1]);
        assert_int_equal(verify(vectors[i][0], slice(vectors[i][1])), TG_OK);
        memcpy(other, vectors[i][1], n + 1);
        assert_int_equal(verify(vectors[i][0], tg_slice_of(other, n + 1)), TG_EDENIED); /* its NUL counts */
        other[n] = 'x';
        assert_int_equal(verify(vectors[i][0], tg_slice_of(other, n + 1)), TG_EDENIED);
    }
}

static void
what_costs_too_much_or_is_malformed_is_refused(void **state)
{
    (void)state;
    assert_int_equal(verify("$2b$16$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", slice("x")), TG_ELIMIT);
    assert_int_equal(verify("$5$rounds=1000001$salt$0123456789012345678901234567890123456789012", slice("x")),
                     TG_ELIMIT);
    assert_int_equal(
        verify("$5$rounds=99999999999999999999$salt$0123456789012345678901234567890123456789012", slice("x")),
        TG_ELIMIT);
    assert_int_equal(verify("$2b$0x$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", slice("x")), TG_EINVAL);
    static const char tail[] = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    static const struct {
        const char *head;
        enum tg_rc rc;
    } heads[] = {
        {"$argon2id$v=19$m=65536,t=8,p=1", TG_EDENIED},     {"$argon2id$v=19$m=65536,t=9,p=1", TG_ELIMIT},
        {"$argon2id$v=19$m=65537,t=1,p=1", TG_ELIMIT},      {"$argon2id$v=19$m=999999999,t=1,p=1", TG_ELIMIT},
        {"$argon2id$v=19$m=4294967304,t=1,p=1", TG_EINVAL}, {"$argon2id$v=19$m=256,t=999999999,p=1", TG_ELIMIT},
        {"$argon2id$v=19$m=256,t=1,p=17", TG_ELIMIT},       {"$argon2id$v=19$m=256,t=1,p=33", TG_EINVAL},
        {"$argon2id$v=19$m=256,t=0,p=1", TG_EINVAL},        {"$argon2id$v=19$m=256,t=1,p=0", TG_EINVAL},
        {"$argon2id$v=19$m=0256,t=1,p=1", TG_EINVAL},       {"$argon2id$v=19$m=-256,t=1,p=1", TG_EINVAL},
        {"$argon2id$v=16$m=256,t=1,p=1", TG_EINVAL},        {"$argon2id$m=256,t=1,p=1", TG_EINVAL},
        {"$argon2d$v=19$m=256,t=1,p=1", TG_EINVAL},         {"$argon2id$v=19$m=256,t=1,p=1,data=eA", TG_EINVAL},
        {"$argon2id$v=19$m=256,t=1,p=1$", TG_EINVAL},       {"$argon2id$v=19$m=7,t=1,p=1", TG_EINVAL},
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "%s%s", heads[i].head, tail);
        assert_int_equal(verify(text, slice("x")), heads[i].rc);
        for (size_t n = strlen(text) - 24; n > 8; n--) { /* the tag has less than 16 bytes, or nothing is left */
            text[n] = '\0';
            assert_int_equal(tg_password_judge(slice(text)), TG_EINVAL);
        }
    }
    assert_int_equal(verify("", slice("x")), TG_EINVAL);
    assert_int_equal(verify("{SHA}", slice("x")), TG_EINVAL);
    assert_int_equal(verify("$5$", slice("x")), TG_EINVAL);
    assert_int_equal(verify("$apr1$", slice("x")), TG_EINVAL);
    assert_int_equal(verify("$apr1$0123456789012345678901", slice("x")), TG_EDENIED); /* without a salt */
    char hash[CRYPT_OUTPUT_SIZE + 64];
    memset(hash, '$', sizeof hash);
    hash[sizeof hash - 1] = '\0';
    memcpy(hash, "$6$", 3);
    for (size_t n = 4; n < sizeof hash; n++) {
        char cut[sizeof hash];
        (void)snprintf(cut, sizeof cut, "%.*s", (int)n, hash);
        assert_int_equal(verify(cut, slice("x")), TG_EINVAL);
    }
}

static void
a_new_hash_matches_its_password(void **state)
{
    static const unsigned costs[] = {
        [TG_PASSWORD_BCRYPT] = 4, [TG_PASSWORD_SHA256] = 1000, [TG_PASSWORD_SHA512] = 1000};
    (void)state;
    for (enum tg_abi_password_kind kind = TG_PASSWORD_BCRYPT; kind <= TG_PASSWORD_SHA512; kind++) {
        struct tg_password *password = tg_mem_new(struct tg_password);
        assert_non_null(password);
        assert_int_equal(tg_password_make(password, kind, costs[kind], slice("secret")), TG_OK);
        assert_int_equal(tg_password_run(password), TG_OK);
        assert_int_equal(verify(password->hash, slice("secret")), TG_OK);
        assert_int_equal(verify(password->hash, slice("Secret")), TG_EDENIED);
        assert_int_equal(tg_password_make(password, kind, 2, slice("secret")), TG_ELIMIT);
        assert_int_equal(tg_password_make(password, kind, 1000001, slice("secret")), TG_ELIMIT);
        assert_int_equal(tg_password_make(password, kind, costs[kind], tg_slice_of("a\0b", 3)), TG_EINVAL);
        tg_mem_free(password);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_of_others_match),
        cmocka_unit_test(what_costs_too_much_or_is_malformed_is_refused),
        cmocka_unit_test(a_new_hash_matches_its_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
