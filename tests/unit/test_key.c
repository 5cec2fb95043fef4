#include "unit.h"

#include <openssl/core_names.h>
#include <openssl/encoder.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "base/key.h"
#include "base/mem.h"

enum { TEXT_MAX = 16 * 1024 };

static const struct tg_slice none = {"", 0};
static const struct tg_slice data = {"data", 4};

/* The key in one of OpenSSL's output structures, with AES-256-CBC when there is a password. */
static struct tg_slice
encode(EVP_PKEY *pkey, const char *format, const char *structure, int selection, const char *password)
{
    static char text[TEXT_MAX];
    BIO *bio = BIO_new(BIO_s_mem());
    OSSL_ENCODER_CTX *encoder = OSSL_ENCODER_CTX_new_for_pkey(pkey, selection, format, structure, NULL);
    assert_true(bio != NULL && encoder != NULL);
    if (password != NULL) {
        assert_int_equal(OSSL_ENCODER_CTX_set_cipher(encoder, "AES-256-CBC", NULL), 1);
        assert_int_equal(OSSL_ENCODER_CTX_set_passphrase(encoder, (const unsigned char *)password, strlen(password)),
                         1);
    }
    assert_int_equal(OSSL_ENCODER_to_bio(encoder, bio), 1);
    const int n = BIO_read(bio, text, sizeof text);
    assert_in_range(n, 1, sizeof text - 1);
    OSSL_ENCODER_CTX_free(encoder);
    BIO_free(bio);
    return tg_slice_of(text, (size_t)n);
}

static struct tg_key *
read_key(struct tg_slice text, const char *password)
{
    /* In memory of its own size: a byte read beyond it is seen. */
    char *copy = malloc(text.n);
    struct tg_key *key = NULL;
    const char *why = NULL;
    assert_non_null(copy);
    memcpy(copy, text.p, text.n);
    const enum tg_rc rc = tg_key_read(tg_slice_of(copy, text.n), tg_slice_of(password, strlen(password)), &key, &why);
    if (rc != TG_OK) {
        assert_int_equal(rc, TG_EINVAL);
        assert_null(key);
        assert_non_null(why);
    }
    free(copy);
    return key;
}

static void
assert_signs(struct tg_key *signer, struct tg_key *verifier, enum tg_abi_signature algorithm)
{
    unsigned char signature[TG_KEY_SIGNATURE_MAX];
    size_t n = 0;
    assert_int_equal(tg_key_sign(signer, algorithm, data, signature, &n), TG_OK);
    const struct tg_slice made = tg_slice_of((char *)signature, n);
    assert_int_equal(tg_key_verify(verifier, algorithm, data, made), TG_OK);
    signature[n / 2] ^= 1;
    assert_int_equal(tg_key_verify(verifier, algorithm, data, made), TG_EDENIED);
}

static void
assert_reads(EVP_PKEY *pkey, enum tg_abi_signature algorithm, const char *private_structure)
{
    static const char *const formats[] = {"PEM", "DER"};
    struct tg_key *public = read_key(encode(pkey, "PEM", "SubjectPublicKeyInfo", EVP_PKEY_PUBLIC_KEY, NULL), "");
    assert_non_null(public);
    for (unsigned i = 0; i < 2; i++) {
        const char *structures[] = {"PrivateKeyInfo", private_structure};
        for (unsigned k = 0; k < 2; k++) {
            struct tg_key *key = read_key(encode(pkey, formats[i], structures[k], EVP_PKEY_KEYPAIR, NULL), "");
            assert_non_null(key);
            assert_signs(key, public, algorithm);
            tg_key_free(key);
        }
        struct tg_key *again =
            read_key(encode(pkey, formats[i], "SubjectPublicKeyInfo", EVP_PKEY_PUBLIC_KEY, NULL), "");
        unsigned char signature[TG_KEY_SIGNATURE_MAX];
        size_t n = 0;
        assert_non_null(again);
        assert_int_equal(tg_key_sign(again, algorithm, data, signature, &n), TG_ENONE);
        tg_key_free(again);
        /* Encrypted: only with its password, and nobody is asked for one. */
        const struct tg_slice text = encode(pkey, formats[i], "EncryptedPrivateKeyInfo", EVP_PKEY_KEYPAIR, "secret");
        assert_null(read_key(text, ""));
        assert_null(read_key(text, "Secret"));
        again = read_key(text, "secret");
        assert_non_null(again);
        assert_signs(again, public, algorithm);
        tg_key_free(again);
    }
    tg_key_free(public);
}

