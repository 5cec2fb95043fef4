"""oidc: logins at a real provider (oidc-provider) by a browser that follows redirects: what is wrong in them is denied, in whichever place."""
import base64
import concurrent.futures
import contextlib
import json
import re
import subprocess
import time
import urllib.parse

import pytest
from authority import Authority
from browser import Browser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gateway import ROOT, Gateway, free_port, free_ports
from jwt.algorithms import ECAlgorithm
from node import Server, run
from redis_servers import Redis, redis_word
from test_documents import blocks

SECRET = "an example is no secret: thirty-two bytes"
TEXT = """http { allow = { "127.0.0.1" } }
listen { port = @PORT@ }
%(words)s
local function echo(ctx)
  local headers, vars = ctx.req.headers, ctx.vars.oidc or {}
  return tg.respond(200, { id = ctx.consumer.id, groups = ctx.consumer.groups, auth = headers.authorization, email = headers["x-email"],
    cookie = headers.cookie, target = ctx.req.original.target, access = vars.access_token, id_token = vars.id_token, claims = vars.claims })
end
route "app" { path = "/*", handler = echo, use = { { "oidc", issuer = "%(issuer)s", client_id = "gateway",
  client_secret = "a secret:of the gateway", scope = { "openid", "offline_access" }, params = { prompt = "consent" }, timeout = "2s",
  claims_to_headers = { email = "X-Email" }, after_logout = "/bye", %(fields)s session = { secret = %(secret)s, secure = false, %(session)s } } } }
%(routes)s"""


@contextlib.contextmanager
def site(fields="", session="", words="", routes="", secret=f'"{SECRET}"', seconds=600, workers=1, warns="oidc|refresh"):
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    text = TEXT % {"issuer": issuer, "fields": fields, "session": session, "words": words, "routes": routes % {"issuer": issuer}, "secret": secret}
    with Gateway(text, workers=workers, warns=warns) as gw:
        gw.origin = f"http://127.0.0.1:{gw.port}"
        with Server("provider", port, gw.origin, seconds) as provider:
            provider.url = issuer
            yield gw, provider


def to_provider(browser, gw, path="/"):
    """Up to the provider's first form."""
    answer = browser.send(gw.origin + path)
    assert answer.status == 302, answer.text
    return browser.follow(answer)


def log_in(browser, gw, path="/", name="ann", until="/callback", change=None):
    """The whole login; with `until` = "/callback" only up to the redirect back, which is returned."""
    answer = browser.send(gw.origin + path)
    assert answer.status == 302, answer.text
    answer = browser.follow(browser.send(change(answer.location) if change else answer.location), until)
    for values in ({"login": name, "password": "x"}, {}):
        if "<form" in answer.text:
            answer = browser.follow(browser.submit(answer, **values), until)
    return answer


def logged_in(gw, path="/", name="ann"):
    browser = Browser()
    answer = browser.follow(log_in(browser, gw, path, name))
    assert answer.status == 200, answer.text
    return browser, answer


def asked(provider):
    return json.loads(Browser().send(provider.url + "/asked").text)


def test_a_browser_logs_in_and_comes_back_to_where_it_was_going():
    with site() as (gw, _):
        browser, answer = logged_in(gw, "/orders/7?x=1&y=a%20b")
        said = json.loads(answer.text)
        assert answer.url == gw.origin + "/orders/7?x=1&y=a%20b"
        assert said["id"] == "ann" and said["groups"] == ["staff"] and said["email"] == "ann@example.com"
        assert "auth" not in said and "cookie" not in said
        assert said["claims"]["aud"] == "gateway"
        assert [name for name in browser.cookies(gw.origin)] == ["session"]
        again = browser.send(gw.origin + "/other", headers={"X-Email": "root@example.com", "X-Consumer-ID": "root"})
        assert again.status == 200 and json.loads(again.text)["email"] == "ann@example.com" and not browser.set_cookies


def test_who_is_no_browser_gets_401():
    with site() as (gw, _):
        for headers in ({"Accept": "application/json"}, {"Sec-Fetch-Mode": "cors"}, {"X-Requested-With": "XMLHttpRequest"}):
            answer = Browser().send(gw.origin + "/", headers=headers)
            assert answer.status == 401 and answer.headers["WWW-Authenticate"] == 'Bearer realm="tidegate"'
        assert Browser().send(gw.origin + "/", "POST", form={}).status == 401


