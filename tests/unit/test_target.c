#include "unit.h"

#include "http/target.h"

static char block[16 * 1024];
static struct tg_arena arena;

static enum tg_rc
path_of(const char *text, struct tg_slice *raw, struct tg_slice *path)
{
    const struct tg_h1_fault *fault = NULL;
    tg_arena_init(&arena, block, sizeof block, 64 * 1024);
    return tg_target_path(tg_slice_of(text, strlen(text)), &arena, raw, path, &fault);
}

static void
paths_have_one_normal_form(void **state)
{
    static const struct {
        const char *text;
        const char *raw;
        const char *path;
    } table[] = {
        {"/", "/", "/"},
        {"/a/b", "/a/b", "/a/b"},
        {"/a//b", "/a/b", "/a/b"},
        {"/a/./b/.", "/a/b/", "/a/b/"},
        {"/a/../b", "/b", "/b"},
        {"/a/b/..", "/a/", "/a/"},
        {"/%61%2e%2e", "/a..", "/a.."},
        {"/a%20b", "/a%20b", "/a b"},
        {"/%e4%b8%ad", "/%E4%B8%AD", "/\xe4\xb8\xad"},
        {"/a/%2e%2e/b", "/b", "/b"},
        {"/...", "/...", "/..."},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_slice raw;
        struct tg_slice path;
        assert_int_equal(path_of(table[i].text, &raw, &path), TG_OK);
        assert_true(tg_slice_is(raw, table[i].raw, strlen(table[i].raw)));
        assert_true(tg_slice_is(path, table[i].path, strlen(table[i].path)));
    }
}

static void
what_has_two_readings_is_refused(void **state)
{
    static const char *const table[] = {"",     "a",      "/..",    "/a/../..", "/%",         "/%4",  "/%zz",
                                        "/%00", "/a%2fb", "/a%5Cb", "/%c0%ae",  "/%e0%80%af", "/%1f", "/%7f"};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tg_slice raw;
        struct tg_slice path;
        assert_int_equal(path_of(table[i], &raw, &path), TG_EPROTOCOL);
    }
}

static void
hosts_are_normalised_or_refused(void **state)
{
    static const struct {
        const char *text;
        const char *host; /* NULL: refused */
    } table[] = {
        {"Example.COM", "example.com"},
        {"example.com.", "example.com"},
        {"a:80", "a"},
        {"[::1]:8080", "[::1]"},
        {"1.2.3.4", "1.2.3.4"},
        {"", NULL},
        {"a b", NULL},
        {"a/b", NULL},
        {"u@a", NULL},
        {"a:", "a"},
        {"a:70000", NULL},
        {"[::1", NULL},
        {"a..", NULL},
        {"a%41", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct tg_h1_fault *fault = NULL;
        struct tg_slice authority;
        struct tg_slice host;
        tg_arena_init(&arena, block, sizeof block, 64 * 1024);
        const enum tg_rc rc =
            tg_target_host(tg_slice_of(table[i].text, strlen(table[i].text)), &arena, &authority, &host, &fault);
        if (table[i].host == NULL) {
            assert_int_equal(rc, TG_EPROTOCOL);
        } else {
            assert_int_equal(rc, TG_OK);
            assert_true(tg_slice_is(host, table[i].host, strlen(table[i].host)));
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_have_one_normal_form),
        cmocka_unit_test(what_has_two_readings_is_refused),
        cmocka_unit_test(hosts_are_normalised_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
