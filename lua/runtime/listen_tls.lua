--- listen_tls: what `listen { tls = ... }` may say, read and judged; and how the workers get it.
-- Certificates and keys go into the bundle as what they are, not as names of files: what was judged is what is served.
local abi = require "abi"
local ocsp = require "runtime.ocsp"
local schema = require "runtime.schema"
local secret = require "tidegate.secret"

local t = schema.t
local listen_tls = {}

local SELF_SIGNED, FETCH = "self-signed", "fetch"
local MAX_SITES, MAX_CERTIFICATES = 100000, 4 -- TG_TLS_SITES_MAX, TG_TLS_SITE_CERTIFICATES
local clients = { none = 0, optional = 1, required = 2 } -- enum tg_tls_client_auth

local function site_fields()
  return {
    cert = t.optional(t.list(t.string { len = 65536 }, { min = 1, max = MAX_CERTIFICATES })),
    key = t.optional(t.list(t.any_of { t.secret(), t.string { len = 65536 } }, { min = 1, max = MAX_CERTIFICATES })),
    ocsp = t.optional(t.list(t.string { len = 4096 }, { min = 1, max = MAX_CERTIFICATES })),
    client_auth = t.enum { "none", "optional", "required", default = "none" },
    client_ca = t.optional(t.string { len = 4 * 2 ^ 20 }), client_crl = t.optional(t.string { len = 4 * 2 ^ 20 }),
  }
end

local spec = site_fields()
spec.certificates = t.list(t.record(site_fields()), { default = {}, max = MAX_SITES })
spec.min_version = t.enum { "1.2", "1.3", default = "1.2" }
spec.strict_sni = t.boolean(false)
spec.session_tickets = t.boolean(true)
spec.plain_text = t.boolean(false)
spec.ktls = t.boolean(false)
spec.handshakes = t.integer { default = 2048, min = 1, max = 2 ^ 20 }
spec.handshake_timeout = t.duration { default = "10s", min = 0.001, max = 3600 }

-- A text of PEM stands for itself; another one is the path of a file. Certificates, keys and lists of revoked ones are renewed by others than
-- who writes the configuration, so their files are followed.
local function text_of(source, value)
  if value:find("-----BEGIN", 1, true) then return value end
  return source:follow(value)
end

local function key_of(source, value)
  if secret.is(value) then value = value:reveal() end
  if value:find("-----BEGIN", 1, true) then return value end
  source:follow_secret(value)
  return source:secret("file", value)
end

