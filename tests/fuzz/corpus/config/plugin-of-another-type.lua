listen { port = 8080 }
upstream "a" { targets = { "http://127.0.0.1:9000" } }
use { 1, true, {}, { 7 }, { "headers", request = 1 }, { "access-log", extra = { a = "${nope}" } } }
