describe("tracing", function()
  local TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

  -- A collector, and an origin that answers what it was sent.
  local function parts()
    local collector = test.upstream(200)
    local origin = test.upstream(function(req)
      local status = tonumber(req.target:match "^/(%d%d%d)$") or 200
      return status, { parent = req.headers.traceparent or tg.null, state = req.headers.tracestate or tg.null, b3 = req.headers.b3 or tg.null }
    end)
    return collector, origin
  end

  local function gateway(collector, origin, use)
    use[1], use.upstream, use.every = "tracing", "collector", "50ms"
    if use.protocol == nil then use.protocol = "json" end
    return test.gateway { upstream = { collector = collector }, to = origin, global = { use } }
  end

  -- How many portions the collector has got, when that is at least `n`, or a second has passed.
  local function portions(collector, n)
    for _ = 1, 50 do
      if collector.requests >= n then break end
      test.sleep(0.02)
    end
    return collector.requests
  end

  it("records the request and its attempt, in the trace of the client", function()
    local collector, origin = parts()
    local gw = gateway(collector, origin, { ratio = 0 })
    local seen = gw:get("/a?x=1", { headers = { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-01", tracestate = "a=1" } }):json()
    expect(seen.parent:sub(4, 35)):equals(TRACE)
    expect(seen.parent:sub(37, 52) ~= SPAN):is_true()
    expect(seen.parent:sub(-2)):equals "01"
    expect(seen.state):equals "a=1"
    expect(portions(collector, 1)):equals(1)
  end)

  it("passes on what is not recorded, and makes a trace where there is none", function()
    local collector, origin = parts()
    local gw = gateway(collector, origin, { ratio = 0 })
    local given = "00-" .. TRACE .. "-" .. SPAN .. "-00"
    expect(gw:get("/", { headers = { traceparent = given, tracestate = "a=1" } }):json()):equals { parent = given, state = "a=1", b3 = tg.null }
    local made = gw:get("/", { headers = { tracestate = "a=1" } }):json()
    expect(made.parent:match "^00%-%x+%-%x+%-00$" ~= nil and made.state == tg.null):is_true()
    local other = gw:get("/", { headers = { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-0", tracestate = "a=1" } }):json()
    expect(other.parent:find(TRACE, 1, true)):is_nil()
    expect(other.state):equals(tg.null)
    test.sleep(0.2)
    expect(collector.requests):equals(0)
  end)

  it("records what has failed although it was not chosen, unless told not to", function()
    for _, errors in ipairs { true, false } do
      local collector, origin = parts()
      local gw = gateway(collector, origin, { ratio = 0, errors = errors })
      expect(gw:get("/503"):json().parent:sub(-2)):equals "00"
      test.sleep(0.2)
      expect(collector.requests):equals(errors and 1 or 0)
    end
  end)

  it("ignores what the client has decided, when told so", function()
    local collector, origin = parts()
    local gw = gateway(collector, origin, { ratio = 0, parent = "ignore" })
    local seen = gw:get("/", { headers = { traceparent = "00-" .. TRACE .. "-" .. SPAN .. "-01" } }):json()
    expect(seen.parent):equals("00-" .. TRACE .. "-" .. SPAN .. "-00")
  end)

  it("records so many a second and no more", function()
    local collector, origin = parts()
    local gw = gateway(collector, origin, { ratio = 1, per_second = 0.01 })
    local recorded = 0
    for _ = 1, 5 do recorded = recorded + tonumber(gw:get("/"):json().parent:sub(-2)) end
    expect(recorded):equals(1)
  end)

  it("records what is signed, and takes the signature away", function()
    local collector = test.upstream(200)
    local origin = test.upstream(function(req) return 200, { parent = req.headers.traceparent, force = req.headers["x-trace-force"] or tg.null } end)
    local gw = gateway(collector, origin, { ratio = 0, force = { secret = "k" } })
    local function forced(till, key)
      local text = ("%d"):format(till)
      local value = text .. "." .. tg.crypto.hex(tg.crypto.hmac("sha256", key, text))
      local seen = gw:get("/", { headers = { ["X-Trace-Force"] = value } }):json()
      expect(seen.force):equals(tg.null)
      return seen.parent:sub(-2)
    end
    expect(forced(os.time() + 60, "k")):equals "01"
    expect(forced(os.time() + 60, "other")):equals "00"
    expect(forced(os.time() - 60, "k")):equals "00"
    expect(forced(os.time() + 7200, "k")):equals "00"
  end)

  it("reads and writes the formats of others", function()
    local collector, origin = parts()
    local gw = gateway(collector, origin, { ratio = 1, extract = { "w3c", "b3" }, inject = { "w3c", "b3" }, response_header = "X-Trace-Id" })
    local answer = gw:get("/", { headers = { b3 = TRACE .. "-" .. SPAN .. "-1" } })
    local seen = answer:json()
    expect(seen.parent:sub(4, 35)):equals(TRACE)
    expect(seen.b3):equals(TRACE .. "-" .. seen.parent:sub(37, 52) .. "-1")
    expect(answer.headers["X-Trace-Id"]):equals(TRACE)
    local unsampled = gw:get("/", { headers = { b3 = TRACE .. "-" .. SPAN .. "-0" } }):json()
    expect(unsampled.b3):equals(TRACE .. "-" .. SPAN .. "-0")
  end)

  it("says where the collector is", function()
    expect(function() test.gateway { use = { "tracing" } } end):raises "one of upstream and url"
    expect(function()
      test.gateway { upstream = { collector = test.upstream(200) }, use = { { "tracing", upstream = "collector", protocol = "zipkin" } } }
    end):raises "/api/v2/spans"
  end)
end)
