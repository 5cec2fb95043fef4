"""Secrets of a vault: read while a configuration is judged, renewed while requests are served, needed no more once they are there."""
import os
import socket
import subprocess
import time

from authority import Authority
from gateway import BINARY, Gateway
from vaults import Vault

VALUES = {"TEST_VAULT": "r00t-t0ken"}
HEAD = """
listen {{ address = "127.0.0.1", port = @PORT@ }}
vault {{ address = "{url}", token = secret.env "TEST_VAULT", every = "100ms"{more} }}
"""
CONFIG = HEAD + """
consumer "acme" {{ credentials = {{ key = {{ secret "vault:kv/apps/shop#key" }} }} }}
route "all" {{ path = "/*", use = {{ "key-auth" }}, handler = function() return tg.respond(200, "in") end }}
"""


def config(vault, text=CONFIG, more=""):
    return text.format(url=vault.url, more=more)


def status(gw, key):
    return gw.request(headers={"X-Api-Key": key}).status


def wait_until(condition, gw, seconds=15):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, gw.log()
        time.sleep(0.02)


def check(tmp_path, text, env=None):
    (tmp_path / "gateway.lua").write_text(text.replace("@PORT@", "1"))
    ran = subprocess.run([BINARY, "check", str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=40,
                         env={**os.environ, **VALUES, **(env or {})})
    return ran.returncode, ran.stdout + ran.stderr


def test_a_secret_is_read_renewed_and_shown_nowhere():
    with Vault(secrets={"apps/shop": {"key": "first-k3y"}}) as vault, Gateway(config(vault), env=VALUES, warns="cannot be looked at") as gw:
        assert (status(gw, "first-k3y"), status(gw, "second-k3y")) == (200, 401)
        vault.put("apps/shop", key="second-k3y")
        wait_until(lambda: status(gw, "second-k3y") == 200, gw)
        assert status(gw, "first-k3y") == 401
        vault.hides_metadata = True  # a token that may read the secret and no more
        vault.put("apps/shop", key="third-k3y")
        wait_until(lambda: status(gw, "third-k3y") == 200, gw)
        said = gw.log() + gw.command("status").stdout + gw.command("history").stdout
        for value in "r00t-t0ken", "first-k3y", "second-k3y", "third-k3y":
            assert value not in said
        assert "vault" in gw.command("history").stdout


def test_a_rollback_to_an_older_secret_lasts():
    with Vault(secrets={"apps/shop": {"key": "first-k3y"}}) as vault, Gateway(config(vault), env=VALUES) as gw:
        vault.put("apps/shop", key="second-k3y")
        wait_until(lambda: status(gw, "second-k3y") == 200, gw)
        assert gw.command("rollback").returncode == 0
        asked = len(vault.asked)
        wait_until(lambda: len(vault.asked) > asked + 3, gw)
        assert status(gw, "first-k3y") == 200


def test_a_vault_that_is_away_later_changes_nothing_but_reloads():
    with Vault(secrets={"apps/shop": {"key": "first-k3y"}}) as vault, Gateway(config(vault), env=VALUES, warns="cannot be looked at") as gw:
        vault.stop()
        gw.wait_for("kv/apps/shop cannot be looked at")
        assert status(gw, "first-k3y") == 200
        refused = gw.command("reload")
        assert refused.returncode != 0 and 'gateway.lua:5\n    the secret "vault:kv/apps/shop#key" cannot be read: the vault at' in refused.stdout + refused.stderr
        assert status(gw, "first-k3y") == 200
        with Vault(secrets={"apps/shop": {"key": "other-k3y"}}, port=vault.port):
            assert gw.command("reload").returncode == 0
            assert status(gw, "other-k3y") == 200


def test_the_token_is_renewed_before_it_ends():
    with Vault(secrets={"apps/shop": {"key": "first-k3y"}}) as vault:
        vault.ttl = 0.4
        with Gateway(config(vault), env=VALUES, workers=2) as gw:
            wait_until(lambda: vault.renewals >= 3, gw)
        vault.ttl, before = 0, len([1 for _, path in vault.asked if path.endswith("renew-self")])
        with Gateway(config(vault), env=VALUES) as gw:  # one that never ends is asked for once
            asked = len(vault.asked)
            wait_until(lambda: len(vault.asked) > asked + 4, gw)
        assert len([1 for _, path in vault.asked if path.endswith("renew-self")]) == before + 1


def test_a_token_in_a_file_is_followed():
    with Vault(secrets={"apps/shop": {"key": "first-k3y"}}) as vault:
        text = config(vault).replace('token = secret.env "TEST_VAULT"', 'token_file = "token"')
        with Gateway(text, files={"token": "r00t-t0ken\n"}, warns="cannot be looked at|cannot be renewed") as gw:
            vault.token = "an0ther"
            vault.put("apps/shop", key="second-k3y")
            gw.write("token", "an0ther\n")
            wait_until(lambda: status(gw, "second-k3y") == 200, gw)


def test_over_tls_only_the_right_vault_is_asked(tmp_path):
    ca, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    own, foreign = ca.issue("vault", "IP:127.0.0.1"), ca.issue("elsewhere", "DNS:elsewhere.test")
    secrets = {"apps/shop": {"key": "first-k3y"}}
    with Vault(secrets=secrets, tls=own, namespace="team/one") as vault:
        more = f', ca = "{ca.cert}", namespace = "team/one"'
        with Gateway(config(vault, more=more), env=VALUES) as gw:
            assert status(gw, "first-k3y") == 200
            vault.put("apps/shop", key="second-k3y")
            wait_until(lambda: status(gw, "second-k3y") == 200, gw)
        asked = len(vault.asked)
        for wrong in f', ca = "{other.cert}", namespace = "team/one"', ', namespace = "team/one"':
            code, said = check(tmp_path, config(vault, more=wrong))
            assert code == 1 and "its certificate is refused" in said, said
        assert len(vault.asked) == asked
        code, said = check(tmp_path, config(vault, more=f', ca = "{ca.cert}"'))
        assert code == 1 and "answers 403 (permission denied)" in said
    with Vault(secrets=secrets, tls=foreign) as vault:
        code, said = check(tmp_path, config(vault, more=f', ca = "{ca.cert}"'))
        assert code == 1 and "IP address mismatch" in said and vault.asked == []


def test_what_is_wrong_is_told_with_its_place(tmp_path):
    with Vault(secrets={"apps/shop": {"key": "first-k3y", "number": 7}}) as vault:
        for line, problem in {
            'secret "vault:kv/apps/none#key"': "is not there: the vault at",
            'secret "vault:kv/apps/shop#none"': 'is not there: version 1 has no key "none"',
            'secret.vault "kv/apps/shop#number"': "is no text",
            'secret.vault "kv/apps/../sys#key"': "is no place in a vault",
            'secret.vault "kv#key"': "is no place in a vault",
            'secret.vault "kv/apps/shop?list=true#key"': "is no place in a vault",
        }.items():
            code, said = check(tmp_path, config(vault, HEAD + line))
            assert code == 1 and "gateway.lua:4\n    the secret" in said and problem in said, said
        code, said = check(tmp_path, config(vault), {"TEST_VAULT": "wr0ng"})
        assert code == 1 and "answers 403" in said and "wr0ng" not in said
        for answer, problem in {(200, b"[]"): "no secret of KV version 2", (200, b"}"): "no secret of KV version 2", (503, b"sealed"): "answers 503",
                                (307, b""): "answers 307", (200, b"x" * 1100000): "more than 1048576 bytes"}.items():
            vault.answers = answer
            code, said = check(tmp_path, config(vault))
            assert code == 1 and problem in said, said
    listen = "listen { port = 1 }\n"
    for text, problem in {
        'consumer "a" { credentials = { key = secret.vault "kv/a#b" } }': "cannot be read: there is no vault before it",
        'vault { address = "http://127.0.0.1:1" }': "both or neither of `token` and `token_file`",
        'vault { address = "127.0.0.1:1", token = "x" }': "vault › address",
        'vault { address = "http://127.0.0.1:1", token = secret.env "TEST_NONE" }': 'the secret "env:TEST_NONE" is not there',
        'vault { address = "http://127.0.0.1:1", token = "x" } vault { address = "http://127.0.0.1:1", token = "x" }': "there is one already",
    }.items():
        code, said = check(tmp_path, listen + text)
        assert code == 1 and problem in said, said


def test_a_vault_that_is_silent_costs_its_timeout_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yaml = 'vault: { address: "http://127.0.0.1:%d", token: "x", timeout: "300ms" }\nlisten: { port: 1 }\nconsumer:\n' % silent.getsockname()[1]
        yaml += "".join(f'  c{i}: {{ credentials: {{ key: {{ secret: "vault:kv/p{i}#k" }} }} }}\n' for i in range(40))
        (tmp_path / "gateway.yaml").write_text(yaml)
        ran = subprocess.run([BINARY, "check", str(tmp_path / "gateway.yaml")], capture_output=True, text=True, timeout=40)
        assert ran.returncode == 1 and ran.stderr.count("it does not answer in time") == 40, ran.stderr
