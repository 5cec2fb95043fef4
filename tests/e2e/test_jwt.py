"""jwt: tokens that others make (PyJWT), of each algorithm; keys that an issuer publishes, changes, and cannot give."""
import http.client
import http.server
import json
import subprocess
import threading
import time

import jwt
import pytest
from gateway import Gateway
from node import run

KINDS = {
    "RS256": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ES256": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ES384": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "ES512": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "EdDSA": ["genpkey", "-algorithm", "ed25519"],
}


@pytest.fixture(scope="module")
def keys():
    made = {}
    for alg, command in KINDS.items():
        private = subprocess.run(["openssl", *command], capture_output=True, text=True, check=True).stdout
        public = subprocess.run(["openssl", "pkey", "-pubout"], input=private, capture_output=True, text=True, check=True).stdout
        made[alg] = (private, public)
    for alg in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        made[alg] = made["RS256"]
    return made


def token(private, alg, kid=None, **claims):
    return jwt.encode({"sub": "ann", "exp": int(time.time()) + 600, **claims}, private, algorithm=alg, headers={"kid": kid} if kid else None)


def ask(gw, text, path="/"):
    return gw.request(path, headers={"Authorization": "Bearer " + text})


def gateway(fields, **options):
    text = 'http { allow = { "127.0.0.1" } }\nlisten { port = @PORT@ }\nroute "all" { path = "/*", use = { { "jwt", ' + fields
    return Gateway(text + ' } }, handler = function(ctx) return tg.respond(200, ctx.consumer.id) end }', **options)


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"])
def test_tokens_of_each_algorithm_that_others_have_made(keys, alg):
    private, public = keys[alg]
    with gateway(f'alg = "{alg}", cache = 0, keys = {{ [[{public}]] }}') as gw:
        right = token(private, alg)
        assert ask(gw, right).text == b"ann"
        head, payload, signature = right.split(".")
        changed = "B" if signature[10] != "B" else "C"
        assert ask(gw, f"{head}.{payload}.{signature[:10]}{changed}{signature[11:]}").status == 401
        assert ask(gw, token(private, alg, exp=int(time.time()) - 60)).status == 401
        # The public key is no shared secret, whatever the token says.
        forged = jwt.api_jws.PyJWS()
        forged._algorithms["HS256"].prepare_key = lambda key: key.encode() if isinstance(key, str) else key
        confused = forged.encode(json.dumps({"sub": "root", "exp": 9999999999}).encode(), public, algorithm="HS256")
        assert ask(gw, confused).status == 401


def test_shared_secrets(keys):
    for alg, size in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
        secret = "k" * size
        with gateway(f'alg = "{alg}", secret = "{secret}"') as gw:
            assert ask(gw, token(secret, alg)).text == b"ann"
            assert ask(gw, token("x" * size, alg)).status == 401


class Issuer:
    """Publishes a set of keys; may be down, slow or wrong."""

    def __init__(self):
        self.set, self.status, self.delay, self.asked = {"keys": []}, 200, 0, 0
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked += 1
                time.sleep(issuer.delay)
                body = json.dumps(issuer.set).encode()
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def publish(self, **publics):
        self.set = {"keys": []}
        for kid, (alg, public) in publics.items():
            algorithm = jwt.get_algorithm_by_name(alg)
            self.set["keys"].append({**json.loads(algorithm.to_jwk(algorithm.prepare_key(public))), "kid": kid, "alg": alg, "use": "sig"})


def test_published_keys_are_fetched_once_changed_and_outlive_their_issuer(keys):
    with Issuer() as issuer:
        issuer.publish(one=("RS256", keys["RS256"][1]))
        with gateway(f'alg = {{ "RS256", "ES256" }}, jwks = "{issuer.url}", refresh = "1h", cache = 0', workers=2) as gw:
            first, second = token(keys["RS256"][0], "RS256", "one"), token(keys["ES256"][0], "ES256", "two")
            assert {ask(gw, first).text for _ in range(40)} == {b"ann"}
            assert issuer.asked <= 2
            assert ask(gw, second).status == 401
            issuer.publish(one=("RS256", keys["RS256"][1]), two=("ES256", keys["ES256"][1]))
            # An unknown kid asks again, but not each time: two workers, one question each in thirty seconds.
            before = issuer.asked
            for _ in range(50):
                ask(gw, second)
            assert issuer.asked - before <= 2
            issuer.status = 500
            assert {ask(gw, first).status for _ in range(20)} == {200}


def test_a_new_key_is_found_by_its_kid(keys):
    with Issuer() as issuer:
        issuer.publish(one=("RS256", keys["RS256"][1]))
        with gateway(f'alg = {{ "RS256", "ES256" }}, jwks = "{issuer.url}", refresh = "1h"') as gw:
            assert ask(gw, token(keys["RS256"][0], "RS256", "one")).text == b"ann"
            issuer.publish(two=("ES256", keys["ES256"][1]))
            assert ask(gw, token(keys["ES256"][0], "ES256", "two")).text == b"ann"


@pytest.mark.parametrize("trouble", ["down", "error", "no set", "silent"])
def test_an_issuer_without_keys_denies_in_time_and_is_asked_again(keys, trouble):
    with Issuer() as issuer:
        issuer.publish(one=("RS256", keys["RS256"][1]))
        good = issuer.set
        if trouble == "error":
            issuer.status = 500
        if trouble == "no set":
            issuer.set = {"keys": "none"}
        if trouble == "silent":
            issuer.delay = 5
        url = issuer.url if trouble != "down" else "http://127.0.0.1:1/jwks"
        with gateway(f'alg = "RS256", jwks = "{url}", timeout = "500ms"', warns="jwks|cache|upstream") as gw:
            start = time.time()
            assert ask(gw, token(keys["RS256"][0], "RS256", "one")).status == 503
            assert time.time() - start < 1.5
            assert gw.request("/").status == 401
            if trouble != "down":
                issuer.status, issuer.set, issuer.delay = 200, good, 0
                assert ask(gw, token(keys["RS256"][0], "RS256", "one")).status == 200


def test_tokens_of_jose_of_each_algorithm_and_every_way_to_be_wrong():
    made = json.loads(run("tokens"))
    assert len(made) == 13
    text = "listen { port = @PORT@ }\n" + "".join(
        f'route "{alg}" {{ path = "/{alg}", handler = function(ctx) return tg.respond(200, ctx.consumer.id) end, use = {{ {{ "jwt", alg = "{alg}", '
        f'keys = {{ [[{json.dumps(one["jwk"])}]] }}, iss = "https://id.test", aud = "api", leeway = "5m", cache = 0 }} }} }}\n'
        for alg, one in made.items())
    with Gateway(text) as gw:
        client = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=30)

        def status(alg, value):
            client.request("GET", "/" + alg, headers={"Authorization": "Bearer " + value})
            answer = client.getresponse()
            answer.read()
            return answer.status

        for alg, one in made.items():
            for right in one["right"]:
                assert status(alg, right) == 200, alg
            for why, wrong in one["wrong"].items():
                assert status(alg, wrong) == 401, (alg, why)
            for other in set(made) - {alg}:
                assert status(alg, made[other]["right"][0]) == 401, (alg, other)
            right = one["right"][0]
            for i in (*range(0, len(right) - 4, 7), *range(len(right) - 4, len(right))):
                assert status(alg, right[:i] + ("A" if right[i] != "A" else "B") + right[i + 1:]) == 401, (alg, i)
            assert status(alg, right[:-1]) == status(alg, right + "A") == status(alg, right + "=") == 401
