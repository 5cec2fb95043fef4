#include "unit.h"

#include <stdio.h>

#include "base/mem.h"
#include "http/field.h"
#include "http/route_table.h"
#include "http/route_tree.h"

static struct tg_route_search search;

static struct tg_slice
text(const char *p)
{
    return tg_slice_of(p, strlen(p));
}

static enum tg_rc
add(struct tg_route_table *table, const char *host, const char *path, int priority, bool asks)
{
    static uint32_t number;
    const struct tg_route_pattern pattern = {
        .host = text(host), .path = text(path), .priority = priority, .route = number + 100, .asks = asks};
    return tg_route_table_add(table, &pattern, &number);
}

static unsigned
find(const struct tg_route_table *table, const char *method, const char *host, const char *path, bool every)
{
    const struct tg_route_request request = {
        .method = text(method),
        .method_id = tg_method_id(text(method)),
        .host = text(host),
        .path = text(path),
        .every = every,
    };
    return tg_route_table_find(table, &request, &search);
}

/* Numbers of all patterns that a search finds, as text. */
static const char *
all(const struct tg_route_table *table, const char *host, const char *path)
{
    static char line[256];
    size_t n = 0;
    line[0] = '\0';
    for (unsigned count = find(table, "GET", host, path, false); count > 0;
         count = tg_route_table_more(table, &search)) {
        for (unsigned i = 0; i < count; i++) {
            n += (size_t)snprintf(line + n, sizeof line - n, "%s%u", n > 0 ? " " : "", search.found[i].pattern);
        }
    }
    return line;
}

static void
the_best_one_is_found_first(void **state)
{
    (void)state;
    struct tg_route_table *table = tg_route_table_new();
    assert_non_null(table);
    static const char *const paths[] = {"/*",     "/a/*",     "/a/b",
                                        "/a/{x}", "/a/{x}/c", "/a/a-segment-of-more-than-16-bytes"};
    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_int_equal(add(table, "", paths[i], 0, true), TG_OK);
    }
    assert_int_equal(add(table, "*.x.test", "/a/*", 0, true), TG_OK);
    assert_int_equal(add(table, "b.x.test", "/{any}/b", 5, true), TG_OK);
    assert_int_equal(add(table, "b.x.test", "/a/b", -5, true), TG_OK);
    assert_int_equal(tg_route_table_settle(table), TG_OK);
    assert_string_equal(all(table, "", "/a/b"), "2 3 1 0");
    assert_string_equal(all(table, "", "/a/b/c"), "4 1 0");
    assert_string_equal(all(table, "", "/a/"), "1 0");
    assert_string_equal(all(table, "", "/"), "0");
    assert_string_equal(all(table, "", "/a/a-segment-of-more-than-16-bytes"), "5 3 1 0");
    assert_string_equal(all(table, "", "/a/a-segment-of-more-than-16-bytez"), "3 1 0");
    assert_string_equal(all(table, "b.x.test", "/a/b"), "7 8 6 2 3 1 0");
    assert_string_equal(all(table, ".x.test", "/a/b"), "2 3 1 0");
    tg_route_table_free(table);
}

static void
goes_on_where_there_is_no_room_for_all(void **state)
{
    (void)state;
    struct tg_route_table *table = tg_route_table_new();
    enum { MANY = TG_ROUTE_FOUND_MAX * 3 + 5 };
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(add(table, "", "/a", 1, true), TG_OK);
    }
    assert_int_equal(add(table, "", "/*", 0, false), TG_OK);
    assert_int_equal(add(table, "", "/a/*", 0, false), TG_OK);
    assert_int_equal(tg_route_table_settle(table), TG_OK);
    unsigned next = 0;
    for (unsigned count = find(table, "GET", "", "/a", false); next < MANY;
         count = tg_route_table_more(table, &search)) {
        assert_in_range(count, 1, TG_ROUTE_FOUND_MAX);
        for (unsigned i = 0; i < count; i++) {
            assert_int_equal(search.found[i].pattern, next++);
        }
    }
    assert_int_equal(search.count, 1);
    assert_int_equal(search.found[0].pattern, MANY + 1);
    assert_int_equal(search.found[0].asks, 0);
    tg_route_table_free(table);
}