def test_where_it_comes_back_to_is_never_another_site():
    with site() as (gw, _):
        for target in ("//evil.example.com/", "/\\evil.example.com", "/" + "a" * 2000):
            browser = Browser()
            answer = browser.send(gw.origin + target)
            if answer.status == 302:  # others are no targets at all
                answer = browser.follow(log_in(browser, gw, target))
                assert answer.status == 200 and urllib.parse.urlsplit(answer.url).netloc == f"127.0.0.1:{gw.port}"
                assert json.loads(answer.text)["target"] == "/"


def test_a_login_that_was_not_begun_here_is_denied():
    with site() as (gw, _):
        browser = Browser()
        back = log_in(browser, gw).location
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back).query))
        wrong = gw.origin + "/callback?" + urllib.parse.urlencode({**query, "state": "A" * 32})
        other_half = gw.origin + "/callback?" + urllib.parse.urlencode({**query, "state": query["state"][:8] + "A" * 24})
        for place in (wrong, other_half, gw.origin + "/callback", gw.origin + "/callback?state="):
            assert browser.send(place).status == 400
        assert Browser().send(back).status == 400  # another browser has another jar: nobody is logged in as somebody else
        foreign = gw.origin + "/callback?" + urllib.parse.urlencode({**query, "iss": "https://evil.example.com"})
        assert browser.send(foreign).status == 403
        assert "session" not in browser.cookies(gw.origin)
        assert browser.send(back).status == 400  # an answer ends its login


def test_a_code_is_good_once():
    with site() as (gw, provider):
        browser = Browser()
        back = log_in(browser, gw).location
        kept = dict(browser.jar)
        assert browser.send(back).status == 302 and "session" in browser.cookies(gw.origin)
        thief = Browser()
        thief.jar = kept
        answer = thief.send(back)
        assert answer.status == 403 and "session" not in thief.cookies(gw.origin)
        assert asked(provider) == {"authorization_code": 2}


def test_another_nonce_and_another_proof_are_denied():
    with site() as (gw, _):
        for wrong in ({"nonce": "another"}, {"code_challenge": "A" * 43}):
            def change(url, wrong=wrong):
                parts = urllib.parse.urlsplit(url)
                query = {**dict(urllib.parse.parse_qsl(parts.query)), **wrong}
                return parts._replace(query=urllib.parse.urlencode(query)).geturl()
            browser = Browser()
            back = log_in(browser, gw, change=change)
            assert "code=" in back.location
            answer = browser.send(back.location)
            assert answer.status == 403 and "session" not in browser.cookies(gw.origin), answer.text


def test_what_the_provider_refuses_is_said_on_a_page():
    with site() as (gw, _):
        for is_html in (True, False):
            browser = Browser(is_html)
            begun = browser.send(gw.origin + "/", headers={"Accept": "text/html"})
            state = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(begun.location).query))["state"]
            query = urllib.parse.urlencode({"state": state, "error": "access_denied", "error_description": "<b>no</b>", "iss": begun.location.split("/auth")[0]})
            answer = browser.send(gw.origin + "/callback?" + query)
            assert answer.status == 403 and "access_denied" in answer.text and "<b>" not in answer.text
            kind = answer.headers["Content-Type"]
            assert kind == ("text/html; charset=utf-8" if is_html else "application/problem+json")
            assert answer.headers["Cache-Control"] == "no-store"
        browser = Browser()
        page = to_provider(browser, gw)
        cancel = urllib.parse.urljoin(page.url, page.text.split('href="')[-1].split('"')[0])
        assert cancel.endswith("/abort")
        answer = browser.follow(browser.send(cancel))
        assert answer.status == 403 and "access_denied" in answer.text


def test_a_session_of_which_any_byte_is_another_is_none():
    with site() as (gw, _):
        browser, _ = logged_in(gw)
        jar = {name: value for name, value in browser.cookies(gw.origin).items()}

        def status(cookies):
            line = "; ".join(f"{name}={value}" for name, value in cookies.items())
            return gw.request("/", headers={"Cookie": line, "Accept": "application/json"}).status
        assert status(jar) == 200
        value = jar["session"]
        for i in [*range(0, 60), *range(60, len(value), 37), len(value) - 1]:
            for other in {"A", "9", chr(ord(value[i]) ^ 1)} - {value[i], ";", ",", " "}:
                assert status({**jar, "session": value[:i] + other + value[i + 1:]}) == 401, (i, other)
        for wrong in (value[:-1], value + "A", value[1:], "", "1.", "9." + value[2:]):
            assert status({**jar, "session": wrong}) == 401, wrong
        assert status({"session-2": value}) == 401
        # A login is no session, although the same secret has sealed it.
        other = Browser()
        other.send(gw.origin + "/")
        sealed = next(value for name, value in other.cookies(gw.origin).items() if "login" in name)
        assert status({"session": "1." + sealed}) == 401


