describe("grpc-web", function()
  -- A service over HTTP/1.1: it has no trailers, which is seen as an empty last message. It tells in fields what has come.
  local function origin(headers)
    return test.upstream(function(req)
      local answer = { ["X-Type"] = req.headers["content-type"], ["X-Length"] = #req.body }
      for name, value in pairs(headers or { ["Content-Type"] = "application/grpc+proto" }) do answer[name] = value end
      return 200, "\0\0\0\0\2ok", answer
    end)
  end

  local function ask(to, content_type, body, conf)
    local use = { "grpc-web" }
    for name, value in pairs(conf or {}) do use[name] = value end
    return test.gateway({ to = to, use = { use } }):post("/p.S/M", { body = body, headers = { ["Content-Type"] = content_type } })
  end

  it("translates the binary form", function()
    local answer = ask(origin(), "application/grpc-web+proto", "\0\0\0\0\1x")
    expect(answer.headers["X-Type"]):equals "application/grpc+proto"
    expect(answer.headers["X-Length"]):equals "6"
    expect(answer.headers["Content-Type"]):equals "application/grpc-web+proto"
    expect(answer.body):equals "\0\0\0\0\2ok\128\0\0\0\0"
  end)

  it("translates the text form, whose pieces have padding of their own", function()
    local body = "\0\0\0\0\5hello"
    local answer = ask(origin(), "application/grpc-web-text", tg.crypto.base64(body:sub(1, 4)) .. tg.crypto.base64(body:sub(5)))
    expect(answer.headers["X-Type"]):equals "application/grpc"
    expect(answer.headers["X-Length"]):equals "10"
    expect(answer.headers["Content-Type"]):equals "application/grpc-web-text"
    expect(tg.crypto.unbase64(answer.body)):equals "\0\0\0\0\2ok\128\0\0\0\0"
  end)

  it("refuses text that is none, or too long", function()
    expect(ask(origin(), "application/grpc-web-text", "!!!").headers["grpc-status"]):equals "13"
    expect(ask(origin(), "application/grpc-web-text", ("A"):rep(400), { max_body = 100 }).headers["grpc-status"]):equals "8"
  end)

  it("names errors of the gateway as gRPC does", function()
    local gw = test.gateway { consumer = { a = { credentials = { key = "k" } } }, to = origin(), use = { "grpc-web", "key-auth" } }
    local answer = gw:post("/p.S/M", { headers = { ["Content-Type"] = "application/grpc-web" } })
    expect(answer.status):equals(200)
    expect(answer.headers["grpc-status"]):equals "16"
    expect(answer.headers["Content-Type"]):equals "application/grpc-web"
    expect(answer.body):equals ""
  end)

  it("leaves errors in the head alone", function()
    local answer = ask(origin { ["Content-Type"] = "application/grpc", ["grpc-status"] = "5" }, "application/grpc-web")
    expect(answer.headers["grpc-status"]):equals "5"
    expect(answer.headers["Content-Type"]):equals "application/grpc-web"
  end)

  it("leaves other requests alone", function()
    for _, content_type in ipairs { "application/json", "application/grpc", "application/grpc-webby", "application/grpc-web-texts" } do
      local answer = ask(origin { ["Content-Type"] = "text/plain" }, content_type)
      expect(answer.headers["X-Type"]):equals(content_type)
      expect(answer.headers["Content-Type"]):equals "text/plain"
    end
  end)
end)
