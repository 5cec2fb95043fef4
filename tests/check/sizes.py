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
    """A function ends with the first `end` that stands as far to the left as the line where it began."""
    open_functions = []  # (indent, name, first line), innermost last
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip())
        while open_functions and line.strip() and indent <= open_functions[-1][0]:
            _, name, first = open_functions.pop()
            yield name, first, number - first + 1
        found = re.search(r"\bfunction\b *([\w.:]*)\(", line.split("--")[0])
        # `describe` groups the cases of a spec: a list, not a function to be held in mind.
        if found and not line.lstrip().startswith("describe(") and not re.search(r"\bend\b", line[found.end():]):
            # An anonymous one is known by what it is assigned to, or by its line.
            named = re.match(r"\s*(?:local )?([\w.:]+) *=", line)
            open_functions.append((indent, found.group(1) or (named.group(1) if named else "function"), number))


def check(root):
    errors = []
    files = [p for pattern in ("core/**/*.[ch]", "lua/**/*.lua", "plugins/*.lua", "tests/**/*.c") for p in root.glob(pattern)
             if "node_modules" not in p.parts]
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
