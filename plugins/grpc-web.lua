--- grpc-web: lets browsers call gRPC services, by gRPC-Web in its binary and its text form.
-- https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
local TRAILERS = "\128"

-- Errors that are not the service's, as gRPC names them (http-grpc-status-mapping.md).
local STATUS = {
  [400] = 13, [401] = 16, [403] = 7, [404] = 12, [408] = 4, [413] = 8, [429] = 14, [502] = 14, [503] = 14, [504] = 4,
}

local function frame(kind, data)
  local n = #data
  return kind .. string.char(math.floor(n / 16777216) % 256, math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256) .. data
end

-- "grpc-status:0\r\n...": the trailers as a message of their own kind.
local function trailer_frame(trailers)
  local lines = {}
  for name, value in trailers() do lines[#lines + 1] = name:lower() .. ":" .. value .. "\r\n" end
  return frame(TRAILERS, table.concat(lines))
end

-- What the client says it speaks: whether in text, and what follows "application/grpc" for the service; nil: it is not gRPC-Web.
local function parse(content_type)
  local text, rest = (content_type or ""):lower():match "^application/grpc%-web(%-?%l*)(.*)$"
  if text ~= "" and text ~= "-text" or not rest:find "^%+?[%w%.%-]*%s*;?" then return nil end
  return text == "-text", rest:match "^%+[%w%.%-]+" or ""
end

-- Text is Base64 in pieces, each of which may have padding.
local function decode(text)
  local out = {}
  for piece in text:gmatch "[^=]+=*" do
    local bytes, err = tg.crypto.unbase64(piece)
    if not bytes then return nil, err end
    out[#out + 1] = bytes
  end
  return table.concat(out)
end

-- Groups of three bytes become four characters: what is left waits for more.
local function text_writer(write)
  local left = ""
  return function(data, last)
    data = left .. data
    local whole = last and #data or #data - #data % 3
    left = data:sub(whole + 1)
    if whole > 0 then write(tg.crypto.base64(data:sub(1, whole))) end
  end
end

local function translate(res, in_text)
  res:transform(function(input, write)
    local send = in_text and text_writer(write) or write
    for chunk in input do send(chunk) end
    send(trailer_frame(res.trailers), true)
  end)
end

return {
  api = 1,
  doc = [[
Translate gRPC-Web to gRPC.
Requests of type `application/grpc-web` and `application/grpc-web-text` (with `+proto` or another suffix) become requests of gRPC, and the answer goes
back in the form of the request, with its trailers as the last message. Unary calls and server streaming, over HTTP/1.1 and HTTP/2. The upstream needs
`http2 = true`. Other requests pass as they are. For pages of another origin put `cors` before it.]],
  example = [[
route "greeter" { path = "/hello.Greeter/*", to = "users", use = { "grpc-web" } }]],

  schema = {
    max_body = t.size { default = "4MiB", min = 1, max = 64 * 2 ^ 20, doc = "Bytes that a request in text form may have; more is answered by 413." },
  },

  access = function(ctx, conf)
    local in_text, suffix = parse(ctx.req.headers["Content-Type"])
    if in_text == nil then return end
    if in_text then
      local body, err = ctx.req:text(conf.max_body)
      if not body then return tg.problem(err.code == "too_large" and 413 or 400, "the body cannot be read") end
      body = decode(body)
      if not body then return tg.problem(400, "the body is not Base64") end
      ctx.req:set_body(body)
    end
    ctx.req.headers["Content-Type"] = "application/grpc" .. suffix
    ctx.req.headers["Accept"] = nil
  end,

  response = function(ctx)
    local in_text, suffix = parse(ctx.req.original.headers["Content-Type"]) -- also when it was denied before `access`
    if in_text == nil then return end
    local res = ctx.res
    local content_type = "application/grpc-web" .. (in_text and "-text" or "") .. suffix
    local is_grpc = (res.headers["Content-Type"] or ""):find("application/grpc", 1, true) == 1
    if is_grpc then
      res.headers["Content-Type"] = content_type
      if not res.headers["grpc-status"] then translate(res, in_text) end
    elseif res.source ~= "upstream" then
      local status = res.status
      res.status = 200
      res.headers["Content-Type"] = content_type
      res.headers["grpc-status"] = tostring(STATUS[status] or status >= 500 and 13 or 2)
      res.headers["grpc-message"] = "HTTP status " .. status
      res:set_body ""
    end
  end,
}
