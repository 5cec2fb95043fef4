--- body: what plugins do with the bodies of ctx.req and ctx.res: read them, whole or in pieces, replace and transform them.
-- A message is a view of slots: 1 the exchange, 2 its serial, 3 the side.
local abi = require "abi"
local coding = require "tidegate.coding"
local failure = require "tidegate.failure"
local json = require "tidegate.json"
local query_string = require "tidegate.query"
local stream = require "tidegate.stream"
local task = require "tidegate.task"

local C, vm, to_string = abi.C, abi.vm, abi.string
local REQUEST = abi.REQUEST
local type, error, tonumber = type, error, tonumber

local body = {}
local MAX = 1024 * 1024
local WRITTEN = 64 * 1024 -- bytes between two looks at the clock
local stages = {} -- slot of an exchange -> { serial, [side] = { f(input, write)..., codings to undo, coding to apply } }

local function live(self)
  local x = self[1]
  if x.serial ~= self[2] then error("this exchange has ended: its ctx must not be kept", 3) end
  return x
end

local names = { [0] = "request", "response" }

-- The err that a plugin gets, with the status that it becomes when nobody takes it.
local function to_failure(rc, side, max)
  local what = "the " .. names[side] .. "'s body "
  if rc == abi.ELIMIT then
    return failure.new("too_large", what .. (max and "is larger than " .. max .. " bytes" or "is too large"), side == REQUEST and 413 or 502)
  end
  if rc == abi.EINVAL then return failure.new("gone", what .. "cannot be read now: it has been read, or it flows", 500) end
  local code = abi.code(rc)
  return failure.new(code, what .. "could not be read: " .. code, side == REQUEST and 400 or 502)
end

