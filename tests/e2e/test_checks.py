"""The checks of tests/check can fail: each is shown a tree that breaks its rule."""
import importlib.util
import pathlib

CHECKS = pathlib.Path(__file__).parent.parent / "check"
README = "| 0 | `core/base/` | rc, mem |\n| 1 | `core/net/` | loop |\n"


def load(name):
    spec = importlib.util.spec_from_file_location(name, CHECKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(root, **files):
    for path, text in files.items():
        file = root / path.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_an_include_that_points_upwards_is_refused(tmp_path):
    root = tree(tmp_path, README_dot_md=README, base__rc_dot_h="", base__mem_dot_h='#include "net/loop.h"\n', net__loop_dot_h="")
    assert any("net/loop.h" in error for error in load("layers").check(root))


def test_a_later_room_of_the_same_folder_is_refused(tmp_path):
    root = tree(tmp_path, README_dot_md=README, base__rc_dot_h='#include "base/mem.h"\n', base__mem_dot_h="", net__loop_dot_h="")
    assert any("base/mem.h" in error for error in load("layers").check(root))


def test_a_file_without_a_row_and_a_row_without_a_file_are_refused(tmp_path):
    root = tree(tmp_path, README_dot_md=README, base__rc_dot_h="", base__extra_dot_h="", net__loop_dot_h="")
    errors = "\n".join(load("layers").check(root))
    assert "extra.h" in errors and "base/mem has no file" in errors


def test_a_long_function_is_refused(tmp_path):
    body = "int\nlong_one(void)\n{\n" + "    ;\n" * 80 + "}\n"
    errors = load("sizes").check(tree(tmp_path, core__base__x_dot_c=body))
    assert any("long_one" in error for error in errors)


def test_a_long_file_is_refused(tmp_path):
    errors = load("sizes").check(tree(tmp_path, lua__x_dot_lua="-- line\n" * 701))
    assert any("701" in error for error in errors)


def test_banned_functions_are_refused_where_they_are_not_in_comments(tmp_path):
    root = tree(tmp_path, core__net__x_dot_c="/* strcpy(a, b) */\nvoid f(void) { strcpy(a, b); }\n",
                plugins__p_dot_lua="local f = io.open('x')\n")
    errors = load("banned").check(root)
    assert len(errors) == 2 and "x.c:2" in errors[0] and "p.lua:1" in errors[1]


def test_a_plugin_without_a_spec_and_a_stray_file_are_refused(tmp_path):
    errors = "\n".join(load("layout").check(tree(tmp_path, plugins__p_dot_lua="return {}\n", stray_dot_txt="")))
    assert "no spec" in errors and "stray.txt" in errors
