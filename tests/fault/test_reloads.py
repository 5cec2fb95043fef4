"""A hundred reloads, good and bad, while requests, uploads, downloads and tunnels are under way: none of them notices."""
import os
import re
import signal
import socket
import threading
import time

from faults import Client, wait_until
from gateway import Gateway, kill

CONFIG = """
api = 1
listen { name = "front", address = "127.0.0.1", port = @PORT@ }
listen { name = "back", address = "127.0.0.1", port = @PORT2@, body_timeout = "30s" }
upstream "o" { targets = { "http://127.0.0.1:@PORT2@" } }
upstream "tunnel" { targets = { "http://127.0.0.1:%d" } }
route "tunnel" { listen = "front", path = "/tunnel", to = "tunnel", upgrade = "websocket" }
route "sleep" { listen = "front", path = "/sleep", handler = function() tg.sleep(0.2) return tg.respond(200, "slept") end }
route "drip" { listen = "front", path = "/drip", handler = function() return tg.respond(200, function(write)
  for i = 1, 30 do write(i .. "\\n") tg.sleep(0.1) end
end) end }
route "to" { listen = "front", path = "/*", to = "o" }
route "echo" { listen = "back", path = "/echo", handler = function(ctx) return tg.respond(200, assert(ctx.req:text())) end }
route "back" { listen = "back", path = "/*", handler = function() return tg.respond(200, "ok") end }
"""
GOOD = 'route "n" { listen = "front", path = "/n", handler = function() return tg.respond(200, "%d") end }\n'
BAD = ["route {", 'route "x" { path = 5 }\n', 'error "no"\n', 'route "x" { path = "/x", to = "nobody" }\n']


class EchoTunnel:
    """Switches protocols, then sends back what comes."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection = self.listener.accept()[0]
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    @staticmethod
    def serve(connection):
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(4096)
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while data := connection.recv(4096):
                connection.sendall(data)


class Traffic:
    """Each kind in a thread of its own, until `stop`; what goes wrong is kept."""

    def __init__(self, port):
        self.port, self.stop, self.wrong, self.done = port, threading.Event(), [], {}
        self.threads = [threading.Thread(target=self.run, args=(kind,)) for kind in (self.get, self.get, self.sleep, self.upload, self.drip, self.tunnel)]
        for thread in self.threads:
            thread.start()

    def run(self, kind):
        try:
            while not self.stop.is_set():
                kind()
                self.done[kind.__name__] = self.done.get(kind.__name__, 0) + 1
        except Exception as error:  # whatever it is, the test is to tell
            self.wrong.append((kind.__name__, repr(error)))

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(15)
        assert not self.wrong, self.wrong
        assert set(self.done) == {"get", "sleep", "upload", "drip", "tunnel"}, self.done

    def get(self):
        with Client(self.port, 10) as client:
            for _ in range(200):
                client.send(b"GET /get HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = client.answer()
                assert (answer.status, answer.body, answer.field("Connection")) == (200, b"ok", None), answer.head

    def sleep(self):
        with Client(self.port, 10) as client:
            client.send(b"GET /sleep HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().body == b"slept"

    def upload(self):
        with Client(self.port, 20) as client:
            client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n", *[b"0123456789"] * 20, pause=0.1)
            assert client.answer().body == b"0123456789" * 20

    def drip(self):
        with Client(self.port, 20) as client:
            client.send(b"GET /drip HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().body.split() == [b"%d" % n for n in range(1, 31)]

    def tunnel(self):
        with Client(self.port, 20) as client:
            client.send(b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert client.answer().status == 101
            for n in range(30):
                client.send(b"message %d;" % n)
                assert client.until(b";") == b"message %d" % n
                time.sleep(0.1)


def test_a_hundred_reloads_are_noticed_by_nobody():
    text = CONFIG % EchoTunnel().port
    with Gateway(text, workers=2) as gw:
        workers = gw.workers()
        traffic = Traffic(gw.port)
        for n in range(100):
            if n % 3 == 2:
                gw.write("gateway.lua", text + BAD[n % len(BAD)])
                assert gw.command("reload").returncode == 1
            else:
                gw.write("gateway.lua", text + GOOD % n)
                done = gw.command("reload")
                assert done.returncode == 0, done.stderr
                assert gw.request("/n").text == b"%d" % n
        traffic.end()
        assert gw.workers() == workers
        wait_until(lambda: gw.command("status").stdout.count("in 1 generation\n") == 2, "one generation is left", 12)


def test_many_reloads_at_the_same_moment_are_all_answered():
    text = CONFIG % 1
    with Gateway(text, workers=2) as gw:
        for n in range(3):
            gw.write("gateway.lua", text + GOOD % n)
            codes = []
            askers = [threading.Thread(target=lambda: codes.append(gw.command("reload").returncode)) for _ in range(6)]
            askers += [threading.Thread(target=os.kill, args=(gw.process.pid, signal.SIGHUP)) for _ in range(3)]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join(30)
            assert len(codes) == 6 and set(codes) <= {0, 1} and 0 in codes, codes
            wait_until(lambda: gw.request("/n").text == b"%d" % n, "the newest is live")


def test_a_worker_that_dies_during_a_reload_leaves_no_mixture():
    text = CONFIG % 1
    with Gateway(text, workers=2) as gw:
        for n in range(12):
            gw.write("gateway.lua", text + GOOD % n)
            done = []
            asker = threading.Thread(target=lambda: done.append(gw.command("reload").returncode))
            asker.start()
            time.sleep(0.002 * (n % 6))
            kill(gw.workers()[n % 2])
            asker.join(30)
            if done[0] != 0:
                assert gw.command("reload").returncode == 0, gw.log()
            wait_until(lambda: len(gw.workers()) == 2, "both run")
            wait_until(lambda: {gw.request("/n").text for _ in range(20)} == {b"%d" % n}, "all serve the newest")
        assert len(re.findall("is live", gw.log())) >= 12
