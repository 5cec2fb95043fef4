"""The n-th allocation fails, whichever it is: the right answer, a clear status or an ended connection, and all is well afterwards."""
import errno
import os
import subprocess

import pytest
from faults import (CONFIG, CUT, FAILED, JUDGE, KINDS, MALLOC, MMAP, RIGHT, Faulty, Plan, ask, ask_all, descriptors, must_be_right,
                    wait_until)
from gateway import RELEASE, free_port


@pytest.fixture(scope="module")
def gw(shim, origin, tmp_path_factory):
    with Faulty(CONFIG % {"origin": origin.port}, shim, tmp_path_factory.mktemp("plan"), plugins={"judge": JUDGE}) as running:
        must_be_right(running.port)
        yield running
        running.plan.disarm()


def allocations(gw, kind, worker):
    gw.plan.arm(MALLOC, errno.ENOMEM, worker, chance=0)
    assert ask(gw.port, kind) == RIGHT
    return gw.plan.disarm()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_each_allocation_of_a_request_fails_once(gw, kind):
    worker, = gw.workers()
    must_be_right(gw.port)
    before = descriptors(worker)
    count = allocations(gw, kind, worker)
    outcomes = set()
    for n in range(1, min(count, 80) + 1):
        gw.plan.arm(MALLOC, errno.ENOMEM, worker, first=n, times=1)
        outcomes.add(ask(gw.port, kind))
        gw.plan.disarm()
        assert gw.workers() == [worker], f"allocation {n}: {gw.log()}"
    assert outcomes <= {RIGHT, FAILED, CUT}
    must_be_right(gw.port)
    wait_until(lambda: descriptors(worker) <= before + 8, "no descriptor is left")


@pytest.mark.parametrize("chance", [10, 100, 300])
def test_allocations_fail_here_and_there(gw, chance):
    worker, = gw.workers()
    for seed in range(1, 4):
        gw.plan.arm(MALLOC, errno.ENOMEM, worker, chance=chance, seed=seed)
        outcomes = ask_all(gw.port)
        asked, struck = gw.plan.disarm()
        assert asked > 0 and (struck > 0 or chance < 100), outcomes
        assert gw.workers() == [worker], gw.log()
        must_be_right(gw.port)


def status(gw):
    return gw.command("status").stdout


def edit(gw, n):
    text = (gw.folder / "gateway.lua").read_text().partition("-- edit")[0]
    gw.write("gateway.lua", text + f"-- edit\nroute \"edit\" {{ path = \"/edit\", handler = function() return tg.respond(200, \"{n}\") end }}\n")


def test_a_reload_whose_allocations_fail_is_refused_or_done_and_never_half(gw):
    """In a worker: Lua's own memory comes from the kernel, what is around it from the allocator."""
    worker, = gw.workers()
    edit(gw, 0)
    gw.plan.arm(MALLOC, errno.ENOMEM, worker, chance=0)
    assert gw.command("reload").returncode == 0
    count = gw.plan.disarm()[0]
    steps = [*range(1, min(count, 30) + 1), *range(31, count + 1, max(1, count // 40))]
    told = deaths = 0
    for n in steps:
        edit(gw, n)
        before = gw.request("/edit").text
        gw.plan.arm(MALLOC, errno.ENOMEM, worker, first=n, times=1)
        done = gw.command("reload")
        gw.plan.disarm()
        after = gw.request("/edit").text
        assert after == (str(n).encode() if done.returncode == 0 else before), (n, done.stderr, gw.log())
        assert done.returncode == 0 or done.stderr.strip(), "it says why"
        told += done.returncode != 0
        if gw.workers() != [worker]:  # libgcc, which LuaJIT tells of its machine code, does not bear a failing allocation: its place is filled again
            deaths += 1
            assert deaths <= 4 and done.returncode == 1 and "was ended by signal 11" in gw.log(), gw.log()
            wait_until(lambda: gw.workers(), "another worker runs")
            worker, = gw.workers()
    assert told > 0, "none of them was felt"
    wait_until(lambda: "in 1 generation\n" in status(gw), "the others are gone", 12)
    must_be_right(gw.port)


def test_the_kernel_gives_lua_no_memory_for_a_reload(gw):
    worker, = gw.workers()
    for n in range(1, 12):
        edit(gw, 1000 + n)
        gw.plan.arm(MMAP, errno.ENOMEM, worker, first=n, times=1)
        done = gw.command("reload")
        gw.plan.disarm()
        assert done.returncode in (0, 1), done.stderr
        assert gw.workers() == [worker], gw.log()
        must_be_right(gw.port)


def test_a_start_whose_allocations_fail_says_so(shim, origin, tmp_path):
    """Whichever fails, in whichever process: a message, and an end that is no crash; or it runs."""
    plan = Plan(tmp_path / "plan")
    config = tmp_path / "gateway.lua"
    config.write_text('api = 1\nlisten { address = "127.0.0.1", port = %d }\nroute "a" { path = "/", handler = function() return tg.respond(200) end }\n'
                      % free_port())
    environment = {**os.environ, "LD_PRELOAD": str(shim), "FAULT_PLAN": str(plan.path)}
    command = [RELEASE, "check", "--config", str(config)]
    plan.arm(MALLOC, errno.ENOMEM, chance=0)
    assert subprocess.run(command, env=environment, capture_output=True, timeout=20).returncode == 0
    count = plan.disarm()[0]
    assert count > 100
    refused = 0
    for n in [*range(1, 40), *range(40, count, max(1, count // 40))]:
        plan.arm(MALLOC, errno.ENOMEM, first=n, times=1)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
        plan.disarm()
        if n < 100 and done.returncode < 0:  # OpenSSL's own start does not bear it: nothing has happened yet
            continue
        assert done.returncode in (0, 1), (n, done.returncode, done.stderr)
        assert done.returncode == 0 or done.stderr, n
        refused += done.returncode
    assert refused > 0
