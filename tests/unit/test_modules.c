/* Modules of the program: text at first, bytecode when it was made, and both are loaded alike. */
#include "unit.h"

#include "base/mem.h"
#include "vm/embedded.h"
#include "vm/load.h"
#include "vm/modules.h"

enum { BYTECODE = 27 /* first byte of it */ };

static unsigned
as_bytecode(void)
{
    unsigned count = 0;
    for (const struct tg_embedded *module = tg_embedded; module->name != NULL; module++) {
        struct tg_module found;
        assert_int_equal(tg_modules_find(module->name, &found), TG_OK);
        assert_string_equal(found.path, module->path);
        count += found.code.p[0] == BYTECODE;
    }
    return count;
}

static void
can_be_required(void)
{
    struct tg_err err = {0};
    lua_State *L = tg_load_state((struct tg_slice){0}, &err);
    assert_non_null(L);
    assert_true(tg_load_module(L, "runtime.near", &err));
    assert_false(tg_load_module(L, "runtime.nowhere", &err));
    assert_non_null(strstr(err.text, "runtime.nowhere"));
    lua_close(L);
}

static void
text_becomes_bytecode(void **state)
{
    struct tg_err err = {0};
    struct tg_module module;
    (void)state;
    assert_int_equal(tg_modules_find("runtime.nowhere", &module), TG_ENONE);
    assert_int_equal(as_bytecode(), 0);
    can_be_required();

    /* Memory ends on the way: what was made stays, the rest is text, and it may be tried again. */
    tg_mem_fail_at(40);
    assert_int_equal(tg_modules_compile(&err), TG_ENOMEM);
    tg_mem_fail_at(0);
    can_be_required();

    assert_int_equal(tg_modules_compile(&err), TG_OK);
    assert_true(as_bytecode() > 100);
    can_be_required();
    assert_int_equal(tg_modules_find("tidegate.call", &module), TG_OK);
    assert_int_not_equal(module.code.p[0], BYTECODE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_becomes_bytecode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
