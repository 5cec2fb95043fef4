--- log_line: lines of an access log: JSON, or a text with variables; perhaps as messages of syslog. Put together by the core; Lua adds what
-- only it knows. Made once a generation, by the plugin `access-log`.
local abi = require "abi"
local mask = require "tidegate.mask"
local steps = require "tidegate.steps"

local C, vm, LINE = abi.C, abi.vm, abi.LINE
local log_line = {
  wants = { names = false, consumer = nil }, -- what some line of the generation says: what things are called; f(ctx) -> the text of the consumer
}
local VALUES_MAX = tonumber(C.TG_LINE_VALUES)

local Line = {}
Line.__index = Line

-- ---------------------------------------------------------------- variables

local parts = { -- what the core knows
  time = LINE.time, date = LINE.date, id = LINE.id, ["client.ip"] = LINE.client, method = LINE.method, host = LINE.host, path = LINE.path,
  status = LINE.status, source = LINE.source, duration = LINE.duration, upstream_time = LINE.upstream_time, bytes_in = LINE.bytes_in,
  bytes_out = LINE.bytes_out, aborted = LINE.aborted, attempts = LINE.attempts, ["trace.id"] = LINE.trace, ["span.id"] = LINE.span,
}

local named = { -- what it knows when it is told (runtime/core_steps)
  ["route.name"] = LINE.route, upstream = LINE.upstream, ["peer.name"] = LINE.peer, generation = LINE.generation, ["consumer.id"] = LINE.consumer,
  scheme = LINE.scheme, version = LINE.version,
}

local function tls(field)
  return function(ctx)
    local found = ctx.req.client.tls
    return found and found[field] or nil
  end
end

-- What Lua knows, and no template, which is made before there is an answer.
local known = {
  upstream = function(ctx) return ctx.upstream end,
  ["peer.name"] = function(ctx)
    local peer = ctx.peer
    return peer and peer.name
  end,
  generation = function(ctx) return ctx.generation end,
  scheme = function(ctx) return ctx.req.scheme end,
  version = function(ctx) return ctx.req.version end,
  raw_path = function(ctx) return ctx.req.original.path end,
  ["tls.version"] = tls "version", ["tls.cipher"] = tls "cipher", ["tls.server_name"] = tls "server_name",
}

