import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import faults  # noqa: E402
from origin import Origin  # noqa: E402


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-O1", "-fno-builtin", "-fPIC", "-shared",
                    "-o", str(library), str(HERE / "shim.c")], check=True)
    return library


@pytest.fixture(scope="session")
def origin():
    scripted = Origin()
    scripted.reset(faults.answer_of)
    yield scripted
    scripted.close()