static void
keys_are_read_in_every_form(void **state)
{
    static const char *const curves[] = {"P-256", "P-384", "P-521"};
    (void)state;
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
    assert_non_null(pkey);
    assert_reads(pkey, TG_SIGN_RS256, "type-specific");
    struct tg_key *key = read_key(encode(pkey, "PEM", "type-specific", EVP_PKEY_PUBLIC_KEY, NULL), "");
    assert_non_null(key); /* PKCS #1: BEGIN RSA PUBLIC KEY */
    tg_key_free(key);
    struct tg_slice text = encode(pkey, "PEM", "type-specific", EVP_PKEY_KEYPAIR, "secret");
    assert_non_null(strstr(text.p, "Proc-Type: 4,ENCRYPTED"));
    assert_null(read_key(text, ""));
    key = read_key(text, "secret");
    assert_non_null(key);
    tg_key_free(key);
    EVP_PKEY_free(pkey);
    for (unsigned i = 0; i < 3; i++) {
        pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", curves[i]);
        assert_non_null(pkey);
        assert_reads(pkey, TG_SIGN_ES256 + i, "type-specific");
        EVP_PKEY_free(pkey);
    }
    pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    assert_non_null(pkey);
    assert_reads(pkey, TG_SIGN_EDDSA, "PrivateKeyInfo");
    EVP_PKEY_free(pkey);
}

/* As `openssl ecparam -genkey` writes it: the parameters alone are no key. */
static void
a_key_is_found_behind_its_parameters(void **state)
{
    char text[4096];
    (void)state;
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    struct tg_slice part = encode(pkey, "PEM", "type-specific", EVP_PKEY_KEY_PARAMETERS, NULL);
    assert_non_null(strstr(part.p, "BEGIN EC PARAMETERS"));
    assert_null(read_key(part, ""));
    memcpy(text, part.p, part.n);
    size_t n = part.n;
    part = encode(pkey, "PEM", "type-specific", EVP_PKEY_KEYPAIR, NULL);
    memcpy(text + n, part.p, part.n);
    n += part.n;
    struct tg_key *key = read_key(tg_slice_of(text, n), "");
    assert_non_null(key);
    assert_signs(key, key, TG_SIGN_ES256);
    tg_key_free(key);
    EVP_PKEY_free(pkey);
}

static void
refuses(EVP_PKEY *pkey)
{
    assert_non_null(pkey);
    assert_null(read_key(encode(pkey, "PEM", "PrivateKeyInfo", EVP_PKEY_KEYPAIR, NULL), ""));
    assert_null(read_key(encode(pkey, "DER", "SubjectPublicKeyInfo", EVP_PKEY_PUBLIC_KEY, NULL), ""));
    EVP_PKEY_free(pkey);
}

static void
kinds_sizes_and_curves_that_are_not_served_are_refused(void **state)
{
    (void)state;
    refuses(EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024));
    refuses(EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2047));
    refuses(EVP_PKEY_Q_keygen(NULL, NULL, "EC", "secp256k1"));
    refuses(EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-224"));
    refuses(EVP_PKEY_Q_keygen(NULL, NULL, "X25519"));
    refuses(EVP_PKEY_Q_keygen(NULL, NULL, "ED448"));
    refuses(EVP_PKEY_Q_keygen(NULL, NULL, "SM2"));
    /* The curve spelled out, as a forger would to choose his own generator. */
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    assert_int_equal(EVP_PKEY_set_utf8_string_param(pkey, OSSL_PKEY_PARAM_EC_ENCODING, "explicit"), 1);
    refuses(pkey);
}

static void
what_is_no_key_is_refused(void **state)
{
    (void)state;
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
    struct tg_slice text = encode(pkey, "DER", "PrivateKeyInfo", EVP_PKEY_KEYPAIR, NULL);
    for (size_t n = 1; n < text.n; n++) {
        assert_null(read_key(tg_slice_of(text.p, n), ""));
    }
    text = encode(pkey, "PEM", "PrivateKeyInfo", EVP_PKEY_KEYPAIR, NULL);
    for (size_t n = 1; n < text.n - 2; n += 7) {
        assert_null(read_key(tg_slice_of(text.p, n), ""));
    }
    EVP_PKEY_free(pkey);
}