def test_a_large_session_is_in_several_cookies():
    with site() as (gw, _):
        browser, answer = logged_in(gw, name="a" * 1000)
        jar = browser.cookies(gw.origin)
        assert sorted(jar) == ["session", "session-2"] and all(len(value) < 4000 for value in jar.values())
        assert json.loads(answer.text)["id"] == "a" * 1000
        for missing in jar:
            line = "; ".join(f"{name}={value}" for name, value in jar.items() if name != missing)
            assert gw.request("/", headers={"Cookie": line}).status == 401
        # What the smaller one of another person does not need any more is cleared.
        browser.jar = {key: value for key, value in browser.jar.items() if key[0] == f"127.0.0.1:{gw.port}"}
        browser.jar[f"127.0.0.1:{gw.port}", "session"] = ("1.x", "/")
        browser.follow(log_in(browser, gw))
        assert sorted(browser.cookies(gw.origin)) == ["session"]


def test_a_session_that_is_too_large_is_no_trap():
    with site() as (gw, _):
        browser = Browser()
        answer = browser.follow(log_in(browser, gw, name="a" * 3000))
        assert answer.status == 500 and not browser.cookies(gw.origin)
        assert "keep it in Redis" in gw.log()


def test_a_session_of_one_provider_or_client_is_none_of_another():
    """As when customers and staff log in at different places, and somebody has copied the whole of `session`."""
    routes = ""
    for name, issuer, client in (("same", "%(issuer)s", "gateway"), ("client", "%(issuer)s", "staff"), ("provider", "%(issuer)s/staff", "gateway")):
        routes += f'route "{name}" {{ path = "/{name}", handler = echo, use = {{ {{ "oidc", issuer = "{issuer}", client_id = "{client}", client_secret = "x", '
        routes += f'timeout = "2s", session = {{ secret = "{SECRET}", secure = false }} }} }} }}\n'
    with site(routes=routes) as (gw, _):
        browser, _ = logged_in(gw)
        assert browser.send(gw.origin + "/same").status == 200
        for name, status in (("client", 401), ("provider", 401)):
            assert browser.send(gw.origin + "/" + name, headers={"Accept": "application/json"}).status == status, name
        assert browser.send(gw.origin + "/same").status == 302  # the cookie had their name: it was cleared


def test_logout_ends_it_here_and_at_the_provider():
    with site() as (gw, provider):
        browser, answer = logged_in(gw)
        answer = browser.send(gw.origin + "/logout")
        assert answer.status == 302 and not browser.cookies(gw.origin)
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.location).query))
        assert query["post_logout_redirect_uri"] == gw.origin + "/bye" and query["id_token_hint"].count(".") == 2
        assert answer.location.startswith(provider.url + "/session/end?")
        page = browser.follow(answer)
        answer = browser.follow(browser.submit(page, logout="yes"), until="/bye")
        assert answer.location == gw.origin + "/bye"
        assert browser.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 401
        assert "<form" in to_provider(browser, gw).text  # the provider asks again who it is
        assert browser.send(gw.origin + "/logout").location == gw.origin + "/bye"


def wait_until(moment):
    """What expires does so by the clock: there is no other condition."""
    time.sleep(max(0, moment - time.time()))


