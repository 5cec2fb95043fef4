"""Secrets: read from the environment and from files, seen by nobody, and renewed while requests are served."""
import os
import re
import subprocess
import time

from gateway import BINARY, Gateway

CONFIG = """
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@ }
upstream "back" { targets = { "http://127.0.0.1:@PORT2@" } }
route "back" { listen = "back", path = "/*", handler = function(ctx) return tg.respond(200, ctx.req.headers.authorization or "none") end }
consumer "acme" { credentials = { key = { secret "env:TEST_KEY", secret.file "keys/second" } } }
route "all" { listen = "front", path = "/*", to = "back", use = { "key-auth", { "asks", token = secret "env:TEST_TOKEN" },
  { "headers", request = { set = { Authorization = secret "file:keys/upstream" } } } } }
"""
ASKS = """
local own = tg.secret "env:TEST_OWN"
return { doc = "Uses secrets.", schema = { token = t.secret() },
  setup = function(conf) return { later = tg.secret "file:keys/setup", token = conf.token:reveal() } end,
  access = function(ctx, conf, state)
    if ctx.req.query.raise then error(conf.token) end
    tg.log.info("secrets", { own, conf.token, state.later, text = tostring(own) })
    if ctx.req.query.show then return tg.respond(200, own:reveal() .. state.token .. conf.token:reveal() .. state.later:reveal()) end
    if ctx.req.query.json then return tg.respond(200, { own, conf.token }) end
    if ctx.req.query.header then return tg.respond(200, "", { ["X-A"] = ctx.req.query.header == "list" and { own } or own }) end
    if ctx.req.query.call then tg.http.get("http://127.0.0.1:1/", { headers = { Authorization = ctx.req.query.call == "lf" and own:reveal() .. "\\n" or own } }) end
    if ctx.req.query.set then ctx.req.headers["X-A"] = ctx.req.query.set == "lf" and own:reveal() .. "\\n" or own end
    if ctx.req.query.late then return tg.respond(200, tostring(select(2, pcall(tg.secret, "env:HOME")))) end
  end }
"""
VALUES = {"TEST_KEY": "0ne-k3y", "TEST_TOKEN": "t0k3n-value", "TEST_OWN": "0wn-value"}
FILES = {"keys/second": "s3cond-key\n", "keys/upstream": "Bearer upstr3am\r\n", "keys/setup": "l4ter\n\n"}


def gateway(env=None, files=None, config=CONFIG, **options):
    return Gateway(config, plugins={"asks": ASKS}, files={**FILES, **(files or {})}, env={**VALUES, **(env or {})},
                   options=("--plugins", "plugins"), **options)


def generation(gw):
    return re.search(r"generation +(\w+)", gw.command("status").stdout).group(1)


def get(gw, path="/", key="0ne-k3y"):
    return gw.request(path, headers={"X-Api-Key": key})


def wait_for_key(gw, key):
    end = time.time() + 5
    while get(gw, key=key).status != 200:
        assert time.time() < end, gw.log()
        time.sleep(0.02)


def check(tmp_path, name, text, env=None):
    (tmp_path / name).write_text(text)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TEST_")}
    return subprocess.run([BINARY, "check", str(tmp_path / name)], capture_output=True, text=True, timeout=20, env={**environment, **(env or {})})


def test_secrets_are_where_they_are_needed_and_nowhere_else():
    with gateway() as gw:
        for key in "0ne-k3y", "s3cond-key":
            answer = get(gw, key=key)
            assert (answer.status, answer.text) == (200, b"Bearer upstr3am")
        assert get(gw, key="***").status == 401
        assert get(gw, "/?show=1").text == b"0wn-valuet0k3n-valuet0k3n-valuel4ter"
        assert get(gw, "/?json=1").text == b'["***","***"]'
        assert b"while a generation is made" in get(gw, "/?late=1").text
        assert get(gw, "/?raise=1").status == 500
        for query in "header=1", "header=list", "call=1", "call=lf", "set=1", "set=lf":
            assert get(gw, "/?" + query).status == 500, query
        gw.wait_for("a secret becomes text by its reveal()", count=3)
        gw.wait_for("***")
        said = gw.log() + gw.command("status").stdout
        for value in [*VALUES.values(), *(text.strip() for text in FILES.values())]:
            assert value not in said
        assert '"***"' in said


