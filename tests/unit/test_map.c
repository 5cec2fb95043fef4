#include "unit.h"

#include <stdio.h>

#include "base/map.h"
#include "base/mem.h"

static void
finds_what_was_added(void **state)
{
    (void)state;
    struct tg_map *map = tg_map_new();
    assert_non_null(map);
    assert_int_equal(tg_map_find(map, "key", 3), 0);
    assert_int_equal(tg_map_add(map, "key", 3, 7), TG_OK);
    assert_int_equal(tg_map_add(map, "", 0, 8), TG_OK);
    assert_int_equal(tg_map_add(map, "ke\0y", 4, 9), TG_OK);
    assert_int_equal(tg_map_find(map, "key", 3), 7);
    assert_int_equal(tg_map_find(map, "", 0), 8);
    assert_int_equal(tg_map_find(map, "ke\0y", 4), 9);
    assert_int_equal(tg_map_find(map, "ke", 2), 0);
    assert_int_equal(tg_map_find(map, "keys", 4), 0);
    tg_map_free(map);
}

static void
keeps_the_first_value(void **state)
{
    (void)state;
    struct tg_map *map = tg_map_new();
    assert_int_equal(tg_map_add(map, "a", 1, 1), TG_OK);
    assert_int_equal(tg_map_add(map, "a", 1, 2), TG_EBUSY);
    assert_int_equal(tg_map_find(map, "a", 1), 1);
    assert_int_equal(tg_map_add(map, "b", 1, 0), TG_EINVAL);
    assert_int_equal(tg_map_find(map, "b", 1), 0);
    tg_map_free(map);
}

static void
holds_many(void **state)
{
    enum { COUNT = 20000 };
    char key[32];
    (void)state;
    struct tg_map *map = tg_map_new();
    for (uint32_t i = 1; i <= COUNT; i++) {
        const int n = snprintf(key, sizeof key, "key-%u", i * 7919U);
        assert_int_equal(tg_map_add(map, key, (size_t)n, i), TG_OK);
    }
    for (uint32_t i = 1; i <= COUNT; i++) {
        const int n = snprintf(key, sizeof key, "key-%u", i * 7919U);
        assert_int_equal(tg_map_find(map, key, (size_t)n), i);
        key[0] = 'K';
        assert_int_equal(tg_map_find(map, key, (size_t)n), 0);
    }
    tg_map_free(map);
}

/* Whatever allocation fails, what was there stays, and the next attempt works. */
static void
survives_short_memory(void **state)
{
    char key[32];
    (void)state;
    struct tg_map *map = tg_map_new();
    for (uint32_t i = 1; i <= 500; i++) {
        const int n = snprintf(key, sizeof key, "a key of some length %u", i);
        tg_mem_fail_at(1);
        enum tg_rc rc = tg_map_add(map, key, (size_t)n, i);
        tg_mem_fail_at(0);
        if (rc == TG_ENOMEM) {
            assert_int_equal(tg_map_find(map, key, (size_t)n), 0);
            rc = tg_map_add(map, key, (size_t)n, i);
        }
        assert_int_equal(rc, TG_OK);
        assert_int_equal(tg_map_find(map, "a key of some length 1", 22), 1);
        assert_int_equal(tg_map_find(map, key, (size_t)n), i);
    }
    tg_mem_fail_at(1);
    assert_null(tg_map_new());
    tg_mem_fail_at(0);
    tg_map_free(map);
}

static void
hashes_depend_on_the_seed_and_all_bytes(void **state)
{
    (void)state;
    const uint64_t hash = tg_hash(1, "0123456789abcdef", 16);
    assert_int_equal(hash, tg_hash(1, "0123456789abcdef", 16));
    assert_int_not_equal(hash, tg_hash(2, "0123456789abcdef", 16));
    assert_int_not_equal(hash, tg_hash(1, "0123456789abcdeg", 16));
    assert_int_not_equal(hash, tg_hash(1, "1123456789abcdef", 16));
    assert_int_not_equal(tg_hash(1, "\0", 1), tg_hash(1, "", 0));
}

static void
a_place_stands_for_its_key(void **state)
{
    enum { COUNT = 3000 };
    static uint32_t places[COUNT];
    char key[64];
    struct tg_slice found;
    (void)state;
    struct tg_map *map = tg_map_new();
    assert_int_equal(tg_map_next(map, 0), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        const int n = snprintf(key, sizeof key, "%.*s%u", (int)(i % 20), "....................", i);
        assert_int_equal(tg_map_place(map, key, (size_t)n), 0);
        assert_int_equal(tg_map_add(map, key, (size_t)n, i + 1), TG_OK);
        places[i] = tg_map_place(map, key, (size_t)n);
        assert_true(places[i] > 0 && (i == 0 || places[i] > places[i - 1]));
    }
    uint32_t place = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        const int n = snprintf(key, sizeof key, "%.*s%u", (int)(i % 20), "....................", i);
        place = tg_map_next(map, place);
        assert_int_equal(place, places[i]);
        assert_int_equal(tg_map_at(map, place, &found), i + 1);
        assert_true(tg_slice_is(found, key, (size_t)n));
    }
    assert_int_equal(tg_map_next(map, place), 0);
    tg_map_free(map);
}

/* An upgrade hands over dictionaries whose places another build has computed. */
static void
hashes_stay_what_they_are(void **state)
{
    static const struct {
        size_t n;
        uint64_t hash;
    } table[] = {
        {0, 0x49ea83b216acd81cULL},  {1, 0x5d58643bce078c09ULL}, {7, 0xae7c732d46a2ebe0ULL},
        {8, 0x0d03415edaff4959ULL},  {9, 0x1d43157ba3ebc46aULL}, {16, 0x3f491306c9fa0988ULL},
        {25, 0xcd0076a3399d9842ULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(tg_hash(42, "The quick brown fox jumps", table[i].n), table[i].hash);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_added),
        cmocka_unit_test(keeps_the_first_value),
        cmocka_unit_test(holds_many),
        cmocka_unit_test(survives_short_memory),
        cmocka_unit_test(hashes_depend_on_the_seed_and_all_bytes),
        cmocka_unit_test(hashes_stay_what_they_are),
        cmocka_unit_test(a_place_stands_for_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
