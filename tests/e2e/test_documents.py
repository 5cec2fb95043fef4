"""What the documents say is true: their commands run, their tables are generated."""
import json
import pathlib
import re
import subprocess

from gateway import BINARY, ROOT, Gateway, free_port
from protos import compile_protos
from test_grpc_transcode import FILES


def blocks(readme):
    """(command, lines that its output has)"""
    for command, expected in re.findall(r"```sh\n(.*?)```\n\n((?:    [^\n]*\n)+)", readme, re.S):
        yield command.strip(), [line.strip() for line in expected.strip().splitlines()]


def is_there(line, out):
    """Members of JSON have no order."""
    if line.startswith("{"):
        return any(json.loads(found) == json.loads(line) for found in out.splitlines() if found.startswith("{"))
    return line in out


def test_the_commands_of_the_quickstart():
    folder = ROOT / "examples/quickstart"
    config = (folder / "gateway.lua").read_text()
    port = free_port()
    for old, new in {"8080": port, "8081": free_port(), "8082": free_port()}.items():
        config = config.replace(old, str(new))
    files = {"backends.lua": (folder / "backends.lua").read_text()}
    with Gateway(config, plugins={"home": (folder / "plugins/home.lua").read_text()}, files=files) as gw:
        found = list(blocks((folder / "README.md").read_text()))
        assert len(found) >= 5
        for command, expected in found:
            out = subprocess.run(["bash", "-c", command.replace("8080", str(port))], capture_output=True, text=True, timeout=30).stdout
            for line in expected:
                assert is_there(line, out), f"{command}\n{out}\n{gw.log()}"


def test_the_table_of_plugins_is_generated():
    out = subprocess.run([BINARY, "doc", "--table"], capture_output=True, text=True, cwd=ROOT, timeout=20)
    assert out.returncode == 0
    assert out.stdout in (ROOT / "plugins/README.md").read_text(), "run: make plugins/README.md"


def test_the_ten_line_plugin_of_the_readme_works():
    readme = (ROOT / "README.md").read_text()
    plugin, config = re.findall(r"```lua\n(.*?)```", readme, re.S)
    config = config.replace("8080", "@PORT@").replace("8082", "1")
    with Gateway(config, plugins={"require-header": plugin}) as gw:
        assert gw.request("/orders/1").status == 422
        assert gw.request("/orders/1", headers={"X-Tenant": "a"}).status == 502


def test_the_example_of_each_plugin_is_valid(tmp_path):
    names = [path.stem for path in pathlib.Path(ROOT / "plugins").glob("*.lua") if not path.name.endswith(".spec.lua")]
    assert len(names) >= 5
    compile_protos(tmp_path, FILES)
    for name in names:
        text = (ROOT / f"plugins/{name}.lua").read_text()
        example = re.search(r"example = \[\[\n(.*?)\]\]", text, re.S).group(1)
        example = example.replace("/var/log/tidegate/access.log", str(tmp_path / "access.log"))
        file = tmp_path / f"{name}.lua"
        upstreams = "".join(f'upstream "{upstream}" {{ targets = {{ "http://127.0.0.1:1" }} }}\n' for upstream in ("orders", "users", "collector"))
        file.write_text("listen { port = 1 }\n" + upstreams + example)
        out = subprocess.run([BINARY, "check", "--plugins", str(ROOT / "plugins"), str(file)], capture_output=True, text=True, timeout=20)
        assert out.returncode == 0, f"{name}: {out.stderr}"
