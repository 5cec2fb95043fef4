"""mtls-auth, redirect-https, hsts and ip-restriction, with curl and certificates of an authority of our own."""
import subprocess

import pytest
from authority import Authority, openssl
from gateway import RELEASE, Gateway


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:site.test")
    for name in ("ann", "bob", "eve", "old"):
        authority.issue(name, f"DNS:{name}.test")
    return authority


def fingerprint(ca, name):
    return openssl("x509", "-in", ca.folder / f"{name}.pem", "-noout", "-fingerprint", "-sha256").decode().split("=")[1].strip()


def serial(ca, name):
    return openssl("x509", "-in", ca.folder / f"{name}.pem", "-noout", "-serial").decode().split("=")[1].strip()


def curl(gw, ca, name=None, path="/", more=()):
    shown = ("--cert", str(ca.folder / f"{name}.pem"), "--key", str(ca.folder / f"{name}.key")) if name else ()
    ran = subprocess.run(["curl", "-s", "-w", "%{http_code}", "--cacert", str(ca.cert), "--resolve", f"site.test:{gw.port}:127.0.0.1", *shown, *more,
                          f"https://site.test:{gw.port}{path}"], capture_output=True, text=True, timeout=20)
    return ran.stdout


TLS = 'listen { port = @PORT@, tls = { cert = "@CA@/site.pem", key = "@CA@/site.key", client_auth = "optional", client_ca = "@CA@/ca.pem" } }\n'


def test_a_certificate_is_its_consumer(ca):
    text = TLS + f"""consumer "ann" {{ credentials = {{ mtls = {{ fingerprint = "{fingerprint(ca, 'ann')}", id = "laptop" }} }} }}
consumer "bob" {{ credentials = {{ mtls = {{ {{ name = "dns:bob.test" }}, {{ subject = "CN=old,O=Tidegate" }} }} }} }}
route "some" {{ path = "/some", use = {{ {{ "mtls-auth", revoked = {{ "{serial(ca, 'old')}" }} }} }}, handler = function(ctx)
  return tg.respond(200, ctx.consumer.id .. " " .. tostring(ctx.credential.id) .. " ") end }}
route "any" {{ path = "/any", use = {{ {{ "mtls-auth", any = true }} }}, handler = function(ctx) return tg.respond(200, ctx.consumer.id .. " ") end }}
"""
    with Gateway(text.replace("@CA@", str(ca.folder))) as gw:
        assert curl(gw, ca, "ann", "/some") == "ann laptop 200"
        assert curl(gw, ca, "bob", "/some") == "bob nil 200"
        for name in ("eve", "old", None):
            assert curl(gw, ca, name, "/some").endswith("401"), name
        assert curl(gw, ca, "eve", "/any") == "CN=eve,O=Tidegate 200"
        assert curl(gw, ca, None, "/any").endswith("401")


def test_what_is_no_certificate_is_told(ca, tmp_path):
    (tmp_path / "gateway.lua").write_text('listen { port = 1 }\nconsumer "a" { credentials = { mtls = { id = "x" } } }\n'
                                          'route "r" { path = "/", use = { "mtls-auth" }, handler = function() end }')
    ran = subprocess.run([RELEASE, "check", str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=20)
    assert ran.returncode == 1 and "one of fingerprint, subject and name" in ran.stderr


def test_plain_text_is_redirected_and_tls_remembered(ca):
    text = TLS + """listen { port = @PORT2@ }
use { { "redirect-https", port = @PORT@ }, { "hsts", include_subdomains = true } }
route "all" { path = "/*", handler = function() return tg.respond(200, "secret ") end }
"""
    with Gateway(text.replace("@CA@", str(ca.folder))) as gw:
        ran = subprocess.run(["curl", "-si", "-L", "--cacert", str(ca.cert), "--resolve", f"site.test:{gw.port}:127.0.0.1", "--resolve",
                              f"site.test:{gw.port2}:127.0.0.1", f"http://site.test:{gw.port2}/a?b=c"], capture_output=True, text=True, timeout=20).stdout
        assert f"Location: https://site.test:{gw.port}/a?b=c" in ran and "secret" in ran
        plain, secure = ran.split("\n\n")[:2]
        assert "strict-transport-security: max-age=31536000; includesubdomains" in secure.lower() and "strict" not in plain.lower()


def test_a_hundred_thousand_networks_are_no_slower_than_one():
    text = """listen { port = @PORT@ }
local list = {}
for i = 0, 99999 do list[#list + 1] = ("%d.%d.%d.0/24"):format(20 + i % 60, math.floor(i / 60) % 256, math.floor(i / 15360)) end
route "many" { path = "/many", use = { { "ip-restriction", deny = list } }, handler = function() return tg.respond(200) end }
route "one" { path = "/one", use = { { "ip-restriction", deny = { "20.0.0.0/24" } } }, handler = function() return tg.respond(200) end }
"""
    with Gateway(text, binary=RELEASE) as gw:
        def cpu():
            fields = open(f"/proc/{gw.workers()[0]}/stat").read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        def cost(path):
            before = cpu()
            out = subprocess.run(["wrk", "-t1", "-c8", "-d2", f"http://127.0.0.1:{gw.port}{path}"], capture_output=True, text=True, timeout=20).stdout
            assert "Non-2xx" not in out
            return (cpu() - before) / int(out.split(" requests in")[0].split()[-1])
        for path in ("/one", "/many"):
            cost(path)
        ratios = sorted(cost("/many") / cost("/one") for _ in range(3))
        assert ratios[0] < 1.15, ratios
