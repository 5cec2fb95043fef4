#!/usr/bin/env python3
"""layers.py: refuses an #include that does not point downwards. The table of layers in core/README.md is the input."""
import pathlib
import re
import sys

BELOW_ALL = {"abi.h", "abi_cell.h", "abi_crypto.h", "abi_limit.h", "abi_line.h", "abi_metric.h", "abi_route.h", "abi_steps.h", "abi_tls.h", "vm/embedded.h"}


def read_table(readme):
    """folder -> (layer, [rooms, lowest first])"""
    table = {}
    for row in re.findall(r"^\| *(\d+) *\| *`core/(\w+)/`[^|]*\| *([^|]+?) *\|$", readme, re.M):
        table[row[1]] = (int(row[0]), [room.strip() for room in row[2].split(",")])
    return table


def check(core):
    table = read_table((core / "README.md").read_text())
    errors = [] if table else ["core/README.md: no table of layers"]
    present = {}
    for path in sorted(core.glob("*/*.[ch]")):
        folder, room = path.parent.name, path.stem
        if folder == "build":
            continue
        present.setdefault(folder, set()).add(room)
        if str(path.relative_to(core)) in BELOW_ALL:
            continue
        if folder not in table or room not in table[folder][1]:
            errors.append(f"{path}: found no row of core/README.md, expected its room in the table")
            continue
        layer, rooms = table[folder]
        for line, name in enumerate(path.read_text().splitlines(), 1):
            include = re.match(r'\s*#\s*include\s*"([^"]+)"', name)
            if not include or include.group(1) in BELOW_ALL:
                continue
            target, _, other = include.group(1)[:-2].rpartition("/")
            if target == folder:
                ok = other == room or (other in rooms and rooms.index(other) < rooms.index(room))
            else:
                ok = target in table and table[target][0] < layer
            if not ok:
                errors.append(f"{path}:{line}: found {include.group(1)}, expected a lower layer or an earlier room")
    for folder, (_, rooms) in table.items():
        for room in rooms:
            if room not in present.get(folder, set()):
                errors.append(f"core/README.md: room {folder}/{room} has no file")
    return errors


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "core"))
    print("\n".join(found) or "layers: ok")
    sys.exit(bool(found))
