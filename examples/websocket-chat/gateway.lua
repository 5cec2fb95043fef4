-- A chat: the service behind it knows neither keys nor limits, and believes what the gateway says of who speaks.
api = 1
listen { name = "public", port = 8080 }
upstream "chat" { targets = { "http://127.0.0.1:8081" } }

consumer "ann" { username = "Ann", credentials = { key = "ann-key" } }
consumer "bob" { username = "Bob", credentials = { key = "bob-key" } }

-- A browser cannot set headers of a WebSocket, so the key may stand in the query; the service does not see it.
route "chat" { path = "/chat", to = "chat", upgrade = "websocket", use = {
  { "key-auth", query = "key" },
  { "websocket-limit", messages = 5, burst = 2, max_message = "1KiB", types = { "text", "ping", "pong" }, consumer_connections = 3 },
  "author",
} }
route "page" { path = "/", handler = "page" }
