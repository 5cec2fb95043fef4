"""`shadow = true`: a use runs, what it would have done is counted and logged, and nothing of it is done."""
import subprocess

from gateway import BINARY, Gateway, free_port

HEAD = '''api = 1
listen { name = "public", address = "127.0.0.1", port = @PORT@ }
listen { name = "origin", address = "127.0.0.1", port = @PORT2@ }
admin { port = @ADMIN@, public_metrics = true }
log { level = "debug" }
upstream "origin" { targets = { "http://127.0.0.1:@PORT2@" } }
consumer "acme" { groups = { "gold" }, credentials = { key = "k1" } }
route "origin" { listen = { "origin" }, path = "/*", handler = function(ctx)
  local h = ctx.req.headers
  return tg.respond(200, { path = ctx.req.raw_path, query = ctx.req.raw_query, x = h["X-Set"], consumer = h["X-Consumer-ID"],
    key = h["X-Api-Key"], body = ctx.req:text() })
end }
'''

MEDDLER = '''return {
  schema = { what = t.string() },
  access = function(ctx, conf)
    local req, what = ctx.req, conf.what
    if what == "edit" then
      req.headers["X-Set"] = "1"
      if req.headers["x-set"] ~= "1" then error "its own edit is not seen" end
      req.path, req.raw_query, ctx.vars.seen = "/elsewhere", "b=2", 1
      req:set_body "other"
    elseif what == "deny" then return tg.respond(403, "no")
    elseif what == "throw" then error(tg.respond(418))
    elseif what == "raise" then error "oops"
    elseif what == "loop" then while true do end
    elseif what == "take" then for _ in req:chunks() do end
    end
  end,
  response = function(ctx, conf)
    if conf.what ~= "edit" then return end
    if ctx.vars.seen ~= 1 then error "what it remembers is gone" end
    ctx.res.status = 500
    ctx.res:add_header("X-Added", "1")
    ctx.res:transform(function(_, write) write "changed" end)
    return tg.respond(502)
  end,
}
'''


def gateway(text, port, **more):
    return Gateway(HEAD.replace("@ADMIN@", str(port)) + text, plugins={"meddler": MEDDLER, "looper": LOOPER}, **more)


LOOPER = '''return { access = function(ctx)
  local n = 0
  for i = 1, 200000 do n = n + i end
  if ctx.vars.seen or ctx.shadow then error "a use in shadow has left something behind" end
end }
'''


def counts(gw, port):
    text = gw.request("/metrics", port=port).text.decode()
    return {line.split("{")[1].split("}")[0]: float(line.split()[-1]) for line in text.splitlines() if line.startswith("tidegate_shadow_total{")}


def test_nothing_that_a_use_in_shadow_does_changes_the_exchange():
    text = ""
    for what in ("edit", "deny", "throw", "raise", "loop", "take"):
        text += f'route "{what}" {{ path = "/{what}", listen = {{ "public" }}, to = "origin", use = {{ {{ "meddler", name = "m-{what}", what = "{what}", shadow = true }}, "looper" }} }}\n'
    port = free_port()
    with gateway(text, port, warns="in shadow it has raised") as gw:
        plain = None
        for what in ("edit", "deny", "throw", "raise", "take", "loop"):
            answer = gw.request(f"/{what}?a=1", "POST", b"whole body")
            assert answer.status == 200 and answer.headers["X-Added"] is None, (what, answer.text)
            shown = answer.text.replace(what.encode(), b"*")
            assert b"whole body" in shown and b'"query":"a=1"' in shown and b'"x"' not in shown, shown
            assert plain in (None, shown)
            plain = shown
        found = counts(gw, port)
        assert found['plugin="m-edit",verdict="changed"'] == 1 and found['plugin="m-edit",verdict="502"'] == 1
        assert found['plugin="m-deny",verdict="403"'] == 1 and found['plugin="m-throw",verdict="418"'] == 1
        assert found['plugin="m-raise",verdict="raised"'] == 1 and found['plugin="m-loop",verdict="raised"'] == 1
        assert found['plugin="m-take",verdict="changed"'] == 1
        log = gw.log()
        assert "in shadow it would have answered 403 (access) [plugin m-deny, route deny" in log
        assert "would have set header X-Set of the request, set " in log and "taken the request's body" in log


