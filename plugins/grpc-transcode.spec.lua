-- What protoc has made of this file, with --descriptor_set_out:
--   syntax = "proto3";
--   package lib;
--   import "google/api/annotations.proto";
--   enum Kind { KIND_UNSPECIFIED = 0; NOVEL = 1; }
--   message Book { string name = 1; string title = 2; int64 pages = 3; Kind kind = 4; repeated string tags = 5; Author author = 6; }
--   message Author { string name = 1; bool alive = 2; repeated int32 years = 3; }
--   message Get { string name = 1; int32 version = 2; }
--   message Put { string shelf = 1; Book book = 2; repeated string tags = 3; }
--   message List { repeated Book books = 1; string next = 2; }
--   service Library {
--     rpc GetBook(Get) returns (Book) {
--       option (google.api.http) = { get: "/v1/{name=shelves/*/books/*}"
--         additional_bindings { get: "/v1/books/{name}" } additional_bindings { get: "/v1/files/{name=**}" } };
--     }
--     rpc Create(Put) returns (Book) { option (google.api.http) = { post: "/v1/shelves/{shelf}/books" body: "book" }; }
--     rpc Update(Book) returns (Book) { option (google.api.http) = { patch: "/v1/update/{author.name}" body: "*" }; }
--     rpc Query(Book) returns (List) { option (google.api.http) = { get: "/v1/query" response_body: "books" }; }
--     rpc Move(Get) returns (Book) { option (google.api.http) = { post: "/v1/{name=shelves/*}:move"
--         additional_bindings { custom { kind: "MOVE" path: "/v1/move/{name}" } } }; }
--     rpc Remove(Get) returns (Book) { option (google.api.http) = { delete: "/v1/books/{name}"
--         additional_bindings { put: "/v1/books/special" body: "*" } }; }
--     rpc Watch(Get) returns (stream Book) { option (google.api.http) = { get: "/v1/watch/{name}" }; }
--     rpc Upload(stream Book) returns (List) { option (google.api.http) = { post: "/v1/upload" body: "*" }; }
--     rpc Plain(Get) returns (Book);
--   }
local SET = table.concat {
  "CowJCglsaWIucHJvdG8SA2xpYhocZ29vZ2xlL2FwaS9hbm5vdGF0aW9ucy5wcm90byKeAQoEQm9vaxISCgRuYW1lGAEgASgJUgRuYW1lEhQKBXRpdGxlGAIgASgJUgV0aXRsZRIUCgVw",
  "YWdlcxgDIAEoA1IFcGFnZXMSHQoEa2luZBgEIAEoDjIJLmxpYi5LaW5kUgRraW5kEhIKBHRhZ3MYBSADKAlSBHRhZ3MSIwoGYXV0aG9yGAYgASgLMgsubGliLkF1dGhvclIGYXV0aG9y",
  "IkgKBkF1dGhvchISCgRuYW1lGAEgASgJUgRuYW1lEhQKBWFsaXZlGAIgASgIUgVhbGl2ZRIUCgV5ZWFycxgDIAMoBVIFeWVhcnMiMwoDR2V0EhIKBG5hbWUYASABKAlSBG5hbWUSGAoH",
  "dmVyc2lvbhgCIAEoBVIHdmVyc2lvbiJOCgNQdXQSFAoFc2hlbGYYASABKAlSBXNoZWxmEh0KBGJvb2sYAiABKAsyCS5saWIuQm9va1IEYm9vaxISCgR0YWdzGAMgAygJUgR0YWdzIjsK",
  "BExpc3QSHwoFYm9va3MYASADKAsyCS5saWIuQm9va1IFYm9va3MSEgoEbmV4dBgCIAEoCVIEbmV4dConCgRLaW5kEhQKEEtJTkRfVU5TUEVDSUZJRUQQABIJCgVOT1ZFTBABMv0ECgdM",
  "aWJyYXJ5Em8KB0dldEJvb2sSCC5saWIuR2V0GgkubGliLkJvb2siT4LT5JMCSRIcL3YxL3tuYW1lPXNoZWx2ZXMvKi9ib29rcy8qfVoSEhAvdjEvYm9va3Mve25hbWV9WhUSEy92MS9m",
  "aWxlcy97bmFtZT0qKn0SRgoGQ3JlYXRlEggubGliLlB1dBoJLmxpYi5Cb29rIieC0+STAiEiGS92MS9zaGVsdmVzL3tzaGVsZn0vYm9va3M6BGJvb2sSQwoGVXBkYXRlEgkubGliLkJv",
  "b2saCS5saWIuQm9vayIjgtPkkwIdMhgvdjEvdXBkYXRlL3thdXRob3IubmFtZX06ASoSNwoFUXVlcnkSCS5saWIuQm9vaxoJLmxpYi5MaXN0IhiC0+STAhISCS92MS9xdWVyeWIFYm9v",
  "a3MSWQoETW92ZRIILmxpYi5HZXQaCS5saWIuQm9vayI8gtPkkwI2IhkvdjEve25hbWU9c2hlbHZlcy8qfTptb3ZlWhlCFwoETU9WRRIPL3YxL21vdmUve25hbWV9Ek8KBlJlbW92ZRII",
  "LmxpYi5HZXQaCS5saWIuQm9vayIwgtPkkwIqKhAvdjEvYm9va3Mve25hbWV9WhYaES92MS9ib29rcy9zcGVjaWFsOgEqEjgKBVdhdGNoEggubGliLkdldBoJLmxpYi5Cb29rIhiC0+ST",
  "AhISEC92MS93YXRjaC97bmFtZX0wARI3CgZVcGxvYWQSCS5saWIuQm9vaxoJLmxpYi5MaXN0IhWC0+STAg8iCi92MS91cGxvYWQ6ASooARIcCgVQbGFpbhIILmxpYi5HZXQaCS5saWIu",
  "Qm9va2IGcHJvdG8z",
}

