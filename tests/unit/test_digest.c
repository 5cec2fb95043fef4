#include "unit.h"

#include <stdio.h>

#include "base/base64.h"
#include "base/digest.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/seal.h"

static size_t
unhex(const char *text, unsigned char *out)
{
    const size_t n = strlen(text);
    assert_int_equal(tg_hex_decode((char *)out, text, n), TG_OK);
    return n / 2;
}

static void
assert_hex(const unsigned char *bytes, const char *expected)
{
    char text[2 * TG_DIGEST_MAX + 1];
    *tg_hex_encode(text, bytes, strlen(expected) / 2) = '\0';
    assert_string_equal(text, expected);
}

/* FIPS 180-4 and RFC 1321, from their examples: one block, two blocks, a million bytes. */
static void
digests_are_those_of_the_standards(void **state)
{
    static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static char million[1000000];
    const struct {
        enum tg_abi_digest digest;
        const char *text;
        size_t n;
        const char *expected;
    } cases[] = {
        {TG_DIGEST_MD5, "abc", 3, "900150983cd24fb0d6963f7d28e17f72"},
        {TG_DIGEST_MD5, "", 0, "d41d8cd98f00b204e9800998ecf8427e"},
        {TG_DIGEST_SHA1, "abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {TG_DIGEST_SHA1, two_blocks, 56, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {TG_DIGEST_SHA256, "abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {TG_DIGEST_SHA256, two_blocks, 56, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {TG_DIGEST_SHA256, million, sizeof million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
        {TG_DIGEST_SHA384, "abc", 3,
         "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"},
        {TG_DIGEST_SHA512, "abc", 3,
         "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce"
         "80"
         "e2a9ac94fa54ca49f"},
    };
    unsigned char out[TG_DIGEST_MAX];
    (void)state;
    memset(million, 'a', sizeof million);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(tg_digest(cases[i].digest, cases[i].text, cases[i].n, out), TG_OK);
        assert_int_equal(tg_digest_size(cases[i].digest) * 2, strlen(cases[i].expected));
        assert_hex(out, cases[i].expected);
    }
}

/* RFC 4231, section 4. */
static void
hmacs_are_those_of_rfc_4231(void **state)
{
    static const struct {
        const char *key; /* hexadecimal */
        const char *text;
        const char *expected[3]; /* with SHA-256, SHA-384, SHA-512 */
    } cases[] = {
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
         "4869205468657265",
         {"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
          "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
          "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61"
          "f1"
          "702e696c203a126854"}},
        {"4a656665",
         "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
         {"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
          "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
          "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a"
          "6b"
          "4b636e070a38bce737"}},
        {"0102030405060708090a0b0c0d0e0f10111213141516171819",
         "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
         {"82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
          "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
          "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4d679275cc5788063a5f19741120c"
          "4f"
          "2de2adebeb10a298dd"}},
    };
    unsigned char key[64];
    unsigned char text[64];
    unsigned char out[TG_DIGEST_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t key_n = unhex(cases[i].key, key);
        const size_t text_n = unhex(cases[i].text, text);
        for (unsigned k = 0; k < 3; k++) {
            assert_int_equal(tg_digest_hmac(TG_DIGEST_SHA256 + k, key, key_n, text, text_n, out), TG_OK);
            assert_hex(out, cases[i].expected[k]);
        }
    }
    /* Case 6: a key longer than a block. */
    unsigned char long_key[131];
    static const char data[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    memset(long_key, 0xaa, sizeof long_key);
    assert_int_equal(tg_digest_hmac(TG_DIGEST_SHA256, long_key, sizeof long_key, data, strlen(data), out), TG_OK);
    assert_hex(out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void
an_empty_key_is_not_the_one_before(void **state)
{
    unsigned char out[TG_DIGEST_MAX];
    (void)state;
    assert_int_equal(tg_digest_hmac(TG_DIGEST_SHA256, "Jefe", 4, "x", 1, out), TG_OK);
    assert_int_equal(tg_digest_hmac(TG_DIGEST_SHA256, NULL, 0, "", 0, out), TG_OK);
    assert_hex(out, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

/* The authors' library gives the sum of all lengths; the others are in its documents. */
static void
hash32_is_xxhash(void **state)
{
    unsigned char *bytes = malloc(101);
    uint32_t sum = 0;
    (void)state;
    assert_non_null(bytes);
    assert_int_equal(tg_hash32("", 0), 0x02CC5D05U);
    assert_int_equal(tg_hash32("abc", 3), 0x32D153FFU);
    assert_int_equal(tg_hash32("Nobody inspects the spammish repetition", 39), 0xE2293B2FU);
    for (unsigned n = 0; n <= 100; n++) {
        unsigned char *p = bytes + 101 - n; /* ends where the memory does, and is not aligned */
        for (unsigned i = 0; i < n; i++) {
            p[i] = (unsigned char)(i * 7 + 3);
        }
        sum = sum * 31 + tg_hash32(p, n);
    }
    assert_int_equal(sum, 0xDBDA4742U);
    free(bytes);
}

/* RFC 4648, section 10; and that neither side leaves its memory. */
static void
base64_and_hex_keep_to_their_room(void **state)
{
    (void)state;
    for (size_t n = 0; n < 200; n++) {
        char *bytes = malloc(n + 1);
        char *text = malloc(TG_BASE64_ROOM(n) + 1);
        char *digits = malloc(2 * n + 1);
        assert_true(bytes != NULL && text != NULL && digits != NULL);
        for (size_t i = 0; i < n; i++) {
            bytes[i] = (char)(i * 37 + n);
        }
        for (enum tg_base64_kind kind = TG_BASE64_PLAIN; kind <= TG_BASE64_URL; kind++) {
            const size_t text_n = (size_t)(tg_base64_encode(text, bytes, n, kind) - text);
            char *exact = malloc(text_n + 1);
            char *back = malloc(TG_BASE64_BYTES(text_n) + 1);
            size_t back_n = 0;
            assert_true(exact != NULL && back != NULL && text_n <= TG_BASE64_ROOM(n));
            memcpy(exact + 1, text, text_n); /* so that a byte behind it is seen */
            assert_int_equal(tg_base64_decode(back, &back_n, exact + 1, text_n, kind), TG_OK);
            assert_int_equal(back_n, n);
            assert_memory_equal(back, bytes, n);
            free(exact);
            free(back);
        }
        assert_ptr_equal(tg_hex_encode(digits, bytes, n), digits + 2 * n);
        assert_int_equal(tg_hex_decode(digits, digits, 2 * n), TG_OK); /* in place */
        assert_memory_equal(digits, bytes, n);
        free(bytes);
        free(text);
        free(digits);
    }
}

/* Every text of four characters of a small alphabet: what is accepted is the one text of its bytes. */
static void
base64_has_one_text_for_the_same_bytes(void **state)
{
    static const char letters[] = "AQgwz_-+/= ";
    const unsigned count = sizeof letters - 1;
    unsigned accepted = 0;
    (void)state;
    for (unsigned i = 0; i < count * count * count * count; i++) {
        const char text[4] = {letters[i % count], letters[i / count % count], letters[i / count / count % count],
                              letters[i / count / count / count]};
        char bytes[3];
        char again[4];
        size_t n = 0;
        if (tg_base64_decode(bytes, &n, text, 4, TG_BASE64_PLAIN) == TG_OK) {
            assert_ptr_equal(tg_base64_encode(again, bytes, n, TG_BASE64_PLAIN), again + 4);
            assert_memory_equal(again, text, 4);
            accepted++;
        }
    }
    assert_in_range(accepted, 7 * 7 * 7 * 7, 7 * 7 * 7 * 7 + 7 * 7 * 7);
}

struct sealed {
    const char *key;
    const char *text;
    const char *bound;
    const char *cipher;
    const char *tag;
};

/* The GCM specification's test cases 1, 2, 4, 13, 14 and 16. */
static const struct sealed vectors[] = {
    {"00000000000000000000000000000000", "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"},
    {"00000000000000000000000000000000", "00000000000000000000000000000000", "", "0388dace60b6a392f328c2b971b2fe78",
     "ab6e47d42cec13bdf53a67b21257bddf"},
    {"feffe9928665731c6d6a8f9467308308",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657b"
     "a"
     "637b39",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973"
     "d"
     "58e091",
     "5bc94fbc3221a5db94fae95ae7121a47"},
    {"0000000000000000000000000000000000000000000000000000000000000000", "", "", "",
     "530f8afbc74536b9a963b4f1c4cb738b"},
    {"0000000000000000000000000000000000000000000000000000000000000000", "00000000000000000000000000000000", "",
     "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657b"
     "a"
     "637b39",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0ab"
     "c"
     "c9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static void
sealed_texts_are_those_of_the_standard(void **state)
{
    unsigned char key[32];
    unsigned char text[64];
    unsigned char bound[32];
    unsigned char nonce[TG_SEAL_NONCE];
    unsigned char expected[128];
    unsigned char out[128];
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const struct tg_slice k = {(char *)key, unhex(vectors[i].key, key)};
        const struct tg_slice t = {(char *)text, unhex(vectors[i].text, text)};
        const struct tg_slice b = {(char *)bound, unhex(vectors[i].bound, bound)};
        (void)unhex(vectors[i].key[0] == '0' ? "000000000000000000000000" : "cafebabefacedbaddecaf888", nonce);
        memcpy(expected, nonce, sizeof nonce);
        (void)unhex(vectors[i].cipher, expected + TG_SEAL_NONCE);
        (void)unhex(vectors[i].tag, expected + TG_SEAL_NONCE + t.n);
        assert_int_equal(tg_seal_with(k, nonce, t, b, out), TG_OK);
        assert_memory_equal(out, expected, t.n + TG_SEAL_EXTRA);
        struct tg_slice sealed = {(char *)expected, t.n + TG_SEAL_EXTRA};
        assert_int_equal(tg_seal_open(k, sealed, b, out), TG_OK);
        assert_memory_equal(out, text, t.n);
        for (sealed.n = 0; sealed.n < t.n + TG_SEAL_EXTRA; sealed.n++) {
            assert_int_equal(tg_seal_open(k, sealed, b, out), TG_EDENIED);
        }
    }
}

static void
what_does_not_open_leaves_no_text_behind(void **state)
{
    static const unsigned char nothing[32];
    const struct tg_slice key = {"0123456789abcdef0123456789abcdef", 32};
    const struct tg_slice none = {"", 0};
    unsigned char sealed[32 + TG_SEAL_EXTRA];
    unsigned char out[32];
    (void)state;
    memset(out, 'x', sizeof out);
    assert_int_equal(tg_seal(key, tg_slice_of("a text of thirty-two bytes......", 32), none, sealed), TG_OK);
    sealed[sizeof sealed - 1] ^= 1;
    assert_int_equal(tg_seal_open(key, tg_slice_of((char *)sealed, sizeof sealed), none, out), TG_EDENIED);
    assert_memory_equal(out, nothing, sizeof out);
    assert_int_equal(tg_seal(tg_slice_of(key.p, 24), none, none, sealed), TG_EINVAL);
    assert_int_equal(tg_seal_open(tg_slice_of(key.p, 0), none, none, out), TG_EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_the_standards),
        cmocka_unit_test(hmacs_are_those_of_rfc_4231),
        cmocka_unit_test(an_empty_key_is_not_the_one_before),
        cmocka_unit_test(hash32_is_xxhash),
        cmocka_unit_test(base64_and_hex_keep_to_their_room),
        cmocka_unit_test(base64_has_one_text_for_the_same_bytes),
        cmocka_unit_test(sealed_texts_are_those_of_the_standard),
        cmocka_unit_test(what_does_not_open_leaves_no_text_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
