#!/bin/sh
# Starts the Redis in place of this shell; its process id is in redis.pid.
cd "$(dirname "$0")" || exit 1
echo $$ > redis.pid
exec redis-server --port 6390 --bind 127.0.0.1 --save "" --loglevel warning