/* RFC 8037, appendix A: key, message and signature. */
static void
a_jwk_is_a_key(void **state)
{
    static const unsigned char d[] = {0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a,
                                      0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32,
                                      0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60};
    static const unsigned char x[] = {0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe,
                                      0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6,
                                      0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a};
    static const unsigned char expected[] = {
        0x86, 0x0c, 0x98, 0xd2, 0x29, 0x7f, 0x30, 0x60, 0xa3, 0x3f, 0x42, 0x73, 0x96, 0x72, 0xd6, 0x1b,
        0x53, 0xcf, 0x3a, 0xde, 0xfe, 0xd3, 0xd3, 0xc6, 0x72, 0xf3, 0x20, 0xdc, 0x02, 0x1b, 0x41, 0x1e,
        0x9d, 0x59, 0xb8, 0x62, 0x8d, 0xc3, 0x51, 0xe2, 0x48, 0xb8, 0x8b, 0x29, 0x46, 0x8e, 0x0e, 0x41,
        0x85, 0x5b, 0x0f, 0xb7, 0xd8, 0x3b, 0xb1, 0x5b, 0xe9, 0x02, 0xbf, 0xcc, 0xb8, 0xcd, 0x0a, 0x02};
    static const char text[] = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    struct tg_slice parts[TG_KEY_PARTS] = {{NULL, 0}};
    unsigned char made[TG_KEY_SIGNATURE_MAX];
    unsigned char part[TG_KEY_PART_MAX];
    const char *why = NULL;
    struct tg_key *key = NULL;
    size_t n = 0;
    (void)state;
    parts[TG_KEY_D] = tg_slice_of((const char *)d, sizeof d);
    parts[TG_KEY_X] = tg_slice_of((const char *)x, sizeof x);
    assert_int_equal(tg_key_make(TG_KEY_OKP, 0, parts, &key, &why), TG_OK);
    assert_int_equal(tg_key_sign(key, TG_SIGN_EDDSA, TG_SLICE(text), made, &n), TG_OK);
    assert_int_equal(n, sizeof expected);
    assert_memory_equal(made, expected, n);
    assert_int_equal(tg_key_part(key, TG_KEY_X, part, &n), TG_OK);
    assert_memory_equal(part, x, sizeof x);
    assert_int_equal(tg_key_part(key, TG_KEY_D, part, &n), TG_ENONE); /* what is secret stays so */
    tg_key_free(key);
    parts[TG_KEY_D] = none;
    assert_int_equal(tg_key_make(TG_KEY_OKP, 0, parts, &key, &why), TG_OK);
    assert_int_equal(tg_key_verify(key, TG_SIGN_EDDSA, TG_SLICE(text), tg_slice_of((char *)expected, sizeof expected)),
                     TG_OK);
    tg_key_free(key);
}

/* One and the same context serves an algorithm; changing it must not leave the old padding behind. */
static void
an_rsa_key_changes_its_algorithm(void **state)
{
    unsigned char signature[TG_KEY_SIGNATURE_MAX];
    size_t n = 0;
    (void)state;
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
    struct tg_key *key = read_key(encode(pkey, "DER", "PrivateKeyInfo", EVP_PKEY_KEYPAIR, NULL), "");
    for (unsigned i = TG_SIGN_RS256; i <= TG_SIGN_PS512; i++) {
        assert_int_equal(tg_key_sign(key, (enum tg_abi_signature)i, data, signature, &n), TG_OK);
        for (unsigned k = TG_SIGN_RS256; k <= TG_SIGN_PS512; k++) {
            const enum tg_rc rc = tg_key_verify(key, (enum tg_abi_signature)k, data, tg_slice_of((char *)signature, n));
            assert_int_equal(rc, k == i ? TG_OK : TG_EDENIED);
        }
    }
    assert_int_equal(tg_key_sign(key, TG_SIGN_COUNT, data, signature, &n), TG_EINVAL);
    tg_key_free(key);
    EVP_PKEY_free(pkey);
}

static void
memory_that_is_short_leaves_no_key(void **state)
{
    struct tg_slice parts[TG_KEY_PARTS] = {{"0123456789abcdef0123456789abcdef", 32}};
    struct tg_key *key = NULL;
    const char *why = NULL;
    (void)state;
    for (unsigned i = 1; i <= 2; i++) {
        tg_mem_fail_at(i);
        assert_int_equal(tg_key_make(TG_KEY_OCT, 0, parts, &key, &why), TG_ENOMEM);
    }
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    const struct tg_slice text = encode(pkey, "PEM", "PrivateKeyInfo", EVP_PKEY_KEYPAIR, NULL);
    tg_mem_fail_at(1);
    assert_int_equal(tg_key_read(text, none, &key, &why), TG_ENOMEM);
    tg_mem_fail_at(0);
    assert_null(key);
    tg_key_free(NULL);
    EVP_PKEY_free(pkey);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_read_in_every_form),
        cmocka_unit_test(a_key_is_found_behind_its_parameters),
        cmocka_unit_test(kinds_sizes_and_curves_that_are_not_served_are_refused),
        cmocka_unit_test(what_is_no_key_is_refused),
        cmocka_unit_test(a_jwk_is_a_key),
        cmocka_unit_test(an_rsa_key_changes_its_algorithm),
        cmocka_unit_test(memory_that_is_short_leaves_no_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
