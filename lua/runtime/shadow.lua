--- shadow: uses with `shadow = true`: their phases run, what they would have done is counted and logged, and nothing of it is done.
-- They see an exchange of their own: all uses in shadow of an exchange share one view of it, which shows what they would have changed, and
-- through it what really is. Made only for exchanges that meet such a use.
local abi = require "abi"
local budget = require "runtime.budget"
local exchange = require "runtime.exchange"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local log = require "tidegate.log"
local metrics = require "tidegate.metrics"
local query_string = require "tidegate.query"
local response = require "tidegate.response"
local shadow_messages = require "runtime.shadow_messages"
local trace = require "tidegate.trace"

local C = abi.C
local rawget, rawset, setmetatable, type, error, tostring = rawget, rawset, setmetatable, type, error, tostring

local shadow = {}
local counted = metrics.counter("tidegate_shadow_total",
  { help = "Calls of plugins in shadow, by what would have come of them: a status, changed, raised or passed.", labels = { "plugin", "verdict" } })
local PHASES = { "rewrite", "authenticate", "access", "balance", "response", "websocket", "log" }
local DECIDES = { rewrite = true, authenticate = true, access = true, websocket = true } -- phases of which a pass is a verdict
local NOTES_MAX = 16 -- of one call
local TAKEN = {} -- what is raised where a body would have been taken

-- Slots of the view: up to 12 those of ctx, so that a chain takes it for one; behind them the view of those in shadow when it is a ctx to them,
-- what it is a view of, what would have been changed, and of a generation in shadow its record of the exchange.
local CONSUMER, UPSTREAM, CREDENTIAL = exchange.CONSUMER, exchange.UPSTREAM, exchange.CREDENTIAL
local REQ, RES, VARS, PEERS = 6, 7, 8, exchange.PEERS
local SHADOW, REAL, NOTES, ID, RECORD = 13, exchange.REAL, 15, 16, 17

local function note(view, text)
  local notes = view[NOTES]
  if #notes < NOTES_MAX then notes[#notes + 1] = text end
end

-- ---------------------------------------------------------------- fields

-- Slots: 1, 2 and 3 as in exchange.lua, so that what reads fields in C sees those that are there.
local FIELDS, EDITS, VIEW, SIDE_NAME = 4, 5, 6, 7
local Fields = { __metatable = false }

function Fields.__index(self, name)
  local own = self[EDITS][name:lower()]
  if own == nil then return self[FIELDS][name] end
  return own and own[1] or nil
end

