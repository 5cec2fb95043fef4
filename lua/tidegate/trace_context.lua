--- trace_context: to which trace a message belongs: W3C Trace Context, B3 (one field or many) and Jaeger, read and written.
-- A context is { trace, span, sampled, debug?, state? }: 32 and 16 hexadecimal digits, `sampled` nil when that was not decided, `state` the
-- members of tracestate.
local abi = require "abi"

local C = abi.C
local trace_context = {}
local MEMBERS_MAX, STATE_MAX, LONG_MEMBER = 32, 512, 128 -- bytes
local NO_TRACE, NO_SPAN = ("0"):rep(32), ("0"):rep(16)

-- ---------------------------------------------------------------- W3C

--- traceparent(text) -> trace, span, flags | nil
function trace_context.traceparent(text)
  local flags = C.tg_abi_trace_read(text, #text)
  if flags < 0 then return nil end
  return text:sub(4, 35), text:sub(37, 52), flags
end

local function is_key(key)
  local tenant, system = key:match "^([^@]*)@([^@]*)$"
  if tenant then
    return #tenant <= 241 and #system <= 14 and tenant:find "^[a-z0-9][a-z0-9_%-*/]*$" ~= nil and system:find "^[a-z][a-z0-9_%-*/]*$" ~= nil
  end
  return #key <= 256 and key:find "^[a-z][a-z0-9_%-*/]*$" ~= nil
end

-- Printable ASCII but "," and "="; a blank may not be the last byte.
local function is_value(value)
  return #value <= 256 and value:find "^[ -+--<>-~]*[!-+--<>-~]$" ~= nil
end

-- What is too long is made shorter as the recommendation wants it: long members first, then the last ones.
local function shorten(members)
  local size = #members - 1
  for _, member in ipairs(members) do size = size + #member end
  for i = #members, 1, -1 do
    if size > STATE_MAX and #members[i] > LONG_MEMBER then size = size - #table.remove(members, i) - 1 end
  end
  while size > STATE_MAX do size = size - #table.remove(members) - 1 end
end

--- tracestate(text) -> text of its members, at most 512 bytes | nil: it has none, or is malformed, and goes no further.
-- `text`: all fields of the name, joined by commas in their order.
function trace_context.tracestate(text)
  local members, known = {}, {}
  for piece in (text .. ","):gmatch "([^,]*)," do
    local member = piece:match "^[ \t]*(.-)[ \t]*$"
    if member ~= "" then
      local key, value = member:match "^([^=]*)=(.*)$"
      if not key or known[key] or not is_key(key) or not is_value(value) then return nil end
      known[key], members[#members + 1] = true, member
      if #members > MEMBERS_MAX then return nil end
    end
  end
  shorten(members)
  return members[1] and table.concat(members, ",") or nil
end

-- ---------------------------------------------------------------- ids of the others

-- The same as 32 or 16 digits in lower case, nil when it is none. `exact`: 16 or 32 digits, otherwise up to that many.
local function trace_id(text, exact)
  if not text or #text > 32 or not text:find "^%x+$" or exact and #text ~= 16 and #text ~= 32 then return nil end
  local id = ("0"):rep(32 - #text) .. text:lower()
  return id ~= NO_TRACE and id or nil
end

local function span_id(text, exact)
  if not text or #text > 16 or not text:find "^%x+$" or exact and #text ~= 16 then return nil end
  local id = ("0"):rep(16 - #text) .. text:lower()
  return id ~= NO_SPAN and id or nil
end

local decisions = { ["1"] = true, ["true"] = true, d = true, ["0"] = false, ["false"] = false }

local function b3_context(trace, span, decision)
  trace, span = trace_id(trace, true), span_id(span, true)
  if not trace or not span or decision and decisions[decision] == nil then return nil end
  return { trace = trace, span = span, sampled = decisions[decision], debug = decision == "d" or nil }
end

-- ---------------------------------------------------------------- formats

-- format -> { fields, read(get) -> context | nil, write(put, context) }. get(name): the value, nil also when the field stands there twice;
-- all(name): of all fields of the name, joined.
local formats = {}

formats.w3c = {
  fields = { "traceparent", "tracestate" },
  read = function(get, all)
    local text = get "traceparent"
    if not text then return nil end
    local trace, span, flags = trace_context.traceparent(text)
    if not trace then return nil end
    local state = all "tracestate"
    return { trace = trace, span = span, sampled = flags % 2 == 1, state = state and trace_context.tracestate(state) or nil }
  end,
  write = function(put, context)
    put("traceparent", ("00-%s-%s-%s"):format(context.trace, context.span, context.sampled and "01" or "00"))
    put("tracestate", context.state)
  end,
}

formats.b3 = {
  fields = { "b3" },
  read = function(get)
    local text = get "b3"
    if not text then return nil end
    local parts = {}
    for part in (text .. "-"):gmatch "([^-]*)%-" do parts[#parts + 1] = part end
    if #parts < 2 or #parts > 4 or parts[4] and not span_id(parts[4], true) then return nil end
    return b3_context(parts[1], parts[2], parts[3])
  end,
  write = function(put, context)
    put("b3", ("%s-%s-%s"):format(context.trace, context.span, context.debug and "d" or context.sampled and "1" or "0"))
  end,
}

formats["b3-multi"] = {
  fields = { "X-B3-TraceId", "X-B3-SpanId", "X-B3-ParentSpanId", "X-B3-Sampled", "X-B3-Flags" },
  read = function(get)
    return b3_context(get "X-B3-TraceId", get "X-B3-SpanId", get "X-B3-Flags" == "1" and "d" or get "X-B3-Sampled")
  end,
  write = function(put, context)
    put("X-B3-TraceId", context.trace)
    put("X-B3-SpanId", context.span)
    put("X-B3-ParentSpanId", nil)
    put("X-B3-Sampled", not context.debug and (context.sampled and "1" or "0") or nil)
    put("X-B3-Flags", context.debug and "1" or nil)
  end,
}

formats.jaeger = {
  fields = { "uber-trace-id" },
  read = function(get)
    local text = get "uber-trace-id"
    if not text then return nil end
    local trace, span, parent, flags = text:gsub("%%3[Aa]", ":"):match "^(%x+):(%x+):(%x+):(%x+)$"
    trace, span = trace_id(trace), span_id(span)
    if not trace or not span or #parent > 16 or #flags > 2 then return nil end
    local bits = tonumber(flags, 16)
    return { trace = trace, span = span, sampled = bits % 2 == 1, debug = bits % 4 == 3 or nil }
  end,
  write = function(put, context)
    put("uber-trace-id", ("%s:%s:0:%d"):format(context.trace, context.span, context.debug and 3 or context.sampled and 1 or 0))
  end,
}

trace_context.formats = formats
trace_context.names = { "w3c", "b3", "b3-multi", "jaeger" }

--- read(names, get, all) -> the context of the first of these formats that fits | nil
function trace_context.read(names, get, all)
  for i = 1, #names do
    local context = formats[names[i]].read(get, all)
    if context then return context end
  end
  return nil
end

--- write(names, context, put): put(name, value) for each field of these formats; a value of nil takes the field away.
function trace_context.write(names, context, put)
  for i = 1, #names do formats[names[i]].write(put, context) end
end

--- fields(names) -> list of the names of fields of these formats
function trace_context.fields(names)
  local list = {}
  for _, name in ipairs(names) do
    for _, field in ipairs(formats[name].fields) do list[#list + 1] = field end
  end
  return list
end

--- new_id(digits) -> that many random hexadecimal digits, 32 at most, which are not all 0
function trace_context.new_id(digits)
  C.tg_abi_trace_make()
  local text = abi.out()
  return digits == 16 and text:sub(37, 52) or text:sub(4, 35)
end

return trace_context
