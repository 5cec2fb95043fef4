"""A vault for tests. Debian has neither Vault nor OpenBao: this server speaks what of their documented HTTP API the gateway uses."""
import http.server
import json
import ssl
import threading


class Vault:
    """KV version 2 below one mount. `secrets`: by path, a list of the versions. All of it may change while it runs."""

    def __init__(self, mount="kv", secrets=None, token="r00t-t0ken", namespace=None, tls=None, port=0):
        self.mount, self.token, self.namespace = mount, token, namespace
        self.secrets = {path: [dict(values)] for path, values in (secrets or {}).items()}
        self.ttl, self.renewals, self.asked, self.hides_metadata, self.answers = 0, 0, [], False, None
        vault = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer(*vault.answer(self))

            do_POST = do_GET

            def answer(self, status, value):
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*map(str, tls))
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None  # a client that refuses our certificate
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def put(self, path, **values):
        self.secrets.setdefault(path, []).append(values)

    def answer(self, request):
        self.asked.append((request.command, request.path))
        if self.answers:
            return self.answers
        if request.headers["X-Vault-Token"] != self.token or request.headers["X-Vault-Namespace"] != self.namespace:
            return 403, {"errors": ["permission denied"]}
        if (request.command, request.path) == ("POST", "/v1/auth/token/renew-self"):
            self.renewals += 1
            return 200, {"auth": {"client_token": self.token, "lease_duration": self.ttl, "renewable": self.ttl > 0}}
        kind, _, path = request.path.removeprefix(f"/v1/{self.mount}/").partition("/")
        versions = self.secrets.get(path)
        if request.command != "GET" or not versions or kind not in ("data", "metadata"):
            return 404, {"errors": []}
        if kind == "metadata":
            return (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}) if self.hides_metadata else \
                (200, {"data": {"current_version": len(versions), "versions": {}}})
        return 200, {"data": {"data": versions[-1], "metadata": {"version": len(versions), "destroyed": False}}}
