"""What every plugin that decides about access must do when its own code raises, or when who it asks is away, slow or talks nonsense: deny."""
import base64
import hashlib
import hmac
import http.client
import http.server
import itertools
import json
import re
import socket
import ssl
import threading
import time

import jwt
import pytest
from authority import Authority, openssl
from backends import Backend
from cryptography.hazmat.primitives.asymmetric import ec
from gateway import ROOT, Gateway
from redis_servers import Redis, redis_word

SECRET = "s" * 32
# Those that decide without authenticating.
OTHERS = {"acl", "csrf", "ext-auth", "ip-restriction", "opa", "revocation", "service-token"}
SOURCES = {path.stem: path.read_text() for path in (ROOT / "plugins").glob("*.lua") if not path.name.endswith(".spec.lua")}
AUTHENTICATE = {name for name, text in SOURCES.items() if re.search(r"^  authenticate = ", text, re.M)}

# Around the text of a plugin: the n-th call that a phase makes of the library raises, n being what the request says. The first is before
# the phase begins, the last when it has decided.
BEFORE = """
local at, calls = nil, 0
local function count()
  calls = calls + 1
  if calls == at then
    at = nil
    error("raised on purpose", 0)
  end
end
local function watched(value)
  if type(value) == "function" then
    return function(...)
      count()
      return value(...)
    end
  end
  if type(value) ~= "table" then return value end
  return setmetatable({}, { __index = function(_, key) return watched(value[key]) end, __call = function(_, ...)
    count()
    return value(...)
  end })
end
local real = tg
local plugin = (function(tg)
"""
AFTER = """
end)(watched(real))
for _, phase in ipairs { "rewrite", "authenticate", "access" } do
  local f = plugin[phase]
  plugin[phase] = f and function(ctx, conf, state)
    at, calls = tonumber(ctx.req.headers["x-fail-at"]), 0
    count()
    local answer = f(ctx, conf, state)
    count()
    at = nil
    return answer
  end
end
return plugin
"""


class Authorities:
    """All that is asked: an OpenID provider, introspection, another service, an agent; whoever they are asked about is fine."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        jwk = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key())), "kid": "one"}
        authorities = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = json.dumps({
                    "/introspect": {"active": True, "sub": "ann"}, "/v1/data/app": {"result": True}, "/keys": {"keys": [jwk]},
                    "/token": {"access_token": "t", "token_type": "Bearer", "expires_in": 1},
                    "/.well-known/openid-configuration": {"issuer": authorities.url, "authorization_endpoint": authorities.url + "/auth",
                                                          "token_endpoint": authorities.url + "/token", "jwks_uri": authorities.url + "/keys"},
                }.get(self.path, {})).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def token(self):
        claims = {"sub": "ann", "iss": self.url, "aud": "api", "exp": int(time.time()) + 600}
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "one"})


NONCES = itertools.count()


def signed(path, authority, method="GET", fields=None):
    names = "".join(f' "{name}"' for name in fields or {})
    params = f'("@method" "@authority" "@path" "@query"{names});created={int(time.time())};keyid="acme-1";nonce="{next(NONCES)}"'
    lines = "".join(f'"{name}": {value}\n' for name, value in (fields or {}).items())
    base = f'"@method": {method}\n"@authority": {authority}\n"@path": {path}\n"@query": ?\n{lines}"@signature-params": {params}'
    mac = base64.b64encode(hmac.new(SECRET.encode(), base.encode(), hashlib.sha256).digest()).decode()
    return {"Signature-Input": "sig=" + params, "Signature": f"sig=:{mac}:"}


def basic(text):
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def bearer(token):
    return {"Authorization": "Bearer " + token}


# name -> its use, and what a client sends who gets in
def cases(authorities):
    shared = jwt.encode({"sub": "ann", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")
    key = {"X-Api-Key": "ann-key"}
    return {
        "key-auth": ("", key),
        "basic-auth": ("", basic("ann:secret")),
        "hmac-auth": ('replay = "seen"', signed),
        "jwt": (f'alg = "HS256", secret = "{SECRET}", cache = 0', bearer(shared)),
        "introspection": ('upstream = "authorities", client_id = "gw", client_secret = "x", cache = 0', bearer("x")),
        "oidc": (f'issuer = "{authorities.url}", bearer_only = true, aud = "api"', bearer(authorities.token())),
        "mtls-auth": ("any = true", {}),
        "anonymous": ("", {}),
        "acl": ('allow = { "gold" }', key),
        "csrf": ("", {"Origin": "https://127.0.0.1:@PORT@"}),
        "ext-auth": ('upstream = "authorities", path = "/check"', {}),
        "ip-restriction": ('allow = { "127.0.0.1" }', {}),
        "opa": ('upstream = "authorities", policy = "app"', {}),
        "revocation": ('redis = "main", cache = 0, timeout = "5s"', key),
        "service-token": (f'token_endpoint = "{authorities.url}/token", client_id = "gw", client_secret = "x"', {}),
    }


def word(name, prefix, conf):
    known = '"key-auth", ' if name in ("acl", "revocation") else ""
    return f'{{ {known}{{ "{prefix}{name}"{", " + conf if conf else ""} }}'


HEAD = """http { allow = { "127.0.0.1" } }
dict "seen" { size = "1MiB" }
consumer "ann" { groups = { "gold" }, credentials = { key = "ann-key", basic = { password = "secret" }, hmac = { { id = "acme-1", secret = "%s" } } } }
""" % SECRET


def test_every_plugin_that_decides_about_access_is_among_the_cases():
    with Authorities() as authorities:
        assert set(cases(authorities)) == AUTHENTICATE | OTHERS


def test_no_plugin_lets_a_request_through_when_its_code_raises(tmp_path):
    ca = Authority(tmp_path)
    ca.issue("site", "IP:127.0.0.1")
    ca.issue("ann", "DNS:ann.test")
    with Authorities() as authorities, Redis() as redis, Backend("up") as up:
        text = HEAD + redis_word("main", redis) + f"""
