-- JSON over HTTP and gRPC itself, on one port, in front of a gRPC server.
listen { name = "public", port = 8080 }

upstream "library" {
  targets = { "http://127.0.0.1:50051" },
  http2 = true,
  health = { type = "grpc", every = "1s" },
  retry = { on = { "connect", "grpc:unavailable" } },
}

-- What stands in the .proto file says which request is which call.
route "json" { listen = "public", path = "/v1/*", to = "library", use = { { "grpc-transcode", descriptors = "library.pb" } } }
-- Clients of gRPC, and browsers that speak gRPC-Web.
route "grpc" { listen = "public", path = "/library.Library/*", to = "library", use = { "grpc-web" } }
