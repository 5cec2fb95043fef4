import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from gateway import Gateway  # noqa: E402
from origin import Origin  # noqa: E402

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, header_timeout = "500ms", body_timeout = "500ms" }
upstream "o" { targets = { "http://127.0.0.1:%d" }, first_byte_timeout = "2s" }
route "all" { path = "/*", to = "o", body_limit = "64KiB" }
"""


@pytest.fixture(scope="session")
def origin():
    return Origin()


@pytest.fixture(scope="session")
def gw(origin):
    with Gateway(CONFIG % origin.port) as gateway:
        yield gateway
        assert gateway.process.poll() is None, gateway.log()
        assert "was ended by signal" not in gateway.log() and "ERROR: AddressSanitizer" not in gateway.log()