-- What is wrong with them, or nil and the names that the certificate is for.
local function judge(certificate, key)
  local rc = abi.C.tg_abi_certificate_check(certificate, #certificate, key, key and #key or 0)
  if rc ~= 0 then return abi.out() end
  return nil, key and abi.out()
end

-- One certificate of a site: reads its files and has them judged.
local function read_certificate(site, i, source, say)
  local name = site.cert[i]
  local shown = name:find("-----BEGIN", 1, true) and "the certificate" or name
  local certificate, problem = text_of(source, name)
  if not certificate then return say("cert", i, ("%s cannot be read: %s"):format(shown, problem)) end
  local key, key_problem = key_of(source, site.key[i])
  if not key then return say("key", i, "the private key " .. key_problem) end
  local wrong, names = judge(certificate, key)
  if wrong then return say("cert", i, ("%s: %s"):format(shown, wrong)) end
  local from, response, fetched = site.ocsp and site.ocsp[i], "", nil
  if from == FETCH then
    fetched, problem = ocsp.check(certificate)
    if not fetched then return say("ocsp", i, ("%s: %s"):format(shown, problem)) end
  elseif from then
    response, problem = source:read(from)
    if not response then return say("ocsp", i, "cannot be read: " .. problem) end
  end
  return { certificate = certificate, key = key, names = names, ocsp = response, fetched = fetched }
end

local function read_crl(site, client_ca, source, say)
  local text, problem = text_of(source, site.client_crl)
  if not text then return say("client_crl", nil, "cannot be read: " .. problem) end
  if abi.C.tg_abi_crl_check(client_ca, #client_ca, text, #text) ~= 0 then return say("client_crl", nil, abi.out()) end
  return text
end

local function read_site(site, source, say)
  local read = { auth = clients[site.client_auth], client_ca = "", client_crl = "" }
  if not site.cert or not site.key or #site.cert ~= #site.key then
    return say("cert", nil, "each certificate (cert) needs its private key (key)")
  end
  if (site.client_ca ~= nil) ~= (site.client_auth ~= "none") then
    return say("client_ca", nil, 'client_auth = "optional" or "required" and client_ca, whose certificates are accepted, belong together')
  end
  if site.client_ca then
    local text, problem = text_of(source, site.client_ca)
    problem = not text and "cannot be read: " .. problem or judge(text, nil)
    if problem then return say("client_ca", nil, problem) end
    read.client_ca = text
  end
  if site.client_crl then
    if not site.client_ca then return say("client_crl", nil, "needs client_ca, whose certificates it is about") end
    read.client_crl = read_crl(site, read.client_ca, source, say)
    if not read.client_crl then return nil end
  end
  for i = 1, #site.cert do
    local certificate = read_certificate(site, i, source, say)
    if not certificate then return nil end
    read[i] = certificate
  end
  return read
end

-- The one of the generation before is used again, so that a browser that has accepted it is not asked after each reload.
local function self_signed(source)
  local pem = source.kept
  if not pem then
    if abi.C.tg_abi_self_signed() ~= 0 then return nil, "a certificate cannot be made" end
    pem = abi.out()
    source.kept = pem
  end
  return { auth = 0, client_ca = "", client_crl = "", { certificate = pem, key = pem, names = select(2, judge(pem, pem)), ocsp = "" } }
end

-- Which of the sites nobody would ever be shown, since all its names are those of others before it | nil
local function hidden_site(sites)
  local taken = {}
  for i, site in ipairs(sites) do
    local names, free = {}, i == 1 -- who asks for no name gets the first one
    for _, certificate in ipairs(site) do
      for name in certificate.names:gmatch "[^\n]+" do
        names[#names + 1] = name
        free = free or not taken[name]
      end
    end
    if not free and #names > 0 then return i, names[1] end
    for _, name in ipairs(names) do taken[name] = true end
  end
end

--- read(listen, at, report): replaces listen.tls by what was read of it; only where a configuration is judged.
function listen_tls.read(listen, at, report)
  local source, value = secret.source, listen.tls
  local path = { "listen", "tls" }
  if value == SELF_SIGNED then value = {} end
  if type(value) ~= "table" or secret.is(value) then
    report:found(at, path, value, 'a table with cert and key, or "self-signed"')
    listen.tls = nil
    return
  end
  local tls = schema.unfrozen(spec, value, { report = report, at = at, path = path })
  if not tls or not abi.validating then
    listen.tls = tls or nil
    return
  end
  tls.sites = {}
  if listen.tls == SELF_SIGNED then
    local site, problem = self_signed(source)
    if not site then report:problem(at, path, problem) end
    tls.sites[1], tls.is_self_signed = site, true
  end
  local function add(site, prefix)
    local function say(field, i, message)
      local words = { "listen", "tls", prefix, field, i and #site.cert > 1 and "[" .. i .. "]" or nil }
      if not prefix then words = { "listen", "tls", field, i and #site.cert > 1 and "[" .. i .. "]" or nil } end
      report:problem(at, words, message)
    end
    tls.sites[#tls.sites + 1] = read_site(site, source, say)
  end
  if listen.tls ~= SELF_SIGNED and (tls.cert or #tls.certificates == 0) then add(tls) end
  local before = #tls.sites
  for i, site in ipairs(tls.certificates) do add(site, ("certificates › [%d]"):format(i)) end
  if #tls.sites == before + #tls.certificates then -- else one could not be read
    local hidden, name = hidden_site(tls.sites)
    if hidden then
      report:problem(at, { "listen", "tls", ("certificates › [%d]"):format(hidden - before) },
        ("found     names of others before it: %s\n"):format(name)
        .. "expected  one entry for a name: with RSA and ECDSA side by side, cert and key are lists")
    end
  end
  listen.tls = tls
end

--- lines(listen, i) -> the lines of the manifest that tell the workers of it, in their order
function listen_tls.lines(listen, i)
  local tls = listen.tls
  local lines = {
    ("tls %d server tls12=%d http2=%d strict_sni=%d tickets=%d ktls=%d"):format(i, tls.min_version == "1.2" and 1 or 0, listen.http2 and 1 or 0,
      tls.strict_sni and 1 or 0, tls.session_tickets and 1 or 0, tls.ktls and 1 or 0),
  }
  for s, site in ipairs(tls.sites) do
    lines[#lines + 1] = ("tls %d site %d %d"):format(i, s, site.auth)
    for k, certificate in ipairs(site) do
      lines[#lines + 1] = ("tls %d certificate %d %d %d"):format(i, s, k, certificate.fetched and 1 or 0)
    end
  end
  return lines
end

--- fetched(listens) -> how many certificates have their OCSP responses fetched
function listen_tls.fetched(listens)
  local seen, n = {}, 0
  for _, listen in ipairs(listens) do
    for _, site in ipairs(listen.tls and listen.tls.sites or {}) do
      for _, certificate in ipairs(site) do
        local id = certificate.fetched
        if id and not seen[id] then seen[id], n = true, n + 1 end
      end
    end
  end
  return n
end

--- entries(listen, i, files): puts what the lines speak of among the entries of the bundle. Keys stand under names that no hash but the
-- slow one sees; a certificate of our own changes no hash.
function listen_tls.entries(listen, i, files, unhashed)
  local tls = listen.tls
  for s, site in ipairs(tls.sites) do
    files[("tls:%d:%d:client_ca"):format(i, s)], files[("tls:%d:%d:client_crl"):format(i, s)] = site.client_ca, site.client_crl
    for k, certificate in ipairs(site) do
      local name = ("tls:%d:%d:%d:"):format(i, s, k)
      local into, prefix = files, ""
      if tls.is_self_signed and s == 1 then
        into, prefix = unhashed, "secret:"
      end
      into[prefix .. name .. "certificate"] = certificate.certificate
      into["secret:" .. name .. "key"] = certificate.key
      into[prefix .. name .. "names"] = certificate.names
      into[prefix .. name .. "ocsp"] = certificate.ocsp
      if certificate.fetched then files["ocsp:" .. certificate.fetched] = certificate.certificate end
    end
  end
end

return listen_tls
