"""Live change: no request is lost, a broken file changes nothing, and one can go back."""
import re
import subprocess
import threading
import time

from gateway import Gateway, RELEASE

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@, keepalive_requests = 100000000 }
listen { name = "back", address = "127.0.0.1", port = @PORT2@, keepalive_requests = 100000000 }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" }, pool = { requests = 0 } }
route "back" { listen = "back", path = "/*", handler = function() return tg.respond(200, "hello") end }
route "all" { listen = "front", path = "/*", to = "back", use = { { "mark", value = "%s" } } }
"""
MARK = """
return {
  api = 1,
  doc = "Say who was here.",
  schema = { value = t.string() },
  response = function(ctx, conf) ctx.res.headers["X-Mark"] = conf.value end,
}
"""


def gateway(**options):
    return Gateway(CONFIG % "one", watch=True, plugins={"mark": MARK}, **options)


def wait_for_mark(gw, value, seconds=3):
    end = time.time() + seconds
    while time.time() < end:
        if gw.request().headers["X-Mark"] == value:
            return True
        time.sleep(0.005)
    return False


def test_a_saved_configuration_is_live_within_200_ms():
    with gateway(binary=RELEASE) as gw:
        assert gw.request().headers["X-Mark"] == "one"
        times = []
        for i in range(5):
            begin = time.time()
            gw.write("gateway.lua", CONFIG % f"v{i}")
            assert wait_for_mark(gw, f"v{i}")
            times.append(time.time() - begin)
        assert sorted(times)[2] < 0.2, times


def test_a_saved_plugin_is_live():
    with gateway() as gw:
        gw.write("plugins/mark.lua", MARK.replace("conf.value", '"new code"'))
        assert wait_for_mark(gw, "new code")


def test_a_policy_of_ones_own_needs_no_restart():
    with gateway() as gw:
        gw.write("plugins/require-header.lua", """
