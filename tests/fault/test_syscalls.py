"""System calls that fail: what can be retried is, what cannot ends in a clear status or a closed connection, and all is well afterwards."""
import concurrent.futures
import errno
import itertools
import os
import resource
import signal
import socket
import time

import pytest
from faults import (ACCEPT, ANYWHERE, CONFIG, CONNECT, EPOLL_CTL, EPOLL_WAIT, FILES, FORK, INTERNET, JUDGE, LOCAL, MEMFD, OPEN, PIPE,
                    READ, RECV, RECVMSG, RIGHT, SEND, SHORT, SOCKET, SOCKETPAIR, WRITE, Faulty, ask, ask_all, descriptors, must_be_right,
                    name_of, wait_until)
from gateway import kill

ROUNDS = 2

# What the caller tries again: no client sees anything of it.
HARMLESS = [
    ("accept", ACCEPT, INTERNET, 500, [errno.EINTR, errno.ECONNABORTED, errno.EPROTO]),
    ("recv", RECV, INTERNET, 400, [errno.EINTR, errno.EAGAIN, SHORT]),
    ("send", SEND, INTERNET, 400, [errno.EINTR, errno.EAGAIN, SHORT]),
    ("epoll_wait", EPOLL_WAIT, ANYWHERE, 400, [errno.EINTR]),
    ("write", WRITE, FILES, 900, [errno.EINTR, SHORT]),
]
# What costs the request, or its connection.
COSTLY = [
    ("accept", ACCEPT, INTERNET, 300, [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS]),
    ("recv", RECV, INTERNET, 100, [errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOMEM]),
    ("send", SEND, INTERNET, 100, [errno.ECONNRESET, errno.EPIPE, errno.ENOMEM, errno.ENOBUFS]),
    ("socket", SOCKET, ANYWHERE, 300, [errno.EMFILE, errno.ENFILE, errno.ENOBUFS]),
    ("connect", CONNECT, INTERNET, 300, [errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ENOMEM]),
    ("epoll_ctl", EPOLL_CTL, INTERNET, 200, [errno.ENOMEM, errno.ENOSPC]),
    ("open", OPEN, ANYWHERE, 1000, [errno.EMFILE]),
    ("write", WRITE, FILES, 900, [errno.ENOSPC, errno.EIO]),
]
SEEDS = itertools.count(1)


def rows(table):
    return [pytest.param(function, where, chance, error, id=f"{name}-{name_of(error)}") for name, function, where, chance, errors in table
            for error in errors]


@pytest.fixture(scope="module")
def gw(shim, origin, tmp_path_factory):
    with Faulty(CONFIG % {"origin": origin.port}, shim, tmp_path_factory.mktemp("plan"), plugins={"judge": JUDGE}) as running:
        must_be_right(running.port)
        wait_until(lambda: open_at(origin) == 0, "the pools are empty")
        worker, = running.workers()
        running.before = descriptors(worker)
        yield running
        wait_until(lambda: open_at(origin) == 0, "the pools are empty")
        assert running.workers() == [worker] and descriptors(worker) <= running.before


@pytest.fixture(autouse=True)
def disarmed(gw):
    yield
    gw.plan.disarm()


def open_at(origin):
    return sum(not connection.ended.is_set() for connection in origin.connections)


def under_faults(gw, origin, function, where, chance, error, without=()):
    """All kinds while calls of the worker fail; then the same worker must be as it was before. Returns all outcomes."""
    worker, = gw.workers()
    if function in (SOCKET, CONNECT):
        wait_until(lambda: open_at(origin) == 0, "the pools are empty")
    gw.plan.arm(function, error, worker, where, chance=chance, seed=next(SEEDS))
    outcomes = ask_all(gw.port, ROUNDS, without)
    if function == OPEN:
        gw.process.send_signal(signal.SIGUSR1)  # the log is opened anew
    if function in (OPEN, WRITE):
        wait_until(lambda: gw.plan.counts()[1] > 0, "the log is written")
    asked, struck = gw.plan.disarm()
    assert struck > 0, f"{asked} calls and no failure: the row tests nothing"
    must_be_right(gw.port)
    assert gw.workers() == [worker] and " ended " not in gw.log(), gw.log()
    wait_until(lambda: descriptors(worker) - open_at(origin) <= gw.before, "the descriptors are closed")
    return outcomes


