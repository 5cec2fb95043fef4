--- limit_script: the algorithms of limits as scripts of Redis: each decision is one call, on the clock of the server.
-- Times are microseconds. State is packed as doubles: a text of digits would lose some. A script first judges all limits, then writes.
local script = {}

-- kinds[algorithm](key, rate, per, extra, cost, debt) -> allowed, what is left, microseconds until there is room (-1: never), until all of it is
-- free, to wait, and what write() needs: charged or not. `debt` was let through by others while this server was away.
local BASE = [=[
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local kinds, write = {}, {}
]=]

local PUT = [=[
local function put(key, ttl, form, ...)
  redis.call('SET', key, struct.pack(form, ...), 'PX', max(1, ceil(ttl / 1000)))
end
]=]

local BUCKET = [=[
local function level_of(key, speed)
  local packed = redis.call('GET', key)
  if not packed then return 0 end
  local level, at = struct.unpack('<dd', packed)
  return max(0, level - max(0, now - at) * speed)
end
]=]

local WINDOW = [=[
local function window_of(per)
  local window = floor(now / per)
  return window, now / per - window
end
]=]

local parts = {}

parts.gcra = { PUT, BUCKET, [=[
function kinds.gcra(key, rate, per, burst, cost, debt)
  local speed = rate / per
  local level = level_of(key, speed) + debt
  local after = level + cost
  local allowed = after <= burst + 1e-9
  if allowed then return true, floor(burst - after + 1e-9), 0, after / speed, 0, after, level end
  return false, max(0, floor(burst - level + 1e-9)), cost <= burst and (after - burst) / speed or -1, level / speed, 0, min(after, 2 * burst), level
end

function write.gcra(key, rate, per, _, level)
  put(key, level * per / rate, '<dd', level, now)
end
]=] }

parts.leaky = { PUT, BUCKET, [=[
function kinds.leaky(key, rate, per, delay, cost, debt)
  local speed = rate / per
  local level = level_of(key, speed) + debt
  local wait = level / speed
  if wait <= delay + 1 then
    return true, max(0, floor((delay - wait) * speed + 1e-9)), 0, (level + cost) / speed, wait, level + cost, level
  end
  return false, 0, wait - delay, wait, 0, level, level
end

function write.leaky(key, rate, per, _, level)
  put(key, level * per / rate, '<dd', level, now)
end
]=] }

parts.fixed = { PUT, WINDOW, [=[
function kinds.fixed(key, rate, per, _, cost, debt)
  local window, part = window_of(per)
  local packed = redis.call('GET', key)
  local count = 0
  if packed then
    local last, before = struct.unpack('<dd', packed)
    count = last == window and before or 0
  end
  count = count + debt
  local after, left = count + cost, (1 - part) * per
  if after <= rate + 1e-9 then return true, floor(rate - after + 1e-9), 0, left, 0, after, count end
  return false, max(0, floor(rate - count + 1e-9)), cost <= rate and left or -1, left, 0, after, count
end

function write.fixed(key, _, per, _, count)
  local window, part = window_of(per)
  put(key, (1 - part) * per, '<dd', window, count)
end
]=] }

parts.sliding = { PUT, WINDOW, [=[
local before_of = {} -- key -> count of the window before

local function wait_of(rate, per, count, before, part, cost)
  local room = rate - cost
  if room < 0 then return -1 end
  if before > 0 and count <= room then return max(0, 1 - (room - count + 1) / before - part) * per + 1 end
  return (1 - part + max(0, count > 0 and 1 - (room + 1) / count or 0)) * per + 1
end

function kinds.sliding(key, rate, per, _, cost, debt)
  local window, part = window_of(per)
  local packed = redis.call('GET', key)
  local count, before = 0, 0
  if packed then
    local last, a, b = struct.unpack('<ddd', packed)
    if last == window then count, before = a, b elseif last == window - 1 then before = a end
  end
  count = count + debt
  before_of[key] = before
  local used = floor(before * (1 - part)) + count
  local left = (1 - part) * per
  if used + cost <= rate + 1e-9 then return true, floor(rate - used - cost + 1e-9), 0, left, 0, count + cost, count end
  return false, max(0, floor(rate - used + 1e-9)), wait_of(rate, per, count, before, part, cost), left, 0, count + cost, count
end

function write.sliding(key, _, per, _, count)
  local window, part = window_of(per)
  put(key, (2 - part) * per, '<ddd', window, count, before_of[key])
end
]=] }

