--- mtls-auth: who shows a certificate that the listener has verified is its consumer.
local function add(map, key, value, consumer)
  if map[key] and map[key].consumer ~= consumer then
    error(("consumers %s and %s have the same certificate"):format(map[key].consumer.id, consumer.id), 0)
  end
  map[key] = value
end

local KINDS = { dns = true, email = true, uri = true, ip = true }

-- As a certificate tells it, or an error: one that is written otherwise would be nobody's for ever.
local written = {
  fingerprint = function(text)
    text = text:gsub("[:%s]", ""):lower()
    return #text == 64 and not text:find "%X" and text, "a fingerprint is a SHA-256 in 64 hexadecimal digits"
  end,
  subject = function(text) return text:find "=" and text, "a subject is written as in RFC 2253: CN=client,O=Example" end,
  name = function(text)
    return KINDS[text:match "^(%l+):." or ""] and text, "a name begins with its kind: dns:client.example.com, email:, uri: or ip:"
  end,
}

-- Each credential names a certificate in one way.
local function credentials()
  local by = { fingerprint = {}, subject = {}, name = {} }
  for consumer, credential in tg.consumers.each "mtls" do
    local fields = credential.fields or { name = tg.consumers.text_of(credential.value) }
    local found = { consumer = consumer, credential = { id = credential.id }, expires = credential.expires or math.huge }
    local count = 0
    for kind, map in pairs(by) do
      local key = fields[kind]
      if type(key) == "string" then
        count = count + 1
        local problem
        key, problem = written[kind](key)
        if not key then error(("consumer %s: %s"):format(consumer.id, problem), 0) end
        add(map, key, found, consumer)
      end
    end
    if count ~= 1 then
      error(("consumer %s: a credential of mtls has one of fingerprint, subject and name (\"dns:client.example.com\")"):format(consumer.id), 0)
    end
  end
  return by
end

local function find(by, cert)
  local found = by.fingerprint[cert.fingerprint:lower()] or by.subject[cert.subject]
  if found then return found end
  for _, name in ipairs(cert.names) do
    if by.name[name] then return by.name[name] end
  end
end

return {
  api = 1,
  doc = [[
Authenticate clients by the certificate that they show in TLS.
The listener asks for it and verifies it: `tls { client_auth = "optional", client_ca = "ca.pem" }`, also when a session is resumed. The consumer
is the one with an `mtls` credential for it: `{ fingerprint = "sha256 in hex" }`, `{ subject = "CN=client,O=Example" }` (RFC 2253), or `{ name =
"dns:client.example.com" }`, a name of subjectAltName. With `any` a certificate that nobody has declared makes a consumer of its own, named by
its subject. Serials in `revoked` are denied; with `client_crl` beside `client_ca` also what their authority has revoked.]],

  schema = {
    any = t.boolean { default = false, doc = "Whether certificates that no consumer has are let in, too." },
    revoked = t.list(t.string { match = "^[%x:]+$" }, { default = {}, max = 100000, doc = "Serial numbers in hex that are denied." }),
  },

  example = [[
consumer "client" { credentials = { mtls = { name = "dns:client.example.com" } } }
route "orders" { path = "/orders/*", to = "orders", use = { "mtls-auth" } }]],

  challenge = "Mutual",

  setup = function(conf)
    local revoked = {}
    for _, serial in ipairs(conf.revoked) do revoked[serial:gsub(":", ""):upper():gsub("^0+", "")] = true end
    return { by = credentials(), revoked = revoked }
  end,

  authenticate = function(ctx, conf, state)
    local cert = ctx.req.client.cert
    if not cert then return end
    local refused = tg.problem(401, "the certificate is nobody's here", nil, { ["WWW-Authenticate"] = "Mutual" })
    if state.revoked[(cert.serial:upper():gsub("^0+", ""))] or tg.now() >= cert.not_after then return refused end
    local found = find(state.by, cert)
    if not found then
      local consumer, entry = tg.consumers.lookup("mtls", cert.fingerprint:lower())
      found = consumer and { consumer = consumer, credential = { id = entry.id }, expires = entry.expires }
    end
    if found and tg.now() < found.expires then return ctx:authenticate(found.consumer, found.credential) end
    if not conf.any then return refused end
    ctx:authenticate({ id = cert.subject, groups = {}, meta = cert }, { id = cert.fingerprint })
  end,
}
