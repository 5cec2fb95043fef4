lisden { port = 8080 }
