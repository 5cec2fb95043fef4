"""mtls-auth, redirect-https, hsts and ip-restriction, with curl and certificates of an authority of our own."""
import subprocess
import time

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


CRL = TLS.replace('client_ca = "@CA@/ca.pem"', 'client_ca = "@CA@/ca.pem", client_crl = "@DIR@/own.crl"') + """
route "any" { path = "/any", use = { { "mtls-auth", any = true } }, handler = function(ctx) return tg.respond(200, ctx.consumer.id .. " ") end }
"""


def wait_for_answer(gw, ca, name, answer):
    end = time.time() + 15
    while curl(gw, ca, name, "/any") != answer:
        assert time.time() < end, gw.log()
        time.sleep(0.05)


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_a_certificate_that_its_authority_has_revoked_is_refused(ca, form):
    with Gateway(CRL.replace("@CA@", str(ca.folder)), files={"own.crl": ca.crl(["old"]).read_text()}) as gw:
        assert curl(gw, ca, "eve", "/any") == "CN=eve,O=Tidegate 200"
        assert curl(gw, ca, "old", "/any") == "000"  # the handshake fails
        assert curl(gw, ca, None, "/any").endswith("401")
        ca.crl(["eve"], out=gw.folder / "own.crl", form=form)  # followed without --watch
        wait_for_answer(gw, ca, "eve", "000")
        assert curl(gw, ca, "old", "/any") == "CN=old,O=Tidegate 200"
        ca.crl([], out=gw.folder / "own.crl", form=form, until="20200102000000Z")  # one that has run out lets nobody in
        wait_for_answer(gw, ca, "old", "000")
        assert curl(gw, ca, "eve", "/any") == curl(gw, ca, "ann", "/any") == "000"
        gw.write("own.crl", "nonsense")
        gw.wait_for("there is no list of revoked certificates in it")
        assert curl(gw, ca, "ann", "/any") == "000"
        ca.crl(["old"], out=gw.folder / "own.crl", form=form)
        wait_for_answer(gw, ca, "ann", "CN=ann,O=Tidegate 200")


def test_a_list_of_revoked_certificates_that_is_wrong_is_told(ca, tmp_path):
    other = Authority(tmp_path / "other")
    text = CRL.replace("@CA@", str(ca.folder)).replace("@PORT@", "1").replace("@DIR@", str(tmp_path))
    whole = ca.crl(["old"]).read_text()
    for crl, problem in {
        other.crl().read_text(): "the signature of a list of revoked certificates is not its authority's",
        whole.replace(whole[80:84], "AAAA"): "",
        ca.cert.read_text(): "there is no list of revoked certificates in it",
        "": "there is no list of revoked certificates in it",
    }.items():
        (tmp_path / "own.crl").write_text(crl)
        (tmp_path / "gateway.lua").write_text(text)
        ran = subprocess.run([RELEASE, "check", str(tmp_path / "gateway.lua")], capture_output=True, text=True, timeout=20)
        assert ran.returncode == 1 and "gateway.lua:1  listen › tls › client_crl\n" in ran.stderr and problem in ran.stderr, ran.stderr


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