local bytes = tg.crypto.unbase64(SET)
local set = assert(tg.protobuf.load(bytes))
local kinds = { GetBook = "Get", Create = "Put", Update = "Book", Query = "Book", Move = "Get", Remove = "Get", Watch = "Get", Plain = "Get" }

local function frame(message)
  local n = #message
  return string.char(0, 0, math.floor(n / 65536), math.floor(n / 256) % 256, n % 256) .. message
end

-- A service over HTTP/1.1, so its code stands in the head. It answers with a book whose title is what it was asked, as JSON.
local function library(headers, body, status)
  return test.upstream(function(req)
    local name = req.target:match "^/lib%.Library/(%a+)$"
    local answer = { ["Content-Type"] = "application/grpc", ["grpc-status"] = 0, ["X-Timeout"] = req.headers["grpc-timeout"] }
    for field, value in pairs(headers or {}) do answer[field] = value end
    if not name then return status or 200, req.method .. " " .. req.target, { ["Content-Type"] = "text/plain" } end
    local asked = set:message("lib." .. kinds[name])
    local message = asked:decode(req.body:sub(6))
    local book = { title = name .. " " .. asked:to_json(message), kind = "NOVEL", pages = "7" }
    local kind = set:message "lib.Book"
    if name == "Query" then
      book, kind = { books = { book }, next = "x" }, set:message "lib.List"
    end
    return status or 200, body or frame(kind:encode(book)), answer
  end)
end

local function gateway(conf, to)
  local use = { "grpc-transcode", descriptors = "api.pb" }
  for name, value in pairs(conf or {}) do use[name] = value end
  use.bytes = nil
  return test.gateway { to = to or library(), use = { use }, files = { ["api.pb"] = conf and conf.bytes or bytes } }
end

-- What the service was asked, in words.
local function asked(answer)
  expect(answer.status):equals(200)
  expect(answer.headers["Content-Type"]):equals "application/json"
  return answer:json().title
end

