"""Coroutines of a plugin's own: waiting works inside of them, and none of them reaches another request."""
import concurrent.futures
import json
import time

import pytest
from gateway import Gateway

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "o" { targets = { "http://127.0.0.1:@PORT2@" } }
route "slow" { listen = "back", path = "/slow", handler = function() tg.sleep(0.2) return tg.respond(200, "slow") end }
route "fast" { listen = "back", path = "/*", handler = function(ctx) return tg.respond(200, ctx.req.path) end }
route "ok" { listen = "front", path = "/ok", handler = function() return tg.respond(200, "fine") end }
route "own" { listen = "front", path = "/*", handler = "own" }
"""


def gateway(body, **more):
    return Gateway(CONFIG, plugins={"own": 'return { api = 1, doc = "A test.", handler = function(ctx)\n' + body + "\nend }"}, **more)


def test_nobody_gets_the_rest_of_a_plugin_that_yields():
    with gateway('coroutine.yield() return tg.respond(200, "theft")') as gw:
        assert gw.request("/x").status == 500
        for _ in range(5):
            assert gw.request("/ok").text == b"fine"
        gw.wait_for("there is nobody to yield to")


def test_an_inline_function_cannot_yield_either():
    config = CONFIG.replace('handler = "own"', 'handler = function() coroutine.yield(true) return tg.respond(200, "theft") end')
    with Gateway(config) as gw:
        assert gw.request("/x").status == 500
        assert gw.request("/ok").text == b"fine"


def test_waiting_inside_suspends_the_exchange_and_not_the_protocol():
    body = """
  local o = tg.upstream "o"
  local seen = {}
  local pages = coroutine.wrap(function()
    for i = 1, 3 do
      local res = assert(o:get("/page/" .. i))
      tg.sleep(0.01)
      coroutine.yield(res:text())
    end
  end)
  for i = 1, 3 do seen[i] = pages() end
  local inner = coroutine.create(function(a)
    local deeper = coroutine.wrap(function() tg.sleep(0.01) coroutine.yield "deep" tg.sleep(0.01) return "deeper" end)
    local b = coroutine.yield(a .. deeper())
    return b .. deeper()
  end)
  local _, first = coroutine.resume(inner, "1")
  local _, second = coroutine.resume(inner, "2")
  local ok, err = coroutine.resume(inner)
  return tg.respond(200, { seen, first, second, ok, tostring(err), coroutine.status(inner) })"""
    with gateway(body) as gw:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for answer in pool.map(lambda _: json.loads(gw.request("/x").text), range(24)):
                assert answer == [["/page/1", "/page/2", "/page/3"], "1deep", "2deeper", False, "cannot resume dead coroutine", "dead"]


def test_an_error_inside_is_the_owner_s():
    body = """
  local f = coroutine.wrap(function() tg.sleep(0.01) error("inside") end)
  local ok, err = pcall(f)
  return tg.respond(200, { ok, (tostring(err):gsub("^.*: ", "")) })"""
    with gateway(body) as gw:
        assert json.loads(gw.request("/x").text) == [False, "inside"]


def test_one_that_waited_for_a_request_that_ended_is_not_resumed():
    """Its call is freed with its request."""
    body = """
  if not kept then
    kept = coroutine.create(function() return tg.upstream("o"):get("/slow") end)
    pcall(tg.fetch_all, { a = { function() return coroutine.resume(kept) end, timeout = 0.05 } }, { timeout = 0.05 })
    return tg.respond(200, "left")
  end
  tg.sleep(0.3)
  local ok, err = coroutine.resume(kept)
  return tg.respond(200, { ok, tostring(err) })"""
    with gateway(body) as gw:
        assert gw.request("/x").text == b"left"
        assert json.loads(gw.request("/x").text) == [False, "this coroutine waited for a request that has ended"]
        assert gw.request("/ok").text == b"fine"


def test_a_log_phase_that_never_ends_is_ended():
    config = CONFIG.replace('handler = "own" }', 'to = "o", use = { "own" } }')
    plugin = 'return { api = 1, doc = "A test.", log = function() while true do tg.sleep(1) end end }'
    with Gateway(config, plugins={"own": plugin}) as gw:
        for _ in range(3):
            assert gw.request("/x").status == 200
        gw.wait_for("a log phase took longer than 5 s", seconds=10, count=3)
        assert gw.command("reload").returncode == 0
        for _ in range(100):
            if "1 generation\n" in gw.command("status").stdout:
                return
            time.sleep(0.05)
        raise AssertionError(gw.command("status").stdout)


@pytest.mark.parametrize("count,status", [(32, 200), (33, 503)])
def test_tasks_of_a_request_are_limited(count, status):
    body = f"""
  local tasks = {{}}
  for i = 1, {count} do tasks[i] = tg.spawn(function() tg.sleep(0.01) return i end) end
  local sum = 0
  for i = 1, {count} do sum = sum + tasks[i]:join() end
  return tg.respond(200, tostring(sum))"""
    with gateway(body) as gw:
        answer = gw.request("/x")
        assert answer.status == status
        assert status != 200 or answer.text == b"528"


def test_texts_do_not_grow_without_measure():
    with gateway('return tg.respond(200, tostring(#("x"):rep(500 * 1024 * 1024)))') as gw:
        assert gw.request("/x").status == 500
        gw.wait_for("at most 16 MiB")
