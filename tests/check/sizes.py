#!/usr/bin/env python3
"""sizes.py: a C or Lua file stops at 700 lines, a function at 70."""
import pathlib
import re
import sys

FILE_MAX, FUNCTION_MAX = 700, 70


def c_functions(lines):
    """(name, first line, length): a body begins with a brace in column 0 and ends with one."""
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            name = re.match(r"(\w+)\(", lines[start - 2])
            k = start - 2
            while not name and k > 0:
                k -= 1
                name = re.match(r"(\w+)\(", lines[k])
            yield (name.group(1) if name else "?"), start, number - start + 1
            start = None


def lua_functions(lines):
    """Functions that begin in column 0 and end with an `end` there."""
    start = None
    for number, line in enumerate(lines, 1):
        found = re.match(r"(?:local )?function ([\w.:]+)", line)
        if found and not line.rstrip().endswith(" end"):
            start = (found.group(1), number)
        elif start and re.match(r"end\b", line):
            yield start[0], start[1], number - start[1] + 1
            start = None


def check(root):
    errors = []
    files = [p for pattern in ("core/**/*.[ch]", "lua/**/*.lua", "plugins/*.lua", "tests/**/*.c") for p in root.glob(pattern)]
    for path in sorted(files):
        lines = path.read_text().splitlines()
        if len(lines) > FILE_MAX:
            errors.append(f"{path}: found {len(lines)} lines, expected at most {FILE_MAX}")
        functions = c_functions(lines) if path.suffix in (".c", ".h") else lua_functions(lines)
        for name, line, length in functions:
            if length > FUNCTION_MAX:
                errors.append(f"{path}:{line}: {name} has {length} lines, expected at most {FUNCTION_MAX}")
    return errors


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(found) or "sizes: ok")
    sys.exit(bool(found))