local function refused(answer, status, code, what)
  expect(answer.status):equals(status)
  expect(answer.headers["Content-Type"]):equals "application/json"
  local body = answer:json()
  expect(body.code):equals(code)
  if not body.message:find(what, 1, true) then expect(body.message):equals(what) end
  expect(#body.details):equals(0)
end

local function json(method, body, more)
  local headers = { ["Content-Type"] = "application/json" }
  for name, value in pairs(more or {}) do headers[name] = value end
  return { method = method, body = body, headers = headers }
end

describe("grpc-transcode", function()
  it("finds methods by their paths: literals before variables, variables of one segment and of many, verbs", function()
    local gw = gateway()
    expect(asked(gw:get "/v1/shelves/a%20b/books/c")):equals 'GetBook {"name":"shelves/a b/books/c"}'
    expect(asked(gw:get "/v1/books/x")):equals 'GetBook {"name":"x"}'
    expect(asked(gw:get "/v1/files/a/b/c.txt")):equals 'GetBook {"name":"a/b/c.txt"}'
    expect(asked(gw:get "/v1/files/a:b")):equals 'GetBook {"name":"a:b"}'
    expect(asked(gw:get "/v1/files")):equals "GetBook {}"
    expect(asked(gw:post "/v1/shelves/3:move")):equals 'Move {"name":"shelves/3"}'
    expect(asked(gw:delete "/v1/books/x")):equals 'Remove {"name":"x"}'
    expect(asked(gw:put("/v1/books/special", json("PUT", '{"version":3}')))):equals 'Remove {"version":3}'
    expect(asked(gw:get "/v1/books/special")):equals 'GetBook {"name":"special"}' -- whose literal has another method
    expect(asked(gw:request("MOVE", "/v1/move/x"))):equals 'Move {"name":"x"}'
    refused(gw:get "/v1/shelves/a/books", 405, 12, "no method has this path with GET")
    expect(gw:get("/v1/shelves/a/books").headers["Allow"]):equals "POST"
    expect(gw:post("/v1/books/x").headers["Allow"]):equals "DELETE, GET, HEAD"
    refused(gw:get "/v1/books/", 404, 5, "no method has this path")
    refused(gw:get "/v1/shelves/a/books/b/c", 404, 5, "no method has this path")
    refused(gw:post "/v1/shelves/3:copy", 404, 5, "no method has this path")
    local head = gw:head "/v1/books/x"
    expect(head.status):equals(200)
    expect(head.body):equals ""
    expect(head.headers["Content-Length"]):equals(tostring(#gw:get("/v1/books/x").body))
    refused(gw:post "/lib.Library/Plain", 404, 5, "no method has this path")
    refused(gw:post "/v1/upload", 501, 12, "/lib.Library/Upload streams its request")
  end)

  it("makes the message of body, path and query", function()
    local gw = gateway()
    expect(asked(gw:post("/v1/shelves/s/books?tags=a&tags=b", json("POST", '{"title":"t","pages":"12"}')))):equals
      'Create {"shelf":"s","book":{"title":"t","pages":"12"},"tags":["a","b"]}'
    expect(asked(gw:patch("/v1/update/ann", json("PATCH", '{"title":"t","author":{"name":"bob","alive":true}}')))):equals
      'Update {"title":"t","author":{"name":"ann","alive":true}}'
    expect(asked(gw:patch("/v1/update/ann"))):equals 'Update {"author":{"name":"ann"}}'
    expect(gw:get("/v1/query?title=a+b&author.alive=true&author.years=1&author.years=2&kind=NOVEL").body):equals(
      '[{"title":"Query {\\"title\\":\\"a b\\",\\"kind\\":\\"NOVEL\\",'
      .. '\\"author\\":{\\"alive\\":true,\\"years\\":[1,2]}}","pages":"7","kind":"NOVEL"}]')
    expect(asked(gw:get "/v1/books/x?version=2")):equals 'GetBook {"name":"x","version":2}'
  end)

  it("refuses what is no message", function()
    local gw = gateway { max_body = 100 }
    local path = "/v1/shelves/s/books"
    refused(gw:post(path, json("POST", "{")), 400, 3, "malformed JSON: line 1")
    refused(gw:post(path, json("POST", "[]")), 400, 3, "found a list, expected an object")
    refused(gw:post(path, json("POST", '{"nothing":1}')), 400, 3, 'there is no field "nothing" in lib.Book')
    refused(gw:post(path, json("POST", '{"pages":"x"}')), 400, 3, 'book.pages: found "x", expected a whole number of 64 bits')
    refused(gw:post(path, { body = "a=1", headers = { ["Content-Type"] = "application/x-www-form-urlencoded" } }), 415, 3, "no JSON")
    refused(gw:post(path, json("POST", '{"title":"' .. ("x"):rep(100) .. '"}')), 413, 8, "larger than 100 bytes")
    refused(gw:get "/v1/books/x?version=two", 400, 3, 'version: found "two"')
    refused(gw:get "/v1/books/x?version=1&version=2", 400, 3, "version: is given more than once")
    refused(gw:get "/v1/books/x?name=y", 400, 3, 'the query has "name"')
    refused(gw:post("/v1/shelves/s/books?book.title=t", json("POST", "{}")), 400, 3, 'the query has "book.title"')
    refused(gw:get "/v1/books/x?other=1", 400, 3, 'there is no field "other" in lib.Get')
    refused(gw:get("/v1/query?" .. ("tags=a&"):rep(1001)), 400, 3, "more than 1000 query parameters")
    refused(gw:get "/v1/query?author=1", 400, 3, "author: is a message")
    refused(gw:get "/v1/query?author.alive=yes", 400, 3, 'author.alive: found "yes"')
  end)

  it("ignores what it may ignore", function()
    local gw = gateway { unknown = "ignore", ignore_query = { "version" } }
    expect(asked(gw:get "/v1/books/x?other=1&version=9")):equals 'GetBook {"name":"x"}'
    expect(asked(gw:patch("/v1/update/a", json("PATCH", '{"nothing":[1],"title":"t"}')))):equals 'Update {"title":"t","author":{"name":"a"}}'
  end)

  it("prints as it is told", function()
    local gw = gateway { print_defaults = true, preserve_names = true, enum_numbers = true }
    expect(gw:get("/v1/books/x").body):equals
      '{"name":"","title":"GetBook {\\"name\\":\\"x\\"}","pages":"7","kind":1,"tags":[]}'
  end)

  it("serves methods without a rule when it is told to, and lets pass what it does not know", function()
    local gw = gateway { unannotated = true, unmatched = "pass" }
    expect(asked(gw:post("/lib.Library/Plain", json("POST", '{"name":"x"}')))):equals 'Plain {"name":"x"}'
    expect(gw:get("/other?a=b").body):equals "GET /other?a=b"
    local raw = gw:post("/lib.Library/Plain", { body = frame "", headers = { ["Content-Type"] = "application/grpc+proto" } })
    expect(raw.headers["Content-Type"]):equals "application/grpc"
    expect(raw.headers["X-Timeout"]):equals(nil)
    expect(gw:get("/v1/books/x").headers["X-Timeout"]:find "^%d+m$" ~= nil):equals(true)
  end)

  it("tells errors of the service, with their details", function()
    local status = tg.protobuf.load(bytes):message "google.rpc.Status"
    local detail = set:message("lib.Get"):encode { name = "why" }
    local info = status:encode { code = 5, message = "x", details = {
      { type_url = "type.googleapis.com/lib.Get", value = detail }, { type_url = "type.googleapis.com/other.Type", value = "ab" },
    } }
    local gw = gateway(nil, library({ ["grpc-status"] = 5, ["grpc-message"] = "no %C3%A4 book", ["grpc-status-details-bin"] =
      tg.crypto.base64(info):gsub("=", "") }, ""))
    local answer = gw:get "/v1/books/x"
    expect(answer.status):equals(404)
    expect(answer.body):equals('{"code":5,"message":"no \195\164 book","details":[{"@type":"type.googleapis.com/lib.Get","name":"why"},'
      .. '{"@type":"type.googleapis.com/other.Type","value":"YWI="}]}\n')
    expect(answer.headers["grpc-status"]):equals(nil)
    expect(answer.headers["grpc-message"]):equals(nil)
  end)

  it("maps every code to a status of HTTP", function()
    local wanted = { 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401 }
    for _, code in ipairs { 1, 7, 16 } do
      expect(gateway(nil, library({ ["grpc-status"] = code }, "")):get("/v1/books/x").status):equals(wanted[code])
    end
    local answer = gateway(nil, library({ ["grpc-status"] = 99 }, "")):get "/v1/books/x"
    refused(answer, 500, 2, "")
  end)

  it("tells answers that are none of gRPC", function()
    refused(gateway(nil, library { ["Content-Type"] = "text/html" }):get "/v1/books/x", 502, 2, "the upstream has answered 200, which is not gRPC")
    refused(gateway(nil, library(nil, "")):get "/v1/books/x", 502, 13, "the service has sent no message")
    refused(gateway(nil, library(nil, frame "" .. frame "")):get "/v1/books/x", 502, 13, "more than one message")
    refused(gateway(nil, library(nil, "\0\0\0\0\9x")):get "/v1/books/x", 502, 13, "cut within a message")
    refused(gateway(nil, library(nil, "\1\0\0\0\0")):get "/v1/books/x", 502, 13, "a message is compressed")
    refused(gateway(nil, library(nil, frame "\18\9x")):get "/v1/books/x", 502, 13, "malformed message of lib.Book")
    refused(gateway({ max_message = 10 }, library(nil, frame(("\18\1x"):rep(9)))):get "/v1/books/x", 502, 13, "larger than")
    local origin = library()
    local gw = gateway(nil, origin)
    origin:stop()
    refused(gw:get "/v1/books/x", 502, 14, "HTTP status 502")
  end)

  it("streams answers as lines, or as events, and an error last", function()
    local first, second = frame(set:message("lib.Book"):encode { title = "a" }), frame(set:message("lib.Book"):encode { pages = "2" })
    local gw = gateway(nil, library(nil, first .. second))
    local answer = gw:get "/v1/watch/x"
    expect(answer.headers["Content-Type"]):equals "application/x-ndjson"
    expect(answer.body):equals '{"title":"a"}\n{"pages":"2"}\n'
    answer = gw:get("/v1/watch/x", { headers = { Accept = "text/event-stream" } })
    expect(answer.headers["Content-Type"]):equals "text/event-stream"
    expect(answer.body):equals 'data: {"title":"a"}\n\ndata: {"pages":"2"}\n\n'
    gw = gateway(nil, library(nil, first .. "\0\0\0\0\9x"))
    answer = gw:get "/v1/watch/x"
    expect(answer.body):equals '{"title":"a"}\n{"error":{"code":13,"message":"the answer is cut within a message","details":[]}}\n'
    answer = gw:get("/v1/watch/x", { headers = { Accept = "text/event-stream" } })
    expect(answer.body:find("\n\nevent: error\ndata: {\"code\":13,", 1, true) ~= nil):equals(true)
    refused(gateway(nil, library({ ["grpc-status"] = 7, ["grpc-message"] = "no" }, "")):get "/v1/watch/x", 403, 7, "no")
  end)

  it("says at load what is wrong with the file", function()
    local function wrong(conf, what)
      local ok, err = pcall(gateway, conf)
      expect(ok):equals(false)
      if not err:find(what, 1, true) then expect(err):equals(what) end
      if not err:find("descriptors", 1, true) then expect(err):equals "descriptors" end
    end
    local function with(from, to)
      local found = bytes:find(from, 1, true)
      return { bytes = bytes:sub(1, found - 1) .. to .. bytes:sub(found + #from) }
    end
    wrong({ descriptors = "none.pb" }, "No such file")
    wrong({ descriptors = 5 }, "the path of a file")
    wrong({ bytes = "syntax" }, "no set of descriptors: ")
    wrong({ bytes = bytes:sub(1, 300) }, "the message is cut")
    wrong({ services = { "lib.Libary" } }, 'there is no service "lib.Libary"')
    wrong(with("/v1/books/{name}", "/v1/books/{nome}"), '/lib.Library/GetBook: there is no field "nome" in lib.Get')
    wrong(with("/v1/books/{name}", "/v1/books/{names"), "a segment that is none")
    wrong(with("/v1/books/{name}", "/v1//books{name}"), "a segment that is none")
    wrong(with("/v1/books/{name}", "/v1/books/{na }}"), "a variable that is none")
    wrong(with("/v1/books/{name}", "/v1/**/aa/{name}"), "** is the last segment")
    wrong(with("/v1/books/{name}", "_v1/books/{name}"), "does not begin with a slash")
    wrong(with("/v1/shelves/{shelf}/books", "/v1/shelve/{tags}/books/x"), "is a list")
    wrong(with("/v1/files/{name=**}", "/v1/{name=books/*}x"), "a variable that is none")
    wrong(with("/v1/files/{name=**}", "/v1/{name=/books/*}"), "a segment that is none")
    wrong(with("/v1/files/{name=**}", "/v1/{name=books/*}/"), "a segment that is none")
    wrong(with("/v1/watch/{name}", "/v1/books/{name}"), "/lib.Library/GetBook and /lib.Library/Watch are both GET /v1/books/{name}")
  end)
end)
