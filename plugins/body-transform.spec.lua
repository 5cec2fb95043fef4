local JSON = { ["Content-Type"] = "application/json" }

-- A gateway whose upstream says what it got, and answers with `answer`.
local function gateway(conf, answer, headers)
  local echo = test.upstream(function(req) return 200, answer or req.body, headers or JSON end)
  conf[1] = "body-transform"
  return test.gateway { route = { all = { path = "/*", to = echo, use = { conf } } } }
end

local function operations(list) return { response = { operations = list } } end

local function transformed(list, body)
  return gateway(operations(list), body):get("/"):json()
end

describe("body-transform", function()
  it("adds, sets and removes by path, through lists", function()
    local body = '{"a":1,"items":[{"price":1,"x":1},{"price":2,"x":2}],"list":[1,2,3],"empty":[],"id":1234567890123456789}'
    local gw = gateway(operations {
      { op = "add", path = "a", value = 5 }, { op = "add", path = "b.c", value = { deep = true } },
      { op = "set", path = "items.currency", value = "EUR" },
      { op = "remove", path = "items.x" }, { op = "set", path = "items.0.price", value = 9 }, { op = "remove", path = "list.1" },
      { op = "set", path = "list.-", value = 4 },
    }, body)
    local answer = gw:get "/"
    expect(tg.json.decode(answer.body)):equals(tg.json.decode('{"a":1,"b":{"c":{"deep":true}},"empty":[],"id":1234567890123456789,'
      .. '"items":[{"price":9,"currency":"EUR"},{"price":2,"currency":"EUR"}],"list":[1,3,4]}'))
    expect(answer.body):matches '"empty":[]'
    expect(answer.body):matches '"id":1234567890123456789'
  end)

  it("renames, moves, copies and keeps", function()
    expect(transformed({ { op = "rename", path = "items.n", to = "name" }, { op = "move", path = "user.id", to = "owner.id" },
      { op = "copy", path = "items.0", to = "first" } }, '{"items":[{"n":"a"},{"n":"b"}],"user":{"id":1,"x":2}}')):equals {
      items = { { name = "a" }, { name = "b" } }, user = { x = 2 }, owner = { id = 1 }, first = { name = "a" },
    }
    expect(transformed({ { op = "keep", paths = { "id", "items.name" } } }, '{"id":1,"secret":2,"items":[{"name":"a","x":1},{"name":"b"}]}')):equals {
      id = 1, items = { { name = "a" }, { name = "b" } },
    }
    expect(transformed({ { op = "keep", paths = { "id" } } }, '[{"id":1,"x":2},{"id":2}]')):equals { { id = 1 }, { id = 2 } }
  end)

  it("puts variables in, each with its type", function()
    local gw = gateway { request = { operations = {
      { op = "set", path = "who", value = "${header.X-Who}" }, { op = "set", path = "total", value = "${body.items.0.price}" },
      { op = "set", path = "text", value = "costs ${body.items.0.price}" }, { op = "set", path = "deep", value = { list = { "${query.q}", 1 } } },
      { op = "set", path = "none", value = "${body.nothing}" },
    } } }
    local headers = { ["Content-Type"] = "application/json", ["X-Who"] = 'a"b' }
    local answer = gw:post("/?q=a%22b", { headers = headers, body = '{"items":[{"price":1.5}]}' })
    expect(answer:json()):equals { who = 'a"b', total = 1.5, text = "costs 1.5", deep = { list = { 'a"b', 1 } }, items = { { price = 1.5 } } }
  end)

  it("makes a body of a template", function()
    local gw = gateway({ response = { template = '{"name":${body.user.name},"all":${body},"ip":${client.ip}}' } }, '{"user":{"name":"a\\"b"}}')
    expect(gw:get("/"):json()):equals { name = 'a"b', all = { user = { name = 'a"b' } }, ip = "127.0.0.1" }
  end)

  it("translates XML", function()
    local xml = [=[<?xml version="1.0"?><order id="7" xmlns="urn:x"><item sku="a">tea &amp; cup</item><item sku="b"/>]=]
      .. "<note>be<![CDATA[ <quick>]]></note><empty/></order>"
    local gw = gateway({ response = { convert = "xml-to-json" } }, xml, { ["Content-Type"] = "text/xml" })
    local answer = gw:get "/"
    expect(answer:json()):equals { order = {
      ["@id"] = "7", ["@xmlns"] = "urn:x", item = { { ["@sku"] = "a", ["#text"] = "tea & cup" }, { ["@sku"] = "b" } },
      note = "be <quick>", empty = tg.null,
    } }
    expect(answer.headers["Content-Type"]):equals "application/json"
    gw = gateway({ response = { convert = "json-to-xml", root = "list" } }, '{"a":{"@x":"1\\"","#text":"<t>"},"b":[1,true,null],"c":"ä"}')
    answer = gw:get "/"
    expect(answer.headers["Content-Type"]):equals "application/xml"
    expect(answer.body):equals '<?xml version="1.0" encoding="UTF-8"?>\n<list><a x="1&quot;">&lt;t&gt;</a><b>1</b><b>true</b><b/><c>ä</c></list>\n'
  end)

  it("translates forms", function()
    local gw = gateway { request = { convert = "form-to-json" } }
    local answer = gw:post("/", { headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }, body = "a=1&b=x%20y&a=2" })
    expect(answer:json()):equals { a = { "1", "2" }, b = "x y" }
    gw = gateway({ response = { convert = "json-to-form" } }, '{"b":"x y","a":[1,2]}')
    expect(gw:get("/").body):equals "a=1&a=2&b=x%20y"
    gw = gateway({ response = { convert = "json-to-form" } }, '{"a":{"b":1}}')
    expect(gw:get("/").status):equals(502)
  end)

  it("says what is wrong, and lets pass what is not meant", function()
    local rule = { { op = "set", path = "a", value = 1 } }
    local gw = gateway { request = { operations = rule, max_body = 100 } }
    local answer = gw:post("/", { headers = JSON, body = '{"a":\n01}' })
    expect(answer.status):equals(400)
    expect(answer.body):matches "line 2, column 1"
    expect(gw:post("/", { headers = JSON, body = ('"%s"'):format(("x"):rep(200)) }).status):equals(413)
    expect(gw:post("/", { headers = { ["Content-Type"] = "text/plain" }, body = "not json" }).body):equals "not json"
    expect(gateway({ response = { operations = rule } }, "no json"):get("/").status):equals(502)
    expect(gateway({ response = { operations = rule, on_invalid = "pass" } }, "no json"):get("/").body):equals "no json"
    expect(gateway({ response = { operations = rule, statuses = { 404 } } }, "{}"):get("/").body):equals "{}"
    for _, bomb in ipairs {
      '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "<a>" .. ("<b>"):rep(40) .. ("</b>"):rep(40) .. "</a>", "<a>", "<a></b>", "",
      "<a>\0</a>", "<a>\255</a>", "&x;",
    } do
      local xml = gateway({ request = { convert = "xml-to-json" } })
      expect(xml:post("/", { headers = { ["Content-Type"] = "text/xml" }, body = bomb }).status):equals(400)
    end
    for _, bad in ipairs { '{"a b":1}', '{"<x>":1}', '{"a":"\\u0001"}', '{"a":{"@x":{}}}', '{"":1}' } do
      expect(gateway({ response = { convert = "json-to-xml" } }, bad):get("/").status):equals(502)
    end
  end)

  it("names what is wrong with its configuration", function()
    for message, conf in pairs {
      ["changes nothing"] = { request = {} }, ["set needs `value`"] = operations { { op = "set", path = "a" } },
      ['found     "sett"'] = operations { { op = "sett" } },
      ['unknown variable "bodi.x"'] = operations { { op = "set", path = "a", value = "x ${bodi.x}" } },
    } do
      local ok, err = pcall(gateway, conf)
      expect(ok):equals(false)
      expect(err):matches(message)
    end
  end)
end)