def test_tokens_are_renewed_once_for_all_requests():
    with site(fields='upstream_token = "access", userinfo = true,', seconds=4, workers=2) as (gw, provider):
        browser, answer = logged_in(gw)
        begun = time.time()
        first = json.loads(answer.text)
        assert first["auth"] == "Bearer " + first["access"]
        jar = browser.cookies(gw.origin)
        again = browser.send(gw.origin + "/")
        assert json.loads(again.text)["access"] == first["access"] and asked(provider).get("refresh_token") is None
        wait_until(begun + 2.1)  # refreshed when half of its life is over, since 30 s before its end is earlier than that
        cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: gw.request("/", headers={"Cookie": cookie}), range(24)))
        assert all(answer.status == 200 for answer in answers)
        tokens = {json.loads(answer.text)["access"] for answer in answers}
        assert len(tokens) == 1 and first["access"] not in tokens
        assert asked(provider)["refresh_token"] == 1
        # All got the new session; the next refresh has the refresh token of this one.
        lines = answers[0].headers.get_all("Set-Cookie")
        assert lines and all("HttpOnly" in line for line in lines)
        browser.keep(gw.origin, lines)
        wait_until(time.time() + 2.1)
        answer = browser.send(gw.origin + "/", headers={"Accept": "application/json"})
        assert answer.status == 200 and json.loads(answer.text)["access"] not in tokens | {first["access"]}
        assert asked(provider)["refresh_token"] == 2


def test_a_refresh_that_is_refused_wants_a_new_login():
    with site(seconds=4) as (gw, provider):
        browser, _ = logged_in(gw)
        begun = time.time()
        stale = Browser()
        stale.jar = dict(browser.jar)
        browser.follow(browser.send(gw.origin + "/logout"))  # which revokes the refresh token
        assert stale.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 200  # no store: a copied cookie lives on
        wait_until(begun + 2.1)
        assert stale.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 401
        assert stale.send(gw.origin + "/").location.startswith(provider.url + "/auth?")
        assert not [name for name in stale.cookies(gw.origin) if "login" not in name]


def test_without_a_refresh_token_the_session_ends_with_its_token():
    with site(seconds=2) as (gw, _):
        browser = Browser()
        answer = browser.follow(log_in(browser, gw, change=lambda url: url.replace("offline_access", "read")))
        begun = time.time()
        assert answer.status == 200
        wait_until(begun + 2.1)
        assert browser.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 401


@pytest.mark.parametrize("store", ["cookie", "redis"])
def test_a_session_ends_by_idleness_and_by_age(store):
    with contextlib.ExitStack() as stack:
        words, session = "", 'idle = "2s", absolute = "5s",'
        if store == "redis":
            words = redis_word("main", stack.enter_context(Redis()))
            session += 'store = "redis", redis = "main",'
        gw, _ = stack.enter_context(site(session=session, words=words))
        browser, _ = logged_in(gw)
        begun = time.time()
        idle, _ = logged_in(gw)
        while time.time() < begun + 4.2:
            answer = browser.send(gw.origin + "/", headers={"Accept": "application/json"})
            assert answer.status == 200
            wait_until(time.time() + 0.5)
        assert idle.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 401
        wait_until(begun + 5.1)
        assert browser.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 401


def test_secrets_are_rotated_without_a_new_login():
    new = f'{{ "another secret of thirty-two bytes", "{SECRET}" }}'
    with site() as (gw, provider):
        browser, _ = logged_in(gw)
        before = browser.cookies(gw.origin)["session"]
        text = (gw.folder / "gateway.lua").read_text()
        gw.write("gateway.lua", text.replace(f'secret = "{SECRET}"', f"secret = {new}"))
        assert gw.command("reload").returncode == 0
        assert browser.send(gw.origin + "/").status == 200
        after = browser.cookies(gw.origin)["session"]
        assert after != before
        gw.write("gateway.lua", text.replace(SECRET, "another secret of thirty-two bytes"))
        assert gw.command("reload").returncode == 0
        assert browser.send(gw.origin + "/").status == 200
        browser.jar[f"127.0.0.1:{gw.port}", "session"] = (before, "/")
        assert browser.send(gw.origin + "/").location.startswith(provider.url)


