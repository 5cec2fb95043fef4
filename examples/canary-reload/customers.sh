#!/bin/sh
# customers.sh [SECONDS]: customers who ask for prices, each by a name, until the time is over; then how many got what.
end=$(($(date +%s) + ${1:-5}))
n=0
while [ "$(date +%s)" -lt "$end" ]; do
  n=$((n + 1))
  curl -s -o /dev/null -w '%{http_code}\n' -H "X-Customer: c$((n % 40))" localhost:8080/price/50
done | sort | uniq -c
