"""Several ways to say who one is, and every way to say it wrongly: attacks on the plugins that authenticate and decide."""
import base64
import concurrent.futures
import gzip
import hashlib
import http.server
import json
import subprocess
import threading
import time

import jwt
import pytest
from authority import Authority
from backends import Backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gateway import RELEASE, Gateway
from redis_servers import Redis, redis_word
from test_processes import HARMLESS, PATH
from test_security_plugins import Authorities, basic, bearer, signed

SECRET = "s" * 32
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
HEAD = f"""http {{ allow = {{ "127.0.0.1" }} }}
dict "seen" {{ size = "1MiB" }}
consumer "ann" {{ groups = {{ "gold" }}, credentials = {{ key = {{ {{ key = "ann-key", id = "laptop" }} }}, basic = {{ password = "secret" }},
  hmac = {{ {{ id = "acme-1", secret = "{SECRET}" }} }} }} }}
"""
WHO = 'handler = function(ctx) return tg.respond(200, ctx.consumer and ctx.consumer.id or "nobody") end'


def token(**claims):
    return jwt.encode({"sub": "bob", "exp": int(time.time()) + 600, **claims}, SECRET, algorithm="HS256")


def raw_status(gw, path, lines):
    head = "".join(f"{line}\r\n" for line in lines)
    return int(gw.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{gw.port}\r\nConnection: close\r\n{head}\r\n".encode("latin-1")).split(b" ")[1])


def test_a_credential_that_is_malformed_is_wrong_and_not_none():
    with Authorities() as authorities:
        good = {"jwt": "Bearer " + token(), "introspection": "Bearer x", "oidc": "Bearer " + authorities.token(), "basic-auth": basic("ann:secret")["Authorization"]}
        text = HEAD + f'listen {{ port = @PORT@ }}\nupstream "authorities" {{ targets = {{ "{authorities.url}" }} }}\n'
        for name, use in {
            "jwt": f'{{ "jwt", alg = "HS256", secret = "{SECRET}" }}', "basic-auth": '"basic-auth"', "hmac-auth": '"hmac-auth"',
            "introspection": '{ "introspection", upstream = "authorities", client_id = "gw", client_secret = "x" }',
            "oidc": f'{{ "oidc", issuer = "{authorities.url}", bearer_only = true, aud = "api" }}', "key-auth": '"key-auth"',
        }.items():
            text += f'route "{name}" {{ path = "/{name}", use = {{ {use}, "anonymous" }}, {WHO} }}\n'
        with Gateway(text) as gw:
            for name, value in good.items():
                assert gw.request("/" + name, headers={"Authorization": value}).text in (b"ann", b"bob"), name
            for name, scheme in {"jwt": "Bearer", "introspection": "Bearer", "oidc": "Bearer", "basic-auth": "Basic", "hmac-auth": "hmac"}.items():
                credential = good.get(name, "hmac x").split(" ")[1]
                for value in (scheme, f"{scheme} ", scheme.upper(), f"{scheme}\t", f"{scheme} a b", f"{scheme} {credential} x", f"{scheme},{credential}",
                              f"{scheme} \xe4", f"{scheme} {credential}, {scheme} {credential}", f"Other x, {scheme} {credential}"):
                    assert raw_status(gw, "/" + name, [f"Authorization: {value}"]) == 401, (name, value)
                assert raw_status(gw, "/" + name, [f"Authorization: {scheme} {credential}", f"Authorization: {scheme} {credential}"]) == 401, name
                assert raw_status(gw, "/" + name, ["Authorization: Other x", f"Authorization: {scheme} {credential}"]) == 401, name
                for value in ("Other x", f"{scheme}s x", f"Other {scheme}"):
                    assert gw.request("/" + name, headers={"Authorization": value}).text == b"anonymous", (name, value)
            for line in ("Signature: sig=:YQ==:", "Signature-Input: x", "Signature: ", "Signature-Input: ", "Authorization: Signature", "Authorization: SIGNATURE keyId=x"):
                assert raw_status(gw, "/hmac-auth", [line]) == 401, line
            assert raw_status(gw, "/key-auth", ["X-Api-Key:"]) == 401
            assert raw_status(gw, "/key-auth", ["X-Api-Key: ann-key", "X-Api-Key: ann-key"]) == 401


def test_all_methods_must_know_the_client_and_none_is_anonymous(tmp_path):
    use = f'{{ "key-auth", "hmac-auth", {{ "jwt", alg = "HS256", secret = "{SECRET}" }}, "anonymous" }}'
    text = HEAD + f'listen {{ port = @PORT@ }}\nroute "both" {{ path = "/both", auth = {{ all = {{ "key-auth", "jwt" }} }}, use = {use}, {WHO} }}\n'
    text += f'route "signed" {{ path = "/signed", auth = {{ all = {{ "hmac-auth", "jwt" }} }}, use = {use}, {WHO} }}\n'
    with Gateway(text) as gw:
        key, good = {"X-Api-Key": "ann-key"}, bearer(token())
        assert gw.request("/both", headers={**key, **good}).text == b"bob"
        for headers in ({}, key, good, {"X-Api-Key": "x", **good}, {**key, "Authorization": "Bearer x"}):
            assert gw.request("/both", headers=headers).status == 401, headers
        # The signature is hidden, the token of the next method is not.
        assert gw.request("/signed", headers={**signed("/signed", f"127.0.0.1:{gw.port}"), **good}).text == b"bob"
        assert gw.request("/signed", headers=signed("/signed", f"127.0.0.1:{gw.port}")).status == 401
        gw.write("gateway.lua", text.replace('all = { "key-auth", "jwt" }', 'all = { "key-auth", "anonymous" }'))
        refused = gw.command("reload")
        assert refused.returncode != 0 and "anonymous" in refused.stdout + refused.stderr


@pytest.mark.parametrize("header", ["X-Api-Key: ann-key", "Authorization: Bearer @TOKEN@"])
def test_the_path_of_a_request_compiles_with_several_methods(header, tmp_path):
    trace_log = tmp_path / "jit.log"
    text = HEAD + f"""listen {{ name = "front", port = @PORT@, keepalive_requests = 100000000 }}
listen {{ name = "back", port = @PORT2@, keepalive_requests = 100000000 }}
upstream "back" {{ targets = {{ "http://127.0.0.1:@PORT2@" }} }}
route "back" {{ listen = "back", path = "/*", handler = function() return tg.respond(200, "ok") end }}
route "all" {{ listen = "front", path = "/*", to = "back", use = {{ "key-auth", {{ "jwt", alg = "HS256", secret = "{SECRET}" }}, "anonymous" }} }}
"""
    with Gateway(text, binary=RELEASE, env={"TIDEGATE_JIT_LOG": str(trace_log)}) as gw:
        load = ["wrk", "-t1", "-c8", "-d3", "-H", header.replace("@TOKEN@", token(groups=["a", "b"])), f"http://127.0.0.1:{gw.port}/"]
        assert "Non-2xx" not in subprocess.run(load, check=True, capture_output=True, text=True).stdout
    lines = trace_log.read_text().splitlines()
    served = lines[next(n for n, line in enumerate(lines) if "serve.lua" in line and "stitch coroutine.yield" in line):]
    given_up = [line for line in served if "TRACE ---" in line and not any(reason in line for reason in HARMLESS)]
    given_up += [line for line in served if "inner loop" in line and any(start in line for start in PATH)]
    assert not given_up, given_up


def test_a_token_of_a_declared_consumer_and_a_key_beside_a_token_are_revoked():
    text = HEAD + f"""listen {{ port = @PORT@ }}
route "declared" {{ path = "/declared", use = {{ {{ "jwt", alg = "HS256", secret = "{SECRET}", declared = true }}, {{ "revocation", redis = "main", cache = 0, timeout = "2s" }} }}, {WHO} }}
route "both" {{ path = "/both", auth = {{ all = {{ "key-auth", "jwt" }} }},
  use = {{ "key-auth", {{ "jwt", alg = "HS256", secret = "{SECRET}" }}, {{ "revocation", redis = "main", cache = 0, timeout = "2s" }} }}, {WHO} }}
"""
    with Redis() as redis, Gateway(redis_word("main", redis) + text) as gw:
        declared, both = bearer(token(sub="ann", jti="t1")), {"X-Api-Key": "ann-key", **bearer(token(jti="t2"))}
        assert gw.request("/declared", headers=declared).text == b"ann" and gw.request("/both", headers=both).text == b"bob"
        def revoke(name):
            redis.cli("zadd", "revoked:ids", "0", name)
            redis.cli("xadd", "revoked:log", "*", "id", name)
            time.sleep(1)
        revoke("token:t1")
        revoke("credential:laptop")
        assert gw.request("/declared", headers=declared).status == 401 and gw.request("/both", headers=both).status == 401
        redis.cli("zrem", "revoked:ids", "credential:laptop")
        assert gw.request("/both", headers=both).status == 200
        revoke("consumer:ann")
        assert gw.request("/both", headers=both).status == 401


# ---------------------------------------------------------------- signatures

def sign_ec(key, path, authority, method="GET", more=""):
    params = f'("@method" "@authority" "@path" "@query");created={int(time.time())};keyid="ec"{more}'
    base = f'"@method": {method}\n"@authority": {authority}\n"@path": {path}\n"@query": ?\n"@signature-params": {params}'
    return params, decode_dss_signature(key.sign(base.encode(), ec.ECDSA(hashes.SHA256())))


def fields_of(params, r, s):
    made = base64.b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).decode()
    return {"Signature-Input": "sig=" + params, "Signature": f"sig=:{made}:"}


