-- The first of two gateways; second.lua is the other. What both do is in limits.lua.
api = 1
listen { address = "127.0.0.1", port = 8080 }
include "limits.lua"
