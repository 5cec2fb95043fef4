"""What plugins use, by plugin and by route: time of the processor without that of others, memory of Lua, also in what waits, branches and raises."""
import concurrent.futures
import json
import re
import subprocess

import pytest
from gateway import BINARY, Gateway

EVERY = 61
MS, KIB = 0.001, 1024
WORK = """
local function work(ms, kib)
  local from, n = os.clock(), 0
  while os.clock() - from < ms / 1000 do n = n + 1 end
  local kept
  for i = 1, kib do kept = ("x"):rep(1000) .. tg.crypto.random(24) end
  return kept
end
"""
PLUGIN = """
return { api = 1, doc = "Uses what it is told to.", schema = { ms = t.integer(0), kib = t.integer(0), how = t.string "direct" }, access = function(ctx, conf)
  if conf.how == "wait" then
    work(conf.ms / 2, conf.kib / 2)
    tg.sleep(0.035)
    work(conf.ms / 2, conf.kib / 2)
  elseif conf.how == "tasks" then
    local function half() tg.sleep(0.01) work(conf.ms / 2, conf.kib / 2) return true end
    assert(tg.fetch_all { a = half, b = half })
  elseif conf.how == "cancelled" then
    local task = tg.spawn(function() work(conf.ms, conf.kib) tg.sleep(9) end)
    tg.sleep(0.03)
    task:cancel()
  else
    work(conf.ms, conf.kib)
    if conf.how == "throw" then error(tg.respond(200, "thrown")) end
    if conf.how == "raise" then error "raised" end
  end
end }
"""
MAKER = 'return { api = 1, doc = "Answers.", handler = function() work(4, 0) return tg.respond(200) end }'
ROUTE = 'route "%s" { path = "/%s", handler = function() return tg.respond(200) end, use = { { "user", name = "%s", ms = %d, kib = %d, how = "%s" } } }\n'
HOWS = ("direct", "wait", "tasks", "cancelled", "throw", "raise")
CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
admin { port = @PORT2@, public_metrics = true }
""" + "".join(ROUTE % (how, how, how, 4, 100, how) for how in HOWS) + """
route "costly" { path = "/costly", handler = "maker" }
route "cheap" { path = "/cheap", handler = function() return tg.respond(200) end }
"""
SHARED = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
admin { port = @PORT2@, public_metrics = true }
use { { "by-path" } }
route "even" { path = "/even", handler = function() return tg.respond(200) end }
route "odd" { path = "/odd", handler = function() return tg.respond(200) end }
"""


def metrics(gw):
    text = gw.request("/metrics", port=gw.port2).text.decode()
    return {(name, labels): float(value) for name, labels, value in re.findall(r"^(tidegate_\w+)\{(.*?)\} (\S+)$", text, re.M)}


def of_plugin(gw, plugin, phase="access"):
    """Of a call: seconds of the processor, bytes of Lua, seconds; and the number of calls."""
    all_, labels = metrics(gw), f'plugin="{plugin}",phase="{phase}"'
    calls = all_.get(("tidegate_plugin_calls_total", labels), 0)
    names = ("cpu_seconds", "lua_allocated_bytes", "seconds")
    return (*(all_[f"tidegate_plugin_{name}_total", labels] / calls for name in names), calls) if calls else (0, 0, 0, 0)


@pytest.fixture(scope="module")
def gw():
    with Gateway(CONFIG, plugins={"user": WORK + PLUGIN, "maker": WORK + MAKER}) as gateway:
        yield gateway


@pytest.mark.parametrize("how", HOWS)
def test_a_call_is_charged_for_what_it_and_its_tasks_use_and_for_nothing_else(gw, how):
    for _ in range(3):
        assert gw.request("/" + how).status == (500 if how == "raise" else 200)
    cpu, allocated, seconds, calls = of_plugin(gw, how)
    assert calls == 1  # the first one stands for itself
    assert 3.5 * MS < cpu < 12 * MS and 100 * KIB < allocated < 400 * KIB and seconds >= cpu
    all_ = metrics(gw)
    assert abs(all_["tidegate_route_plugin_cpu_seconds_total", f'route="{how}"'] - cpu) < 2 * MS


def test_what_others_use_while_a_call_waits_is_theirs(gw):
    """Each waits for 35 ms, and computes for four, while seven others compute."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(gw.request, "/wait") for _ in range(4 * EVERY)]:
            assert future.result().status == 200
    cpu, allocated, seconds, calls = of_plugin(gw, "wait")
    assert calls >= 4 * EVERY - EVERY and cpu < 10 * MS and seconds > 37 * MS and 100 * KIB < allocated < 400 * KIB


def test_handlers_are_measured_too(gw):
    for _ in range(3):
        gw.request("/costly")
        gw.request("/cheap")
    all_ = metrics(gw)
    costly, cheap = (all_["tidegate_route_plugin_cpu_seconds_total", f'route="{route}"'] for route in ("costly", "cheap"))
    assert 3.5 * MS < costly < 12 * MS and cheap < 1 * MS


def test_top_and_the_admin_interface_tell_it(gw):
    gw.request("/direct")
    done = subprocess.run([BINARY, "top", "--json", "--once", "--interval", "0.2", "--control", str(gw.control)], capture_output=True, text=True, timeout=20)
    found = json.loads(done.stdout)
    one = next(plugin for plugin in found["plugins"] if plugin["plugin"] == "direct")
    assert 3.5 * MS < one["cpu"] < 12 * MS and one["allocated"] > 100 * KIB
    route = next(route for route in found["routes"] if route["name"] == "direct")
    assert 0 < route["plugin_cpu"] < 12 * MS and route["plugin_allocated"] > 0
    text = gw.command("top", "--once", "--interval", "0.2").stdout
    assert re.search(r"^ROUTE .* PLUGIN CPU +PLUGIN LUA$", text, re.M) and re.search(r"^PLUGIN +PHASE +CALLS/S +MEAN +CPU +LUA +ERRORS$", text, re.M)
    assert re.search(r"^direct +access +\S+ +\S+ ms +\S+ ms +\d+ KiB +0$", text, re.M), text
    token = {"Authorization": "Bearer " + gw.command("token").stdout.strip()}
    plugins = json.loads(gw.request("/plugins", headers=token, port=gw.port2).text)["plugins"]
    one = next(plugin for plugin in plugins if (plugin["plugin"], plugin["phase"]) == ("direct", "access"))
    assert one["cpu_seconds"] > 3.5 * MS and one["lua_allocated_bytes"] > 100 * KIB
    used = json.loads(gw.request("/routes/direct", headers=token, port=gw.port2).text)["plugins"]
    assert used["cpu_seconds"] > 3.5 * MS and used["lua_allocated_bytes"] > 100 * KIB


def test_routes_that_take_turns_share_what_a_plugin_of_all_uses():
    """One of 64 would always be the same route's."""
    body = WORK + 'return { api = 1, doc = "Works for one of two.", access = function(ctx) if ctx.req.path == "/even" then work(1, 0) end end }'
    with Gateway(SHARED, plugins={"by-path": body}) as gw:
        for _ in range(2 * EVERY + 1):
            gw.request("/even")
            gw.request("/odd")
        all_ = metrics(gw)
        even, odd = (all_["tidegate_route_plugin_cpu_seconds_total", f'route="{route}"'] for route in ("even", "odd"))
        assert even > 40 * MS > 10 * MS > odd > 0
        assert all_["tidegate_plugin_calls_total", 'plugin="by-path",phase="access"'] == 1 + 4 * EVERY
