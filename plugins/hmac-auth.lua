--- hmac-auth: requests that are signed: HTTP Message Signatures (RFC 9421), and the older draft that other gateways speak.
local signatures, behind = tg.http_signature, tg.claims.behind
local DRAFT = { ["hmac-sha256"] = "sha256", ["hmac-sha384"] = "sha384", ["hmac-sha512"] = "sha512" }

local function key_of(consumer, credential, id)
  local fields = credential.fields or { secret = credential.value }
  local secret = fields.secret ~= nil and assert(tg.consumers.text_of(fields.secret)) or nil
  if (secret == nil) == (fields.public_key == nil) then
    error(("consumer %s: a credential of hmac has either `secret` or `public_key`"):format(consumer.id), 0)
  end
  local source = secret and { kty = "oct", k = tg.crypto.base64url(secret) } or fields.public_key
  return {
    consumer = consumer, credential = { id = id }, expires = credential.expires or math.huge, secret = secret,
    key = assert(tg.crypto.key(source, { short = true })),
  }
end

local function keys_of()
  local keys = {}
  for consumer, credential in tg.consumers.each "hmac" do
    local id = credential.id or consumer.id
    if keys[id] then error(("consumers %s and %s have the same key id"):format(keys[id].consumer.id, consumer.id), 0) end
    keys[id] = key_of(consumer, credential, id)
  end
  return keys
end

-- What was signed is what the client sent, whatever has been changed since.
local function message_of(req)
  local original = req.original
  local path, query = original.target:match "^([^?]*)%??(.*)$"
  return {
    method = original.method, scheme = req.scheme, authority = (original.headers.host or req.host):lower(), target = original.target, path = path,
    query = query, field = function(name) return original.headers(name) end,
  }
end

local function refuse(state, text)
  return tg.problem(401, text, nil, { ["WWW-Authenticate"] = state.challenge })
end

local function key_for(state, id)
  local found = type(id) == "string" and state.keys[id]
  if not found and type(id) == "string" then
    local consumer, entry = tg.consumers.lookup("hmac", id)
    if entry then entry.made = entry.made or key_of(consumer, entry, id) end
    found = entry and entry.made
  end
  return found and tg.now() < found.expires and found or nil
end

-- nil, or what is wrong with the times and with one that was used before: `mark`, who has signed and what. Not the signature: of the same text
-- anybody can make another one that is right, too, where it is of ECDSA.
local function check_times(conf, state, created, expires, mark)
  local now = tg.now()
  if type(created) ~= "number" then return "the signature does not say when it was made" end
  if math.abs(now - created) > conf.clock_skew then return "the signature is too old, or of a clock that goes wrong" end
  if expires ~= nil and (type(expires) ~= "number" or now > expires) then return "the signature has expired" end
  -- What is kept is a digest: a nonce may be long.
  if state.seen and not state.seen:add("hmac:" .. tg.crypto.hex(tg.crypto.sha256(mark)), true, 2 * conf.clock_skew + 1) then
    return "the signature was used before"
  end
end

-- nil, or what is wrong with the body. Whether there is one, only its end tells: HTTP/2 needs no length. What is covered must also be there: a
-- body that somebody has cut off is another message. Digests are of the body as it came, in its content codings.
local function check_body(req, conf, name, is_covered, is_right)
  if not conf.validate_body then return nil end
  local body, err = req:raw(conf.max_body)
  if not body then error(tg.problem(err.status, err.message), 0) end
  if not is_covered then return body ~= "" and "the signature does not cover " .. name or nil end
  if not is_right(body) then return "the digest of the body is wrong" end
end

local covering = {
  ["@path"] = { "@path", "@request-target", "@target-uri" }, ["@query"] = { "@query", "@request-target", "@target-uri" },
  ["@authority"] = { "@authority", "@target-uri", "host" }, ["@scheme"] = { "@scheme", "@target-uri" },
}

local function covers(covered, name)
  for _, one in ipairs(covering[name] or { name }) do
    if covered[one] then return true end
  end
  return false
end

-- RFC 9421: nil and an err text, or the entry of who has signed.
local function by_message_signature(req, conf, state)
  local found, problem = signatures.read(req.headers["signature-input"] or "", req.headers.signature or "")
  if not found then return nil, problem end
  local message = message_of(req)
  for _, one in ipairs(found) do
    local parameters, covered = one.list.parameters, {}
    local entry = key_for(state, parameters.keyid)
    for _, item in ipairs(one.list.items) do covered[item.value] = true end
    if entry then
      for _, name in ipairs(conf.require) do
        if not covers(covered, name) then return nil, "the signature does not cover " .. name end
      end
      local text
      text, problem = signatures.base(message, one.list)
      if not text then return nil, problem end
      if not signatures.verify(entry.key, parameters.alg, text, one.bytes) then return nil, "the signature is wrong" end
      problem = check_times(conf, state, parameters.created, parameters.expires, parameters.keyid .. "\0" .. text)
        or check_body(req, conf, "content-digest", covered["content-digest"], function(body)
          return signatures.digest_is_right(table.concat(message.field "content-digest", ", "), body)
        end)
      if problem then return nil, problem end
      return entry
    end
  end
  return nil, "the signature is of nobody who is known here"
end

-- ---------------------------------------------------------------- the draft