def test_sessions_in_redis():
    with Redis() as redis:
        with site(session='store = "redis", redis = "main", prefix = "web",', words=redis_word("main", redis), warns="oidc|redis|Redis", seconds=4,
                  workers=2) as (gw, provider):
            browser, answer = logged_in(gw, name="a" * 1000)
            begun = time.time()
            access = json.loads(answer.text)["access"]
            jar = browser.cookies(gw.origin)
            assert [len(value) for value in jar.values()] == [43]
            keys = redis.cli("keys", "*").split()
            assert len(keys) == 1 and keys[0].startswith("web:") and jar["session"] not in keys[0]
            assert 0 < int(redis.cli("ttl", keys[0])) <= 900
            assert "aaaa" not in redis.cli("get", keys[0]) and access not in redis.cli("get", keys[0])
            for wrong in (jar["session"][:-1], jar["session"][:-1] + "~", "A" * 43, ""):
                assert gw.request("/", headers={"Cookie": "session=" + wrong}).status == 401
            wait_until(begun + 2.1)
            assert json.loads(browser.send(gw.origin + "/").text)["access"] != access and not browser.set_cookies
            assert asked(provider)["refresh_token"] == 1
            assert json.loads(browser.send(gw.origin + "/").text)["access"] != access
            assert asked(provider)["refresh_token"] == 1  # the new tokens are in Redis
            copied = dict(browser.jar)
            # What somebody changes in Redis is no session.
            kept = redis.cli("get", keys[0])
            redis.cli("set", keys[0], ("B" if kept[0] != "B" else "C") + kept[1:])
            assert browser.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 401
            redis.cli("set", keys[0], kept.strip())
            browser.jar = dict(copied)
            assert browser.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 200
            browser.send(gw.origin + "/logout")
            assert not redis.cli("keys", "*").split()
            browser.jar = dict(copied)
            assert browser.send(gw.origin + "/", headers={"Accept": "application/json"}).status == 401
            redis.stop()
            browser.jar = copied
            for path in ("/", "/logout"):
                answer = browser.send(gw.origin + path)
                assert answer.status == 503 and answer.headers["Retry-After"] == "1"
            other = Browser()
            answer = other.follow(log_in(other, gw))
            assert answer.status == 503 and not other.cookies(gw.origin)


def test_gateways_that_share_a_redis_renew_once():
    with Redis() as redis:
        session = 'store = "redis", redis = "main",'
        with site(session=session, words=redis_word("main", redis), seconds=4) as (gw, provider):
            text = (gw.folder / "gateway.lua").read_text()
            with Gateway(text.replace(f"port = {gw.port} ", "port = @PORT@ "), warns="oidc") as second:
                browser, answer = logged_in(gw)
                begun = time.time()
                cookie = "session=" + browser.cookies(gw.origin)["session"]
                wait_until(begun + 2.1)
                with concurrent.futures.ThreadPoolExecutor(8) as pool:
                    answers = list(pool.map(lambda i: (gw, second)[i % 2].request("/", headers={"Cookie": cookie}), range(16)))
                assert all(answer.status == 200 for answer in answers)
                assert len({json.loads(answer.text)["access"] for answer in answers} | {json.loads(answer.text)["access"]}) == 2
                assert asked(provider)["refresh_token"] == 1 and redis.cli("keys", "*lock").strip() == ""


def test_a_provider_that_is_away_lets_nobody_in():
    with site(seconds=4) as (gw, provider):
        browser, _ = logged_in(gw)
        begun = time.time()
        half = Browser()
        back = log_in(half, gw).location
        provider.process.terminate()
        provider.process.wait(10)
        assert browser.send(gw.origin + "/").status == 200  # the session is as good as its token
        answer = half.send(back)
        assert answer.status == 503 and "session" not in half.cookies(gw.origin)
        wait_until(begun + 4.1)
        answer = browser.send(gw.origin + "/")
        assert answer.status == 503 and answer.headers["Retry-After"] == "1"
        assert gw.request("/", headers={"Accept": "text/html"}).status == 302


def token_of(provider, client="gateway:a secret:of the gateway", **form):
    credentials = base64.b64encode(":".join(urllib.parse.quote(part, safe="") for part in client.split(":", 1)).encode()).decode()
    answer = Browser().send(provider.url + "/token", "POST", form={"grant_type": "client_credentials", **form},
                            headers={"Authorization": "Basic " + credentials})
    assert answer.status == 200, answer.text
    return json.loads(answer.text)["access_token"]


API = """route "api" { path = "/api", handler = echo, use = { { "oidc", issuer = "%(issuer)s", bearer_only = true, aud = "https://api.example.com",
  consumer_claim = "client_id", scopes = { "read" }, upstream_token = "access" } } }"""


