"""What the checks and the generator once did not see: each case is a tree that breaks a rule in that way."""
import importlib.util
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
GENERATE = HERE.parents[1] / "core/build/generate.lua"


def errors_of(check, root):
    spec = importlib.util.spec_from_file_location(check, HERE / f"{check}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check(root)


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def generate_check(tmp_path, header):
    write(tmp_path, "abi.h", header)
    out = tmp_path / "out.c"
    ran = subprocess.run(["luajit", GENERATE, "check", tmp_path / "abi.h", out], capture_output=True, text=True)
    return ran, out.read_text() if out.exists() else ""


def test_a_quote_as_a_character_hides_no_banned_call(tmp_path):
    write(tmp_path, "core/net/x.c", "int f(char c) {\n  return c == '\"';\n}\nvoid g(void) { strcpy(a, b); }\nh(\"x\");\n")
    assert [error for error in errors_of("banned", tmp_path) if "x.c:4" in error and "strcpy" in error]


def test_a_space_before_the_parenthesis_hides_no_banned_call(tmp_path):
    write(tmp_path, "core/net/x.c", "void f(void *p) { free (p); }\n")
    assert len(errors_of("banned", tmp_path)) == 1


def test_a_banned_name_in_a_string_is_no_call(tmp_path):
    write(tmp_path, "core/net/x.c", 'const char *text = "free(p)"; /* "don\'t" */ const char *more = "atoi(p)";\n')
    assert errors_of("banned", tmp_path) == []


def test_a_space_in_an_include_hides_no_step_upwards(tmp_path):
    write(tmp_path, "README.md", "| 0 | `core/base/` | rc |\n| 1 | `core/net/` | loop |\n")
    write(tmp_path, "net/loop.h", "")
    write(tmp_path, "base/rc.h", '#  include  "net/loop.h"\n')
    assert len(errors_of("layers", tmp_path)) == 1


def test_a_long_phase_of_a_plugin_is_seen(tmp_path):
    body = "    ctx.x = 1\n" * 80
    write(tmp_path, "plugins/p.lua", f"return {{\n  access = function(ctx)\n{body}  end,\n}}\n")
    assert any("access has 82 lines" in error for error in errors_of("sizes", tmp_path))


def test_short_functions_around_each_other_are_not_added_up(tmp_path):
    inner = "  t[#t + 1] = function()\n    return 1\n  end\n"
    write(tmp_path, "lua/x.lua", f"local function outer(t)\n{inner * 15}end\n" * 3)
    assert errors_of("sizes", tmp_path) == []


def test_commands_of_an_example_that_nobody_runs_are_refused(tmp_path):
    write(tmp_path, "examples/lonely/README.md", "```sh\ncurl localhost\n```\n")
    assert any("lonely" in error for error in errors_of("layout", tmp_path))
    write(tmp_path, "tests/e2e/test_x.py", 'FOLDER = "examples/lonely"\n')
    assert errors_of("layout", tmp_path) == []


def test_an_array_in_the_abi_is_asserted(tmp_path):
    ran, out = generate_check(tmp_path, "struct tg_abi_x {\n    int a;\n    char name[16];\n};\n")
    assert ran.returncode == 0 and "offsetof(struct tg_abi_x, name) == 4" in out


def test_a_field_that_cannot_be_asserted_stops_the_build(tmp_path):
    ran, _ = generate_check(tmp_path, "struct tg_abi_x {\n    int a, b;\n};\n")
    assert ran.returncode != 0 and "expected one plain field" in ran.stderr
