--- metrics: counters, gauges and histograms of plugins, counted by all workers together; text() is what Prometheus reads.
-- A series is a place in shared memory. Each worker counts in a row of its own, without a lock; who reads adds the rows up. A gauge that is set
-- has one value for all.
local abi = require "abi"
local number = require "tidegate.number"

local C, vm, to_string = abi.C, abi.vm, abi.string

local metrics = {}
local SERIES_MAX, HISTOGRAMS_MAX, VALUE_MAX = 1000, 100, 128 -- series of a metric: more go to the label value "other"; bytes of a label's value
local BUCKETS = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 } -- seconds
local SPARE = "\2" -- begins the key of what counts the series of a metric

local Metric = { __name = "metric" }
Metric.__index = Metric
local Bound = { __name = "metric" }
Bound.__index = Bound

local known = {} -- name -> metric, of this generation
local collectors = {}
local values -- this worker's row

local function escape(value)
  return (tostring(value):sub(1, VALUE_MAX):gsub("[\\\"\n]", { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }):gsub("[%z\1\2]", "?"))
end

-- The text of the labels: '{route="a"}', "" for none. Wrong names raise at the plugin's line.
local function labels_of(self, given, level)
  local names = self.labels
  if #names == 0 and given == nil then return "" end
  for name in pairs(given or {}) do
    if not self.known_labels[name] then error(("the metric %s has no label %q"):format(self.name, tostring(name)), level) end
  end
  local parts = {}
  for i, name in ipairs(names) do parts[i] = ('%s="%s"'):format(name, escape(given and given[name] or "")) end
  return #parts > 0 and "{" .. table.concat(parts, ",") .. "}" or ""
end

-- ---------------------------------------------------------------- places

