#!/usr/bin/env python3
"""prepare.py DATA: the neutral list of keys as a map file."""
import os
import sys

data = sys.argv[1]
with open(os.path.join(data, "haproxy_keys.map"), "w") as out:
    for line in open(os.path.join(data, "keys.txt")):
        key, who = line.split()
        out.write(f"{key} {who}\n")
