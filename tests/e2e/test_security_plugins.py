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
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = json.dumps({
                    "/introspect": {"active": body in (b"token=x&token_type_hint=access_token", b"token_type_hint=access_token&token=x"), "sub": "ann"}, "/v1/data/app": {"result": True}, "/keys": {"keys": [jwk]},
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


@pytest.mark.parametrize("trouble", ["refused", *Trouble.ANSWERS])
def test_consumers_that_nobody_can_look_up_do_not_get_in(trouble, tmp_path):
    """All plugins that know consumers by their credentials, when these are in a Redis that is away, slow or talks nonsense."""
    ca = Authority(tmp_path)
    ca.issue("site", "IP:127.0.0.1")
    ca.issue("ann", "DNS:ann.test")
    fault = Trouble(trouble) if trouble != "refused" else None
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = fault.port if fault else gone.getsockname()[1]
    uses = {"key-auth": ("", {"X-Api-Key": "x"}), "basic-auth": ("", basic("bob:x")), "mtls-auth": ("", {}),
            "jwt": (f', alg = "HS256", secret = "{SECRET}", declared = true', bearer(jwt.encode({"sub": "bob", "exp": int(time.time()) + 600}, SECRET))),
            "hmac-auth": ("", {"Signature-Input": f'sig=("@method");created={int(time.time())};keyid="bob"', "Signature": "sig=:YQ==:"})}
    text = f"""listen {{ port = @PORT@, tls = {{ cert = "{ca.folder}/site.pem", key = "{ca.folder}/site.key", client_auth = "optional", client_ca = "{ca.cert}" }} }}
redis "main" {{ address = "127.0.0.1:{port}" }}
consumers {{ redis = "main", timeout = "200ms" }}
consumer "ann" {{ credentials = {{ key = "ann-key" }} }}
"""
    for name, (conf, _) in uses.items():
        text += f'route "{name}" {{ path = "/{name}", use = {{ {{ "{name}"{conf} }}, "anonymous" }}, handler = function() return tg.respond(200) end }}\n'
    with Gateway(text, warns=".") as gw:
        context = ssl.create_default_context(cafile=ca.cert)
        context.load_cert_chain(ca.folder / "ann.pem", ca.folder / "ann.key")

        def ask(path, headers):
            client = http.client.HTTPSConnection("127.0.0.1", gw.port, timeout=30, context=context)
            client.request("GET", path, headers=headers)
            return client.getresponse().status

        for name, (_, headers) in uses.items():
            begin = time.monotonic()
            assert ask("/" + name, headers) == 503, name
            assert time.monotonic() - begin < 3, name
        assert ask("/key-auth", {"X-Api-Key": "ann-key"}) == 200  # who is declared needs no Redis
    if fault:
        fault.stop()


def test_every_plugin_that_decides_about_access_is_tried_with_whom_it_asks_in_trouble():
    by_consumers = {"key-auth", "basic-auth", "hmac-auth", "mtls-auth", "jwt"}
    ask_nobody = {"acl", "anonymous", "csrf", "ip-restriction"}
    assert set(asked_by(1)) | by_consumers | ask_nobody == AUTHENTICATE | OTHERS


def flips(text, step=1):
    for i in range(0, len(text), step):
        yield text[:i] + ("x" if text[i] != "x" else "y") + text[i + 1:]


@pytest.mark.parametrize("name", ["key-auth", "basic-auth", "hmac-auth", "jwt", "oidc", "introspection"])
def test_a_credential_of_which_any_byte_is_another_is_none(name):
    with Authorities() as authorities, Backend("up") as up:
        conf, headers = cases(authorities)[name]
        text = HEAD + f'listen {{ port = @PORT@ }}\nupstream "up" {{ targets = {{ "{up.url}" }} }}\n'
        text += f'upstream "authorities" {{ targets = {{ "{authorities.url}" }} }}\n'
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


def test_what_was_signed_of_which_any_byte_is_another_is_denied():
    with Gateway(HEAD + 'listen { port = @PORT@ }\nroute "all" { path = "/*", use = { "hmac-auth" }, handler = function() return tg.respond(200) end }') as gw:
        authority, body = f"127.0.0.1:{gw.port}", b'{"amount":100}'
        client = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=30)

        def ask(path, sent):
            digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
            client.request("POST", path, sent, headers={**signed("/pay", authority, "POST", {"content-digest": digest}), "Content-Digest": digest})
            answer = client.getresponse()
            answer.read()
            return answer.status

        assert ask("/pay", body) == 200
        for other in flips(body.decode()):
            assert ask("/pay", other.encode()) == 401, other
        for other in ("/pbx", "/Pay", "/pay/", "/pay?x", "/pay?"):
            assert ask(other, body) == (200 if other == "/pay?" else 401), other


def test_a_token_against_forgery_of_which_any_byte_is_another_is_none():
    with Gateway(f'listen {{ port = @PORT@ }}\nroute "all" {{ path = "/*", use = {{ {{ "csrf", secret = "{SECRET}" }} }}, handler = function() return tg.respond(200) end }}') as gw:
        token = re.match("csrf_token=([^;]+)", gw.request("/").headers["Set-Cookie"]).group(1)
        client = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=30)

        def ask(cookie, header):
            client.request("POST", "/", headers={"Origin": f"http://127.0.0.1:{gw.port}", "Cookie": f"csrf_token={cookie}", "X-CSRF-Token": header})
            answer = client.getresponse()
            answer.read()
            return answer.status

        assert ask(token, token) == 200
        for other in flips(token):
            assert ask(other, other) == ask(token, other) == ask(other, token) == 403, other


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with a text that changes."""
    text, protocol_version = b"", "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(Answers.text)))
        self.end_headers()
        self.wfile.write(Answers.text)


def test_an_answer_of_which_any_byte_is_another_lets_nobody_in():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    text = f"""listen {{ port = @PORT@ }}
upstream "asked" {{ targets = {{ "http://127.0.0.1:{server.server_address[1]}" }}, passive = false }}
route "opa" {{ path = "/opa", use = {{ {{ "opa", upstream = "asked", policy = "app" }} }}, handler = function() return tg.respond(200) end }}
route "introspection" {{ path = "/introspection", use = {{ {{ "introspection", upstream = "asked", client_id = "gw", client_secret = "x", cache = 0 }} }},
  handler = function() return tg.respond(200) end }}
"""
    with Gateway(text, warns="gives no") as gw:
        for path, good, whole in (("/opa", '{"result":true}', 15), ("/opa", '{"result":{"allow":true}}', 25), ("/introspection", '{"active":true,"sub":"ann"}', 15)):
            Answers.text = good.encode()
            assert gw.request(path, headers=bearer("x")).status == 200
            for other in itertools.islice(flips(good), whole):
                Answers.text = other.encode()
                assert gw.request(path, headers=bearer("x")).status in (401, 403, 503), other
    server.shutdown()
    server.server_close()
