#!/bin/sh
# Compiles the descriptors, starts the server and the gateway, and ends both when it is ended.
cd "$(dirname "$0")" || exit 1
tidegate=${TIDEGATE:-tidegate}
pids=
trap 'kill $pids 2>/dev/null; wait; rm -rf library.pb __pycache__' EXIT
trap 'exit 0' INT TERM
protoc -I. --include_imports --descriptor_set_out=library.pb library.proto || exit 1
/usr/bin/python3 server.py & pids=$!
"$tidegate" run --config gateway.lua & pids="$pids $!"
wait
