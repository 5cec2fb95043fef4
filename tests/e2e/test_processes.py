"""What dies is replaced; what hangs is killed and named; what is told to end ends in order."""
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

from gateway import Gateway, BINARY, RELEASE, free_port, kill

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
route "ok" { path = "/ok", handler = function() return tg.respond(200, "ok") end }
route "slow" { path = "/slow", handler = function() tg.sleep(1) return tg.respond(200, "slow") end }
route "loop" { path = "/loop", handler = { "endless" } }
"""
ENDLESS = """return { doc = 'Never returns.', handler = function() return ('a'):rep(200):find(('a-'):rep(100) .. 'b') end }"""


def gateway(**options):
    return Gateway(CONFIG, plugins={"endless": ENDLESS}, options=("--watchdog", "1"), **options)


def wait_ok(gw, seconds=5):
    end = time.time() + seconds
    while time.time() < end:
        try:
            if gw.request("/ok").status == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(gw.log())


def test_a_killed_worker_is_replaced():
    with gateway(workers=2) as gw:
        before = gw.workers()
        kill(before[0])
        gw.wait_for("was ended by signal 9")
        wait_ok(gw)
        after = gw.workers()
        assert len(after) == 2 and after[1] == before[1] and after[0] != before[0]


SLOW = """return { setup = function()
  local till = os.clock() + 1.5
  while os.clock() < till do end
end, access = function() end }"""


def test_while_a_worker_that_was_killed_is_built_anew_another_accepts_for_it():
    text = 'listen { port = @PORT@, address = "127.0.0.1" }\nroute "x" { path = "/*", use = { "slow" }, handler = function() return tg.respond(200) end }\n'
    with Gateway(text, workers=2, plugins={"slow": SLOW}) as gw:
        killed = gw.workers()[0]
        kill(killed)
        until, times = time.monotonic() + 1.2, []  # the next one is not ready before
        while time.monotonic() < until:
            begin = time.monotonic()
            try:
                assert gw.request("/").status == 200
            except OSError:
                assert len(times) < 3, "what was its own ended with it, and nothing else"
            times.append(time.monotonic() - begin)
        assert len(times) > 20 and max(times) < 0.9, sorted(times)[-5:]

        def accepted():
            gw.request("/")
            return int(re.search(r"^worker 0 .* open of (\d+)", gw.command("status").stdout, re.M).group(1))
        end = time.monotonic() + 30
        while accepted() < 5:
            assert time.monotonic() < end, "the new one never serves"


def test_a_worker_in_an_endless_call_is_killed_and_named():
    with gateway() as gw:
        victim = threading.Thread(target=lambda: gw.raw(b"GET /loop HTTP/1.1\r\nHost: a\r\n\r\n"))
        victim.start()
        gw.wait_for("is stuck", seconds=10)
        assert "plugin endless, route loop" in gw.log()
        victim.join()
        wait_ok(gw)


def test_workers_serve_on_when_the_master_dies_and_a_new_one_can_start():
    with gateway() as gw:
        worker = gw.workers()[0]
        gw.process.kill()
        gw.process.wait()
        assert gw.request("/ok").status == 200
        again = subprocess.Popen([gw.binary, "run", "--workers", "1", "--config", str(gw.folder / "gateway.lua"), "--control", str(gw.control)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.time() + 10
            while gw.command("status").returncode != 0 and time.time() < end:
                time.sleep(0.05)
            assert gw.command("status").returncode == 0
            assert gw.request("/ok").status == 200
        finally:
            again.terminate()
            again.wait(10)
            kill(worker)


def test_listeners_come_and_go_with_the_configuration():
    with gateway(workers=2) as gw:
        with socket.create_connection(("127.0.0.1", gw.port)) as kept:
            gw.write("gateway.lua", CONFIG + 'listen { address = "127.0.0.1", port = @PORT2@ }')
            assert gw.command("reload").returncode == 0
            assert all(gw.request("/ok", port=gw.port2).status == 200 for _ in range(20))
            gw.write("gateway.lua", CONFIG)
            assert gw.command("reload").returncode == 0
            time.sleep(0.2)
            try:
                gw.request("/ok", port=gw.port2)
                raise AssertionError("a listener that was taken away answers")
            except OSError:
                pass
            kept.sendall(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200 OK" in kept.recv(1000)


def test_a_drain_answers_what_is_in_work():
    with gateway() as gw:
        answers = []
        client = threading.Thread(target=lambda: answers.append(gw.request("/slow").status))
        client.start()
        time.sleep(0.3)
        gw.process.send_signal(signal.SIGQUIT)
        client.join()
        assert answers == [200]
        assert gw.process.wait(10) == 0


def test_stop_ends_at_once_and_removes_the_socket():
    with gateway() as gw:
        assert gw.command("stop").returncode == 0
        assert gw.process.wait(5) == 0
        assert not gw.control.exists()
        assert gw.command("status").returncode == 3


def test_a_bad_configuration_at_start_is_exit_1(tmp_path):
    file = tmp_path / "gateway.lua"
    file.write_text("api = 1\nlisten { prot = 8080 }\n")
    out = subprocess.run([BINARY, "run", "--control", str(tmp_path / "c"), str(file)], capture_output=True, text=True, timeout=20)
    assert out.returncode == 1
    assert 'gateway.lua:2  listen › prot\n    unknown field; did you mean "port"?' in out.stderr
    out = subprocess.run([BINARY, "check", str(file)], capture_output=True, text=True, timeout=20)
    assert out.returncode == 1 and "did you mean" in out.stderr


def test_a_port_that_is_taken_is_exit_1(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = tmp_path / "gateway.lua"
        file.write_text('listen { address = "127.0.0.1", port = %d }' % taken.getsockname()[1])
        out = subprocess.run([BINARY, "run", "--control", str(tmp_path / "c"), str(file)], capture_output=True, text=True, timeout=20)
        assert out.returncode == 1 and "Address already in use" in out.stderr


def test_every_command_has_help_and_wrong_usage_is_2():
    for command in ("run", "check", "reload", "rollback", "status", "stop", "upgrade", "version", "test", "doc"):
        out = subprocess.run([BINARY, command, "--help"], capture_output=True, text=True, timeout=20)
        assert out.returncode == 0 and out.stdout.startswith(f"usage: tidegate {command}"), out
    for words in ([], ["nonsense"], ["run"], ["run", "--workers", "none", "x"], ["status", "--wrong"]):
        assert subprocess.run([BINARY, *words], capture_output=True, timeout=20).returncode == 2, words


def test_access_log_is_reopened_on_usr1():
    config = CONFIG + 'use { { "access-log", path = "@DIR@/access.log" } }'
    with Gateway(config, plugins={"endless": ENDLESS}) as gw:
        log = gw.folder / "access.log"

        def lines():
            return log.read_text().count("\n") if log.exists() else 0

        def wait(count):
            end = time.time() + 5
            while lines() < count and time.time() < end:
                time.sleep(0.02)
            assert lines() == count
        gw.request("/ok")
        wait(1)
        log.rename(gw.folder / "access.log.1")
        gw.process.send_signal(signal.SIGUSR1)
        end = time.time() + 5
        while not log.exists() and time.time() < end:
            time.sleep(0.02)
        gw.request("/ok")
        wait(1)


# A helper that was tried as the beginning of a trace of its own; the path that calls it compiles all the same. But where the path itself
# runs into a loop, all that leads there is left to the interpreter.
HARMLESS = ("leaving loop in root trace", "inner loop in root trace", "NYI: return to lower frame")
PATH = ("TRACE --- serve.lua", "TRACE --- chain of")


def traces_of_serving(config, folder, *options):
    """What the JIT said while a gateway served for some seconds."""
    trace_log = folder / "jit.log"
    with Gateway(config, binary=RELEASE, env={"TIDEGATE_JIT_LOG": str(trace_log)}) as gw:
        load = ["wrk", "-t1", "-c8", "-d5", *options, f"http://127.0.0.1:{gw.port}/"]
        assert "Non-2xx" not in subprocess.run(load, check=True, capture_output=True, text=True).stdout
    lines = trace_log.read_text().splitlines()
    serves = [n for n, line in enumerate(lines) if "serve.lua" in line]
    waits = [n for n in serves if "stitch coroutine." in lines[n]]
    return lines[(waits or serves)[0]:]  # what was loaded before is of no interest


def paths_given_up(served):
    given_up = [line for line in served if "TRACE ---" in line and not any(reason in line for reason in HARMLESS)]
    return given_up + [line for line in served if "inner loop" in line and any(start in line for start in PATH)]


def test_the_request_path_compiles(tmp_path):
    """All five plugins under load: of the paths that serve, the JIT gives none up."""
    config = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@, keepalive_requests = 100000000 }
listen { name = "back", address = "127.0.0.1", port = @PORT2@, keepalive_requests = 100000000 }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" } }
consumer "acme" { credentials = { key = "k" } }
route "back" { listen = "back", path = "/*", handler = function() return tg.respond(200, "ok") end }
route "all" { listen = "front", path = "/*", to = "back", use = {
  "correlation-id", { "access-log", path = "/dev/null" }, "key-auth", { "rate-limit", limit = 1000000000, key = "${consumer.id}" },
  { "headers", request = { set = { ["X-Consumer"] = "${consumer.id}" } }, response = { set = { ["X-By"] = "tidegate" } } } } }
"""
    served = traces_of_serving(config, tmp_path, "-H", "X-Api-Key: k")
    assert not paths_given_up(served), paths_given_up(served)
    assert sum("stitch coroutine.yield" in line for line in served) >= 3, "request, response and log compile"