def test_access_tokens_of_applications():
    with site(routes=API) as (gw, provider):
        def ask(token, **headers):
            return gw.request("/api", headers={"Authorization": "Bearer " + token, **headers})
        right = token_of(provider, scope="read", resource="https://api.example.com")
        answer = ask(right, **{"X-Consumer-ID": "root"})
        said = json.loads(answer.text)
        assert answer.status == 200 and said["id"] == "gateway" and said["auth"] == "Bearer " + right
        assert ask(token_of(provider, resource="https://api.example.com")).status == 403
        opaque = ask(token_of(provider))
        assert opaque.status == 401 and 'error="invalid_token"' in opaque.headers["WWW-Authenticate"]
        head, payload, signature = right.split(".")
        for wrong in (f"{head}.{payload}.{signature[:-2]}", f"{head}.{payload}.", payload, f"{head}.{payload[:-4]}AAAA.{signature}"):
            assert ask(wrong).status == 401
        browser, answer = logged_in(gw)
        assert ask(json.loads(answer.text)["id_token"]).status == 401  # an ID token is for the client, not for an API
        assert gw.request("/api", headers={"Accept": "text/html"}).status == 401
        assert browser.send(gw.origin + "/api").status == 401  # a session is no token
        provider.process.terminate()
        provider.process.wait(10)
        assert ask(right).status == 200 and ask(right[:-2] + "AA").status == 401  # the keys are kept


def test_access_tokens_while_the_provider_could_never_be_asked():
    port = free_port()
    text = """http { allow = { "127.0.0.1" } } listen { port = @PORT@ } route "api" { path = "/*", handler = function() return tg.respond(200) end,
      use = { { "oidc", issuer = "http://127.0.0.1:%d", bearer_only = true, aud = "x" } } }""" % port
    with Gateway(text, warns="oidc") as gw:
        head = base64.urlsafe_b64encode(b'{"alg":"RS256"}').decode().rstrip("=")
        answer = gw.request("/", headers={"Authorization": f"Bearer {head}.e30.AAAA"})
        assert answer.status == 503 and answer.headers["Retry-After"] == "1"
        assert gw.request("/").status == 401


TOKENS = """route "mine" { path = "/mine", handler = echo, use = { "anonymous", { "service-token", issuer = "%(issuer)s", client_id = "gateway",
  client_secret = "a secret:of the gateway" } } }
route "theirs" { path = "/theirs", handler = echo, use = { "anonymous", { "service-token", issuer = "%(issuer)s", client_id = "gateway",
  client_secret = "a secret:of the gateway", grant = "exchange", audience = "orders" } } }"""


def test_tokens_for_upstreams():
    with site(routes=TOKENS, workers=2, warns="oidc|service-token") as (gw, provider):
        tokens = {json.loads(gw.request("/mine").text)["auth"] for _ in range(8)}
        assert len(tokens) == 1 and asked(provider) == {"client_credentials": 1}
        _, answer = logged_in(gw)
        access = json.loads(answer.text)["access"]
        tokens = {json.loads(gw.request("/theirs", headers={"Authorization": "Bearer " + access}).text)["auth"] for _ in range(8)}
        assert len(tokens) == 1 and tokens.pop().startswith("Bearer ann-for-orders-")
        assert gw.request("/theirs", headers={"Authorization": "Bearer unknown"}).status == 403
        assert gw.request("/theirs").status == 401


PRIVATE = ec.generate_private_key(ec.SECP256R1())
SIGNER = """http { allow = { "127.0.0.1", "localhost" } }
listen { port = @PORT@, tls = { cert = "%(cert)s", key = "%(key)s" } }
local ca, key = [[%(ca)s]], [[%(private)s]]
local function echo(ctx) return tg.respond(200, { id = ctx.consumer.id, auth = ctx.req.headers.authorization }) end
route "mine" { path = "/mine", handler = echo, use = { "anonymous", { "service-token", issuer = "%(issuer)s", client_id = "signer", client_key = key,
  ca = ca } } }
route "app" { path = "/*", handler = echo, use = { { "oidc", issuer = "%(issuer)s", client_id = "signer", client_key = key, par = true, ca = %(trusts)s,
  session = { secret = "an example is no secret: thirty-two bytes" } } } }"""


