"""Places that a configuration may come from: Redis, etcd as Debian has it, and what Consul documents of its HTTP interface."""
import base64
import contextlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from authority import Authority
from gateway import free_ports
from redis_servers import Redis


class RedisSource:
    def __init__(self):
        self.redis = Redis("--requirepass", "geheim")
        self.start, self.stop = self.redis.start, self.redis.stop

    def word(self, more):
        return (f'redis "config" {{ address = "{self.redis.address}", password = secret "env:SOURCE_PASSWORD" }}\n'
                f'source {{ redis = "config", key = "site", {more} }}\n')

    def put(self, files):
        self.put_text(json.dumps(files))

    def put_text(self, text):
        subprocess.run(["redis-cli", "-p", str(self.redis.port), "-a", "geheim", "-x", "set", "site"], input=text, text=True, check=True,
                       capture_output=True, timeout=20)
        self.redis.cli("publish", "site:changed", "")

    def fleet(self):
        keys = [key for key in self.redis.cli("keys", "site:fleet:*").split() if key]
        return {key.rsplit(":", 1)[1]: json.loads(self.redis.cli("get", key)) for key in keys}

    def remove(self):
        shutil.rmtree(self.redis.folder)


def coded(text):
    return base64.b64encode(text.encode()).decode()


def plain(text):
    return base64.b64decode(text).decode()


class EtcdSource:
    """With TLS, a second server that is never there, users and passwords, since that is the longer way."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="tidegate-etcd-")
        self.port, self.peer, self.nobody = free_ports(3)
        self.url, self.process, self.token = f"https://127.0.0.1:{self.port}", None, None
        self.authority = Authority(self.folder + "/tls")
        self.cert, self.key = self.authority.issue("etcd", "IP:127.0.0.1")
        self.trust = ssl.create_default_context(cafile=self.authority.cert)

    def post(self, path, body, headers=None):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers or {})
        with urllib.request.urlopen(request, timeout=5, context=self.trust) as answer:
            return json.load(answer)

    def start(self):
        url, peer = self.url, f"http://127.0.0.1:{self.peer}"
        command = ["etcd", "--name", "one", "--data-dir", self.folder + "/data", "--listen-client-urls", url, "--advertise-client-urls", url,
                   "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}",
                   "--cert-file", str(self.cert), "--key-file", str(self.key)]
        with open(self.folder + "/log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 20
        while True:
            try:
                self.post("/v3/maintenance/status", {})
                break
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None, open(self.folder + "/log", encoding="utf-8").read()
                time.sleep(0.05)
        if self.token is None:
            for path, body in (("user/add", {"name": "root", "password": "geheim"}), ("role/add", {"name": "root"}),
                               ("user/grant", {"user": "root", "role": "root"}), ("enable", {})):
                self.post("/v3/auth/" + path, body)
        self.token = self.post("/v3/auth/authenticate", {"name": "root", "password": "geheim"})["token"]
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def call(self, path, body):
        return self.post("/v3/kv/" + path, body, {"Authorization": self.token})

    def word(self, more):
        return (f'source {{ etcd = {{ "https://127.0.0.1:{self.nobody}", "{self.url}" }}, prefix = "/site/", username = "root", '
                f'password = secret "env:SOURCE_PASSWORD", tls = {{ ca = "{self.authority.cert}" }}, {more} }}\n')

    def put(self, files):
        """All at once: a transaction."""
        puts = [{"requestPut": {"key": coded("/site/" + name), "value": coded(text)}} for name, text in files.items()]
        assert self.call("txn", {"compare": [], "success": puts}).get("succeeded")

    def fleet(self):
        found = self.call("range", {"key": coded("/site-fleet/"), "range_end": coded("/site-fleet0")}).get("kvs", [])
        return {plain(entry["key"]).rsplit("/", 1)[1]: json.loads(plain(entry["value"])) for entry in found}

    def remove(self):
        shutil.rmtree(self.folder)


class ConsulSource:
    """Consul is not in Debian: this speaks as much of its documented interface as a source uses (key-value store, blocking queries, sessions)."""

    def __init__(self):
        self.port, = free_ports(1)
        self.index, self.keys, self.sessions, self.server = 7, {}, set(), None
        self.connections = []
        self.changed = threading.Condition()

    def start(self):
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                source.connections.append(self.connection)

            def handle(self):
                with contextlib.suppress(OSError):
                    super().handle()

            def log_message(self, *_):
                pass

            def answer(self, status, value):
                text = b"" if value is None else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("X-Consul-Index", str(source.index))
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def handle_call(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                if self.headers.get("X-Consul-Token") != "geheim":
                    return self.answer(403, None)
                if self.command == "GET":
                    return self.answer(*source.read(url.path.removeprefix("/v1/kv/"), query))
                if url.path == "/v1/session/create":
                    return self.answer(200, {"ID": source.session()})
                if url.path.startswith("/v1/session/renew/"):
                    return self.answer(200 if url.path.rsplit("/", 1)[1] in source.sessions else 404, [])
                return self.answer(200, query.get("acquire") in source.sessions and source.set(url.path.removeprefix("/v1/kv/"), body.decode()))

            do_GET = do_PUT = handle_call
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()
        with self.changed:
            self.sessions.clear()
            self.changed.notify_all()

    def session(self):
        self.sessions.add(f"s{len(self.sessions)}")
        return f"s{len(self.sessions) - 1}"

    def below(self, prefix):
        return {key: entry for key, entry in self.keys.items() if key.startswith(prefix)}

    def read(self, prefix, query):
        with self.changed:
            def newest():
                return max([index for _, index in self.below(prefix).values()], default=0)
            if "index" in query:
                self.changed.wait_for(lambda: newest() > int(query["index"]), float(query["wait"].rstrip("s")))
            found = [{"Key": key, "Value": coded(text), "ModifyIndex": index} for key, (text, index) in self.below(prefix).items()]
        return (200, found) if found else (404, None)

    def set(self, key, text):
        with self.changed:
            self.index += 1
            self.keys[key] = (text, self.index)
            self.changed.notify_all()
        return True

    def word(self, more):
        return f'source {{ consul = "http://127.0.0.1:{self.port}", prefix = "site/", token = secret "env:SOURCE_PASSWORD", {more} }}\n'

    def put(self, files):
        with self.changed:
            for name, text in {"": "", **files}.items():
                self.set("site/" + name, text)

    def fleet(self):
        return {key.rsplit("/", 1)[1]: json.loads(text) for key, (text, _) in self.below("site-fleet/").items()}

    def remove(self):
        pass
