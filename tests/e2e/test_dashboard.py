"""The dashboard in headless Chromium, with traffic behind it: what it shows, what its buttons do, and that it asks nobody else."""
import json
import os
import threading
import time

from backends import Backend
from gateway import ROOT, Gateway
from node import run

TOKEN = "the-token-of-the-dashboard"
CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
admin { port = @PORT2@, token = "the-token-of-the-dashboard" }
upstream "orders" { targets = { "http://A", "http://B" }, breaker = { consecutive = 100 } }
upstream "search" { targets = { "http://A" } }
use { "correlation-id" }
route "orders" { path = "/orders/*", to = "orders", use = { { "rate-limit", group = "orders", limit = 40, per = "1s", key = "${query.k}" } } }
route "search" { path = "/search", to = "search" }
route "report" { path = "/report", handler = function() tg.sleep(0.05) return tg.respond(200, "done") end }
route "broken" { path = "/broken/*", handler = function() error "a mistake" end }
"""


def send(gw, stop):
    n = 0
    while not stop.is_set():
        n += 1
        gw.request(f"/orders/{n % 7}?k={n % 3}")
        gw.request("/search")
        if n % 5 == 0:
            gw.request("/report")
        if n % 10 == 0:
            gw.request("/broken/%3Cscript%3E")
        gw.request("/nowhere")
        time.sleep(0.002)


def test_the_dashboard_shows_and_does_what_it_should(tmp_path):
    with Backend("a") as a, Backend("b") as b:
        text = CONFIG.replace("//A", "//" + a.address).replace("//B", "//" + b.address)
        with Gateway(text, workers=2, warns="admin: |upstream|no peer is up") as gw:
            gw.write("gateway.lua", text + '-- one line more ' + "and a long one " * 20 + '\nroute "more" { path = "/more", to = "search" }\n')
            assert gw.command("reload").returncode == 0
            stop = threading.Event()
            threads = [threading.Thread(target=send, args=(gw, stop)) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                pictures = os.environ.get("PICTURES", str(tmp_path))
                seen = json.loads(run("dashboard", f"http://127.0.0.1:{gw.port2}/", TOKEN, b.address, pictures))
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            assert (tmp_path / "dashboard.png").exists() or "PICTURES" in os.environ
    assert seen["complaints"] == [] and seen["foreign"] == [], seen
    assert "not the token" in seen["refusal"]
    assert {"orders", "search", "report", "broken", "none"} <= set(seen["routes"])
    assert any("requests / s" in tile for tile in seen["tiles"]) and a.address in seen["peers"] and b.address in seen["peers"]
    assert any("/broken/" in failure for failure in seen["failures"]) and seen["markup"] == 0
    assert "rate-limit" in seen["plugins"] and seen["peer"] == "went down and came up" and seen["tail"] == 7
    assert seen["themes"][0] != seen["themes"][1] == seen["kept"] and seen["overflow"] == [0, 0]
    assert seen["focus"] == f"up {b.address}" and seen["filtered"] == ["4"] and seen["toggle"] == "Follow"
    assert "one line more" in seen["diff"] and seen["rolledBack"]


def test_the_picture_of_the_readme_is_there():
    assert (ROOT / "examples/observability/dashboard.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