@contextlib.contextmanager
def over_tls(tmp_path, trusts="ca"):
    """Gateway and provider speak TLS by certificates of the same authority; the client signs who it is."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost", "DNS:localhost")
    port = free_port()
    issuer = f"https://localhost:{port}"
    private = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    jwk = json.loads(ECAlgorithm.to_jwk(PRIVATE.public_key()))
    text = SIGNER % {"issuer": issuer, "cert": cert, "key": key, "ca": authority.cert.read_text(), "private": private, "trusts": trusts}
    with Gateway(text, warns="oidc") as gw:
        gw.origin = f"https://localhost:{gw.port}"
        with Server("provider", port, gw.origin, 600, cert, key, env={"CLIENT_JWK": json.dumps({**jwk, "use": "sig"})}) as provider:
            provider.url = issuer
            yield gw, provider, str(authority.cert)


def test_a_client_that_signs_who_it_is_and_pushes_its_parameters(tmp_path):
    with over_tls(tmp_path) as (gw, provider, ca):
        browser = Browser(ca=ca)
        begun = browser.send(gw.origin + "/account")
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(begun.location).query))
        assert begun.location.startswith(provider.url + "/auth?") and sorted(query) == ["client_id", "request_uri"]
        answer = browser.follow(log_in(browser, gw, "/account"))
        assert answer.status == 200 and json.loads(answer.text)["id"] == "ann" and answer.url == gw.origin + "/account"
        names = [name for name in browser.cookies(gw.origin) if "login" not in name]
        assert names == ["__Host-session"]
        assert json.loads(browser.send(gw.origin + "/mine").text)["auth"].startswith("Bearer ")


def test_a_login_over_http2(tmp_path):
    with over_tls(tmp_path) as (gw, provider, ca):
        browser = Browser(ca=ca)
        browser.follow(log_in(browser, gw, "/account"))
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies(gw.origin).items())
        command = ["curl", "-s", "--http2", "--cacert", ca, "--resolve", f"localhost:{gw.port}:127.0.0.1", "-D", "-", "-H", "Accept: text/html"]
        out = subprocess.run([*command, gw.origin + "/x?y=1", "-H", "Cookie: " + cookie], capture_output=True, text=True, timeout=20, check=True).stdout
        assert out.startswith("HTTP/2 200") and '"ann"' in out
        out = subprocess.run([*command, gw.origin + "/x?y=1"], capture_output=True, text=True, timeout=20, check=True).stdout
        assert out.startswith("HTTP/2 302") and f"location: {provider.url}/auth?" in out and "__Host-session-login-" in out


def test_a_provider_of_whom_nobody_vouches_is_not_asked(tmp_path):
    with over_tls(tmp_path, trusts="nil") as (gw, _, ca):
        answer = Browser(ca=ca).send(gw.origin + "/account")
        assert answer.status == 503 and "ertificate" in gw.log()


@contextlib.contextmanager
def example():
    """examples/oidc-login on ports of its own."""
    folder = ROOT / "examples/oidc-login"
    ports = {str(8080 + i): str(port) for i, port in enumerate(free_ports(3))}

    def with_ports(text):
        return re.sub("808[0-2]", lambda found: ports[found[0]], text)
    with Server("provider", ports["8082"], f"http://localhost:{ports['8080']}"), Gateway(with_ports((folder / "gateway.lua").read_text())) as gw:
        yield gw, with_ports, f"http://localhost:{ports['8080']}"


def test_the_commands_of_the_example():
    with example() as (gw, with_ports, _):
        found = list(blocks((ROOT / "examples/oidc-login/README.md").read_text()))
        assert len(found) == 3
        for command, expected in found:
            out = subprocess.run(["bash", "-c", with_ports(command)], capture_output=True, text=True, timeout=30).stdout
            for line in expected:
                assert with_ports(line) in out, f"{command}\n{out}\n{gw.log()}"


def test_a_person_logs_in_with_a_real_browser():
    with example() as (gw, _, origin):
        seen = json.loads(run("login", origin, "ann"))
        assert seen["before"] == 401 and "/interaction/" in seen["form"]
        assert seen["url"] == origin + "/account" and seen["page"].startswith("Hello, ann") and "mail ann@example.com, token Bearer ..." in seen["page"]
        assert seen["fetched"] == 200 and seen["other"] == 401
        assert seen["cookies"] == [{"name": "__Host-session", "httpOnly": True, "secure": True, "sameSite": "Lax", "path": "/"}]
        assert seen["script"] == ""
        assert re.search("/account/orders, mail -, token Bearer ann-for-orders-", seen["orders"]), seen["orders"]
        assert "/session/end" in seen["logout"] and seen["home"].startswith("Home")
        assert seen["after"] == 401 and "/interaction/" in seen["again"]
        assert "not begun in this browser" in seen["stolen"], gw.log()