local function field(x, side, name)
  return C.tg_abi_field_get(x, side, name, #name) == 0 and to_string(vm.out.p, vm.out.n) or nil
end

-- The codings to undo for who reads the body, none for one as it is; or nil, err: one that nobody knows.
local function codings_of(x, side)
  local value = field(x, side, "Content-Encoding")
  if not value then return nil end
  local list = coding.known(value)
  if list then return list[1] and list end
  return nil, failure.new("decode", ("the %s's body is in a content coding that is not known: %q"):format(names[side], value),
    side == REQUEST and 415 or 502)
end

--- raw(max = 1 MiB) -> string | nil, err: the body as it came, in its content codings, which it keeps for forwarding.
local function raw(self, max)
  local x, side = live(self), self[3]
  max = max or MAX
  local rc = C.tg_abi_body_whole(x, side, max)
  while rc == abi.AGAIN do
    task.wait()
    x = live(self)
    rc = C.tg_abi_body_whole(x, side, max)
  end
  if rc ~= 0 then return nil, to_failure(rc, side, max) end
  return (to_string(vm.out.p, vm.out.n))
end

--- text(max = 1 MiB) -> string | nil, err. Content codings are undone. Keeps the body, as it came, for forwarding.
local function text(self, max)
  local whole, problem = raw(self, max)
  if not whole then return nil, problem end
  local x, side = live(self), self[3]
  local codings, err = codings_of(x, side)
  if codings then return coding.decode(whole, codings, { max = max or MAX, request = side == REQUEST }) end
  if err then return nil, err end
  return whole
end

local function decoded(self, max)
  local value, err = text(self, max)
  if not value then return nil, err end
  return json.read(value)
end

local function form(self, max)
  local value, err = text(self, max)
  if not value then return nil, err end
  return query_string.parse(value):map()
end

-- To be asked after each wait: what goes on in the background outlives the exchange, whose place another one takes.
local function need_exchange(x, serial)
  if x.serial ~= serial then error("this exchange has ended: its body must not be kept", 3) end
end

-- Reads pieces from the core.
local function reader(x, serial, side)
  return function()
    task.take_turns()
    need_exchange(x, serial)
    local rc = C.tg_abi_body_read(x, side)
    while rc == abi.AGAIN do
      task.wait()
      need_exchange(x, serial)
      rc = C.tg_abi_body_read(x, side)
    end
    if rc == 0 then return to_string(vm.out.p, vm.out.n) end
    if rc == abi.ENONE then return nil end
    error(to_failure(rc, side), 0)
  end
end

-- Writes pieces to the core, and waits while who reads them is slow.
local function writer(x, serial, side)
  local left = WRITTEN
  return function(value)
    if type(value) ~= "string" then value = stream.bytes(value, 2) end
    left = left - #value
    if left < 0 then
      left = WRITTEN
      task.take_turns()
    end
    need_exchange(x, serial)
    local rc = C.tg_abi_body_write(x, side, value, #value)
    while rc == abi.AGAIN do
      if vm.number > 0 then value = value:sub(tonumber(vm.number) + 1) end
      task.wait()
      need_exchange(x, serial)
      rc = C.tg_abi_body_write(x, side, value, #value)
    end
    if rc ~= 0 then error(failure.new(abi.code(rc), "the " .. names[side] .. "'s body could not be written"), 0) end
  end
end

local function chunks(self)
  local x, side = live(self), self[3]
  local codings, err = codings_of(x, side)
  if err then error(err, 0) end
  local read = reader(x, x.serial, side)
  return stream.input(codings and coding.readers(read, codings, { request = side == REQUEST }) or read)
end

local function lines(self, max) return chunks(self):lines(max) end
local function events(self, max) return chunks(self):events(max) end
local function items(self, path, max) return chunks(self):items(path, max) end

-- What was said of the bytes is no longer true of them (RFC 9110, section 8.8.3; RFC 9530).
local stale = { "Content-Encoding", "Content-MD5", "Content-Digest", "Repr-Digest", "Digest", "Accept-Ranges" }

local function forget_old_body(self)
  local headers = self.headers
  for _, name in ipairs(stale) do
    if headers[name] then headers[name] = nil end
  end
  local etag = headers["ETag"]
  if etag and etag:sub(1, 2) ~= "W/" then headers["ETag"] = "W/" .. etag end
end

-- The functions that the body passes through, made empty by a new body.
local function stages_of(x, side, fresh)
  local list = stages[x.slot]
  if not list or list.serial ~= x.serial then
    list = { serial = x.serial }
    stages[x.slot] = list
  end
  if fresh or not list[side] then list[side] = { mark = vm.mark[0] } end
  return list[side]
end

--- Makes `f(write)` the body of the message.
function body.produce(x, side, f)
  if C.tg_abi_body_open(x, side) ~= 0 then error("the " .. names[side] .. " has gone out already", 3) end
  stages_of(x, side, true)[1] = function(_, write) return f(write) end
end

--- set_body(string, table or function(write)): a table is sent as JSON.
local function set_body(self, value)
  local x, side = live(self), self[3]
  local kind = type(value)
  if kind == "function" then
    forget_old_body(self)
    return body.produce(x, side, value)
  end
  if kind == "table" then
    value = json.encode(value)
    self.headers["Content-Type"] = "application/json"
  elseif kind ~= "string" then
    error("set_body needs a string, a table or a function, found a " .. kind, 2)
  end
  forget_old_body(self)
  stages[x.slot] = nil
  local rc = C.tg_abi_body_set(x, side, value, #value)
  if rc == abi.EINVAL then error("the " .. names[side] .. " has gone out already", 2) end
  if rc ~= 0 then error(to_failure(rc, side), 0) end
end

-- A response that was coded goes to its client coded again, in what that client likes best (RFC 9110, section 12.5.3).
local function code_again(self, x, list)
  local headers = self.headers
  local vary = headers["Vary"]
  if not vary or not vary:lower():find("accept%-encoding") and vary ~= "*" then self:add_header("Vary", "Accept-Encoding") end
  list.encode = coding.accepts(field(x, abi.ORIGINAL, "Accept-Encoding"))
  headers["Content-Encoding"] = list.encode
end

--- transform(function(input, write) ... end): a rewrite while the body flows, in a coroutine of its own. Content codings are
-- undone before the first one, and applied again behind the last if the client accepts that.
local function transform(self, f)
  local x, side = live(self), self[3]
  if type(f) ~= "function" then error("transform needs a function, found a " .. type(f), 2) end
  local codings, err = codings_of(x, side)
  if err then error(err, 0) end
  if C.tg_abi_body_open(x, side) ~= 0 then error("the " .. names[side] .. " has gone out already", 2) end
  local list = stages_of(x, side)
  local first = #list == 0
  list[#list + 1] = f
  if not first then return end
  forget_old_body(self)
  list.decode = codings
  if codings and side ~= REQUEST then code_again(self, x, list) end
end

-- Runs all stages but the last in tasks of their own; each reads what the one before it writes.
local function run_stages(list, input, write)
  local tasks = {}
  for i = 1, #list - 1 do
    local pipe, source = stream.pipe(), input
    tasks[i] = task.spawn(function()
      local ok, err = pcall(list[i], source, function(value) pipe:write(value) end)
      pipe:finish(not ok and err or nil)
    end)
    input = stream.input(function() return pipe:read() end)
  end
  list[#list](input, write)
  for _, each in ipairs(tasks) do each:cancel() end
end

--- flow(x, side): what the coroutine runs that the core has entered for a body.
function body.flow(x, side)
  local list = stages[x.slot]
  if not list or list.serial ~= x.serial then error("a body without stages", 0) end
  list = list[side]
  vm.mark[0] = list.mark -- whose code it is that runs now
  local read, write = reader(x, x.serial, side), writer(x, x.serial, side)
  if list.decode then read = coding.readers(read, list.decode, { request = side == REQUEST }) end
  if not list.encode then return run_stages(list, stream.input(read), write) end
  local encode, some = coding.encoder(list.encode), false
  run_stages(list, stream.input(read), function(value)
    some = true
    encode(stream.bytes(value, 2), write)
  end)
  if some then encode(nil, write) end
end

--- drop(x): a new response takes the place of one that had transforms.
function body.drop(x)
  local list = stages[x.slot]
  if list then list[abi.RESPONSE] = nil end
end

body.methods = {
  raw = raw, text = text, json = decoded, form = form, chunks = chunks, lines = lines, events = events, items = items,
  set_body = set_body, transform = transform,
}

return body
