"""Our parser beside two others, on the inputs of generate.py: each difference has a row in differences.py, or is a bug."""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from compare import compare, parse
from differences import ROWS, row_of
from generate import inputs

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build/debug/conformance"
ENOUGH = 5000
SHOWN = 20


@pytest.fixture(autouse=True)
def same_worker():
    """In the place of the one of the folder above: no gateway runs here."""


def build():
    """Compiles our.c with the flags of the sanitizers' build, which `make` has written down, against its library."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(["make", "-s", "build/debug/libtidegate.a"], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    BUILD.mkdir(exist_ok=True)
    command = shlex.split((ROOT / "build/debug/flags").read_text())
    command += ["-o", BUILD / "our", HERE / "our.c", "-pie", "build/debug/libtidegate.a"]
    subprocess.run(command, cwd=ROOT, check=True)
    return [BUILD / "our"]


def run(command, cases, path):
    """What the program prints for each input; through files, so that neither side waits for the other."""
    path.write_bytes(b"".join(len(data).to_bytes(4, "big") + data for _, data in cases))
    with open(path, "rb") as stdin, open(path.with_suffix(".out"), "wb") as stdout:
        subprocess.run(command, stdin=stdin, stdout=stdout, check=True, timeout=60)
    return [parse(line) for line in path.with_suffix(".out").read_text().splitlines()]


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    """(the inputs, our readings, peer -> its readings)"""
    assert shutil.which("node"), "the test needs Node: apt-get install nodejs"
    folder = tmp_path_factory.mktemp("differential")
    cases = list(inputs())
    peers = {"node": ["node", HERE / "peer_node.js"], "h11": [sys.executable, HERE / "peer_h11.py"]}
    ours = run(build(), cases, folder / "our")
    theirs = {peer: run(command, cases, folder / peer) for peer, command in peers.items()}
    assert all(len(read) == len(cases) for read in (ours, *theirs.values()))
    return cases, ours, theirs


@pytest.fixture(scope="module")
def explained(readings):
    """(Difference, its row or None) for each"""
    cases, ours, theirs = readings
    return [(difference, row_of(difference)) for peer, read in theirs.items() for (name, data), our, their in zip(cases, ours, read)
            for difference in compare(peer, name, data, our, their)]


def old_node():
    llhttp = subprocess.run(["node", "-p", "process.versions.llhttp"], capture_output=True, text=True, check=True).stdout
    return int(llhttp.split(".")[0]) < 9


def test_there_are_enough_inputs_and_valid_ones_are_taken(readings):
    cases, ours, _ = readings
    assert len(cases) >= ENOUGH and len({data for _, data in cases}) == len(cases)
    refused = [(data, read["why"]) for (name, data), read in zip(cases, ours) if name == "valid" and read["state"] not in ("idle",
                                                                                                                           "closed")]
    assert not refused, refused[:SHOWN]
    assert sum(read["state"] == "refused" for read in ours) > ENOUGH and not any(read["state"] == "broken" for read in ours)


def test_each_difference_is_explained(readings, explained, capsys):
    with capsys.disabled():
        counts = Counter(f"{difference.peer} {difference.kind}" for difference, _ in explained)
        print(f"\n{len(readings[0])} inputs;", ", ".join(f"{key}: {count}" for key, count in sorted(counts.items())))
    unexplained = [difference for difference, row in explained if row is None]
    # One of each sort: a single bug shows in many inputs.
    sorts = {(d.peer, d.kind, d.what, d.name): f"{d.peer} {d.kind} ({d.what}; {d.why}) {d.name}: {d.data[:300]!r}" for d in unexplained}
    assert not unexplained, f"{len(unexplained)} differences without a row, among them:\n" + "\n".join(list(sorts.values())[:SHOWN])


def test_each_row_explains_something(explained):
    counts = Counter(row.name for _, row in explained if row)
    for row in ROWS:
        print(f"{counts[row.name]:6} {row.kind:12} {row.name} ({row.section}: {row.reason})")
    old = old_node()
    unused = [row.name for row in ROWS if counts[row.name] == 0 and (old or not row.old_node)]
    assert not unused, f"rows that match nothing: {unused}"


def reading(*requests, state="idle", why=""):
    """A made-up one: each request is (method, body, end)."""
    made = [{"method": method, "target": b"/", "version": (1, 1), "fields": [], "body": body, "end": end, "trailers": 0} for method, body,
            end in requests]
    return {"requests": made, "state": state, "why": why}


@pytest.mark.parametrize("ours, theirs, kind, what", [
    (reading((b"GET", b"", 4)), reading(state="refused"), "laxer", "whole"),
    (reading(state="refused", why="x"), reading((b"GET", b"", 4)), "stricter", "x"),
    (reading((b"GET", b"ab", 4)), reading((b"GET", b"a", 4)), "framing", "body"),
    (reading((b"GET", b"", 4)), reading((b"GET", b"", 3)), "framing", "end"),
    (reading((b"GET", b"", 4)), reading((b"GET", b"", 4), (b"GET", b"", 8)), "framing", "idle/whole"),
    (reading((b"GET", b"a", 4), state="body"), reading((b"GET", b"a", 4)), "framing", "body/whole"),
    (reading((b"GET", b"ab", 4), state="body"), reading((b"GET", b"ac", 4), state="body"), "framing", "body"),
    (reading((b"GET", b"", 4), state="closed"), reading((b"GET", b"", 4)), "persistence", "closed/idle"),
    (reading((b"GET", b"", 4)), reading((b"PUT", b"", 4)), "reading", "method"),
])
def test_a_difference_is_seen(ours, theirs, kind, what):
    found = compare("node", "made up", b"12345678", ours, theirs)
    assert [(difference.kind, difference.what) for difference in found] == [(kind, what)]
    assert compare("node", "made up", b"12345678", ours, ours) == []