def test_another_signature_of_the_same_text_is_a_replay_too():
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    text = f'dict "seen" {{ size = "1MiB" }}\nconsumer "ann" {{ credentials = {{ hmac = {{ id = "ec", public_key = [[{pem}]] }} }} }}\n'
    text += f'listen {{ port = @PORT@ }}\nroute "a" {{ path = "/a", use = {{ {{ "hmac-auth", replay = "seen" }} }}, {WHO} }}'
    with Gateway(text) as gw:
        params, (r, s) = sign_ec(key, "/a", f"127.0.0.1:{gw.port}")
        # Whoever sees a signature of ECDSA can make a second one of the same text, without the key.
        assert gw.request("/a", headers=fields_of(params, r, s)).status == 200
        assert gw.request("/a", headers=fields_of(params, r, ORDER_P256 - s)).status == 401
        assert gw.request("/a", headers=fields_of(params, r, s)).status == 401
        params, (r, s) = sign_ec(key, "/a", f"127.0.0.1:{gw.port}", more=';nonce="1"')
        assert gw.request("/a", headers=fields_of(params, r, ORDER_P256 - s)).status == 200


def covering_body(path, authority, body):
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
    return {**signed(path, authority, "POST", {"content-digest": digest}), "Content-Digest": digest}


def test_a_body_must_be_what_was_signed_however_it_comes(tmp_path):
    ca = Authority(tmp_path)
    ca.issue("site", "IP:127.0.0.1")
    text = HEAD + f"""listen {{ port = @PORT@ }}
listen {{ name = "tls", port = @PORT2@, tls = {{ cert = "{ca.folder}/site.pem", key = "{ca.folder}/site.key" }} }}
route "a" {{ path = "/a", use = {{ {{ "hmac-auth", replay = "seen" }} }}, handler = function(ctx) return tg.respond(200, ctx.req:text()) end }}
"""
    with Gateway(text) as gw:
        plain, tls = f"127.0.0.1:{gw.port}", f"127.0.0.1:{gw.port2}"

        def h2(headers, body):
            command = ["curl", "-s", "--http2", "--cacert", ca.cert, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "-X", "POST", "-H", "Content-Length:"]
            command += [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
            return subprocess.run([*command, *(["-T", "-"] if body else []), f"https://{tls}/a"], input=body, capture_output=True, timeout=30).stdout

        # HTTP/2 has bodies without a length.
        assert h2(signed("/a", tls, "POST"), b"evil") == b"401 2"
        assert h2(signed("/a", tls, "POST"), b"") == b"200 2"
        assert h2(covering_body("/a", tls, b"good"), b"good") == b"200 2"
        assert h2(covering_body("/a", tls, b"good"), b"evil") == b"401 2"
        assert h2(covering_body("/a", tls, b"good"), b"") == b"401 2"
        # One that is cut off is another message, too.
        assert gw.request("/a", "POST", b"good", covering_body("/a", plain, b"good")).text == b"good"
        assert gw.request("/a", "POST", b"", covering_body("/a", plain, b"good")).status == 401
        assert gw.request("/a", "POST", [b"ev", b"il"], {**signed("/a", plain, "POST"), "Transfer-Encoding": "chunked"}).status == 401
        # The digest is that of the body as it comes.
        packed = gzip.compress(b"good")
        assert gw.request("/a", "POST", packed, {**covering_body("/a", plain, packed), "Content-Encoding": "gzip"}).text == b"good"
        assert gw.request("/a", "POST", packed, {**covering_body("/a", plain, b"good"), "Content-Encoding": "gzip"}).status == 401


# ---------------------------------------------------------------- passwords

def test_many_tries_at_once_are_no_more_than_one_after_the_other():
    hashed = subprocess.run(["openssl", "passwd", "-6", "-salt", "rounds=100000$abcdefgh", "right"], capture_output=True, text=True, check=True).stdout.strip()
    text = f'listen {{ port = @PORT@ }}\nconsumer "ann" {{ credentials = {{ basic = {{ password = "{hashed}" }} }} }}\n'
    text += f'route "a" {{ path = "/a", use = {{ {{ "basic-auth", attempts = 5 }} }}, {WHO} }}'
    with Gateway(text) as gw, concurrent.futures.ThreadPoolExecutor(30) as pool:
        # Who is right is never refused by the number of his connections.
        assert [r.status for r in pool.map(lambda _: gw.request("/a", headers=basic("ann:right")), range(30))] == [200] * 30
        statuses = list(pool.map(lambda i: gw.request("/a", headers=basic(f"ann:wrong{i}")).status, range(30)))
        assert statuses.count(401) == 5 and statuses.count(429) == 25, statuses


def test_an_unknown_user_takes_no_longer_than_a_known_one_where_passwords_are_texts():
    text = HEAD + f'listen {{ port = @PORT@ }}\nroute "a" {{ path = "/a", use = {{ {{ "basic-auth", attempts = 1000 }} }}, {WHO} }}'
    with Gateway(text) as gw:
        def time_of(user):
            start = time.monotonic()
            assert gw.request("/a", headers=basic(f"{user}:wrong")).status == 401
            return time.monotonic() - start

        # A hash of NOBODY's would take some tens of milliseconds.
        assert min(time_of("nobody") for _ in range(9)) < 0.01 + min(time_of("ann") for _ in range(9))


# ---------------------------------------------------------------- who is asked

class Gatekeeper:
    """Another service that lets in or sends to a login, with cookies that are another each time."""

    def __init__(self):
        keeper = self
        self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                keeper.asked.append((self.path, self.headers, body))
                n, out = len(keeper.asked), b"{}"
                self.send_response(302 if self.path == "/login" else 200)
                for name in ("a", "b"):
                    self.send_header("Set-Cookie", f"{name}={n}")
                self.send_header("X-User", f"user{n}")
                if self.path == "/introspect":
                    out = json.dumps({"active": True, "sub": self.headers["Authorization"], **keeper.claims}).encode()
                if self.path.startswith("/v1/data"):
                    out = json.dumps({"result": keeper.decision}).encode()
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            do_POST = do_GET

        self.claims, self.decision = {}, True
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_cookie_of_another_service_is_for_one_client():
    with Gatekeeper() as keeper:
        text = f"""listen {{ port = @PORT@ }}
upstream "keeper" {{ targets = {{ "{keeper.url}" }} }}
route "login" {{ path = "/in", use = {{ {{ "ext-auth", upstream = "keeper", path = "/login", cache = "1m" }} }}, {WHO} }}
route "user" {{ path = "/user", use = {{ {{ "ext-auth", upstream = "keeper", path = "/check", upstream_headers = {{ "X-User" }}, cache = "1m" }} }},
  handler = function(ctx) return tg.respond(200, ctx.req.headers["x-user"]) end }}
"""
        with Gateway(text) as gw, concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [gw.request("/in").headers.get_all("Set-Cookie") for _ in range(3)] + list(
                pool.map(lambda _: gw.request("/in").headers.get_all("Set-Cookie"), range(8)))
            assert all(len(cookies) == 2 for cookies in answers) and len({tuple(cookies) for cookies in answers}) == len(answers), answers
            first = gw.request("/user").text
            assert [gw.request("/user", headers={"X-User": "root"}).text for _ in range(3)] == [first] * 3


def test_an_agent_sees_all_of_what_the_upstream_gets_and_sets_what_it_may():
    with Gatekeeper() as keeper, Backend("up") as up:
        text = f"""listen {{ port = @PORT@ }}
upstream "keeper" {{ targets = {{ "{keeper.url}" }} }}
upstream "up" {{ targets = {{ "{up.url}" }} }}
route "all" {{ path = "/*", to = "up", use = {{ {{ "opa", upstream = "keeper", policy = "app", upstream_headers = {{ "X-Role" }} }} }} }}
"""
        with Gateway(text, warns="opa gives no decision") as gw:
            gw.raw(f"GET /a?x=1&x=2&y=3 HTTP/1.1\r\nHost: 127.0.0.1:{gw.port}\r\nX-A: 1\r\nX-A: 2\r\nX-Role: root\r\nConnection: close\r\n\r\n".encode())
            seen = json.loads(keeper.asked[-1][2])["input"]
            assert seen["headers"]["x-a"] == "1, 2" and seen["query"] == {"x": ["1", "2"], "y": "3"} and "x-role" not in seen["headers"]
            assert "root" not in up.heads[-1]
            keeper.decision = {"allow": True, "request_headers": {"x-role": "reader"}}
            assert gw.request("/").status == 200 and "reader" in up.heads[-1]
            # A header that clients may send themselves would be theirs whenever the policy does not set it.
            for headers in ({"X-Other": "x"}, {"X-Role": 1}, {"X-Role": "a", "X-Other": "b"}):
                keeper.decision = {"allow": True, "request_headers": headers}
                assert gw.request("/").status == 503, headers


def test_what_is_said_of_a_token_is_for_who_has_asked():
    with Gatekeeper() as keeper:
        text = f'listen {{ port = @PORT@ }}\nupstream "keeper" {{ targets = {{ "{keeper.url}" }} }}\n'
        for name in ("one", "two"):
            text += f'route "{name}" {{ path = "/{name}", use = {{ {{ "introspection", upstream = "keeper", client_id = "{name}", client_secret = "x" }} }}, {WHO} }}\n'
        with Gateway(text) as gw:
            one, two = (gw.request(path, headers=bearer("x")).text for path in ("/one", "/two"))
            assert one != two and one == gw.request("/one", headers=bearer("x")).text
            for n, claims in enumerate(({"exp": "4102444800"}, {"exp": None}, {"nbf": "x"}, {"exp": int(time.time()) - 1})):
                keeper.claims = claims
                assert gw.request("/one", headers=bearer(f"t{n}")).status == (200 if claims == {"exp": None} else 401), claims


def test_a_group_with_a_comma_is_not_told_as_two():
    with Backend("up") as up:
        text = f'listen {{ port = @PORT@ }}\nupstream "up" {{ targets = {{ "{up.url}" }} }}\nroute "a" {{ path = "/*", to = "up", '
        text += f'use = {{ {{ "jwt", alg = "HS256", secret = "{SECRET}", claims_to_headers = {{ teams = "X-Teams" }} }} }} }}'
        with Gateway(text) as gw:
            assert gw.request("/", headers=bearer(token(groups=["a", "b,admin", "c"], teams=["x,root", "y"]))).status == 200
            head = up.heads[-1].lower()
            assert "x-consumer-groups: a, c\r\n" in head and "x-teams: y\r\n" in head and "admin" not in head and "root" not in head


# ---------------------------------------------------------------- browsers

@pytest.mark.parametrize("origin, status", [("https://evil.test", 403), ("null", 403), ("http://127.0.0.1:@PORT@", 200), ("https://app.test", 200)])
def test_another_site_does_not_open_a_websocket_with_the_cookies_of_this_one(origin, status):
    text = f'listen {{ port = @PORT@ }}\nroute "a" {{ path = "/*", use = {{ {{ "csrf", trusted = {{ "https://app.test" }}, secret = "{SECRET}" }} }}, {WHO} }}'
    with Gateway(text) as gw:
        upgrade = {"Connection": "Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        assert gw.request("/", headers={**upgrade, "Origin": origin.replace("@PORT@", str(gw.port)), "Cookie": "session=1"}).status == status
        assert gw.request("/", headers={"Origin": "https://evil.test", "Cookie": "session=1"}).status == 200


def test_a_preflight_is_answered_where_the_route_has_methods_of_its_own():
    with Backend("up") as up:
        text = HEAD + f"""listen {{ port = @PORT@ }}
upstream "up" {{ targets = {{ "{up.url}" }} }}
route "read" {{ path = "/a", methods = {{ "GET" }}, to = "up", use = {{ {{ "cors", origins = {{ "https://*.App.test" }}, max_age = "1m" }}, "key-auth" }} }}
route "write" {{ path = "/a", methods = {{ "PUT" }}, to = "up", use = {{ {{ "cors", origins = {{ "https://x.app.test" }}, max_age = "2m" }}, "key-auth" }} }}
route "sometimes" {{ path = "/when", methods = {{ "GET" }}, to = "up", use = {{ {{ "cors", origins = {{ "*" }}, when = function() return false end }} }} }}
"""
        with Gateway(text) as gw:
            def preflight(method, path="/a", origin="https://x.app.test"):
                headers = {"Access-Control-Request-Method": method, **({"Origin": origin} if origin else {})}
                answer = gw.request(path, "OPTIONS", headers=headers)
                return answer.status, answer.headers["Access-Control-Max-Age"]

            assert preflight("GET") == preflight("HEAD") == (204, "60") and preflight("PUT") == (204, "120")
            assert preflight("PUT", origin="https://y.app.test")[0] == 403 and preflight("GET", origin=None)[0] == 403
            assert preflight("DELETE")[0] == 405 and preflight("GET", "/when")[0] != 204
            assert gw.request("/a", "OPTIONS", headers={"Origin": "https://x.app.test"}).status == 405
            assert gw.request("/a", "DELETE").headers["Allow"] == "GET, HEAD, PUT"
            assert up.requests == 0
            assert gw.request("/a", headers={"Origin": "https://x.app.test", "X-Api-Key": "ann-key"}).status == 200


def test_head_is_asked_for_what_get_is():
    text = HEAD + f'listen {{ port = @PORT@ }}\nroute "a" {{ path = "/*", use = {{ "key-auth", {{ "acl", allow = {{ "none" }}, methods = {{ "GET" }} }} }}, {WHO} }}'
    with Gateway(text) as gw:
        assert [gw.request("/", method, headers={"X-Api-Key": "ann-key"}).status for method in ("GET", "HEAD", "PUT")] == [403, 403, 200]
