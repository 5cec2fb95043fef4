#!/usr/bin/env python3
"""prepare.py DATA: the neutral list of keys as the lines of a map."""
import os
import sys

data = sys.argv[1]
with open(os.path.join(data, "nginx_keys.conf"), "w") as out:
    for line in open(os.path.join(data, "keys.txt")):
        key, who = line.split()
        out.write(f'"{key}" "{who}";\n')
