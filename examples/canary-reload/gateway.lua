-- A price list whose rules are about to change: try the change on some of the customers first.
listen { address = "127.0.0.1", port = 8080 }

route "price" { path = "/price/{amount}", handler = "price" }
