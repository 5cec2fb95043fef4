describe("consumer-metrics", function()
  local function gateway(use)
    local origin = test.upstream(function(req) return req.target:find "bad" and 503 or 200, "12345" end)
    return test.gateway {
      metrics = true, consumer = { acme = { credentials = { key = "k1" } } }, global = { use },
      route = { open = { path = "/open", to = origin }, closed = { path = "/closed/*", to = origin, use = { "key-auth" } } },
    }
  end
  local key = { headers = { ["X-Api-Key"] = "k1" } }

  it("counts by consumer, route and class of the status", function()
    local gw = gateway "consumer-metrics"
    gw:get("/closed/a", key)
    gw:get("/closed/b", key)
    gw:get("/closed/bad", key)
    gw:get "/closed/a"
    gw:get "/open"
    gw:get "/nowhere"
    local function requests(consumer, route, class)
      return gw:metric(('tidegate_consumer_requests_total{consumer="%s",route="%s",status="%s"}'):format(consumer, route, class))
    end
    expect(requests("acme", "closed", "2xx")):equals(2)
    expect(requests("acme", "closed", "5xx")):equals(1)
    expect(requests("anonymous", "closed", "4xx")):equals(1)
    expect(requests("anonymous", "open", "2xx")):equals(1)
    expect(requests("anonymous", "none", "4xx")):equals(1)
    expect(gw:metric 'tidegate_consumer_body_bytes_total{consumer="acme",direction="out"}'):equals(15)
  end)

  it("does not tell routes apart when it shall not", function()
    local gw = gateway { "consumer-metrics", by_route = false }
    gw:get("/closed/a", key)
    gw:get "/open"
    expect(gw:metric 'tidegate_consumer_requests_total{consumer="acme",route="",status="2xx"}'):equals(1)
    expect(gw:metric 'tidegate_consumer_requests_total{consumer="anonymous",route="",status="2xx"}'):equals(1)
  end)
end)
