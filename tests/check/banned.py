#!/usr/bin/env python3
"""banned.py: functions that may not be used, and what to use instead."""
import pathlib
import re
import sys

C = {
    "strcpy": "tg_slice or snprintf", "strcat": "snprintf", "sprintf": "snprintf", "vsprintf": "vsnprintf",
    "atoi": "strtoul with a check", "strtok": "memchr", "gets": "read", "gettimeofday": "tg_loop_now",
    "malloc": "tg_mem_alloc", "calloc": "tg_mem_zero", "realloc": "tg_mem_resize", "free": "tg_mem_free",
    "strdup": "tg_mem_text", "bufferevent_new": "net/transport.h", "bufferevent_socket_new": "net/transport.h",
}
PLUGINS = {
    r"os\.execute": "nothing: it blocks", r"\bio\.": "tg.log.sink", r"\bloadstring\b": "load", r"\bdebug\.": "tg.log",
    r"\bffi\b": "tg", r"\brequire\b.*[\"']runtime": "tg",
}


def strip_comments(text):
    # Literals too: a quote in '"' would open a string that hides what follows, and a string may look like a call.
    hidden = r"/\*.*?\*/|//[^\n]*|'(?:\\.|[^'\\\n])+'|\"(?:\\.|[^\"\\])*\""
    return re.sub(hidden, lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)


def check(root):
    errors = []
    for path in sorted(root.glob("core/**/*.[ch]")):
        if path.parent.name == "base":
            continue
        for number, line in enumerate(strip_comments(path.read_text()).splitlines(), 1):
            for name, instead in C.items():
                if re.search(rf"(?<![\w.>]){name}\s*\(", line):
                    errors.append(f"{path}:{number}: found {name}, expected {instead}")
    for path in sorted(root.glob("plugins/*.lua")):
        if path.name.endswith(".spec.lua"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for pattern, instead in PLUGINS.items():
                if re.search(pattern, line.split("--")[0]):
                    errors.append(f"{path}:{number}: found {pattern}, expected {instead}")
    return errors


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(found) or "banned: ok")
    sys.exit(bool(found))