def test_a_page_made_of_calls_compiles(tmp_path):
    """Three calls and one object out of their answers: no loop keeps the path from being compiled as a whole."""
    config = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@, keepalive_requests = 100000000 }
listen { name = "back", address = "127.0.0.1", port = @PORT2@, keepalive_requests = 100000000 }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" } }
route "back" { listen = "back", path = "/*", handler = function() return tg.respond(200, '{"ok":true}', { ["Content-Type"] = "application/json" }) end }
route "page" { listen = "front", path = "/*", handler = function()
  local data, err = tg.fetch_all { a = { upstream = "back", path = "/a" }, b = { upstream = "back", path = "/b" }, c = { upstream = "back", path = "/c" } }
  if not data then return tg.problem(502, err.message) end
  return tg.respond(200, data)
end }
"""
    served = traces_of_serving(config, tmp_path)
    ended = [line for line in served if re.search(r"inner loop in root trace at (branch|json)\.lua", line)]
    assert not ended, ended


def test_a_configuration_that_no_worker_can_start_with_ends_the_start():
    setup = "return { doc = 'Needs much.', setup = function() local t = {} for i = 1, 5e5 do t[i] = { i } end return t end }"
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "plugins").mkdir()
        pathlib.Path(folder, "plugins/hoard.lua").write_text(setup)
        config = CONFIG.replace("@PORT@", str(free_port())).replace('{ "endless" }', "function() end")
        pathlib.Path(folder, "gateway.lua").write_text(config + 'limits { lua_memory = "16MiB" }\nuse { "hoard" }\n')
        command = [BINARY, "run", "--workers", "2", "--config", f"{folder}/gateway.lua", "--control", f"{folder}/control"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "ended while it started" in done.stderr and "is live" not in done.stderr
