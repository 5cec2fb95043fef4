local near = require "runtime.near"
local report = require "runtime.report"
local request_file = require "tool.request_file"
local router = require "runtime.router"

local none = { header = function() end, query = function() end, connection = function() end }

local function build(list)
  for i, conf in ipairs(list) do conf.index, conf.name, conf.priority, conf.at = i, "r" .. i, conf.priority or 0, "test" end
  return list
end

-- "r2 method, r3 path": each with what it lacks, "" for nothing.
local function said(r, method, host, path, request)
  local parts = {}
  for i, entry in ipairs(near.routes(r, method, host, path, request or none)) do
    parts[i] = entry.conf.name .. (entry.misses[1] and " " .. entry.misses[1].what or "")
  end
  return table.concat(parts, ", ")
end

describe("near", function()
  it("tells what each route lacks that lacks one thing", function()
    local r = build {
      { path = { "/a/{x}" }, methods = { "GET" } }, { path = { "/a/{x}" }, methods = { "PUT" } }, { path = { "/a/*" } },
      { path = { "/a/{x}" }, headers = { ["X-Beta"] = "1" } }, { path = { "/a/b" }, host = { "one.test" } },
      { path = { "/a/b" }, host = { "*.test" }, methods = { "PUT" } }, { path = { "/z" } },
    }
    expect(said(r, "GET", "two.test", "/a/b")):equals("r1, r3, r2 method, r4 header X-Beta, r5 host, r6 method")
    expect(said(r, "GET", "one.test", "/a/b")):equals("r1, r3, r5, r2 method, r4 header X-Beta, r6 method")
  end)

  it("knows a path that is one segment away, or spelled alike", function()
    local r = build { { path = { "/orders/{id}" } }, { path = { "/orders/{id}/lines" } }, { path = { "/users/*" } }, { path = { "/orders" } } }
    expect(said(r, "GET", "", "/orders/1/lines")):equals("r2, r1 path")
    expect(said(r, "GET", "", "/ordrs/1")):equals("r1 path")
    expect(said(r, "GET", "", "/user/1")):equals("r3 path")
    expect(said(r, "GET", "", "/other/1")):equals("")
  end)

  it("says of the route that answers that it lacks nothing, whatever there is", function()
    local segments, confs = { "a", "b", "{x}", "c" }, {}
    local function some_path(from)
      local parts = {}
      for i = 1, math.random(0, 3) do parts[i] = from[math.random(#from)]:gsub("{x}", "{x" .. i .. "}") end
      return "/" .. table.concat(parts, "/")
    end
    local seen = {}
    for _ = 1, 40 do
      local path = some_path(segments)
      if math.random(3) == 1 and path ~= "/" then path = path .. "/*" end
      if not seen[path:gsub("{x%d}", "{}")] then confs[#confs + 1] = { path = { path } } end
      seen[path:gsub("{x%d}", "{}")] = true
    end
    local r = router.build(build(confs), report.new())
    for _ = 1, 500 do
      local path = some_path { "a", "b", "c", "d" }
      local answer, holds = r:match("GET", "", path, none), false
      for _, entry in ipairs(near.routes(confs, "GET", "", path, none)) do
        if #entry.misses == 0 then
          if not answer then error("a route matches " .. path .. " for `near` alone") end
          holds = holds or entry.conf.index == answer
        end
      end
      expect(holds):equals(answer ~= nil)
    end
  end)
end)

describe("request_file", function()
  local function heads(text)
    local list = {}
    for i, request in ipairs(request_file.parse(text)) do list[i] = request.head or "problem" end
    return list
  end

  it("reads what editors and curl write", function()
    expect(heads "GET /a HTTP/1.1\nHost: x\n\nbody\n"):equals { "GET /a HTTP/1.1\r\nHost: x\r\n\r\n" }
    expect(heads "### one\n\n# note\nGET http://h.test/a\nX: 1\n\n### two\r\nPUT /b HTTP/1.1\r\nHost: y"):equals {
      "GET http://h.test/a HTTP/1.1\r\nHost: h.test\r\nX: 1\r\n\r\n", "PUT /b HTTP/1.1\r\nHost: y\r\n\r\n" }
    local curl = "* Connected\n> GET /c HTTP/2\n> Host: z\n> \n< HTTP/2 200\n< server: x\n{ data }\n"
    expect(heads(curl)):equals { "GET /c HTTP/1.1\r\nHost: z\r\n\r\n" }
    expect(request_file.parse(curl)[1].protocol):equals "h2"
  end)

  it("reads lines of JSON, whose values cannot make lines of their own", function()
    expect(heads '{"method":"GET","host":"h","path":"/a b","query":"q=1"}\n\n{"path":"/\\r\\nX: 1","host":"h"}\n{oops\n'):equals {
      "GET /a%20b?q=1 HTTP/1.1\r\nHost: h\r\n\r\n", "GET /%0D%0AX:%201 HTTP/1.1\r\nHost: h\r\n\r\n", "problem" }
    local tail = ': the tail begins\n\ndata: {"method":"PUT","host":"h","path":"/t"}\n\n: nothing\n\n'
    expect(heads(tail)):equals { "PUT /t HTTP/1.1\r\nHost: h\r\n\r\n" }
  end)
end)
