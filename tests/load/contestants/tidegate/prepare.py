#!/usr/bin/env python3
"""prepare.py DATA: the neutral lists of keys and routes as files that a configuration includes."""
import os
import sys

data = sys.argv[1]
with open(os.path.join(data, "tidegate_keys.lua"), "w") as out:
    for line in open(os.path.join(data, "keys.txt")):
        key, who = line.split()
        out.write(f'consumer "{who}" {{ credentials = {{ key = "{key}" }} }}\n')
routes = os.path.join(data, "routes.txt")
if os.path.exists(routes):
    with open(os.path.join(data, "tidegate_routes.lua"), "w") as out:
        for line in open(routes):
            kind, pattern, name = line.split()
            path = pattern.rstrip("/") + "/*" if kind == "prefix" else pattern
            out.write(f'route "{name}" {{ path = "{path}", to = "backend",\n'
                      f'  use = {{ {{ "headers", request = {{ set = {{ ["X-Route"] = "{name}" }} }} }} }} }}\n')
