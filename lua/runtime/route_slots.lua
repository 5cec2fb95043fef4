--- route_slots: where a route has what is read for each request that has more to do than an attempt: side by side, since as fields each would be a
-- cache miss. What every request gets is the core's (struct tg_abi_route).
return { PHASES = 1, REWRITE = 2, STRIP = 3, TO = 4, UPGRADE = 5, GUARD = 6, HAS_CTX = 7 }
