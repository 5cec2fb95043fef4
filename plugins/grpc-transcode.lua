--- grpc-transcode: JSON over HTTP in front of gRPC services, by the google.api.http rules of their descriptors.
-- https://github.com/googleapis/googleapis/blob/master/google/api/http.proto says what rules and templates mean. Descriptors become a tree of
-- path segments once a generation.
local METHODS = { get = "GET", put = "PUT", post = "POST", delete = "DELETE", patch = "PATCH" }
local HTTP_BODY = "google.api.HttpBody"

-- google.rpc.Code: what each is in HTTP.
local STATUS = {
  [0] = 200, [1] = 499, [2] = 500, [3] = 400, [4] = 504, [5] = 404, [6] = 409, [7] = 403, [8] = 429, [9] = 400, [10] = 409, [11] = 400, [12] = 501,
  [13] = 500, [14] = 503, [15] = 500, [16] = 401,
}
local INVALID, DEADLINE, NOT_FOUND, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 3, 4, 5, 8, 12, 13, 14
-- Answers of an upstream that are none of gRPC (http-grpc-status-mapping.md).
local CODE = { [400] = 13, [401] = 16, [403] = 7, [404] = 12, [429] = 14, [502] = 14, [503] = 14, [504] = 14 }

-- ---------------------------------------------------------------- templates

local function refuse(what, ...) error({ transcode = what:format(...) }, 0) end

