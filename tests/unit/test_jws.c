#include "unit.h"

#include <stdio.h>

#include "base/base64.h"
#include "base/jws.h"

enum { ROOM = 4096 };

static struct tg_slice
text_of(const char *text)
{
    return tg_slice_of(text, strlen(text));
}

static void
a_token_has_three_parts(void **state)
{
    (void)state;
    char room[64];
    struct tg_abi_jws jws;
    assert_int_equal(tg_jws_split(text_of("aGVhZA.Ym9keQ.c2lnbmVk"), room, sizeof room, &jws), TG_OK);
    assert_true(tg_slice_is(jws.header, "aGVhZA", 6) && tg_slice_is(jws.payload, "Ym9keQ", 6));
    assert_true(tg_slice_is(jws.is_signed, "aGVhZA.Ym9keQ", 13) && tg_slice_is(jws.signature, "signed", 6));
}

static void
what_is_no_token_is_refused(void **state)
{
    static const char *const table[] = {"",     ".",    "..",      "...",     "a",       "a.b",      "a.b.",
                                        ".b.c", "a..c", "a.b=.YQ", "a=.b.YQ", "a.b.YQ=", "a.b.YQ==", "a.b"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char room[64];
        struct tg_abi_jws jws = {.header = {"before", 6}};
        assert_int_equal(tg_jws_split(text_of(table[i]), room, sizeof room, &jws), TG_EINVAL);
        assert_true(tg_slice_is(jws.header, "before", 6));
    }
}

static void
a_signature_is_base64url_and_fits(void **state)
{
    static const char *const table[] = {"a.b.c", "a.b.YQ.YQ", "a.b.Y+Q/", "a.b. YQ", "a.b.YR", "a.b.YQ\n"};
    (void)state;
    struct tg_abi_jws jws;
    char room[6];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(tg_jws_split(text_of(table[i]), room, sizeof room, &jws), TG_OK);
        assert_null(jws.signature.p);
    }
    assert_int_equal(tg_jws_split(text_of("a.b.c2lnbmVk"), room, sizeof room, &jws), TG_OK);
    assert_true(tg_slice_is(jws.signature, "signed", 6));
    assert_int_equal(tg_jws_split(text_of("a.b.c2lnbmVkIQ"), room, sizeof room, &jws), TG_OK);
    assert_null(jws.signature.p);
}

static enum tg_rc
read_text(const char *json, struct tg_jws_claims *claims)
{
    static char spelled[TG_BASE64_ROOM(ROOM)];
    static char room[ROOM + 3];
    const size_t n = strlen(json);
    assert_true(n <= ROOM);
    const char *end = tg_base64_encode(spelled, json, n, TG_BASE64_URL);
    return tg_jws_read(tg_slice_of(spelled, (size_t)(end - spelled)), room, claims);
}

static void
claims_are_found_by_name(void **state)
{
    static const struct {
        const char *json;
        const char *name;
        const char *value; /* NULL: there is none */
    } table[] = {
        {"{\"sub\":\"ann\",\"exp\":17}", "exp", "17"},
        {"{\"sub\":\"ann\",\"exp\":17}", "sub", "\"ann\""},
        {"{\"sub\":\"ann\",\"exp\":17}", "su", NULL},
        {"{\"sub\":\"ann\",\"exp\":17}", "", NULL},
        {"{\"sub\":\"ann\",\"exp\":17}", "ann", NULL},
        {"{}", "sub", NULL},
        {"{\"\":1}", "", "1"},
        {"{\"a\":{\"sub\":1},\"b\":[\"sub\",{\"sub\":2}]}", "sub", NULL},
        {"{\"\\u0073ub\":1,\"exp\":2}", "sub", "1"},
        {"{\"\\u0073ub\":1,\"exp\":2}", "exp", "2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_jws_claims claims;
        struct tg_slice value;
        assert_int_equal(read_text(table[i].json, &claims), TG_OK);
        const enum tg_rc rc = tg_jws_claim(&claims, text_of(table[i].name), &value);
        assert_int_equal(rc, table[i].value == NULL ? TG_ENONE : TG_OK);
        assert_true(table[i].value == NULL || tg_slice_is(value, table[i].value, strlen(table[i].value)));
    }
}

static void
many_claims_are_found_as_well(void **state)
{
    (void)state;
    for (unsigned count = 1; count < 2 * TG_JWS_FEW; count++) {
        char json[ROOM];
        char name[16];
        struct tg_jws_claims claims;
        struct tg_slice value;
        int n = snprintf(json, sizeof json, "{\"c0\":0");
        for (unsigned i = 1; i < count; i++) {
            n += snprintf(json + n, sizeof json - (size_t)n, ",\"c%u\":%u", i, i);
        }
        (void)snprintf(json + n, sizeof json - (size_t)n, "}");
        assert_int_equal(read_text(json, &claims), TG_OK);
        for (unsigned i = 0; i <= count; i++) {
            (void)snprintf(name, sizeof name, "c%u", i);
            assert_int_equal(tg_jws_claim(&claims, text_of(name), &value), i < count ? TG_OK : TG_ENONE);
            assert_true(i == count || tg_slice_is(value, name + 1, strlen(name) - 1));
        }
    }
}

static void
a_payload_is_one_object(void **state)
{
    static const char *const table[] = {"",
                                        "[1]",
                                        "\"x\"",
                                        "1",
                                        "{",
                                        "{}x",
                                        " {}",
                                        "{\"a\":1,\"a\":2}",
                                        "\xff",
                                        "{\"a\"}",
                                        "{\"\\u0061\":1,\"a\":2}",
                                        "{\"a\":\"\xff\"}"};
    (void)state;
    struct tg_jws_claims claims;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(read_text(table[i], &claims), TG_EINVAL);
    }
    char room[64];
    assert_int_equal(tg_jws_read(text_of("e30"), room, &claims), TG_OK);
    assert_int_equal(tg_jws_read(text_of("e31"), room, &claims), TG_EINVAL);
    assert_int_equal(tg_jws_read(text_of("e3"), room, &claims), TG_EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_has_three_parts),           cmocka_unit_test(what_is_no_token_is_refused),
        cmocka_unit_test(a_signature_is_base64url_and_fits), cmocka_unit_test(claims_are_found_by_name),
        cmocka_unit_test(many_claims_are_found_as_well),     cmocka_unit_test(a_payload_is_one_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
