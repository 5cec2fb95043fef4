#include "unit.h"

#include "http/trace_context.h"

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"

static int
flags_of(const char *text)
{
    uint8_t flags = 0;
    return tg_traceparent_parse(text, strlen(text), &flags) == TG_OK ? flags : -1;
}

static void
a_well_formed_one_gives_its_flags(void **state)
{
    (void)state;
    assert_int_equal(flags_of("00-" TRACE "-" PARENT "-00"), 0);
    assert_int_equal(flags_of("00-" TRACE "-" PARENT "-01"), 1);
    assert_int_equal(flags_of("00-" TRACE "-" PARENT "-ff"), 0xff);
}

static void
a_later_version_is_read_as_far_as_it_is_known(void **state)
{
    (void)state;
    assert_int_equal(flags_of("cc-" TRACE "-" PARENT "-01"), 1);
    assert_int_equal(flags_of("cc-" TRACE "-" PARENT "-01-what-the-future-will-be-like"), 1);
    assert_int_equal(flags_of("cc-" TRACE "-" PARENT "-01."), -1);
    assert_int_equal(flags_of("cc-" TRACE "-" PARENT "-01.what-the-future"), -1);
}

static void
what_is_malformed_is_void(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "00-" TRACE "-" PARENT,
        "00-" TRACE "-" PARENT "-",
        "00-" TRACE "-" PARENT "-0",
        "00-" TRACE "-" PARENT "-0x",
        "00-" TRACE "-" PARENT "-001",
        "00-" TRACE "-" PARENT "-01-",
        "00-" TRACE "-" PARENT "-01-x",
        "00-" TRACE "-" PARENT "-01.",
        "ff-" TRACE "-" PARENT "-01",
        ".0-" TRACE "-" PARENT "-01",
        "0.-" TRACE "-" PARENT "-01",
        "0-" TRACE "-" PARENT "-011",
        "000-" TRACE "-" PARENT "-01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01",
        "00-.af7651916cd43dd8448eb211c80319c-" PARENT "-01",
        "00-" TRACE "-b7ad6b716920333.-01",
        "00-" TRACE "-B7AD6B7169203331-01",
        "00-" TRACE "-" PARENT "-.0",
        "00-" TRACE "-" PARENT "-0.",
        "00_" TRACE "-" PARENT "-01",
        "00-" TRACE "_" PARENT "-01",
        "00-" TRACE "-" PARENT "_01",
        "00-" TRACE "0-" PARENT "-0",
        " 00-" TRACE "-" PARENT "-01",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(flags_of(bad[i]), -1);
    }
}

static void
what_is_written_is_read_again_and_never_zero(void **state)
{
    (void)state;
    unsigned char random[24] = {0};
    char text[TG_TRACEPARENT_LEN + 1] = {0};
    tg_traceparent_write(text, random);
    assert_string_equal(text, "00-00000000000000000000000000000001-0000000000000001-00");
    assert_int_equal(flags_of(text), 0);
}

static void
the_share_is_of_the_last_seven_bytes(void **state)
{
    (void)state;
    assert_true(tg_traceparent_share("00-ffffffffffffffffff00000000000000-" PARENT "-00") == 0);
    assert_true(tg_traceparent_share("00-00000000000000000080000000000000-" PARENT "-00") == 0.5);
    const double most = tg_traceparent_share("00-000000000000000000ffffffffffffff-" PARENT "-00");
    assert_true(most > 0.999 && most <= 1);
    unsigned char random[24];
    char text[TG_TRACEPARENT_LEN];
    for (unsigned i = 0; i < 256; i++) {
        for (unsigned k = 0; k < sizeof random; k++) {
            random[k] = (unsigned char)(i * 7 + k * 31);
        }
        tg_traceparent_write(text, random);
        assert_true(tg_traceparent_share(text) == tg_traceparent_share_of(random));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_well_formed_one_gives_its_flags),
        cmocka_unit_test(a_later_version_is_read_as_far_as_it_is_known),
        cmocka_unit_test(what_is_malformed_is_void),
        cmocka_unit_test(what_is_written_is_read_again_and_never_zero),
        cmocka_unit_test(the_share_is_of_the_last_seven_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