listen {{ port = @PORT@, tls = {{ cert = "{ca.folder}/site.pem", key = "{ca.folder}/site.key", client_auth = "optional", client_ca = "{ca.cert}" }} }}
upstream "authorities" {{ targets = {{ "{authorities.url}" }} }}
upstream "up" {{ targets = {{ "{up.url}" }} }}
"""
        several = {}
        for name, (conf, _) in cases(authorities).items():
            text += f'route "{name}" {{ path = "/{name}", to = "up", use = {word(name, "raising-", conf)} }} }}\n'
            if name in AUTHENTICATE - {"anonymous"}:  # whose method fails is nobody, and not the anonymous either
                several[name + "-or-anonymous"] = name
                text += f'route "{name}-or-anonymous" {{ path = "/{name}-or-anonymous", to = "up", use = {word(name, "raising-", conf)}, "anonymous" }} }}\n'
        plugins = {f"raising-{name}": BEFORE + SOURCES[name] + AFTER for name in cases(authorities)}
        with Gateway(text, plugins=plugins, options=("--plugins", "plugins"), warns="raised on purpose|revocation|gives no|cannot") as gw:
            context = ssl.create_default_context(cafile=ca.cert)
            context.load_cert_chain(ca.folder / "ann.pem", ca.folder / "ann.key")
            client = http.client.HTTPSConnection("127.0.0.1", gw.port, timeout=30, context=context)

            def ask(path, name, at):
                headers = cases(authorities)[name][1]
                headers = headers("/" + path, f"127.0.0.1:{gw.port}") if callable(headers) else headers
                headers = {key: value.replace("@PORT@", str(gw.port)) for key, value in headers.items()}
                client.request("POST" if name == "csrf" else "GET", "/" + path, headers={**headers, "X-Fail-At": str(at)})
                answer = client.getresponse()
                answer.read()
                return answer.status

            for path, name in [*((name, name) for name in cases(authorities)), *several.items()]:
                assert ask(path, name, 0) == 200, (path, gw.log())
                before = up.requests
                for at in range(1, 200):
                    status = ask(path, name, at)
                    if status == 200:
                        break
                    assert status in (401, 403, 500, 503) and up.requests == before, (path, at, status)
                assert 2 < at < 100 and up.requests == before + 1, (path, at)


class Trouble:
    """Who does with each connection what its name says, as soon as something comes."""
    ANSWERS = {
        "silent": None, "reset": b"", "nonsense": b"\x16\x03\x01 this is no HTTP\r\n\r\n",
        "cut": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"active":true,"result":true,"access_token":"t","token_type":"Bearer","sub":"ann"',
        "other": b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n"true"',
        "error": b'HTTP/1.1 500 No\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"active":true}',
        "redis": b"+OK\r\n$5\r\nhello\r\n",
    }

    def __init__(self, name):
        self.answer, self.held = self.ANSWERS[name], []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.held.append(client)
            threading.Thread(target=self.trouble, args=(client,), daemon=True).start()

    def trouble(self, client):
        try:
            if self.answer is not None and client.recv(65536):
                client.sendall(self.answer)
                client.close()
        except OSError:
            pass

    def stop(self):
        self.socket.close()
        for client in self.held:
            client.close()


def asked_by(port):
    """name -> the use that asks who is at this port, within a short time, and what a client sends who would get in."""
    url = f"http://127.0.0.1:{port}"
    token = jwt.encode({"sub": "ann", "iss": url, "aud": "api", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256", headers={"kid": "x"})
    return {
        "jwt": (f'alg = "RS256", jwks = "{url}/keys", timeout = "300ms"', bearer(token)),
        "introspection": (f'upstream = "u{port}", client_id = "gw", client_secret = "x", timeout = "300ms"', bearer("x")),
        "oidc": (f'issuer = "{url}", bearer_only = true, aud = "api", timeout = "300ms"', bearer(token)),
        "ext-auth": (f'upstream = "u{port}", timeout = "300ms"', {}),
        "opa": (f'upstream = "u{port}", policy = "app", timeout = "300ms"', {}),
        "revocation": (f'redis = "r{port}", timeout = "300ms"', {"X-Api-Key": "ann-key"}),
        "service-token": (f'token_endpoint = "{url}/token", client_id = "gw", client_secret = "x", timeout = "300ms"', {}),
    }


def test_who_is_asked_may_be_away_slow_or_talk_nonsense_and_nobody_gets_in():
    troubles = {name: Trouble(name) for name in Trouble.ANSWERS}
    with socket.create_server(("127.0.0.1", 0)) as gone:
        ports = {"refused": gone.getsockname()[1], **{name: trouble.port for name, trouble in troubles.items()}}
    with Backend("up") as up:
        text = HEAD + f'listen {{ port = @PORT@ }}\nupstream "up" {{ targets = {{ "{up.url}" }} }}\n'
        for name, port in ports.items():
            text += f'upstream "u{port}" {{ targets = {{ "http://127.0.0.1:{port}" }}, retry = false, passive = false }}\n'
            text += f'redis "r{port}" {{ address = "127.0.0.1:{port}" }}\n'
            text += "".join(f'route "{plugin}-{name}" {{ path = "/{plugin}/{name}", to = "up", use = {word(plugin, "", conf)} }} }}\n'
                            for plugin, (conf, _) in asked_by(port).items())
        with Gateway(text, warns=".") as gw:
            for name, port in ports.items():
                for plugin, (_, headers) in asked_by(port).items():
                    begin = time.monotonic()
                    status = gw.request(f"/{plugin}/{name}", headers=headers).status
                    took = time.monotonic() - begin
                    # An answer of 200 is all that ext-auth asks for.
                    expected = (200,) if (plugin, name) == ("ext-auth", "other") else (401, 403, 502, 503, 504)
                    assert status in expected and took < 5, (plugin, name, status, took)
            assert up.requests == 1
    for trouble in troubles.values():
        trouble.stop()


def flips(text, step=1):
    for i in range(0, len(text), step):
        yield text[:i] + ("x" if text[i] != "x" else "y") + text[i + 1:]


@pytest.mark.parametrize("name", ["key-auth", "basic-auth", "hmac-auth", "jwt"])
def test_a_credential_of_which_any_byte_is_another_is_none(name):
    with Authorities() as authorities, Backend("up") as up:
        conf, headers = cases(authorities)[name]
        text = HEAD + f'listen {{ port = @PORT@ }}\nupstream "up" {{ targets = {{ "{up.url}" }} }}\n'
        conf = conf + (", " if conf else "") + "attempts = 1000000" if name == "basic-auth" else conf
        with Gateway(text + f'route "all" {{ path = "/*", to = "up", use = {word(name, "", conf)} }} }}') as gw:
            client = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=30)

            def ask(sent):
                client.request("GET", "/a", headers=sent)
                answer = client.getresponse()
                answer.read()
                return answer.status

            if callable(headers):
                assert ask(headers("/a", f"127.0.0.1:{gw.port}")) == 200
                headers = headers("/a", f"127.0.0.1:{gw.port}")
            for field, value in headers.items():
                for other in flips(value):
                    assert ask({**headers, field: other}) == 401, other
            assert ask(headers) == 200 and up.requests == (2 if name == "hmac-auth" else 1)