def flat(outcomes):
    return set(itertools.chain(*outcomes.values()))


@pytest.mark.parametrize("function, where, chance, error", rows(HARMLESS))
def test_what_can_be_tried_again_is(gw, origin, function, where, chance, error):
    # A client that has no room for 25 bytes, and takes some of them, is given up: see tg_request_continue.
    without = ("expect",) if (function, error) == (SEND, SHORT) else ()
    outcomes = under_faults(gw, origin, function, where, chance, error, without)
    assert flat(outcomes) == {RIGHT}, outcomes


def test_a_client_that_reads_late_gets_its_100_continue_late(gw):
    """Its buffer may be full of an earlier answer. The first thing that is sent for this request is the 100."""
    gw.plan.arm(SEND, errno.EAGAIN, gw.workers()[0], INTERNET, times=1)
    assert ask(gw.port, "expect") == RIGHT
    assert gw.plan.counts()[1] == 1


@pytest.mark.parametrize("function, where, chance, error", rows(COSTLY))
def test_what_cannot_ends_in_order(gw, origin, function, where, chance, error):
    outcomes = under_faults(gw, origin, function, where, chance, error)
    assert RIGHT in flat(outcomes), "what is not struck is served"


# ---------------------------------------------------------------- the master, and what passes between it and the workers

PLAIN = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
route "word" { path = "/word", handler = function() return tg.respond(200, "%s") end }
"""
WORD = b"GET /word HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def fleet(shim, tmp_path):
    """A gateway of its own for what changes its workers or its configuration; all works when the test is over."""
    with Faulty(PLAIN % "first", shim, tmp_path, workers=2) as running:
        yield running
        running.plan.disarm()
        wait_until(lambda: 0 not in running.workers(), "both workers are there", 10)
        reload(running, "last")
        assert words(running) == {b"last"}, running.log()


def reload(gw, word, more=""):
    gw.write("gateway.lua", PLAIN % word + more)
    done = gw.command("reload")
    assert done.returncode == 0, done.stderr + gw.log()


def words(gw, port=None, at_once=20):
    """What 20 connections hear: with two workers, each is asked all but surely."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return set(pool.map(lambda _: gw.raw(WORD, port, 3).rpartition(b"\r\n\r\n")[2], range(20)))


@pytest.mark.parametrize("function, error", [(FORK, errno.EAGAIN), (FORK, errno.ENOMEM), (SOCKETPAIR, errno.EMFILE)],
                         ids=["fork-EAGAIN", "fork-ENOMEM", "socketpair-EMFILE"])
def test_a_worker_that_cannot_be_forked_is_forked_later(fleet, function, error):
    fleet.plan.arm(function, error, fleet.process.pid, times=2)
    victim = fleet.workers()[0]
    kill(victim)
    wait_until(lambda: fleet.plan.counts()[1] > 0, "the fork fails")
    wait_until(lambda: 0 not in fleet.workers() and victim not in fleet.workers(), "it is tried again", 10)
    assert words(fleet) == {b"first"}


@pytest.mark.parametrize("function, error", [(FORK, errno.EAGAIN), (MEMFD, errno.ENOMEM), (PIPE, errno.EMFILE), (READ, errno.EIO),
                                             (RECVMSG, errno.ENOMEM), (RECVMSG, errno.EINTR), (SEND, errno.ENOBUFS)],
                         ids=["fork", "memfd", "pipe", "read", "recvmsg", "recvmsg-EINTR", "sendmsg"])
def test_a_reload_that_fails_in_the_master_is_refused_and_the_next_one_is_not(fleet, function, error):
    fleet.write("gateway.lua", PLAIN % "second")
    fleet.plan.arm(function, error, fleet.process.pid, times=1, where=LOCAL if function in (RECVMSG, SEND) else ANYWHERE)
    done = fleet.command("reload")
    assert fleet.plan.disarm()[1] == 1
    assert words(fleet) == ({b"second"} if done.returncode == 0 else {b"first"}), done.stderr + fleet.log()


@pytest.mark.parametrize("function, error", [(RECVMSG, errno.ENOMEM), (SEND, errno.EINTR)], ids=["recvmsg", "sendmsg-EINTR"])
def test_a_worker_that_does_not_hear_the_master_once_hears_it_again(fleet, function, error):
    fleet.write("gateway.lua", PLAIN % "second")
    worker = fleet.workers()[0]
    fleet.plan.arm(function, error, worker, LOCAL, times=1)
    done = fleet.command("reload")
    assert fleet.plan.disarm()[1] == 1
    assert words(fleet) == ({b"second"} if done.returncode == 0 else {b"first"}), done.stderr + fleet.log()


