import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import gateway  # noqa: E402
from origin import Origin  # noqa: E402

# The sanitizers' build when there is one: a row that passes by reading past an end must not pass.
BUILT = [gateway.ROOT / "build" / variant / "tidegate" for variant in ("debug", "release")]
BINARY = os.environ.get("TIDEGATE") or str(next((path for path in BUILT if path.exists()), BUILT[0]))

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@, header_timeout = "500ms", body_timeout = "500ms", keepalive_timeout = "1s", http2 = false }
upstream "o" { targets = { "http://127.0.0.1:%d" }, first_byte_timeout = "2s", idle_timeout = "1s" }
route "all" { path = "/*", to = "o", body_limit = "64KiB" }
"""


@pytest.fixture(scope="session")
def origin():
    scripted = Origin()
    yield scripted
    scripted.close()


@pytest.fixture(scope="session")
def gw(origin):
    with gateway.Gateway(CONFIG % origin.port, binary=BINARY) as running:
        yield running
        assert running.process.poll() is None, running.log()
        assert "was ended by signal" not in running.log() and "ERROR: AddressSanitizer" not in running.log()


@pytest.fixture(autouse=True)
def same_worker(gw):
    """A crash belongs to the row that caused it, not to the one after."""
    yield
    assert gw.log().count("was ended by signal") == 0 and "Sanitizer" not in gw.log(), gw.log()[-4000:]