-- "shelves/*/books/**" -> appends its tokens: { literal = text }, { star = true }, { deep = true }
local function add_segments(tokens, text, where)
  for segment in (text .. "/"):gmatch "([^/]*)/" do
    local last = tokens[#tokens]
    if last and last.deep then refuse("%s: ** is the last segment of a path", where) end
    if segment == "**" then
      tokens[#tokens + 1] = { deep = true }
    elseif segment == "*" then
      tokens[#tokens + 1] = { star = true }
    elseif segment == "" or segment:find "[{}=*]" then
      refuse("%s: a segment that is none: %q", where, segment)
    else
      tokens[#tokens + 1] = { literal = tg.url.decode(segment) }
    end
  end
end

-- "/v1/{name=shelves/*}:move" -> tokens, variables { path, first, last or nil: up to the end }, verb
local function parse_template(template, where)
  local rest, verb = template:match "^/(.*[^:]):([^:/{}*]+)$"
  if not rest then rest, verb = template:match "^/(.+)$", "" end
  if not rest then refuse("%s: the path %q does not begin with a slash", where, template) end
  local tokens, variables = {}, {}
  while rest do
    local inside, after = rest:match "^{([^{}]*)}(.*)$"
    if inside then
      local path, pattern = inside:match "^([%w_.]+)=?(.*)$"
      if not path or after ~= "" and after:sub(1, 1) ~= "/" then refuse("%s: a variable that is none in %q", where, template) end
      local first = #tokens + 1
      add_segments(tokens, pattern == "" and "*" or pattern, where)
      local many = #tokens > first or tokens[#tokens].deep
      variables[#variables + 1] = { name = path, first = first, last = not tokens[#tokens].deep and #tokens or nil, many = many or false }
      rest = after ~= "" and after:sub(2) or nil
    else
      local segment
      segment, rest = rest:match "^([^/]*)/?(.*)$"
      add_segments(tokens, segment, where)
      if rest == "" then rest = nil end
    end
  end
  return tokens, variables, verb
end

-- ---------------------------------------------------------------- rules

local function field_of(kind, name, where)
  local path = not name:find(".", 1, true) and kind:path(name)
  if not path then refuse("%s: there is no field %q in %s", where, name, kind.name) end
  return path[1].name
end

-- A field by its names in the .proto file, whichever it was called by: "author.name."
local function place_of(path)
  local names = {}
  for i, field in ipairs(path) do names[i] = field.name end
  return table.concat(names, ".") .. "."
end

local function resolve(kind, variable, where)
  local path, problem = kind:path(variable.name)
  if not path then refuse("%s: %s", where, problem) end
  if path[#path].repeated then refuse("%s: %q is a list, which a path has no place for", where, variable.name) end
  variable.path = path
end

-- What one rule binds: { method of HTTP, tokens, variables, verb, call, body = "*", a name or nil, response_body, bound = places of variables }
local function compile_rule(rule, call)
  local method, template
  for key, name in pairs(METHODS) do
    if rule[key] then method, template = name, rule[key] end
  end
  if rule.custom then method, template = rule.custom.kind or "*", rule.custom.path or "" end
  local where = call.path
  if not method then refuse("%s: a rule without a path", where) end
  local binding = { method = method, template = template, call = call, bound = {} }
  binding.tokens, binding.variables, binding.verb = parse_template(template, where)
  for i, variable in ipairs(binding.variables) do
    resolve(call.input, variable, where)
    binding.bound[i] = place_of(variable.path)
  end
  local body, response_body = rule.body, rule.response_body
  if body and body ~= "" then binding.body = body == "*" and body or field_of(call.input, body, where) end
  if response_body and response_body ~= "" then binding.response_body = field_of(call.output, response_body, where) end
  return binding
end

local function new_node() return { literals = {}, ends = {} } end

local function insert(root, binding)
  local node = root
  for _, token in ipairs(binding.tokens) do
    if token.literal then
      node.literals[token.literal] = node.literals[token.literal] or new_node()
      node = node.literals[token.literal]
    else
      local kind = token.deep and "deep" or "star"
      node[kind] = node[kind] or new_node()
      node = node[kind]
    end
  end
  local ends = node.ends[binding.verb] or {}
  local other = ends[binding.method]
  if other then
    refuse("%s and %s are both %s %s", other.call.path, binding.call.path, binding.method, binding.template)
  end
  node.ends[binding.verb], ends[binding.method] = ends, binding
end

local function chosen(conf)
  if #conf.services == 0 then return nil end
  local set = {}
  for _, name in ipairs(conf.services) do set[name] = false end
  return set
end

local sets = setmetatable({}, { __mode = "v" }) -- bytes -> set: routes may share a file

local function load(bytes)
  local known = sets[bytes]
  if known then return known end
  local set, err = tg.protobuf.load(bytes)
  if not set then refuse("%s", err.message) end
  sets[bytes] = set
  return set
end

local function build(conf)
  local set = load(conf.descriptors)
  local root, services, count = new_node(), chosen(conf), 0
  for _, call in ipairs(set.methods) do
    if not services or services[call.service] ~= nil then
      if services then services[call.service] = true end
      local rule = call.http or conf.unannotated and { post = call.path, body = "*" }
      if rule then
        count = count + 1
        insert(root, compile_rule(rule, call))
        for _, more in ipairs(rule.additional_bindings or {}) do insert(root, compile_rule(more, call)) end
      end
    end
  end
  for name, found in pairs(services or {}) do
    if not found then refuse("there is no service %q in the descriptors", name) end
  end
  if count == 0 then refuse "no method has a google.api.http rule: it is an option of a method, or use `unannotated`" end
  local ignored = {}
  for _, name in ipairs(conf.ignore_query) do ignored[name] = true end
  return {
    root = root, set = set, status = set:message "google.rpc.Status", ignored = ignored,
    reading = { unknown = conf.unknown },
    printing = { print_defaults = conf.print_defaults, preserve_names = conf.preserve_names, enum_numbers = conf.enum_numbers },
  }
end

-- ---------------------------------------------------------------- errors

local function error_text(code, message, details)
  return ('{"code":%d,"message":%s,"details":[%s]}'):format(code, tg.json.encode(message), details or "")
end

local function fail(code, message, status, headers)
  headers = headers or {}
  headers["Content-Type"] = "application/json"
  return tg.respond(status or STATUS[code], error_text(code, message) .. "\n", headers)
end

-- Base64 as metadata have it: without padding, too.
local function binary(value)
  value = value:match "^[^,%s]*"
  return tg.crypto.unbase64(value:gsub("=*$", "") .. ("="):rep(-#value:gsub("=*$", "") % 4))
end

-- The items of google.rpc.Status.details; those of unknown types as Base64.
local function details_of(encoded, state)
  local bytes = encoded and binary(encoded)
  local status = bytes and state.status:decode(bytes)
  if not status or not status.details then return "" end
  local options = { any_bytes = true, field = "details" }
  for name, value in pairs(state.printing) do options[name] = options[name] or value end
  local text = state.status:to_json(status, options)
  return text and text:sub(2, -2) or ""
end

-- What an upstream has said in its head or in its trailers: code, message, details.
local function outcome(res, state)
  local from = res.headers["grpc-status"] and res.headers or res.trailers
  local code = tonumber(from["grpc-status"])
  if not code then return INTERNAL, "the service has not said how the call has ended", "" end
  if not STATUS[code] then code = 2 end
  return code, tg.url.decode(from["grpc-message"] or ""), code ~= 0 and details_of(from["grpc-status-details-bin"], state) or ""
end

-- ---------------------------------------------------------------- the request

local function split(path)
  local segments = {}
  for segment in path:gmatch "/([^/]*)" do segments[#segments + 1] = segment end
  return segments
end

local function note(allowed, ends)
  for name in pairs(ends) do allowed[name] = true end
  if ends.GET then allowed.HEAD = true end
end

local function at_end(node, verb, method, allowed)
  local ends = node and node.ends[verb]
  if not ends then return nil end
  note(allowed, ends)
  return ends[method] or method == "HEAD" and ends.GET or ends["*"]
end

-- Literals before *, and * before **.
local function walk(node, segments, i, verb, method, allowed)
  local segment = segments[i]
  if not segment then return at_end(node, verb, method, allowed) or at_end(node.deep, verb, method, allowed) end
  local child = node.literals[tg.url.decode(segment)]
  local found = child and walk(child, segments, i + 1, verb, method, allowed)
  if not found and node.star and segment ~= "" then found = walk(node.star, segments, i + 1, verb, method, allowed) end
  return found or at_end(node.deep, verb, method, allowed)
end

-- -> binding, segments | nil, the methods that there are for this path
local function match(root, path, method)
  local segments, allowed = split(path), {}
  local last = segments[#segments] or ""
  local before, verb = last:match "^(.*):([^:]+)$"
  if before then
    segments[#segments] = before
    local found = walk(root, segments, 1, verb, method, allowed)
    if found then return found, segments end
    segments[#segments] = last
  end
  local found = walk(root, segments, 1, "", method, allowed)
  if found then return found, segments end
  return nil, allowed
end

local function decode_but_slash(text)
  return (text:gsub("%%(%x%x)", function(digits)
    return digits:upper() ~= "2F" and string.char(tonumber(digits, 16)) or nil
  end))
end

local function value_of(variable, segments)
  if not variable.many then return tg.url.decode(segments[variable.first]) end
  local parts = {}
  for i = variable.first, variable.last or #segments do parts[#parts + 1] = decode_but_slash(segments[i]) end
  return table.concat(parts, "/")
end

-- Whether the path or the body says it, a part of it, or what it is a part of: a query that could change that would pass by whoever has judged
-- the path.
local function is_bound(binding, path)
  if path[1].name == binding.body then return true end
  local place = place_of(path)
  for _, bound in ipairs(binding.bound) do
    if place:sub(1, #bound) == bound or bound:sub(1, #place) == place then return true end
  end
  return false
end

-- Each parameter of the query is a field.
local function add_query(message, ctx, binding, state)
  local names, values = {}, {}
  local ok, query = pcall(function() return ctx.req.query end)
  if not ok then return tostring(query) end -- too many parameters
  for name, value in query() do
    if not values[name] then
      values[name] = {}
      names[#names + 1] = name
    end
    table.insert(values[name], value)
  end
  local input = binding.call.input
  for _, name in ipairs(names) do
    if not state.ignored[name] then
      local path, problem = input:path(name)
      if path and is_bound(binding, path) then
        return ("the query has %q, which stands in the path or the body"):format(name:sub(1, 100))
      end
      if path then
        local _, err = input:assign(message, path, values[name], state.reading)
        if err then return err.message end
      elseif state.reading.unknown ~= "ignore" then
        return problem
      end
    end
  end
end

local function is_json(content_type)
  return not content_type or content_type:lower():find "^application/[%w.%-+]*json" ~= nil
end

local function is_raw(kind, body)
  if body == "*" then return kind.name == HTTP_BODY end
  local field = kind:path(body)[1]
  return field.type and field.type.name == HTTP_BODY and not field.repeated
end

-- The message that the body is, or nil and a response.
local function read_body(ctx, binding, conf)
  local input, body = binding.call.input, binding.body
  if not body then return {} end
  local text, err = ctx.req:text(conf.max_body)
  if not text then
    return nil, err.code == "too_large" and fail(EXHAUSTED, err.message, 413) or fail(INVALID, err.message, err.status)
  end
  local content_type = ctx.req.headers["Content-Type"]
  if is_raw(input, body) then
    local raw = { content_type = content_type, data = text }
    return body == "*" and raw or { [body] = raw }
  end
  if text == "" then return {} end
  if not is_json(content_type) then return nil, fail(INVALID, "the body is no JSON by its Content-Type", 415) end
  local document, problem = tg.json.lazy(text, conf.max_body)
  if not document then return nil, fail(INVALID, problem.message) end
  local message
  message, err = input:from_json(document:get(), { unknown = conf.unknown, field = body ~= "*" and body or nil })
  if not message then return nil, fail(INVALID, err.message) end
  return message
end

-- The request as a message of gRPC, or nil and a response.
local function translate(ctx, binding, segments, conf, state)
  local message, response = read_body(ctx, binding, conf)
  if not message then return nil, response end
  local input = binding.call.input
  for _, variable in ipairs(binding.variables) do
    local _, err = input:assign(message, variable.path, { value_of(variable, segments) }, state.reading)
    if err then return nil, fail(INVALID, err.message) end
  end
  if binding.body ~= "*" then
    local problem = add_query(message, ctx, binding, state)
    if problem then return nil, fail(INVALID, problem) end
  end
  local bytes, err = input:encode(message)
  if not bytes then return nil, fail(INVALID, err.message) end
  return bytes
end

local function frame(bytes)
  local n = #bytes
  return string.char(0, math.floor(n / 16777216), math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256) .. bytes
end

local REMOVED = {
  "Accept", "Accept-Encoding", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "If-None-Match", "If-Modified-Since", "Range",
}

local function send(ctx, binding, bytes)
  local req, call = ctx.req, binding.call
  req.method, req.path, req.raw_query = "POST", call.path, ""
  for _, name in ipairs(REMOVED) do req.headers[name] = nil end
  req:set_body(frame(bytes))
  req.headers["Content-Type"] = "application/grpc"
  -- A stream may last longer than the time for its first answer.
  local left = not call.server_streaming and ctx:remaining()
  if left and left > 0 and left < 99999 then req.headers["grpc-timeout"] = ("%dm"):format(math.ceil(left * 1000)) end
  ctx.vars.grpc_transcode = binding
end

-- ---------------------------------------------------------------- the response

-- Messages of a body that comes in pieces; raises what is no body of gRPC.
local function frames(input, max)
  local buffer, at = "", 1
  local function take(n)
    local size = #buffer - at + 1
    if size < n then
      local parts = { buffer:sub(at) }
      while size < n do
        local piece = input()
        if not piece then
          if size > 0 then refuse "the answer is cut within a message" end
          return nil
        end
        parts[#parts + 1] = piece
        size = size + #piece
      end
      buffer, at = table.concat(parts), 1
    end
    at = at + n
    return buffer:sub(at - n, at - 1)
  end
  return function()
    local head = take(5)
    if not head then return nil end
    local kind, a, b, c, d = head:byte(1, 5)
    local n = ((a * 256 + b) * 256 + c) * 256 + d
    if kind ~= 0 then refuse "a message is compressed, which was not asked for" end
    if n > max then refuse("a message of more than %d bytes", max) end
    return n == 0 and "" or take(n) or refuse "the answer is cut within a message"
  end
end

-- A message as it goes to the client: text, content type.
local function print_message(binding, bytes, state)
  local output = binding.call.output
  local message, err = output:decode(bytes)
  if not message then refuse("%s", err.message) end
  if output.name == HTTP_BODY then return message.data or "", message.content_type or "application/octet-stream" end
  local options = state.printing
  if binding.response_body then
    options = { field = binding.response_body }
    for name, value in pairs(state.printing) do options[name] = value end
  end
  local text, problem = output:to_json(message, options)
  if not text then refuse("%s", problem.message) end
  return text, "application/json"
end

-- What f has refused -> nil, why
local function guard(f, ...)
  local ok, a, b = pcall(f, ...)
  if ok then return a, b end
  if type(a) == "table" and a.transcode then return nil, a.transcode end
  error(a, 0)
end

-- What is between the gateway and the service only.
local OWN = { "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding" }

local function drop(fields)
  for _, name in ipairs(OWN) do
    if fields[name] then fields[name] = nil end
  end
end

local function set_error(res, code, message, details, status)
  drop(res.headers)
  res.status = status or STATUS[code]
  res:set_body(error_text(code, message, details) .. "\n")
  res.headers["Content-Type"] = "application/json"
end

local function answer_once(res, binding, conf, state)
  local body, err = res:text(conf.max_message + 5)
  if not body then return set_error(res, INTERNAL, err.message, "", 502) end
  local code, message, details = outcome(res, state)
  if code ~= 0 then return set_error(res, code, message, details) end
  local text, content_type = guard(function()
    local given = { body ~= "" and body or nil }
    local next_message = frames(function() return table.remove(given) end, conf.max_message)
    local first = next_message() or refuse "the service has sent no message"
    if next_message() then refuse "the service has sent more than one message" end
    return print_message(binding, first, state)
  end)
  if not text then return set_error(res, INTERNAL, content_type, "", 502) end
  drop(res.headers)
  res:set_body(text)
  res.headers["Content-Type"] = content_type
end

-- How messages stand in a stream: its type, what is before and behind each, and around an error.
local LINES = { type = "application/x-ndjson", before = "", after = "\n", error_before = '{"error":', error_after = "}\n" }
local EVENTS = { type = "text/event-stream", before = "data: ", after = "\n\n", error_before = "event: error\ndata: ", error_after = "\n\n" }
local BYTES = { type = "application/octet-stream", before = "", after = "" } -- which have no place for an error

local function form_of(ctx, binding)
  if binding.call.output.name == HTTP_BODY then return BYTES end
  local accept = ctx.req.original.headers["Accept"]
  return accept and accept:lower():find("text/event-stream", 1, true) and EVENTS or LINES
end

local function answer_stream(ctx, res, binding, conf, state)
  local form = form_of(ctx, binding)
  res.headers["Content-Type"] = form.type
  if form == EVENTS then res.headers["Cache-Control"] = "no-cache" end
  local is_told = res.headers["grpc-status"] -- in the head already, that all is well
  drop(res.headers)
  res:transform(function(input, write)
    local _, problem = guard(function()
      for bytes in frames(input, conf.max_message) do write(form.before .. print_message(binding, bytes, state) .. form.after) end
    end)
    local code, message, details = 0, nil, nil
    if problem then
      code, message, details = INTERNAL, problem, ""
    elseif not is_told then
      code, message, details = outcome(res, state)
    end
    drop(res.trailers)
    if code == 0 then return end
    if form == BYTES then error(message, 0) end -- cut visibly
    write(form.error_before .. error_text(code, message, details) .. form.error_after)
  end)
end

-- ---------------------------------------------------------------- plugin

local built = setmetatable({}, { __mode = "k" }) -- conf -> state: `check` and `setup` need the same

return {
  api = 1,
  doc = [[
Answer JSON over HTTP by gRPC services.
`descriptors` is a file that `protoc --include_imports --descriptor_set_out=FILE` has made; its `google.api.http` rules say which requests are which
calls. Answers and errors are JSON by the mapping of proto3; calls with a streamed response answer with a line of JSON for each message, or with an
event for clients that accept `text/event-stream`. An error has `code`, `message` and `details`, and in a stream it is the last line,
`{"error": ...}`, or an event `error`. A `google.api.HttpBody` is bytes as they are. Requests of gRPC itself pass as they are. The upstream needs
`http2 = true`. Calls that stream their request are not served; bodies have at most 32 levels.]],
  example = [[
route "library" { path = "/v1/*", to = "users", use = { { "grpc-transcode", descriptors = "api.pb" } } }]],

  schema = {
    descriptors = t.file { doc = "A FileDescriptorSet with all that it imports." },
    services = t.list(t.string(), { default = {}, max = 1000, doc = "Full names of the services that are served; none: all." }),
    unannotated = t.boolean { default = false, doc = "Methods without a rule are `POST /package.Service/Method` with the message as the body." },
    unmatched = t.enum { "refuse", "pass", default = "refuse", doc = "A request that no rule matches gets 404 or 405, or passes." },
    unknown = t.enum { "refuse", "ignore", default = "refuse", doc = "What becomes of members and query parameters that are no fields." },
    ignore_query = t.list(t.string(), { default = {}, max = 1000, doc = "Query parameters that are not meant for the service." }),
    print_defaults = t.boolean { default = false, doc = "Fields that have their default value are printed, too." },
    preserve_names = t.boolean { default = false, doc = "Fields are printed by the names of the .proto file, not in camelCase." },
    enum_numbers = t.boolean { default = false, doc = "Enums are printed as numbers." },
    max_body = t.size { default = "1MiB", min = 1, max = 64 * 2 ^ 20, doc = "Bytes of a request's body; more is answered by 413." },
    max_message = t.size { default = "4MiB", min = 1, max = 64 * 2 ^ 20, doc = "Bytes of a message of the answer." },
  },

  check = function(conf)
    local state, problem = guard(build, conf)
    if not state then return problem, "descriptors" end
    built[conf] = state
  end,

  setup = function(conf) return built[conf] end,

  access = function(ctx, conf, state)
    local req = ctx.req
    if (req.headers["Content-Type"] or ""):lower():find("application/grpc", 1, true) == 1 then return end
    local binding, segments = match(state.root, req.raw_path, req.method)
    if not binding then
      if conf.unmatched == "pass" then return end
      local allowed = {}
      for name in pairs(segments) do allowed[#allowed + 1] = name end
      if #allowed == 0 then return fail(NOT_FOUND, "no method has this path") end
      table.sort(allowed)
      return fail(UNIMPLEMENTED, "no method has this path with " .. req.method, 405, { Allow = table.concat(allowed, ", ") })
    end
    if binding.call.client_streaming then return fail(UNIMPLEMENTED, binding.call.path .. " streams its request, which JSON over HTTP cannot") end
    local bytes, response = translate(ctx, binding, segments, conf, state)
    if not bytes then return response end
    send(ctx, binding, bytes)
  end,

  response = function(ctx, conf, state)
    local res, binding = ctx.res, ctx.vars.grpc_transcode
    if not binding then return end
    if res.source ~= "upstream" then
      -- What the gateway itself says of an upstream; the answers of other plugins stay theirs.
      if res.source == "gateway" and res.status >= 500 then
        set_error(res, res.status == 504 and DEADLINE or UNAVAILABLE, "HTTP status " .. res.status, "", res.status)
      end
      return
    end
    if not (res.headers["Content-Type"] or ""):lower():find("application/grpc", 1, true) then
      return set_error(res, CODE[res.status] or 2, ("the upstream has answered %d, which is not gRPC"):format(res.status), "", 502)
    end
    if binding.call.server_streaming and (not res.headers["grpc-status"] or res.headers["grpc-status"] == "0") then
      return answer_stream(ctx, res, binding, conf, state)
    end
    answer_once(res, binding, conf, state)
  end,
}
