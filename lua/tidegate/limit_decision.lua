--- limit_decision: what became of a request to a limit, and how clients are told of it.
local abi = require "abi"
local crypto = require "tidegate.crypto"
local failure = require "tidegate.failure"
local response = require "tidegate.response"
local limit_status = require "tidegate.limit_status"
local store = require "tidegate.limit_local"

local C, vm = abi.C, abi.vm
local ceil, max, min, huge = math.ceil, math.max, math.min, math.huge
local out = store.out
local misuse = failure.misuse
local LONGEST, KEY_MAX = 366 * 86400, 256 -- seconds; bytes

local decision = {}

-- What a decision tells stands in slots, as in ctx: a table with an array part alone is one small allocation.
local ALLOWED, REMAINING, RESET, PLACE, PARTS, TIGHT, RETRY = 1, 2, 3, 4, 5, 6, 7
local slots = {
  allowed = ALLOWED, remaining = REMAINING, reset_after = RESET, place = PLACE, parts = PARTS, tight = TIGHT, retry_after = RETRY,
  delay = 8, source = 9, cost = 10, key = 11, limiter = 12, id = 13, shared = 14, deferred = 15, renewed = 16,
}
local methods = {}
local Decision = { __name = "decision" }

function Decision.__index(self, name)
  local slot = slots[name]
  if slot then return self[slot] end
  if name == "limit" then return self.limiter.limits[self[TIGHT]].rate end
  return methods[name]
end

function Decision.__newindex(self, name, value)
  local slot = slots[name]
  if not slot then error(("a decision has no field %s"):format(tostring(name)), 2) end
  rawset(self, slot, value)
end

-- What a limiter knows by the name under which it counts: where it counts, what it tells clients, and what it has decided.
local function new_place(self, name)
  local place = { name = name, scopes = {}, shares = {}, debts = {}, leases = {}, keys = {}, titles = {} }
  place.allowed, place.denied, place.fallen, place.top, place.top_count = 0, 0, 0, {}, 0
  local policies = {}
  local counted = abi.in_shadow and "shadow:" .. name or name -- what one in shadow counts uses up nobody's limit
  for i, one in ipairs(self.limits) do
    place.scopes[i] = ("%s\1%s\1"):format(counted, one.tag)
    place.shares[i], place.debts[i], place.leases[i] = place.scopes[i] .. "s\1", place.scopes[i] .. "d\1", place.scopes[i] .. "l\1"
    place.keys[i] = ("}:%s:%s"):format(counted, one.tag)
    local window = one.algorithm == "concurrency" and ';qu="concurrent-requests"' or one.per >= 1 and (";w=%d"):format(one.per) or ""
    local title = one.name or #self.limits > 1 and ("%s-%g"):format(name, one.per) or name
    place.titles[i] = ('"%s"'):format(title)
    policies[i] = ('"%s";q=%d%s'):format(title, max(1, one.rate), window)
  end
  place.policy, place.scope, place.title = table.concat(policies, ", "), place.scopes[1], place.titles[1]
  self.places[name] = place
  return place
end

--- place(limiter, name) -> what it knows by this name
function decision.place(self, name)
  return self.places[name] or new_place(self, name)
end

--- key(key) -> what is counted by: a long one is hashed.
function decision.key(key)
  if type(key) ~= "string" or key == "" then misuse("a limit counts by a text, found " .. (key == "" and "an empty one" or "a " .. type(key))) end
  if #key > KEY_MAX then return crypto.hex(crypto.sha256(key)) end
  return key
end

-- The limit that has refused, and the longest; or the one with the least left.
local function tightest(n, allowed)
  local found = 1
  for i = 2, n do
    if allowed then
      if out.left[i] < out.left[found] then found = i end
    elseif not out.ok[i] and (out.ok[found] or out.retry[i] > out.retry[found]) then
      found = i
    end
  end
  return found
end

--- new(limiter, place, key, cost, allowed, source) -> decision, made of what limit_local.out holds
function decision.new(self, place, key, cost, allowed, source)
  local n = #self.limits
  local i = n == 1 and 1 or tightest(n, allowed)
  local parts = false
  if n > 1 then
    parts = {}
    for k = 1, n do parts[2 * k - 1], parts[2 * k] = out.left[k], out.reset[k] end
  end
  if cost > 0 then
    if allowed then
      place.allowed = place.allowed + 1
    else
      place.denied = place.denied + 1
      limit_status.note(place, type(key) == "table" and key[i] or key)
    end
  end
  return (setmetatable({
    allowed, out.left[i], out.reset[i], place, parts, i, out.retry[i], allowed and out.wait or 0, source, cost, key, self,
  }, Decision))