def test_a_secret_that_is_renewed_is_another_generation():
    with gateway(watch=True) as gw:
        first = generation(gw)
        assert get(gw, key="new-key").status == 401
        gw.write("keys/second", "new-key\n")
        wait_for_key(gw, "new-key")
        assert get(gw, key="s3cond-key").status == 401
        assert generation(gw) != first
        assert gw.command("rollback").returncode == 0
        assert get(gw, key="s3cond-key").status == 200
        assert generation(gw) == first
        gw.write("keys/second", "s3cond-key\n\n")  # another file, the same secret: read anew, all the same
        assert gw.command("reload").returncode == 0
        assert get(gw, key="s3cond-key").status == 200
        gw.write("keys/second", "\n")
        refused = gw.command("reload")
        assert refused.returncode != 0 and 'gateway.lua:6\n    the secret "file:keys/second" is empty' in refused.stdout + refused.stderr
        assert get(gw, key="s3cond-key").status == 200


def test_the_same_secrets_have_the_same_id_and_others_another():
    with gateway() as gw:
        first = generation(gw)
        for name, value, same in [("second", "other", False), ("second", "s3cond-key\n", True), ("setup", "l4tes\n\n", False), ("setup", "l4ter\n\n", True)]:
            gw.write("keys/" + name, value)
            assert gw.command("reload").returncode == 0
            assert (generation(gw) == first) == same
        gw.write("keys/second", FILES["keys/setup"])
        gw.write("keys/setup", FILES["keys/second"])
        assert gw.command("reload").returncode == 0
        assert generation(gw) != first


def test_what_is_missing_is_named_with_its_place(tmp_path):
    listen = 'listen { port = 1 }\n'
    for text, problem in {
        'secret "env:TEST_NONE"': '2\n    the secret "env:TEST_NONE" is not there',
        'secret "env:TEST_EMPTY"': '2\n    the secret "env:TEST_EMPTY" is empty',
        'secret "file:none"': '2\n    the secret "file:none" cannot be read: ',
        'secret "vault:kv/a#b"': '2\n    the secret "vault:kv/a#b" cannot be read: there is no vault before it',
        'secret "hunter2"': '2\n    secret needs "env:NAME", "file:PATH" or "vault:MOUNT/PATH#KEY"',
        'secret.env "TEST_NONE"': '2\n    the secret "env:TEST_NONE" is not there',
        'secret.file(7)': "2\n    secret.file needs a text, found a number",
    }.items():
        out = check(tmp_path, "gateway.lua", listen + text, {"TEST_EMPTY": ""})
        assert out.returncode != 0 and "gateway.lua:" + problem in out.stderr + out.stdout
        assert "hunter2" not in out.stderr + out.stdout


def test_a_plugin_that_lacks_its_secret_is_not_loaded(tmp_path):
    (tmp_path / "plugins").mkdir()
    config = 'listen { port = 1 }\nroute "r" { path = "/*", handler = "p" }\n'
    for text, problem in {
        'local x = 1\nlocal s = tg.secret "env:TEST_NONE"\nreturn { handler = function() end }': 'p.lua:2  plugin p\n    the secret "env:TEST_NONE" is not there',
        'return { setup = function()\n  local s = tg.secret "file:none"\n  return s\nend, handler = function() end }': 'p.lua:2: the secret "file:none" cannot be read',
    }.items():
        (tmp_path / "plugins/p.lua").write_text(text)
        out = check(tmp_path, "gateway.lua", config)
        assert out.returncode != 0 and problem in out.stderr + out.stdout