local function check_field(name, value)
  local kind = type(value)
  if kind ~= "string" and kind ~= "number" then error("header " .. tostring(name) .. " needs a string, found a " .. kind, 4) end
  value = tostring(value)
  if C.tg_abi_valid_name(name, #name) ~= 0 or C.tg_abi_valid_value(value, #value) ~= 0 then
    error(("header %q cannot be set to this: neither name nor value may have control bytes"):format(tostring(name)), 4)
  end
  return value
end

local function edit(self, name, list, what)
  note(self[VIEW], ("%s header %s of the %s"):format(what, name, self[SIDE_NAME]))
  self[EDITS][name:lower()] = list
end

function Fields.__newindex(self, name, value)
  if value == nil then return edit(self, name, false, "removed") end
  edit(self, name, { check_field(name, value) }, "set")
end

local function add_field(self, name, value)
  local list = { unpack(self(name)) }
  list[#list + 1] = check_field(name, value)
  edit(self, name, list, "added")
end

function Fields.__call(self, name)
  local edits, real = self[EDITS], self[FIELDS]
  if name ~= nil then
    local own = edits[name:lower()]
    if own == nil then return real(name) end
    return own or {}
  end
  local list, at = {}, 0
  for key, value in real() do
    if edits[key:lower()] == nil then list[#list + 1] = { key, value } end
  end
  for key, values in pairs(edits) do
    for _, value in ipairs(values or {}) do list[#list + 1] = { key, value } end
  end
  return function()
    at = at + 1
    if list[at] then return list[at][1], list[at][2], at end
  end
end

local function new_fields(view, message, side, what)
  local real = message[side == abi.TRAILERS and "trailers" or "headers"]
  return setmetatable({ view[1], view[2], real[3], real, {}, view, what }, Fields)
end

-- ---------------------------------------------------------------- messages

-- Slots: 1 and 2 as above, 3 the side, 4 the message, 5 what it would be, 6 the view.
local MESSAGE, OWN = 4, 5
local Message = { __metatable = false }
local side_names = { [0] = "request", "response" }

local methods = {}
for _, name in ipairs { "raw", "text", "json", "form" } do
  methods[name] = function(self, max)
    if self[VIEW][RECORD] then return shadow.no_body(self, name) end
    return self[MESSAGE][name](self[MESSAGE], max)
  end
end
for _, name in ipairs { "chunks", "lines", "events", "items" } do
  methods[name] = function(self)
    note(self[VIEW], ("taken the %s's body"):format(side_names[tonumber(self[3])]))
    if self[VIEW][RECORD] then shadow.take_body(self) end
    error(TAKEN, 0)
  end
end
for _, name in ipairs { "set_body", "transform" } do
  methods[name] = function(self)
    note(self[VIEW], ("%s the %s's body"):format(name == "transform" and "transformed" or "replaced", side_names[tonumber(self[3])]))
  end
end
function methods.add_header(self, name, value) add_field(self.headers, name, value) end
function methods.edit(self, group) group.apply(self) end

local function map_of(self, name, values)
  return exchange.new_map(self[MESSAGE], values, function()
    note(self[VIEW], "changed " .. name .. " of the request")
    if name == "cookies" then
      local text = values:encode_cookies()
      self.headers[EDITS].cookie = text ~= "" and { text }
    else
      self[OWN].raw_query = values:encode()
    end
  end)
end

local made = {
  headers = function(self) return new_fields(self[VIEW], self[MESSAGE], self[3], side_names[tonumber(self[3])]) end,
  trailers = function(self) return new_fields(self[VIEW], self[MESSAGE], abi.TRAILERS, "response's trailers") end,
  query = function(self) return map_of(self, "the query", query_string.parse(self.raw_query)) end,
  cookies = function(self) return map_of(self, "cookies", query_string.parse_cookies(self.headers["Cookie"] or "")) end,
  params = function(self)
    local copy = {}
    for name, value in pairs(self[MESSAGE].params) do copy[name] = value end
    return copy
  end,
}
local of_request = { query = true, cookies = true, params = true }

function Message.__index(self, key)
  local own = self[OWN][key]
  if own ~= nil then return own end
  if methods[key] then return methods[key] end
  local is_request = self[3] == abi.REQUEST
  if not made[key] or key == "trailers" and is_request or of_request[key] and not is_request then return self[MESSAGE][key] end
  local value = made[key](self)
  self[OWN][key] = value
  return value
end

local assigned = { method = true, path = true, raw_path = true, host = true, raw_query = true }

function Message.__newindex(self, key, value)
  local own, is_request = self[OWN], self[3] == abi.REQUEST
  if is_request and assigned[key] then
    if type(value) ~= "string" then error(("req.%s cannot be %q"):format(key, tostring(value)), 2) end
  elseif is_request or key ~= "status" then
    error(("%s.%s cannot be assigned"):format(is_request and "req" or "res", tostring(key)), 2)
  elseif type(value) ~= "number" then
    error("not a status: " .. tostring(value), 2)
  end
  own[key] = value
  if key == "path" or key == "raw_path" then own.path, own.raw_path = value, value end
  if key == "raw_query" then own.query = nil end
  note(self[VIEW], ("set %s of the %s%s"):format(key, side_names[tonumber(self[3])], key == "status" and " to " .. value or ""))
end

-- ---------------------------------------------------------------- ctx

local function message_of(view, slot, name, side)
  local message = view[slot]
  if message then return message end
  local real = view[REAL][name]
  if real == nil then return nil end
  message = setmetatable({ view[1], view[2], side, real, {}, view }, Message)
  rawset(view, slot, message)
  return message
end

local get = {
  shadow = function() return true end,
  req = function(view) return message_of(view, REQ, "req", abi.REQUEST) end,
  res = function(view)
    local record = view[RECORD]
    if record and record.handles then error(shadow.UNKNOWN, 0) end -- there is none yet that it could begin with
    if record then return view[RES] or nil end -- that of the exchange is another generation's
    return message_of(view, RES, "res", abi.RESPONSE)
  end,
  vars = function(view) return view[VARS] end,
  peers = function(view) return view[PEERS] or view[REAL].peers end,
  consumer = function(view) return view[CONSUMER] or view[REAL].consumer end,
  credential = function(view) return view[CREDENTIAL] or view[REAL].credential end,
  upstream = function(view) return view[UPSTREAM] or view[REAL].upstream end,
  status = function(view)
    if view[RECORD] then return view.res and view.res.status end
    return view[REAL].status
  end,
  id = function(view) return view[ID] or view[RECORD] and shadow.id_of(view) or view[REAL].id end,
}

local ctx_methods = {
  authenticate = function(view, consumer, credential)
    if type(consumer) ~= "table" or consumer.id == nil then error("ctx:authenticate needs a consumer: a table with an id", 2) end
    view[CONSUMER], view[CREDENTIAL] = consumer, credential or false
    if exchange.claims_of(credential) then view[VARS].jwt = credential.claims end
    note(view, "known the client as " .. tostring(consumer.id))
  end,
  remaining = function(view) return view[REAL]:remaining() end,
  next = function(view)
    local record = view[RECORD]
    if not record then error("ctx:next() is for `around`", 2) end
    return record.next_level(view)
  end,
}

local View = { __metatable = false }

function View.__index(view, key)
  local getter = get[key]
  if getter then return getter(view) end
  return ctx_methods[key] or view[REAL][key]
end

function View.__newindex(view, key, value)
  if key == "upstream" then
    if not exchange.upstream_of(value) then error('there is no upstream "' .. tostring(value) .. '"', 2) end
    view[UPSTREAM] = value
    note(view, "chosen the upstream " .. value)
  elseif key == "id" then
    if type(value) ~= "string" or C.tg_abi_valid_name(value, #value) ~= 0 then error("ctx.id must be a token", 2) end
    view[ID] = value
    note(view, "set the id")
  else
    error("ctx." .. tostring(key) .. " cannot be assigned; use ctx.vars", 2)
  end
end

local function new_view(ctx, vars, record)
  return setmetatable({ ctx[1], ctx[2], false, false, false, false, false, vars, false, false, false, false, false, ctx, {}, false, record }, View)
end

local function view_of(ctx)
  local view = rawget(ctx, SHADOW)
  if not view then
    view = new_view(ctx, setmetatable({}, { __index = ctx.vars }), false)
    rawset(ctx, SHADOW, view)
  end
  return view
end

-- ---------------------------------------------------------------- a whole generation

shadow.UNKNOWN = {} -- what is raised where it would have to do what it must not do

local BODILESS = { GET = true, HEAD = true, DELETE = true, OPTIONS = true }

-- A body is the other generation's to read.
function shadow.take_body(message)
  local record = message[VIEW][RECORD]
  if record.decided then record.unclear = "a plugin reads the response's body" else record.unknown = "a plugin reads the body" end
  error(shadow.UNKNOWN, 0)
end

-- What has none is known to be empty.
function shadow.no_body(message, name)
  local headers = message.headers
  local has_none = not headers["Content-Length"] and not headers["Transfer-Encoding"] and (message.version ~= "2" or BODILESS[message.method])
  if message[3] ~= abi.REQUEST or not has_none and headers["Content-Length"] ~= "0" then
    shadow.take_body(message)
  end
  if name == "json" then return json.decode "" end
  return name == "form" and {} or ""
end

-- The exchange has none yet, and is not to get one by being looked at.
function shadow.id_of(view)
  local x = exchange.live(view)
  if x.id.n > 0 then return abi.string(x.id.p, x.id.n) end
  C.tg_abi_uuid()
  view[ID] = abi.out()
  return view[ID]
end

--- rehearsal(ctx, record, stripped) -> a ctx for the chains of a generation in shadow: the request of `ctx`, as the client has sent it, without
-- the fields of the set `stripped`, whatever becomes of the exchange meanwhile. `record` gets what cannot be known: `unknown`.
function shadow.rehearsal(ctx, record, stripped)
  local view = new_view(ctx, {}, record)
  local req = view.req
  local real, own = req[MESSAGE], req[OWN]
  for _, key in ipairs { "method", "path", "raw_path", "host", "raw_query" } do own[key] = real[key] end
  for name in pairs(stripped) do
    if real.headers[name] then req.headers[EDITS][name] = false end
  end
  return view
end

--- enter_route(view, route, params)
function shadow.enter_route(view, route, params)
  local enter = view[RECORD].enter_route or exchange.enter_unchanged
  enter(view[REAL], route, params)
  local own = view.req[OWN]
  own.params = nil
end

-- A response head that is known, in place of one that is there: fields as exchange.lua has them, which nobody changes.
local Known = { __metatable = false }
function Known.__index(self, name)
  local list = self[FIELDS][name:lower()]
  return list and list[1] or nil
end

function Known.__call(self, name)
  local known = self[FIELDS]
  if name ~= nil then return known[name:lower()] or {} end
  local key, at = nil, 0
  return function()
    at = at + 1
    while key == nil or not known[key][at] do
      key, at = next(known, key), 1
      if key == nil then return nil end
    end
    return key, known[key][at]
  end
end

--- known_fields(x, serial, side, fields) -> such fields: lists of values by names in lower case
function shadow.known_fields(x, serial, side, fields) return setmetatable({ x, serial, side, fields }, Known) end

--- enter_response(view, { status, source, fields }): the response of a rehearsal; `fields`: lists of values by names in lower case
function shadow.enter_response(view, head)
  local headers = shadow.known_fields(view[1], view[2], abi.RESPONSE, head.fields)
  local none = shadow.known_fields(view[1], view[2], abi.TRAILERS, {})
  local known = { status = head.status, source = head.source, headers = headers, trailers = none }
  rawset(view, RES, setmetatable({ view[1], view[2], abi.RESPONSE, known, {}, view }, Message))
end

--- enter_balance(view, peers): what a `balance` phase chooses from
function shadow.enter_balance(view, peers) rawset(view, PEERS, peers) end

--- response_edits(view) -> as edits, of its response
function shadow.response_edits(view) return view.res.headers[EDITS] end

--- edits(view) -> what its request's headers would be: name in lower case -> list of values, or false: none
function shadow.edits(view) return view.req.headers[EDITS] end

--- chosen(view) -> the name of the upstream that a plugin has chosen | false
function shadow.chosen(view) return view[UPSTREAM] end

-- ---------------------------------------------------------------- verdicts

local function count(use, verdict, phase, text)
  counted:inc(1, { plugin = use.label, verdict = verdict })
  if trace.on then trace.note("in shadow " .. verdict) end
  if not text then return end
  local tell = verdict == "changed" and log.debug or log.info -- a plugin that sets a header does it with each request
  tell(("in shadow it would have %s (%s)"):format(text, phase))
end

-- What a plugin has raised, as the runtime would have judged it.
local function judge_error(use, phase, err)
  budget.forgive()
  if phase ~= "log" and failure.is(err) and err.status >= 400 then
    return count(use, tostring(err.status), phase, ("answered %d: %s"):format(err.status, tostring(err.message)))
  end
  count(use, "raised", phase)
  log.warn(("in shadow it has raised (%s): %s"):format(phase, tostring(err)))
end

local function note_result(view, phase, result)
  if phase == "websocket" then
    return shadow_messages.judge(result, function(text) note(view, text) end)
  elseif phase == "balance" then
    note(view, "chosen the peer " .. tostring(type(result) == "table" and result.name or result))
  else
    return ("%s must return a response or nothing, returned a %s"):format(phase, type(result))
  end
end

local function judge(use, phase, view, ok, result)
  if response.is(result) and phase ~= "websocket" then return count(use, tostring(result.status), phase, "answered " .. result.status) end
  if not ok and result ~= TAKEN then return judge_error(use, phase, result) end
  local wrong = ok and result ~= nil and note_result(view, phase, result)
  if wrong then return judge_error(use, phase, wrong) end
  local notes = view[NOTES]
  if notes[1] then return count(use, "changed", phase, table.concat(notes, ", ")) end
  if DECIDES[phase] then count(use, "passed", phase) end
end

-- What runs in place of a phase. A use in shadow has no condition of its own: it is asked here, with the view.
local function wrap(use, phase, f)
  local when = use.when
  local function call(view, ...)
    if when and not when(view) then return nil end
    return f(view, ...)
  end
  return function(ctx, conf, state)
    local view = view_of(ctx)
    if phase == "authenticate" and view.consumer then return nil end
    view[NOTES] = {}
    judge(use, phase, view, pcall(call, view, conf, state))
  end
end

-- The same for a message, which goes on as it is.
local function wrap_messages(use, f)
  local when = use.when
  return function(ctx, message, conf, state)
    local view = view_of(ctx)
    if when and not when(view) then return end
    view[NOTES] = {}
    local held = shadow_messages.hold(message, function(text) note(view, text) end)
    judge(use, "websocket", view, pcall(f, view, held, conf, state))
  end
end

-- ---------------------------------------------------------------- once a generation

--- refusal(plugin, use) -> why it cannot be in shadow | nil
function shadow.refusal(loaded, use)
  if use.is_handler then return "cannot be in shadow: nothing else would answer" end
  if loaded.around then return "cannot be in shadow: its `around` wraps what others do, and would have to do it" end
  if loaded.shadow == false then return "cannot be in shadow: it changes exchanges by other ways than ctx" end
end

--- without_effect(plugin) -> one with the same phases, which do nothing
function shadow.without_effect(plugin)
  local idle = {}
  for name, value in pairs(plugin) do idle[name] = value end
  for _, phase in ipairs(PHASES) do
    idle[phase] = plugin[phase] and function() end
  end
  idle.handler = nil
  return idle
end

--- stand_in(use) -> what runs in place of its plugin. It authenticates nobody, so that no route waits for it.
function shadow.stand_in(use)
  local stand_in = {}
  for name, value in pairs(use.plugin) do stand_in[name] = value end
  for _, phase in ipairs(PHASES) do
    local f = use.plugin[phase]
    if f then stand_in[phase] = phase == "websocket" and wrap_messages(use, f) or wrap(use, phase, f) end
  end
  stand_in.authenticate, stand_in.authenticate_shadow = nil, stand_in.authenticate
  return stand_in
end

-- Where only those in shadow authenticate, a client whom none of them knows would have been refused by the runtime.
local function judge_stranger(ctx, use)
  local view = view_of(ctx)
  if not view.consumer then count(use, "401", "authenticate", "answered 401: nobody knows the client") end
end

--- before(phases of a route, rewrite, optional, uses) -> what runs before anybody is asked who he is | nil
function shadow.before(p, rewrite, optional, uses)
  if not p.authenticate_shadow then return rewrite end
  local last
  for _, use in ipairs(uses) do
    if use.plugin.authenticate_shadow then last = use end
  end
  return function(ctx)
    local r = rewrite and rewrite(ctx)
    if r then return r end
    p.authenticate_shadow(ctx)
    if not p.authenticate and not optional then judge_stranger(ctx, last) end
  end
end

return shadow