local function draft_text(message, names)
  local lines = {}
  for name in names:gmatch "%S+" do
    if name == "request-line" then
      lines[#lines + 1] = message.method .. " " .. message.target .. " HTTP/1.1"
    elseif name == "(request-target)" or name == "@request-target" then
      lines[#lines + 1] = name .. ": " .. message.method:lower() .. " " .. message.target
    else
      local values = message.field(name)
      if #values == 0 then return nil end
      lines[#lines + 1] = name .. ": " .. table.concat(values, ", ")
    end
  end
  return table.concat(lines, "\n")
end

local function parameters_of(header)
  local parameters = {}
  for name, value in header:gmatch '([%a]+)="([^"]*)"' do parameters[name:lower()] = parameters[name:lower()] or value end
  return parameters
end

local function by_draft(req, conf, state, header)
  local given = parameters_of(header)
  local entry = key_for(state, given.username or given.keyid)
  local names = " " .. (given.headers or "date"):lower() .. " "
  local digest = DRAFT[(given.algorithm or ""):lower()]
  local made = given.signature and tg.crypto.unbase64(given.signature)
  if not entry or not entry.secret or not digest or not made then return nil, "the signature is of nobody who is known here" end
  local dated = names:find(" date ", 1, true) and "date" or names:find(" x-date ", 1, true) and "x-date"
  if not dated then return nil, "the signature does not cover a date" end
  if not (names:find(" request-line ", 1, true) or names:find("request-target", 1, true)) then
    return nil, "the signature does not cover what is asked for"
  end
  local message = message_of(req)
  local text = draft_text(message, given.headers and names or "date")
  if not text or not tg.crypto.equal(tg.crypto.hmac(digest, entry.secret, text), made) then return nil, "the signature is wrong" end
  local date = message.field(dated)
  local problem = check_times(conf, state, #date == 1 and tg.time.parse(date[1]), nil, (given.username or given.keyid) .. "\0" .. text)
    or check_body(req, conf, "a digest of the body", names:find(" digest ", 1, true), function(body)
      local wanted = table.concat(message.field "digest", ", "):match "^[Ss][Hh][Aa]%-256=([%w+/=]+)$"
      return wanted and tg.crypto.equal(tg.crypto.base64(tg.crypto.sha256(body)), wanted)
    end)
  if problem then return nil, problem end
  return entry
end

return {
  api = 1,
  doc = [[
Authenticate requests by their signature.
Keys are the `hmac` credentials of consumers: `{ id = "key id", secret = ... }`, or `{ id = ..., public_key = PEM }` for RSA, ECDSA and Ed25519;
without `id` it is that of the consumer. HTTP Message Signatures (RFC 9421) must cover `require` and name `keyid` and `created`; the draft form
that Kong and APISIX speak (`Authorization: hmac username="..." ...` or `Signature keyId="..."`, with HMAC alone) must cover a date and what is
asked for. A body must be covered by its digest (`Content-Digest`, or `Digest` in the draft), which is checked. A signature is good for
`clock_skew` around its time, and with `replay` for one request, in all workers.]],

  schema = {
    require = t.list(t.string { match = "^@?[%l%d-]+$" },
      { default = { "@method", "@authority", "@path", "@query" }, max = 50, doc = "Components that a signature must cover." }),
    draft = t.boolean { default = true, doc = "Whether the draft form is taken, too." },
    clock_skew = t.duration { default = "5m", min = 1, max = 3600, doc = "How far clocks may differ, and how old a signature may be." },
    replay = t.optional(t.dict { doc = "Dictionary that remembers signatures, so that each serves once." }),
    validate_body = t.boolean { default = true, doc = "Whether a body must be covered by its digest." },
    max_body = t.size { default = "1MiB", min = 0, max = 2 ^ 26, doc = "Largest body that is looked at; more gets 413." },
    realm = t.string { default = "tidegate", match = '^[^"\\%c]*$', doc = "Realm in `WWW-Authenticate`." },
    hide_credentials = t.boolean { default = true, doc = "Take the signature out of the request before it goes upstream." },
  },

  example = [[
consumer "acme" { credentials = { hmac = { id = "acme-1", secret = "a secret of at least thirty-two bytes" } } }
dict "signatures" { size = "1MiB" }
route "orders" { path = "/orders/*", to = "orders", use = { { "hmac-auth", replay = "signatures" } } }]],

  challenge = function(conf) return ('Signature realm="%s"'):format(conf.realm) end,

  setup = function(conf)
    return { keys = keys_of(), seen = conf.replay and tg.dict(conf.replay), challenge = ('Signature realm="%s"'):format(conf.realm) }
  end,

  authenticate = function(ctx, conf, state)
    local req = ctx.req
    local headers = req.headers
    local entry, problem, draft
    if headers["signature-input"] or headers.signature then
      entry, problem = by_message_signature(req, conf, state)
    else
      draft = conf.draft and (behind(headers.authorization, "hmac") or behind(headers.authorization, "Signature"))
      if not draft then return end
      entry, problem = by_draft(req, conf, state, draft)
    end
    if not entry then return refuse(state, problem) end
    if conf.hide_credentials then
      headers.signature, headers["signature-input"] = nil, nil
      if draft then headers.authorization = nil end -- otherwise it is for somebody else
    end
    ctx:authenticate(entry.consumer, entry.credential)
  end,
}