local function list_of(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  return names
end

-- Which names are secrets: those of tidegate/mask and `mask`, without `show`.
local function judge_of(conf)
  local more, shown = mask.set_of(conf.mask), mask.set_of(conf.show)
  return function(name)
    name = name:lower()
    return not shown[name] and (more[name] or mask.header(name) or mask.name(name))
  end, { more = more, shown = shown }
end

local function hidden(f)
  return function(ctx) return f(ctx) and mask.SHOWN end
end

local function query_of(sets)
  return function(ctx)
    local text = ctx.req.original.query
    return text ~= "" and mask.query(text, sets.more, sets.shown) or nil
  end
end

-- f(ctx) -> text | nil of one variable that the core does not know. Raises when there is none of this name.
local function reader(name, conf)
  if known[name] then return known[name] end
  local is_secret, sets = judge_of(conf)
  if name == "query" then return query_of(sets) end
  local root, key = name:match "^(%w+)%.(.+)$"
  if root == "response" then
    local f = function(ctx) return ctx.res and ctx.res.headers[key] end
    return is_secret(key) and hidden(f) or f
  end
  local f, err = require("runtime.template").compile("${" .. name .. "}")
  if not f then error(("access-log: %s; and of an access log %s"):format(err, table.concat(list_of(known), ", ")), 0) end
  if root == "cookie" and not sets.shown[key:lower()] or (root == "header" or root == "query") and is_secret(key) then return hidden(f) end
  return f
end

-- ---------------------------------------------------------------- a line

local function must(rc)
  if rc ~= 0 then error("access-log: the line has too many members", 0) end
end

local function text(self, value) must(C.tg_abi_line_text(self.line, value, #value)) end

local function part(self, kind, number)
  must(C.tg_abi_line_part(self.line, kind, number or 0, self.json and 1 or 0))
end

-- A value that Lua finds: f(ctx) -> text | nil.
local function value(self, f)
  if self.count == VALUES_MAX then must(-1) end
  self.readers[#self.readers + 1] = { slot = self.count, f = f }
  part(self, LINE.value, self.count)
  self.count = self.count + 1
end

-- A variable whose value is a text, and known to the core -> whether it is one
local function known_text(self, name, conf)
  local header = name:match "^header%.(.+)$"
  if header then
    local is_secret = judge_of(conf)
    return C.tg_abi_line_header(self.line, header, #header, is_secret(header) and 1 or 0, self.json and 1 or 0) == 0
  end
  if not named[name] then return false end
  log_line.wants.names = true
  if name == "consumer.id" then log_line.wants.consumer = log_line.wants.consumer or reader(name, conf) end
  part(self, named[name])
  return true
end

local function variable(self, name, conf)
  if parts[name] then return part(self, parts[name]) end
  if not known_text(self, name, conf) then return value(self, reader(name, conf)) end
end

-- A text with variables, each put by `put(name)`, the rest by `literal(text)`.
local function split(source, literal, put)
  local position = 1
  while true do
    local first, last, name = source:find("%${([^}]*)}", position)
    local before = source:sub(position, (first or #source + 1) - 1)
    if before:find("${", 1, true) then error('access-log: a "${" without its "}"', 0) end
    if before ~= "" then literal(before) end
    if not first then return end
    put(name)
    position = last + 1
  end
end

-- The text of several variables as one function; nil when one of them is absent.
local function joined(source, conf)
  local pieces = {}
  split(source, function(literal) pieces[#pieces + 1] = literal end, function(name)
    local f
    if parts[name] then f = function(ctx) return ctx[name] ~= nil and tostring(ctx[name]) or nil end end
    if name == "client.ip" then f = function(ctx) return ctx.req.client.ip end end
    if name == "method" or name == "host" or name == "path" then f = function(ctx) return ctx.req[name] end end
    if name == "trace.id" then f = function(ctx) return ctx.trace_id end end
    if name == "span.id" then f = function(ctx) return ctx.span_id end end
    pieces[#pieces + 1] = f or reader(name, conf)
  end)
  if #pieces == 1 and type(pieces[1]) == "function" then return pieces[1] end
  return function(ctx)
    local out = {}
    for i = 1, #pieces do
      local piece = pieces[i]
      if type(piece) == "function" then piece = piece(ctx) end
      if piece == nil then return nil end
      out[i] = piece
    end
    return table.concat(out)
  end
end

-- What a function of the configuration returns; its errors cost its member, not the line.
local function guarded(f)
  return function(ctx)
    local ok, found = pcall(f, ctx)
    if not ok or found == nil then return nil end
    return tostring(found)
  end
end

-- ---------------------------------------------------------------- the styles

local MEMBERS = { "time", "id", "trace.id", "span.id", "client.ip", "method", "host", "path", "status", "source", "route.name", "upstream",
  "peer.name", "consumer.id", "generation", "duration", "upstream_time", "bytes_in", "bytes_out", "aborted" }
local NAMES = { ["trace.id"] = "trace", ["span.id"] = "span", ["client.ip"] = "client", ["route.name"] = "route", ["peer.name"] = "peer",
  ["consumer.id"] = "consumer" }

local function json_line(self, conf, quote)
  local names = {}
  for name in pairs(conf.extra) do names[#names + 1] = name end
  table.sort(names)
  local before = "{"
  for _, name in ipairs(#conf.members > 0 and conf.members or MEMBERS) do
    text(self, before .. quote(NAMES[name] or name) .. ":")
    variable(self, name, conf)
    before = ","
  end
  for _, name in ipairs(names) do
    local source = conf.extra[name]
    text(self, before .. quote(name) .. ":")
    local lone = type(source) == "string" and source:match "^%${([^}]*)}$"
    if not (lone and known_text(self, lone, conf)) then
      value(self, type(source) == "function" and guarded(source) or joined(source, conf))
    end
    before = ","
  end
  text(self, before == "{" and "{}" or "}")
end

local facilities = { kern = 0, user = 1, mail = 2, daemon = 3, auth = 4, syslog = 5, lpr = 6, news = 7, uucp = 8, cron = 9, authpriv = 10, ftp = 11 }
for i = 0, 7 do facilities["local" .. i] = 16 + i end

local function hostname()
  local file = io.open "/proc/sys/kernel/hostname"
  local name = file and file:read "*l"
  if file then file:close() end
  return name and name:find "^[!-~]+$" and name:sub(1, 255) or "-"
end

-- The head of RFC 5424, section 6.2.
local function syslog_head(self, conf)
  local json = self.json
  self.json = false
  text(self, "<")
  part(self, LINE.priority, facilities[conf.facility])
  text(self, ">1 ")
  part(self, LINE.date)
  text(self, (" %s %s - %s - "):format(conf.hostname or hostname(), conf.app, conf.message_id))
  self.json = json
end

-- Functions as one straight line, so that the JIT compiles it with the request. What is borrowed by the core is held in `held`.
local function compile(self)
  local source = { "local C, readers, held = ...\n" }
  for i in ipairs(self.readers) do source[#source + 1] = ("local f%d = readers[%d].f\n"):format(i, i) end
  source[#source + 1] = "return function(ctx)\n  local v\n"
  for i, one in ipairs(self.readers) do
    source[#source + 1] = ("  v = f%d(ctx)\n  if v then held[%d] = v C.tg_abi_line_value(%d, v, #v) end\n"):format(i, i, one.slot)
  end
  source[#source + 1] = "end\n"
  local held = {}
  for i = 1, #self.readers do held[i] = false end
  return assert(loadstring(table.concat(source), "=log_line"))(C, self.readers, held)
end

--- line:wanted() -> whether the running exchange, which is over, is to be logged
function Line:wanted()
  if self.sample >= 1 then return true end
  local x = vm.exchange
  return x.status >= self.always_status or x.status == 0 or x.duration >= self.always_slower or math.random() < self.sample
end

--- line:step(sink) -> what write does with those that are wanted, for the core | nil: some of it is Lua's
function Line:step(sink)
  if #self.readers > 0 then return nil end
  return steps.new("line", { line = self.line, sink = sink.id, sample = self.sample, status = self.always_status, seconds = self.always_slower })
end

--- line:write(ctx, sink): into a sink of tg.log.sink; line:make(ctx) -> the line
function Line:write(ctx, sink)
  self.collect(ctx)
  return C.tg_abi_line_write(self.line, vm.exchange, sink.id)
end

function Line:make(ctx)
  self.collect(ctx)
  C.tg_abi_line_make(self.line, vm.exchange)
  return abi.out()
end

--- new(conf) -> line, for the plugin `access-log`, whose schema says what is in conf. What is wrong with a variable raises.
function log_line.new(conf)
  local quote = require("tidegate.json").quote
  local self = setmetatable({
    line = abi.line(), json = conf.format == nil, readers = {}, count = 0, sample = conf.sample,
    always_status = conf.always and conf.always.status or 1000, always_slower = conf.always and conf.always.slower or math.huge,
  }, Line)
  if conf.syslog then syslog_head(self, conf.syslog) end
  if conf.format then
    split(conf.format, function(literal) text(self, literal) end, function(name) variable(self, name, conf) end)
  else
    json_line(self, conf, quote)
  end
  self.collect = compile(self)
  return self
end

return log_line
