#!/bin/sh
# Starts the receiver of traces, the gateway with two workers, and Prometheus (apt install prometheus); ends all when it is ended.
cd "$(dirname "$0")" || exit 1
tidegate=${TIDEGATE:-tidegate}
data=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null; wait; rm -rf "$data" tidegate.sock.token' EXIT
trap 'exit 0' INT TERM
/usr/bin/python3 traces.py & pids=$!
"$tidegate" run --workers 2 --config gateway.lua --control tidegate.sock & pids="$pids $!"
until "$tidegate" token --control tidegate.sock >"$data/token" 2>&1; do sleep 0.1; done
prometheus --config.file=prometheus.yml --storage.tsdb.path="$data" --web.listen-address=127.0.0.1:9090 --log.level=warn & pids="$pids $!"
wait
