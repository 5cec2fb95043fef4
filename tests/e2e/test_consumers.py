"""Consumers and their passwords: storms of logins, files that change, failures that deny."""
import base64
import subprocess
import threading
import time

from gateway import Gateway

HEAD = 'listen { name = "front", port = @PORT@ }\n'
HASH = subprocess.run(["openssl", "passwd", "-6", "-salt", "rounds=200000$abcdefgh", "right"], capture_output=True, text=True).stdout.strip()


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_storm_of_logins_holds_up_nobody_else():
    users = "".join(f'consumer "u{i}" {{ credentials = {{ basic = {{ password = "{HASH}" }} }} }}\n'
                    for i in range(3))
    text = HEAD + users + 'route "in" { listen = "front", path = "/in", handler = function(ctx) return tg.respond(200, ctx.consumer.id) end, use = { { "basic-auth", attempts = 100 } } }\n'
    text += 'route "open" { path = "/open", handler = function() return tg.respond(200) end }\n'
    with Gateway(text) as gw:
        start = time.time()
        assert gw.request("/in", headers=basic("u0", "right")).text == b"u0"
        once = time.time() - start
        statuses = []
        threads = [threading.Thread(target=lambda i=i: statuses.append(gw.request("/in", headers=basic(f"u{i % 3}", f"wrong{i}")).status)) for i in range(24)]
        for thread in threads:
            thread.start()
        slowest = 0
        while any(thread.is_alive() for thread in threads):
            start = time.time()
            assert gw.request("/open").status == 200
            slowest = max(slowest, time.time() - start)
            time.sleep(0.01)
        assert set(statuses) == {401}
        assert slowest < max(0.15, once * 2), (slowest, once)
        # What was right is not hashed again.
        start = time.time()
        for _ in range(20):
            assert gw.request("/in", headers=basic("u0", "right")).status == 200
        assert time.time() - start < 10 * once


def test_consumers_stand_in_files_of_their_own_and_a_reload_takes_one_away():
    text = HEAD + 'include "consumers/*.yaml"\nroute "in" { listen = "front", path = "/in", handler = function(ctx) return tg.respond(200, ctx.consumer.id) end, use = { "key-auth" } }\n'
    ann = "consumer:\n  ann:\n    username: Ann\n    credentials:\n      key:\n        - key: k1\n          id: laptop\n        - k2\n"
    bob = '{"consumer": {"bob": {"credentials": {"key": "k3"}}}}'
    with Gateway(text.replace("*.yaml", "*.yaml\"\ninclude \"consumers/*.json"), files={"consumers/ann.yaml": ann, "consumers/bob.json": bob}) as gw:
        for key, who in (("k1", b"ann"), ("k2", b"ann"), ("k3", b"bob")):
            assert gw.request("/in", headers={"X-Api-Key": key}).text == who
        gw.write("consumers/ann.yaml", ann.replace("        - k2\n", ""))
        assert gw.command("reload").returncode == 0
        assert gw.request("/in", headers={"X-Api-Key": "k2"}).status == 401
        assert gw.request("/in", headers={"X-Api-Key": "k1"}).text == b"ann"
        gw.write("consumers/ann.yaml", ann.replace("id: laptop", "expires: tomorrow"))
        answer = gw.command("reload")
        assert answer.returncode == 1 and "expires" in answer.stderr + answer.stdout
        assert gw.request("/in", headers={"X-Api-Key": "k1"}).text == b"ann"
