api = 1
listen { address = "127.0.0.1", port = 8081 }
include "limits.lua"