return {
  doc    = "Refuse requests that lack a header.",
  schema = { header = t.header "X-Tenant", status = t.status(400) },
  access = function(ctx, conf)
    if not ctx.req.headers[conf.header] then
      return tg.problem(conf.status, "missing header " .. conf.header)
    end
  end,
}
""")
        gw.write("gateway.lua", (CONFIG % "two").replace("use = {", 'use = { { "require-header", status = 422 },'))
        assert wait_for_mark(gw, "two")
        assert gw.request().status == 422
        assert gw.request(headers={"X-Tenant": "a"}).status == 200


def test_a_broken_file_changes_nothing_and_says_what_is_wrong():
    with gateway() as gw:
        gw.write("plugins/mark.lua", "return {\n  doc = 'x',\n  acess = function() end,\n}\n")
        gw.wait_for("reload refused")
        assert 'did you mean "access"?' in gw.log()
        gw.write("plugins/mark.lua", "return {\n  doc = \n}\n")
        gw.wait_for("reload refused", count=2)
        assert re.search(r"mark\.lua:3.*\n.*found .*unexpected symbol", gw.log())
        gw.write("plugins/mark.lua", MARK)
        gw.write("gateway.lua", (CONFIG % "x").replace('to = "back"', 'to = "bakc"'))
        gw.wait_for('did you mean "back"?')
        assert re.search(r'gateway\.lua:7  route "all" › to\n +found +"bakc"\n +expected +the name of an upstream', gw.log())
        assert gw.request().headers["X-Mark"] == "one"
        status = gw.command("status").stdout
        assert "the last reload was refused" in status


def test_rollback_returns_to_the_generation_before_and_to_a_named_one():
    with gateway() as gw:
        first = re.search(r"generation +(\w+)", gw.command("status").stdout).group(1)
        for value in ("two", "three"):
            gw.write("gateway.lua", CONFIG % value)
            assert wait_for_mark(gw, value)
        assert gw.command("rollback").returncode == 0
        assert gw.request().headers["X-Mark"] == "two"
        answer = gw.command("rollback", first)
        assert answer.returncode == 0 and first in answer.stdout
        assert gw.request().headers["X-Mark"] == "one"
        assert gw.command("rollback", "nonsense").returncode == 1


def test_reload_by_command_reports_and_refuses():
    with Gateway(CONFIG % "one", plugins={"mark": MARK}) as gw:
        assert "nothing has changed" in gw.command("reload").stdout
        gw.write("gateway.lua", CONFIG % "two")
        assert gw.command("reload").returncode == 0
        gw.write("gateway.lua", "listen {")
        answer = gw.command("reload")
        assert answer.returncode == 1 and "gateway.lua:1" in answer.stderr and "goes on" in answer.stderr
        assert gw.request().headers["X-Mark"] == "two"


def test_a_configuration_that_hangs_hurts_nobody():
    with Gateway(CONFIG % "one", plugins={"mark": MARK}) as gw:
        for text, message in (("while true do end", "more than its budget"), ('("a"):rep(200):find(("a-"):rep(100) .. "b")', "longer than")):
            gw.write("gateway.lua", text)
            answer = gw.command("reload")
            assert answer.returncode == 1 and message in answer.stderr
        assert gw.request().status == 200


def test_reloads_under_load_lose_no_request_and_close_no_connection():
    with gateway(workers=2, binary=RELEASE) as gw:
        load = subprocess.Popen(["wrk", "-t1", "-c64", "-d8", f"http://127.0.0.1:{gw.port}/"], stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        for i in range(12):
            gw.write("gateway.lua", CONFIG % f"load{i}")
            time.sleep(0.5)
        output = load.communicate(timeout=30)[0]
        assert int(re.search(r"(\d+) requests in", output).group(1)) > 1000
        assert "Socket errors" not in output and "Non-2xx" not in output, output
        opened = sum(int(n) for n in re.findall(r"open of (\d+)", gw.command("status").stdout))
        assert gw.log().count("is live") >= 10
        # 64 of wrk, 64 and a few to the demo backend: a closed connection would have been opened again.
        assert opened < 400, opened


def test_thousands_of_routes_are_loaded_while_requests_are_served():
    """A worker builds a generation a little in each turn of its loop: nobody waits until it is done."""
    routes = "".join(f'route "r{i}" {{ path = "/{i}/*", to = "back", use = {{ {{ "mark", value = "{i}" }} }} }}\n' for i in range(5000))
    waits, stop = [], threading.Event()

    def ask(gw):
        while not stop.is_set():
            begin = time.monotonic()
            assert gw.request().status == 200
            waits.append(time.monotonic() - begin)

    with Gateway(CONFIG % "one" + routes, plugins={"mark": MARK}, binary=RELEASE) as gw:
        workers = gw.workers()
        client = threading.Thread(target=ask, args=(gw,))
        client.start()
        gw.write("gateway.lua", CONFIG % "two" + routes)
        done = gw.command("reload")
        stop.set()
        client.join()
        assert done.returncode == 0, done.stderr
        assert gw.request("/7/x").headers["X-Mark"] == "7" and gw.request().headers["X-Mark"] == "two"
        assert gw.workers() == workers and len(waits) > 100
        assert max(waits) < 0.3, sorted(waits)[-10:]


def test_memory_is_flat_over_many_reloads():
    def rss(pid):
        return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")).split()[1])
    with Gateway(CONFIG % "0", plugins={"mark": MARK}, binary=RELEASE) as gw:
        worker = gw.workers()[0]
        marks = {}
        for i in range(1, 201):
            gw.write("gateway.lua", CONFIG % str(i))
            assert gw.command("reload").returncode == 0
            gw.request()
            marks[i] = rss(worker)
        # One more or less of the VM that was just left, which goes in steps.
        assert min(marks[i] for i in range(191, 201)) <= max(marks[i] for i in range(11, 31)) + 1024, marks