def test_a_peer_that_would_be_chosen_is_told_and_another_is_asked():
    text = '''upstream "two" { targets = { "http://127.0.0.1:@PORT2@", "http://127.0.0.1:1" }, balance = function(_, peers) return peers[1] end }
route "x" { path = "/x", listen = { "public" }, to = "two", use = { { "chooses", shadow = true } } }
'''
    port = free_port()
    chooses = "return { balance = function(ctx) return ctx.peers[2] end }"
    with Gateway(HEAD.replace("@ADMIN@", str(port)) + text, plugins={"chooses": chooses}) as gw:
        assert gw.request("/x").status == 200
        assert counts(gw, port)['plugin="chooses",verdict="changed"'] == 1
        assert "in shadow it would have chosen the peer 127.0.0.1:1 (balance) [plugin chooses" in gw.log()


def test_who_is_not_known_is_told_and_passes_on_a_route_in_shadow():
    text = '''
route "closed" { path = "/closed", listen = { "public" }, to = "origin", shadow = true, use = { "key-auth", { "acl", allow = { "gold" } }, { "rate-limit", limit = 1, per = "1h" } } }
route "both" { path = "/both", listen = { "public" }, to = "origin", use = { "key-auth", { "basic-auth", shadow = true } } }
'''
    port = free_port()
    with gateway(text, port) as gw:
        seen = [gw.request("/closed", headers=headers) for headers in ({}, {"X-Api-Key": "wrong"}, {"X-Api-Key": "k1"})]
        assert [answer.status for answer in seen] == [200, 200, 200] and b'"consumer"' not in seen[2].text
        assert seen[2].headers["RateLimit"] is None
        assert gw.request("/both").status == 401 and gw.request("/both", headers={"X-Api-Key": "k1"}).status == 200
        assert b"consumer" not in gw.request("/closed", headers={"X-Consumer-ID": "boss"}).text, "fields of identity stay the gateway's"
        found = counts(gw, port)
        assert found['plugin="key-auth",verdict="401"'] >= 2 and found['plugin="rate-limit",verdict="429"'] == 3
        assert found['plugin="acl",verdict="passed"'] == 1, "the consumer that the use in shadow has found"
        assert 'tidegate_rate_limit_shadow_total{limit="closed"} 3' in gw.request("/metrics", port=port).text.decode()


def test_what_cannot_be_held_back_is_refused(tmp_path):
    config = tmp_path / "gateway.lua"
    for use, why in (('{ "fallback", chain = { { status = 200 } }, shadow = true }', "its `around` wraps what others do"),
                     ('{ "correlation-id", shadow = true }', "it changes exchanges by other ways than ctx"),
                     ('{ "key-auth", shadow = true } }, auth = "required", methods = { "GET"', "all uses that authenticate are in shadow"),
                     ('{ "cors", shadow = "yes" }', "true or false as `shadow`")):
        config.write_text(f'api = 1\nlisten {{ port = 1 }}\nroute "r" {{ path = "/", handler = function() end, use = {{ {use} }} }}\n')
        done = subprocess.run([BINARY, "check", str(config)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and why in done.stderr and "gateway.lua:3" in done.stderr, done.stderr
    config.write_text('api = 1\nlisten { port = 1 }\nroute "r" { path = "/", handler = { "quota", group = "g", limit = 1, shadow = true } }\n')
    done = subprocess.run([BINARY, "check", str(config)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "cannot be in shadow: nothing else would answer" in done.stderr, done.stderr
    for uses, expected in (('{ "websocket-limit", shadow = true }', 1), ('{ "websocket-limit", shadow = true }, { "websocket-limit", name = "m" }', 0)):
        config.write_text('listen { port = 1 }\nupstream "a" { targets = { "http://127.0.0.1:1" } }\n'
                          f'route "r" {{ path = "/", to = "a", upgrade = "websocket", use = {{ {uses} }} }}\n')
        done = subprocess.run([BINARY, "check", str(config)], capture_output=True, text=True, timeout=30)
        assert done.returncode == expected, done.stderr
        assert expected == 0 or 'gateway.lua:3: route "r": websocket-limit cannot be in shadow here: nobody else looks at the messages' in done.stderr, done.stderr
