#!/bin/sh
# Starts a Redis and two gateways that share it, and ends all three when it is ended.
cd "$(dirname "$0")" || exit 1
tidegate=${TIDEGATE:-tidegate}
here=$(mktemp -d)
pids=
trap 'kill $pids "$(cat redis.pid)" 2>/dev/null; wait; rm -rf "$here" redis.pid' EXIT
trap 'exit 0' INT TERM
./redis.sh &
pids=$!
"$tidegate" run --workers 1 --config gateway.lua --control "$here/one" & pids="$pids $!"
"$tidegate" run --workers 1 --config second.lua --control "$here/two" & pids="$pids $!"
wait
