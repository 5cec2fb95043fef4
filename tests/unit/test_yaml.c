#include "unit.h"

#include "base/mem.h"
#include "base/yaml.h"

static void
is_json(const char *yaml, const char *expected)
{
    struct tg_slice json = {NULL, 0};
    struct tg_err err = {0};
    assert_int_equal(tg_yaml_to_json(yaml, strlen(yaml), &json, &err), TG_OK);
    assert_int_equal(json.n, strlen(expected));
    assert_memory_equal(json.p, expected, json.n);
    tg_mem_free((char *)(uintptr_t)json.p);
}

static void
refuses(const char *yaml, const char *message)
{
    struct tg_slice json = {NULL, 0};
    struct tg_err err = {0};
    assert_int_equal(tg_yaml_to_json(yaml, strlen(yaml), &json, &err), TG_EINVAL);
    assert_string_equal(err.text, message);
}

static void
a_document_becomes_one_value(void **state)
{
    (void)state;
    is_json("", "{}");
    is_json("a: 1\nb: [x, 'y', {c: null}]\n", "{\"a\":1,\"b\":[\"x\",\"y\",{\"c\":null}]}");
    is_json("a:\n  - b: 1\n    c: 2\n  - []\n  - {}\n", "{\"a\":[{\"b\":1,\"c\":2},[],{}]}");
    is_json("a: |\n  x\n  y\nb: >-\n  x\n  y\n", "{\"a\":\"x\\ny\\n\",\"b\":\"x y\"}");
}

/* YAML 1.2.2, section 10.3.2 */
static void
plain_scalars_have_the_types_of_the_core_schema(void **state)
{
    (void)state;
    is_json("[1, -1, 0, 1.5, 1e3, -2E-2]", "[1,-1,0,1.5,1e3,-2E-2]");
    is_json("[01, 0x1, 1_000, .5, 1., +1, 12:30, yes, on, .inf]",
            "[\"01\",\"0x1\",\"1_000\",\".5\",\"1.\",\"+1\",\"12:30\",\"yes\",\"on\",\".inf\"]");
    is_json("[true, False, ~, null, '', \"1\", 'true']", "[true,false,null,null,\"\",\"1\",\"true\"]");
    is_json("{1: 2, true: false, null: x}", "{\"1\":2,\"true\":false,\"null\":\"x\"}");
}

static void
what_has_a_second_meaning_is_refused_with_its_place(void **state)
{
    (void)state;
    refuses("a: &x 1\nb: *x\n", "1:4: anchors are not supported");
    refuses("a: 1\nb: *x\n", "2:4: aliases are not supported");
    refuses("a: !!int 1\n", "1:4: tags are not supported");
    refuses("a: 1\n--- \nb: 2\n", "2:1: a second document");
    refuses("? [1]\n: 2\n", "1:3: a key must be a string");
    refuses("a: [1\nb: }\n", "2:2: did not find expected ',' or ']'");
}

static void
depth_and_size_are_bounded(void **state)
{
    char deep[2 * TG_YAML_DEPTH + 4] = "";
    (void)state;
    for (int i = 0; i < TG_YAML_DEPTH + 1; i++) {
        deep[i] = '[';
        deep[TG_YAML_DEPTH + 1 + i] = ']';
    }
    refuses(deep, "1:33: deeper than 32 levels");
    deep[0] = ' ';
    deep[2 * TG_YAML_DEPTH + 1] = ' ';
    struct tg_slice json = {NULL, 0};
    struct tg_err err = {0};
    assert_int_equal(tg_yaml_to_json(deep, strlen(deep), &json, &err), TG_OK);
    tg_mem_free((char *)(uintptr_t)json.p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_becomes_one_value),
        cmocka_unit_test(plain_scalars_have_the_types_of_the_core_schema),
        cmocka_unit_test(what_has_a_second_meaning_is_refused_with_its_place),
        cmocka_unit_test(depth_and_size_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
