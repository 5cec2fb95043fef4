--- metrics: counters, gauges and histograms of plugins, counted by all workers together; text() is what Prometheus reads.
-- Each series is a key of the dict "metrics"; a numbered list of them is kept beside, since a dict is not gone through.
local dict = require "tidegate.dict"
local number = require "tidegate.number"

local metrics = {}
local SERIES_MAX, VALUE_MAX = 1000, 128 -- series of a metric: more go to the label value "other"; bytes of a label's value
local BUCKETS = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 } -- seconds

local Metric = { __name = "metric" }
Metric.__index = Metric

local known = {} -- name -> metric, of this generation
local shared
local function store()
  shared = shared or dict.open "metrics"
  return shared
end

local function escape(value)
  return (tostring(value):sub(1, VALUE_MAX):gsub("[\\\"\n]", { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end

-- The text of the labels: '{route="a"}', "" for none. Wrong names raise at the plugin's line.
local function labels_of(self, values)
  local names = self.labels
  if #names == 0 and values == nil then return "" end
  for name in pairs(values or {}) do
    if not self.known_labels[name] then error(("the metric %s has no label %q"):format(self.name, tostring(name)), 4) end
  end
  local parts = {}
  for i, name in ipairs(names) do parts[i] = ('%s="%s"'):format(name, escape(values and values[name] or "")) end
  return #parts > 0 and "{" .. table.concat(parts, ",") .. "}" or ""
end

-- Makes the series known to all, once; the labels of those that are too many become "other".
local function series_of(self, labels)
  local key = self.keys[labels]
  if key then return key end
  if self.count >= SERIES_MAX then
    self.other = self.other or labels:gsub('"[^"]*"', '"other"')
    labels = self.other
    if self.keys[labels] then return self.keys[labels] end
  end
  key = self.name .. "\1" .. labels
  if store():add("s\1" .. key, true) then
    store():set(("i\1%s\1%d"):format(self.name, store():incr("n\1" .. self.name)), labels)
  end
  self.keys[labels], self.count = key, self.count + 1
  return key
end

--- counter:inc(by = 1, { label = value }?), gauge:inc(...)
function Metric:inc(by, values)
  if self.kind == "histogram" then error("a histogram has no inc: observe(value)", 2) end
  by = by or 1
  if type(by) ~= "number" or by ~= by or (self.kind == "counter" and by < 0) then error("inc needs a number, of a counter at least 0", 2) end
  store():incr(series_of(self, labels_of(self, values)), by)
end

--- gauge:set(value, { label = value }?)
function Metric:set(value, values)
  if self.kind ~= "gauge" then error("only a gauge is set", 2) end
  if type(value) ~= "number" or value ~= value then error("set needs a number", 2) end
  store():set(series_of(self, labels_of(self, values)), value)
end

--- histogram:observe(value, { label = value }?)
function Metric:observe(value, values)
  if self.kind ~= "histogram" then error("only a histogram observes", 2) end
  if type(value) ~= "number" or value ~= value then error("observe needs a number", 2) end
  local key, d = series_of(self, labels_of(self, values)), store()
  for i, bound in ipairs(self.buckets) do
    if value <= bound then
      d:incr(key .. "\1" .. i)
      break
    end
  end
  d:incr(key .. "\1sum", value)
  d:incr(key .. "\1count")
end

local function open(kind, name, options)
  options = options or {}
  if type(name) ~= "string" or not name:find "^[%a_:][%w_:]*$" then error("a metric needs a name of letters, digits and _", 3) end
  local labels, set = options.labels or {}, {}
  for _, label in ipairs(labels) do
    if type(label) ~= "string" or not label:find "^[%a_][%w_]*$" then error(("not a label of a metric: %q"):format(tostring(label)), 3) end
    set[label] = true
  end
  local before = known[name]
  if before then
    if before.kind ~= kind or #before.labels ~= #labels then error(("there is a metric %s of another kind"):format(name), 3) end
    return before
  end
  local self = setmetatable({
    kind = kind, name = name, help = tostring(options.help or ""), labels = labels, known_labels = set, keys = {}, count = 0,
    buckets = kind == "histogram" and (options.buckets or BUCKETS) or nil,
  }, Metric)
  known[name] = self
  return self
end

--- counter(name, { help?, labels? }?) -> metric with inc; at the top of a plugin's file
function metrics.counter(name, options) return open("counter", name, options) end
--- gauge(name, { help?, labels? }?) -> metric with set and inc
function metrics.gauge(name, options) return open("gauge", name, options) end
--- histogram(name, { help?, labels?, buckets? }?) -> metric with observe; buckets are upper bounds, in ascending order
function metrics.histogram(name, options) return open("histogram", name, options) end

local function with_le(labels, bound)
  return labels == "" and ('{le="%s"}'):format(bound) or labels:sub(1, -2) .. (',le="%s"}'):format(bound)
end

local function write_histogram(out, self, labels, key)
  local d, sum = store(), 0
  for i, bound in ipairs(self.buckets) do
    sum = sum + (d:get(key .. "\1" .. i) or 0)
    out[#out + 1] = ("%s_bucket%s %d\n"):format(self.name, with_le(labels, number.text(bound)), sum)
  end
  local count = d:get(key .. "\1count") or 0
  out[#out + 1] = ("%s_bucket%s %d\n"):format(self.name, with_le(labels, "+Inf"), count)
  out[#out + 1] = ("%s_sum%s %s\n%s_count%s %d\n"):format(self.name, labels, number.text(d:get(key .. "\1sum") or 0), self.name, labels, count)
end

--- text() -> all metrics of this generation in the text format of Prometheus, version 0.0.4
function metrics.text()
  local out, names, d = {}, {}, store()
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local self = known[name]
    if self.help ~= "" then out[#out + 1] = ("# HELP %s %s\n"):format(name, self.help:gsub("\\", "\\\\"):gsub("\n", "\\n")) end
    out[#out + 1] = ("# TYPE %s %s\n"):format(name, self.kind)
    for i = 1, d:get("n\1" .. name) or 0 do
      local labels = d:get(("i\1%s\1%d"):format(name, i))
      if labels then
        local key = name .. "\1" .. labels
        if self.kind == "histogram" then
          write_histogram(out, self, labels, key)
        else
          out[#out + 1] = ("%s%s %s\n"):format(name, labels, number.text(d:get(key) or 0))
        end
      end
    end
  end
  return table.concat(out)
end

return metrics