def test_a_worker_that_is_not_told_of_a_commit_does_not_serve_the_old_generation(fleet):
    fleet.write("gateway.lua", PLAIN % "second")
    fleet.plan.arm(SEND, errno.EAGAIN, fleet.process.pid, LOCAL, first=3, times=1)  # two are told to prepare, then one to commit
    assert fleet.command("reload").returncode == 0
    assert fleet.plan.disarm()[1] == 1
    wait_until(lambda: words(fleet) == {b"second"}, "both serve the new generation")


def test_a_worker_that_is_replaced_while_the_others_prepare_does_not_serve_the_old_generation(fleet):
    early, late = fleet.workers()
    fleet.write("gateway.lua", PLAIN % "second")
    kill(late, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(fleet.command, "reload")
        wait_until(lambda: "in 2 generations" in fleet.command("status").stdout, "the other has prepared")
        kill(early)
        wait_until(lambda: early not in fleet.workers() and 0 not in fleet.workers(), "it is replaced")
        kill(late, signal.SIGCONT)
        committed = done.result().returncode == 0
    wait_until(lambda: words(fleet) == ({b"second"} if committed else {b"first"}), "both serve the same generation")


def test_a_listener_that_comes_with_a_reload_is_served_by_all_or_refused(fleet):
    """A socket that nobody accepts from still gets its share of the connections: they would wait for ever."""
    fleet.write("gateway.lua", PLAIN % "second" + 'listen { name = "two", address = "127.0.0.1", port = @PORT2@ }')
    fleet.plan.arm(EPOLL_CTL, errno.ENOMEM, fleet.workers()[0], INTERNET, times=1)
    done = fleet.command("reload")
    if done.returncode == 0:
        wait_until(lambda: fleet.plan.counts()[1] == 1, "the worker begins to listen")
        assert words(fleet, fleet.port2) == {b"second"}
    assert fleet.plan.disarm()[1] == 1


def test_the_control_socket_without_descriptors_does_not_spin(fleet):
    fleet.plan.arm(ACCEPT, errno.EMFILE, fleet.process.pid, LOCAL)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(fleet.control))
        wait_until(lambda: fleet.plan.counts()[1] > 0, "the connection is seen")
        before = fleet.plan.counts()[0]
        time.sleep(0.3)  # a time in which little may happen
        assert fleet.plan.counts()[0] - before < 50
        fleet.plan.disarm()
        waiting.settimeout(5)
        waiting.sendall(b"status\n")
        assert waiting.recv(3) == b"ok\n"


def test_a_listener_whose_pause_cannot_end_goes_on_later(fleet):
    """The kernel may have no memory for the registration just when accepting resumes."""
    workers = fleet.workers()
    fleet.plan.arm(ACCEPT, errno.EMFILE, workers[0], INTERNET, times=1)
    while fleet.plan.counts()[1] == 0:
        fleet.raw(WORD)
    fleet.plan.arm(EPOLL_CTL, errno.ENOMEM, workers[0], INTERNET, times=1)
    wait_until(lambda: fleet.plan.counts()[1] == 1, "accepting resumes, and fails")
    fleet.plan.disarm()
    assert words(fleet) == {b"first"} and fleet.workers() == workers


def test_a_worker_out_of_descriptors_refuses_what_is_too_much_and_recovers(fleet):
    """Without the shim's help: the limit of the process itself."""
    worker = fleet.workers()[0]
    before, limit = descriptors(worker), resource.prlimit(worker, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (before + 8, limit))
    clients = [socket.create_connection(("127.0.0.1", fleet.port), timeout=5) for _ in range(60)]
    wait_until(lambda: descriptors(worker) >= before + 7, "the descriptors are used up")
    start = cpu(worker)
    time.sleep(0.3)  # a time in which little may happen
    assert cpu(worker) - start < 0.15, "it spins"
    for client in clients:
        client.close()
    wait_until(lambda: descriptors(worker) <= before, "the descriptors are closed")
    wait_until(lambda: words(fleet, at_once=4) == {b"first"}, "those that were never accepted are forgotten")
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