local function place_of(key)
  local place = C.tg_abi_metric_series(key, #key)
  return place >= 0 and place or nil
end

-- The places of a series: its own, or those of its buckets, their sum and their count.
local function make_places(self, labels)
  local key = self.name .. "\1" .. labels
  local place = place_of(key)
  if not place or self.kind ~= "histogram" then return place end
  local places = { count = place, sum = place_of(key .. "\1sum") }
  for i = 1, #self.buckets do places[i] = place_of(key .. "\1" .. i) end
  return places.sum and #places == #self.buckets and places or nil
end

-- Whether there is room for one series more, which is then taken.
local function take_room(self, labels)
  local key = self.name .. "\1" .. labels
  if C.tg_abi_metric_known(key, #key) ~= 0 then return true end
  local counter = place_of(SPARE .. self.name)
  if not counter then return false end
  local most = self.kind == "histogram" and HISTOGRAMS_MAX or SERIES_MAX
  if C.tg_abi_metric_shared_get(counter) >= most then return false end
  C.tg_abi_metric_shared_add(counter, 1)
  return true
end

-- The places of what is too many. Nothing is kept of its labels: they may be without number.
local function places_of_others(self, labels)
  values = values or C.tg_abi_metric_rows() > 0 and C.tg_abi_metric_values()
  if self.others == nil then self.others = make_places(self, (labels:gsub('"[^"]*"', '"other"'))) or false end
  if self ~= metrics.overflows then metrics.overflows:inc(1, { metric = self.name }) end
  return self.others
end

local function series_of(self, given, level)
  local first = self.first
  local value = first and given and given[first] -- of a metric that has one label
  local places = value and self.by_value[value]
  if places ~= nil then return places end
  local labels = labels_of(self, given, level + 1)
  places = self.by_labels[labels]
  if places == nil and abi.in_shadow and not self.of_shadow then places = false end
  if places == nil then
    if not take_room(self, labels) then return places_of_others(self, labels) end
    places = make_places(self, labels) or false
    self.by_labels[labels] = places
    values = values or places and C.tg_abi_metric_values()
  end
  if value then self.by_value[value] = places end
  return places
end

-- ---------------------------------------------------------------- counting

local function check_number(value, least, message, level)
  if type(value) ~= "number" or value ~= value or value < least then error(message, level + 1) end
end

local function increase(kind, place, by)
  if not place then return end
  if kind == "gauge" then C.tg_abi_metric_shared_add(place, by) else values[place] = values[place] + by end
end

local function observe(buckets, places, value)
  if not places then return end
  local i, n = 1, #buckets
  while i <= n and value > buckets[i] do i = i + 1 end
  if i <= n then
    local place = places[i]
    values[place] = values[place] + 1
  end
  values[places.sum] = values[places.sum] + value
  values[places.count] = values[places.count] + 1
end

local function check_inc(self, by, level)
  if self.kind == "histogram" then error("a histogram has no inc: observe(value)", level + 1) end
  check_number(by, self.kind == "counter" and 0 or -math.huge, "inc needs a number, of a counter at least 0", level + 1)
end

--- counter:inc(by = 1, { label = value }?), gauge:inc(...)
function Metric:inc(by, given)
  by = by or 1
  check_inc(self, by, 2)
  increase(self.kind, series_of(self, given, 2), by)
end

--- gauge:set(value, { label = value }?)
function Metric:set(value, given)
  if self.kind ~= "gauge" then error("only a gauge is set", 2) end
  check_number(value, -math.huge, "set needs a number", 2)
  local place = series_of(self, given, 2)
  if place then C.tg_abi_metric_shared_set(place, value) end
end

--- histogram:observe(value, { label = value }?)
function Metric:observe(value, given)
  if self.kind ~= "histogram" then error("only a histogram observes", 2) end
  check_number(value, -math.huge, "observe needs a number", 2)
  observe(self.buckets, series_of(self, given, 2), value)
end

--- metric:with({ label = value }) -> the one series, with inc(by), set(value) or observe(value): for what is counted often
function Metric:with(given)
  return setmetatable({ metric = self, given = given }, Bound)
end

-- Its places, looked up once.
local function places_of(self)
  local places = self.places
  if places == nil then
    places = series_of(self.metric, self.given, 3)
    self.places = places
  end
  return places
end

function Bound:inc(by)
  by = by or 1
  check_inc(self.metric, by, 2)
  increase(self.metric.kind, places_of(self), by)
end

function Bound:set(value) return self.metric:set(value, self.given) end

function Bound:observe(value)
  if self.metric.kind ~= "histogram" then error("only a histogram observes", 2) end
  check_number(value, -math.huge, "observe needs a number", 2)
  observe(self.metric.buckets, places_of(self), value)
end

--- value() -> what all workers have counted in it, of a counter or a gauge
function Bound:value()
  local place, kind = places_of(self), self.metric.kind
  if kind == "histogram" then error("a histogram has no value", 2) end
  if not place then return 0 end
  return kind == "gauge" and C.tg_abi_metric_shared_get(place) or C.tg_abi_metric_series_sum(place)
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
    kind = kind, name = name, help = tostring(options.help or ""), labels = labels, known_labels = set, by_labels = {}, by_value = {},
    first = #labels == 1 and labels[1] or nil, buckets = kind == "histogram" and (options.buckets or BUCKETS) or nil,
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

metrics.overflows = metrics.counter("tidegate_metric_series_refused_total",
  { help = "Series that were too many and are counted as other.", labels = { "metric" } })

-- ---------------------------------------------------------------- writing

-- What is written: families in turn, as one text a piece. `open` is the OpenMetrics format.
local Writer = {}
Writer.__index = Writer

--- breathe(): to be called with each step of what may be long, also where nothing is written: lets others have their turn.
function Writer:breathe()
  if self.turn then self.turn:breathe() end
end

--- family(name, kind, help): samples of it follow
function Writer:family(name, kind, help)
  local title = self.open and kind == "counter" and name:gsub("_total$", "") or name
  help = help ~= "" and help or name:gsub("_", " ")
  self:put(("# HELP %s %s\n# TYPE %s %s\n"):format(title, help:gsub("\\", "\\\\"):gsub("\n", "\\n"), title, kind))
end

function Writer:put(text)
  local parts = self.parts
  parts[#parts + 1] = text
  self.bytes = self.bytes + #text
  if self.bytes >= self.piece then self:flush() end
  self:breathe()
end

function Writer:flush()
  if self.bytes == 0 then return end
  local text = table.concat(self.parts)
  self.parts, self.bytes = {}, 0
  self.send(text)
end

--- sample(name, labels, value); labels is a text: '{a="b"}' or ""
function Writer:sample(name, labels, value)
  -- One by one: each text that is put together from them would be one more for the collector.
  local parts, n, text = self.parts, #self.parts, number.text(value)
  parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = name, labels, " ", text
  self.bytes = self.bytes + #name + #labels + #text + 2
  self:put "\n"
end

-- bounds -> texts of them, as the end of the labels of a bucket; the last is that of the rest. Histograms have them in common.
local ends_of = setmetatable({}, { __mode = "k" })

local function make_ends(bounds)
  local ends = {}
  for i, bound in ipairs(bounds) do ends[i] = number.text(bound) .. '"} ' end
  ends[#ends + 1] = '+Inf"} '
  ends_of[bounds] = ends
  return ends
end

local function exemplar_text(exemplar)
  return (' # {trace_id="%s"} %s %.3f\n'):format(exemplar.trace, number.text(exemplar.seconds), exemplar.at)
end

-- A text for each bucket would be what a scrape takes: of what is the same in all of them there is one, and many counts are that of the one before.
local function put_buckets(self, before, ends, counts, exemplars)
  local parts, n, bytes = self.parts, #self.parts, 0
  local total, said, text = 0, -1, ""
  for i = 1, #ends do
    total = total + counts[i]
    if total ~= said then
      said, text = total, number.text(total)
    end
    local tail = exemplars and exemplars[i] and exemplar_text(exemplars[i]) or "\n"
    parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = before, ends[i], text, tail
    n, bytes = n + 4, bytes + #before + #ends[i] + #text + #tail
  end
  self.bytes = self.bytes + bytes
  return total
end

--- histogram(name, labels, bounds, counts, sum, exemplars?): counts[i] of those up to bounds[i], and one more for the rest; exemplars by
-- bucket, { trace, seconds, at }, of the OpenMetrics format alone
function Writer:histogram(name, labels, bounds, counts, sum, exemplars)
  local before = name .. "_bucket" .. (labels == "" and "{" or labels:sub(1, -2) .. ",") .. 'le="'
  local total = put_buckets(self, before, ends_of[bounds] or make_ends(bounds), counts, exemplars)
  self:sample(name .. "_sum", labels, sum)
  self:sample(name .. "_count", labels, total)
end

--- labels { { name, value } ... } -> their text
function metrics.labels(list)
  local parts = {}
  for i, pair in ipairs(list) do parts[i] = ('%s="%s"'):format(pair[1], escape(pair[2])) end
  return #parts > 0 and "{" .. table.concat(parts, ",") .. "}" or ""
end

local scan = { seen = 0, of = {} } -- name -> list of { labels, place }: what was found so far, since places are for ever

-- Sorts new series by their metric.
local function look(writer)
  while C.tg_abi_metric_series_key(scan.seen) == 0 do
    local name, labels = to_string(vm.out.p, vm.out.n):match "^([^\1\2]+)\1([^\1]*)$"
    if name then
      local list = scan.of[name] or {}
      list[#list + 1] = { labels, scan.seen }
      scan.of[name] = list
    end
    scan.seen = scan.seen + 1
    writer:breathe()
  end
end

local function write_histogram(writer, self, labels, count)
  local places, counts, sum = self.by_labels[labels] or make_places(self, labels), {}, 0
  if not places then return end
  for i = 1, #self.buckets do
    counts[i] = C.tg_abi_metric_series_sum(places[i])
    sum = sum + counts[i]
  end
  counts[#counts + 1] = C.tg_abi_metric_series_sum(count) - sum
  writer:histogram(self.name, labels, self.buckets, counts, C.tg_abi_metric_series_sum(places.sum))
end

local function write_metric(writer, self, list)
  writer:family(self.name, self.kind, self.help)
  for _, entry in ipairs(list or {}) do
    local labels, place = entry[1], entry[2]
    if self.kind == "histogram" then
      write_histogram(writer, self, labels, place)
    else
      local value = self.kind == "gauge" and C.tg_abi_metric_shared_get(place) or C.tg_abi_metric_series_sum(place)
      writer:sample(self.name, labels, value)
    end
  end
end

--- collect(function(writer)): writes families of its own each time that somebody reads
function metrics.collect(write)
  collectors[#collectors + 1] = write
end

--- write(send, open_metrics, piece, turn): sends all, in texts of about so many bytes. turn: of tidegate/turn, when it is not to be done at once
function metrics.write(send, open_metrics, piece, turn)
  if C.tg_abi_metric_rows() == 0 then return end
  local writer = setmetatable({ parts = {}, bytes = 0, send = send, open = open_metrics, piece = piece or math.huge, turn = turn }, Writer)
  for _, write in ipairs(collectors) do write(writer) end
  look(writer)
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do write_metric(writer, known[name], scan.of[name]) end
  if open_metrics then writer:put "# EOF\n" end
  writer:flush()
end

--- text() -> all metrics of this generation in the text format of Prometheus, version 0.0.4
function metrics.text()
  local parts = {}
  metrics.write(function(text) parts[#parts + 1] = text end)
  return table.concat(parts)
end

return metrics
