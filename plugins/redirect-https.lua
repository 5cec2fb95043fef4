--- redirect-https: who asks in plain text is told to ask again with TLS.
return {
  api = 1,
  doc = [[
Send clients that come in plain text to the same address under https.
GET and HEAD are redirected with `status`, other methods with 308, which keeps the method and the body; nothing of the request is carried out.
Paths in `except` are served as they are: the challenges of ACME come in plain text. Whether the client came by https is what a trusted proxy
says, or TLS itself.]],

  schema = {
    port = t.integer { default = 443, min = 1, max = 65535, doc = "Port of https." },
    status = t.integer { default = 301, min = 301, max = 308, doc = "Status for GET and HEAD: 301, 302, 307 or 308." },
    host = t.optional(t.string { match = "^[%w.-]+$", len = 255, doc = "Host to go to; default: the one that was asked for." }),
    except = t.list(t.string { match = "^/" },
      { default = { "/.well-known/acme-challenge/" }, max = 100, doc = "Beginnings of paths that are served." }),
  },

  example = [[
use { "redirect-https" }]],

  check = function(conf)
    if conf.status > 302 and conf.status < 307 then return "is 301, 302, 307 or 308", "status" end
  end,

  rewrite = function(ctx, conf)
    local req = ctx.req
    if req.scheme == "https" then return end
    for _, prefix in ipairs(conf.except) do
      if req.path:sub(1, #prefix) == prefix then return end
    end
    local host = conf.host or req.host
    if host == "" then return tg.problem(400, "https is needed, and the request names no host") end
    local query = req.raw_query ~= "" and "?" .. req.raw_query or ""
    local url = "https://" .. host .. (conf.port == 443 and "" or ":" .. conf.port) .. req.raw_path .. query
    local status = (req.method == "GET" or req.method == "HEAD") and conf.status or 308
    return tg.respond(status, nil, { Location = url })
  end,
}
