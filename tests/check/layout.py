#!/usr/bin/env python3
"""layout.py: the fixed top level; each plugin has its spec, each example its test; apt never gets the LuaJIT that removes nginx's Lua module."""
import pathlib
import sys

TOP = {"core", "lua", "plugins", "examples", "tests", "Makefile", "README.md", "LICENSE", "build"}


def check(root):
    errors = []
    for path in sorted(root.iterdir()):
        if path.name not in TOP and not path.name.startswith("."):
            errors.append(f"{path}: found at the top level, expected one of {', '.join(sorted(TOP))}")
    for path in sorted(root.glob("plugins/*.lua")):
        if not path.name.endswith(".spec.lua") and not path.with_suffix(".spec.lua").exists():
            errors.append(f"{path}: found no spec beside it")
    tests = "\n".join(path.read_text() for path in sorted(root.glob("tests/e2e/*.py")))
    for path in sorted(root.glob("examples/*/README.md")):
        if "```sh" in path.read_text() and f"examples/{path.parent.name}" not in tests:
            errors.append(f"{path}: found commands that no test in tests/e2e runs")
    makefile = root / "Makefile"
    if makefile.exists() and "libluajit-5.1-dev" in makefile.read_text():
        errors.append("Makefile: found libluajit-5.1-dev, expected libluajit2-5.1-dev")
    return errors


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(found) or "layout: ok")
    sys.exit(bool(found))