static void
methods_are_told_apart(void **state)
{
    (void)state;
    struct tg_route_table *table = tg_route_table_new();
    assert_int_equal(add(table, "", "/a", 0, false), TG_OK);
    assert_int_equal(tg_route_table_allow(table, text("POST")), TG_OK);
    assert_int_equal(add(table, "", "/a", 0, false), TG_OK);
    for (unsigned i = 0; i < 32; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "M%u", i);
        assert_int_equal(tg_route_table_allow(table, text(name)), TG_OK);
    }
    assert_int_equal(tg_route_table_allow(table, text("M31")), TG_OK);
    assert_int_equal(tg_route_table_allow(table, text("M32")), TG_ELIMIT);
    assert_int_equal(tg_route_table_settle(table), TG_OK);
    assert_int_equal(find(table, "POST", "", "/a", false), 1);
    assert_int_equal(search.found[0].pattern, 0);
    assert_int_equal(find(table, "M31", "", "/a", false), 1);
    assert_int_equal(search.found[0].pattern, 1);
    assert_int_equal(find(table, "GET", "", "/a", false), 0);
    assert_true(search.blocked);
    assert_int_equal(find(table, "M32", "", "/a", false), 0);
    assert_true(search.blocked);
    assert_int_equal(find(table, "GET", "", "/b", false), 0);
    assert_false(search.blocked);
    assert_int_equal(find(table, "GET", "", "/a", true), 2);
    tg_route_table_free(table);
}

static void
what_is_too_much_is_refused(void **state)
{
    (void)state;
    struct tg_route_table *table = tg_route_table_new();
    char path[8192];
    for (unsigned i = 0; i < TG_ROUTE_SEGMENTS_MAX + 1; i++) {
        memcpy(path + i * 2, "/a", 3);
    }
    assert_int_equal(add(table, "", path, 0, false), TG_ELIMIT);
    memset(path, 'a', sizeof path);
    path[0] = '/';
    path[4097] = '\0';
    assert_int_equal(add(table, "", path, 0, false), TG_OK);
    assert_int_equal(tg_route_table_settle(table), TG_OK);
    assert_int_equal(find(table, "GET", "", path, false), 1);
    path[4097] = 'a';
    path[4098] = '\0';
    assert_int_equal(find(table, "GET", "", path, false), 0);
    assert_int_equal(find(table, "GET", "", "", false), 0);
    assert_int_equal(find(table, "GET", "", "*", false), 0);
    tg_route_table_free(table);
    table = tg_route_table_new();
    assert_int_equal(tg_route_table_settle(table), TG_OK);
    assert_int_equal(find(table, "GET", "a.test", "/a", false), 0);
    tg_route_table_free(table);
    tg_route_table_free(NULL);
}

static enum tg_rc
build(struct tg_route_table *table)
{
    static const char *const paths[] = {"/a", "/b", "/c/{d}", "/c/{d}/*", "/e/f/g", "/a", "/h", "/i"};
    enum tg_rc rc = TG_OK;
    for (unsigned i = 0; i < sizeof paths / sizeof paths[0] && rc == TG_OK; i++) {
        rc = add(table, i % 3 == 0 ? "" : i % 3 == 1 ? "x.test" : "*.test", paths[i], (int)i, false);
        if (rc == TG_OK) {
            rc = tg_route_table_allow(table, text("PURGE"));
        }
    }
    return rc == TG_OK ? tg_route_table_settle(table) : rc;
}

static void
short_memory_is_told(void **state)
{
    (void)state;
    bool done = false;
    for (unsigned long at = 1; !done; at++) {
        assert_in_range(at, 1, 1000);
        tg_mem_fail_at(at);
        struct tg_route_table *table = tg_route_table_new();
        const enum tg_rc rc = table == NULL ? TG_ENOMEM : build(table);
        done = rc == TG_OK;
        tg_mem_fail_at(0);
        assert_true(done || rc == TG_ENOMEM);
        tg_route_table_free(table);
    }
}

static void
segments_of_a_path_have_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        unsigned number;
        const char *segment;
    } rows[] = {{"/a/bc/d", 0, "a"}, {"/a/bc/d", 1, "bc"}, {"/a/bc/d", 2, "d"}, {"/a/bc/d", 3, ""},
                {"/a/", 1, ""},      {"/", 0, ""},         {"", 0, ""},         {"", 7, ""}};
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct tg_slice segment = tg_path_segment(text(rows[i].path), rows[i].number);
        assert_int_equal(segment.n, strlen(rows[i].segment));
        assert_memory_equal(segment.p, rows[i].segment, segment.n);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_one_is_found_first), cmocka_unit_test(goes_on_where_there_is_no_room_for_all),
        cmocka_unit_test(methods_are_told_apart),      cmocka_unit_test(what_is_too_much_is_refused),
        cmocka_unit_test(short_memory_is_told),        cmocka_unit_test(segments_of_a_path_have_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