parts.log = { [=[
function kinds.log(key, rate, per, _, cost, debt)
  cost, debt = ceil(cost), ceil(debt)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - per))
  local count = redis.call('ZCARD', key)
  local used = count + debt
  local allowed = used + cost <= rate
  local retry = 0
  if cost > rate then
    retry = -1
  elseif not allowed then
    local n = min(used + cost - rate, count)
    local oldest = n > 0 and redis.call('ZRANGE', key, n - 1, n - 1, 'WITHSCORES')[2] or now
    retry = oldest + per - now
  end
  return allowed, max(0, rate - used - (allowed and cost or 0)), retry, used + cost > 0 and per or 0, 0, debt + cost, debt
end

-- A member is the moment and how many there were: no two are the same.
function write.log(key, _, per, _, units)
  local count = redis.call('ZCARD', key)
  for first = 1, units, 1000 do
    local words = {}
    for i = first, min(units, first + 999) do
      words[#words + 1] = string.format('%.0f', now)
      words[#words + 1] = string.format('%.0f:%d', now, count + i)
    end
    redis.call('ZADD', key, unpack(words))
  end
  redis.call('PEXPIRE', key, ceil(per / 1000))
end
]=] }

-- A script defines its functions anew each time it runs: it has no more of them than it needs.
local function common(limits)
  local text, has = { BASE }, {}
  for _, limit in ipairs(limits) do
    for _, part in ipairs(parts[limit.algorithm]) do
      if not has[part] then
        has[part], text[#text + 1] = true, part
      end
    end
  end
  return table.concat(text)
end

-- TAKE: ARGV: cost, whether refused ones are charged, then of each key: algorithm, rate, per, extra, debt. All limits or none is charged.
-- -> { 1 or 0, then of each: 1 or 0, left, until there is room, until all is free, to wait }
local TAKE = [=[
local cost, charge = tonumber(ARGV[1]), ARGV[2] == '1'
local reply, states, all = { 0 }, {}, true
for i = 1, #KEYS do
  local at = 2 + (i - 1) * 5
  local allowed, left, retry, reset, wait, charged, state =
    kinds[ARGV[at + 1]](KEYS[i], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), cost, tonumber(ARGV[at + 5]))
  all = all and allowed
  states[i] = { charged, state }
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = allowed and 1 or 0, left, ceil(retry), ceil(reset), ceil(wait)
end
reply[1] = all and 1 or 0
for i = 1, #KEYS do
  local at = 2 + (i - 1) * 5
  local charged = all or charge
  if charged and cost > 0 or tonumber(ARGV[at + 5]) > 0 then
    write[ARGV[at + 1]](KEYS[i], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), nil, states[i][charged and 1 or 2])
  end
end
return reply
]=]

-- SETTLE: ARGV: how much is to be charged in addition, or given back when it is below 0, then as above.
local SETTLE = [=[
local amount = tonumber(ARGV[1])
for i = 1, #KEYS do
  local at = 2 + (i - 1) * 5
  local kind, rate, per, extra = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local _, _, _, _, _, _, state = kinds[kind](KEYS[i], rate, per, extra, 0, 0)
  if kind ~= 'log' then
    write[kind](KEYS[i], rate, per, nil, max(0, state + amount))
  elseif amount > 0 then
    write.log(KEYS[i], rate, per, nil, ceil(amount))
  elseif floor(-amount) > 0 then
    redis.call('ZPOPMAX', KEYS[i], floor(-amount))
  end
end
return 1
]=]

-- LEASE: ARGV as for take, but with the units that are wished for in place of the debt. Each limit by itself gives as many as it has, or
-- none when that is less than the cost. -> of each: units, left, until there is room, until its window ends
local LEASE = [=[
local cost = tonumber(ARGV[1])
local reply = {}
for i = 1, #KEYS do
  local at = 2 + (i - 1) * 5
  local kind, rate, per, extra = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local allowed, left, retry, reset, _, charged, state = kinds[kind](KEYS[i], rate, per, extra, cost, 0)
  local units = 0
  if allowed then
    units = min(tonumber(ARGV[at + 5]), left + cost)
    write[kind](KEYS[i], rate, per, nil, state + units)
  end
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = units, left + (allowed and cost - units or 0), ceil(retry), ceil(reset)
end
return reply
]=]

--- take(limits), settle(limits), lease(limits) -> the script for these limits
function script.take(limits) return common(limits) .. TAKE end
function script.settle(limits) return common(limits) .. SETTLE end
function script.lease(limits) return common(limits) .. LEASE end

--- acquire: ARGV: limit, microseconds that a place is held, its id. release: ARGV: id. renew: ARGV: microseconds, ids.
script.acquire = [=[
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local count = redis.call('ZCARD', KEYS[1])
if count >= tonumber(ARGV[1]) then return { 0, 0 } end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
return { 1, tonumber(ARGV[1]) - count - 1 }
]=]

script.renew = [=[
local t = redis.call('TIME')
local till = string.format('%.0f', t[1] * 1000000 + t[2] + ARGV[1])
redis.call('ZADD', KEYS[1], 'XX', till, ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000))
return 1
]=]

--- alive: ARGV: the id of a gateway -> how many have said so in the last 15 s
script.alive = [=[
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] - 15)
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])
]=]

return script
