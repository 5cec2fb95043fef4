listen { port = 1 }
upstream "a" { targets = { "https://h", "h:1", "http://", "http://h:99999", "http://a b", { url = 1 }, {} }, balance = "x" }