end

-- Seconds for people: whole ones, at least 1.
local function seconds(value)
  return max(1, ceil(min(value, LONGEST)))
end

local forms_of = {
  -- draft-ietf-httpapi-ratelimit-headers
  draft = function(headers, self, place)
    headers["RateLimit-Policy"] = place.policy
    local parts = self[PARTS]
    if not parts then
      headers["RateLimit"] = place.titles[1] .. ";r=" .. self[REMAINING] .. ";t=" .. ceil(self[RESET])
      return
    end
    local list = {}
    for i, title in ipairs(place.titles) do list[i] = title .. ";r=" .. parts[2 * i - 1] .. ";t=" .. ceil(parts[2 * i]) end
    headers["RateLimit"] = table.concat(list, ", ")
  end,
  ["x-ratelimit"] = function(headers, self)
    headers["X-RateLimit-Limit"] = ("%d"):format(self.limit)
    headers["X-RateLimit-Remaining"] = self.remaining
    headers["X-RateLimit-Reset"] = ceil(self.reset_after)
  end,
}

local units = { [1] = "Second", [60] = "Minute", [3600] = "Hour", [86400] = "Day", [2592000] = "Month", [31536000] = "Year" }

function forms_of.kong(headers, self)
  for i, one in ipairs(self.limiter.limits) do
    local unit = units[one.per] or ("%gs"):format(one.per)
    headers["X-RateLimit-Limit-" .. unit] = ("%d"):format(one.rate)
    headers["X-RateLimit-Remaining-" .. unit] = self.parts and self.parts[2 * i - 1] or self.remaining
  end
  headers["RateLimit-Limit"] = ("%d"):format(self.limit)
  headers["RateLimit-Remaining"] = self.remaining
  headers["RateLimit-Reset"] = ceil(self.reset_after)
end

--- decision:headers(into?, forms?) -> `into`, or a new table, with the fields that tell the client what is left. `forms` is a list of "draft"
-- (the default), "x-ratelimit" and "kong".
function methods:headers(into, forms)
  local place = self[PLACE]
  into = into or {}
  forms_of[forms and forms[1] or "draft"](into, self, place)
  if forms and forms[2] then -- few have several: a loop would cost all of them
    for i = 2, #forms do forms_of[forms[i]](into, self, place) end
  end
  return into
end

-- Passes for a table of headers: what is put into it is set in whatever response the exchange will have.
local teller = setmetatable({}, { __newindex = function(_, name, value)
  local x = vm.exchange
  if x == nil then misuse "clients can be told of a limit in a request" end
  value = tostring(value)
  local rc = C.tg_abi_tell(x, name, #name, value, #value)
  if rc ~= 0 then error("header " .. name .. ": " .. abi.code(rc), 0) end
end })

--- decision:tell(forms): they are put into the response when that is there, without a `response` phase.
function methods:tell(forms)
  if #forms > 0 then self:headers(teller, forms) end
end

--- tells(limiter, forms) -> whether admit tells clients in these forms. In set-up. Not where nothing of an exchange may be changed: there a
-- `response` phase shows what it would be.
function decision.tells(self, forms)
  self.forms = forms
  return not (abi.in_shadow or abi.offline)
end

--- take_and_tell(limiter, key, cost, name) -> decision | nil, err
function decision.take_and_tell(self, key, cost, name)
  local made, err = self:take(key, cost, name)
  if made then made:tell(self.forms) end
  return made, err
end

--- decision:apply(ctx, forms?): puts them into the response; in a `response` phase.
function methods:apply(ctx, forms)
  self:headers(ctx.res.headers, forms)
end

--- decision:response(status = 429, detail?) -> what refuses: `Retry-After` and a problem that names the limit. 503 when it could not be counted.
function methods:response(status, detail)
  local headers = { ["Retry-After"] = self.retry_after < huge and seconds(self.retry_after) or nil }
  if self.source == "down" then return response.problem(503, "the limit cannot be counted now", nil, headers) end
  return response.problem(status or 429, detail or "rate limit exceeded", {
    type = "https://iana.org/assignments/http-problem-types#quota-exceeded",
    ["violated-policies"] = { (self.place.titles[self.tight]:gsub('"', "")) },
  }, headers)
end

return decision
