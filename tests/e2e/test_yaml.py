"""The configuration as YAML: the same words, the same messages."""
from gateway import BINARY, Gateway, subprocess

CONFIG = """
api: 1
listen: { address: 127.0.0.1, port: @PORT@ }
include: more.lua
consumer:
  acme: { groups: [gold], credentials: { key: k } }
route:
  guarded:
    path: /guarded
    handler: hello
    use:
      - key-auth
      - { plugin: rate-limit, limit: 2, per: 1h, key: "${consumer.id}" }
"""
MORE = 'route "more" { path = "/more", handler = function() return tg.respond(200, "more") end }\n'
HELLO = 'return { doc = "Greets.", handler = function(ctx) return tg.respond(200, "hello " .. ctx.consumer.id) end }'



def test_a_gateway_runs_with_yaml_and_includes_lua():
    with Gateway('include "all.yaml"\n', files={"all.yaml": CONFIG, "more.lua": MORE}, plugins={"hello": HELLO}) as gw:
        assert gw.request("/more").text == b"more"
        assert gw.request("/guarded").status == 401
        statuses = [gw.request("/guarded", headers={"X-Api-Key": "k"}).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        gw.write("all.yaml", CONFIG.replace("limit: 2", "limt: 2"))
        done = gw.command("reload")
        assert done.returncode == 1 and 'unknown field; did you mean "limit"?' in done.stderr, done.stderr
        assert gw.request("/more").text == b"more"


def test_what_is_wrong_is_named_with_its_line(tmp_path):
    for text, message in (("route:\n  a: {path: /x\n", "gateway.yaml:3"), ("a: &x 1\n", "gateway.yaml:1\n    anchors are not supported"),
                          ("route: {a: {path: /}, a: {path: /}}\n", "stands twice"), ("listen: {port: yes}\n", 'found     "yes"')):
        (tmp_path / "gateway.yaml").write_text(text)
        done = subprocess.run([BINARY, "check", "--config", str(tmp_path / "gateway.yaml")], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and message in done.stderr, done.stderr
