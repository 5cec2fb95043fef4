listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
include "more.*"
include " "a" { targets */none*"