def test_yaml_has_secrets_too(tmp_path):
    text = 'listen: { port: 1 }\nconsumer: { acme: { credentials: { key: { secret: "env:TEST_KEY" } } } }\n'
    assert check(tmp_path, "gateway.yaml", text, {"TEST_KEY": "x"}).returncode == 0
    out = check(tmp_path, "gateway.yaml", text)
    assert out.returncode != 0 and 'consumer "acme" › credentials › key\n    the secret "env:TEST_KEY" is not there' in out.stderr + out.stdout


def test_documentation_needs_no_secrets(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/asks.lua").write_text(ASKS)
    out = subprocess.run([BINARY, "doc", "asks"], capture_output=True, text=True, timeout=20, cwd=tmp_path)
    assert out.returncode == 0 and "Uses secrets." in out.stdout, out.stderr


def test_a_volume_whose_files_are_links_is_renewed():
    """As Kubernetes mounts secrets: ..data is a link to a folder, each file a link through it; another link takes its place."""
    with gateway(watch=True) as gw:
        for name, value in {"..one": "first\n", "..two": "renewed\n"}.items():
            gw.write(f"volume/{name}/second", value)
        os.symlink("..one", gw.folder / "volume/..data")
        os.symlink("..data/second", gw.folder / "volume/second")
        gw.write("gateway.lua", CONFIG.replace("keys/second", "volume/second"))
        wait_for_key(gw, "first")
        os.symlink("..two", gw.folder / "volume/..data_tmp")
        os.rename(gw.folder / "volume/..data_tmp", gw.folder / "volume/..data")
        wait_for_key(gw, "renewed")


def test_what_a_policy_makes_of_a_secret_is_not_told_by_the_tools_that_run_it(tmp_path):
    use = '{ "headers", request = { set = { ["X-Plain"] = secret "env:TEST_TOKEN", ["X-Part"] = "a ${header.X-A}" } } }'
    text = 'listen { port = 1 }\nupstream "u" { targets = { "http://127.0.0.1:1" } }\nroute "a" { path = "/*", to = "u", use = { %s, { "adds" } } }\n' % use
    adds = 'local own = tg.secret "env:TEST_OWN"\nreturn { access = function(ctx) ctx.req.raw_query = "id=" .. own:reveal() .. "&api_key=mine" '
    adds += 'ctx.req.headers["X-More"] = "is " .. own:reveal() .. "!" if ctx.req.headers["x-raise"] then error(own:reveal()) end end }'
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "adds.lua").write_text(adds)
    (tmp_path / "gateway.lua").write_text(text)
    (tmp_path / "other.lua").write_text(text.replace("TEST_TOKEN", "TEST_KEY"))
    (tmp_path / "traffic.log").write_text('{"host": "x", "method": "GET", "path": "/", "headers": {}}\n')
    said = []

    def run(*words):
        done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=30, cwd=tmp_path, env={**os.environ, **VALUES})
        said.append(done.stdout + done.stderr)
        return said[-1]

    for more in ("", "X-Raise: 1\r\n"):
        (tmp_path / "request.http").write_text("GET /?b=1 HTTP/1.1\r\nHost: x\r\nX-A: shown\r\n" + more + "\r\n")
        for json_flag in ([], ["--json"]):
            told = run("explain", "--config", "gateway.lua", "--plugins", "plugins", "--run", *json_flag, "request.http")
            assert ("raises" in told or '"raised"' in told) if more else ("***" in told and "a shown" in told), told
    differs = run("diff", "--traffic", "traffic.log", "--plugins", "plugins", "gateway.lua", "other.lua")
    assert "1 of 1 requests differ" in differs and "x-plain" in differs and "- ***" in differs, differs
    for value in VALUES.values():
        assert value not in "".join(said), "".join(said)
    assert "mine" not in "".join(said)


def test_a_credential_in_the_wrong_place_is_not_told(tmp_path):
    told = check(tmp_path, "gateway.lua", 'listen { port = 1 }\nconsumer "ann" { credentials = "s3cret-key" }\n')
    assert told.returncode == 1 and 'gateway.lua:2  consumer "ann" › credentials' in told.stderr and "s3cret" not in told.stdout + told.stderr
