route(("x"):rep(1e6)) {}
