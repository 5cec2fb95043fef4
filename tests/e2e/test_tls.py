"""TLS towards clients and towards upstreams, with curl, openssl and Python's ssl on the other side."""
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time

import pytest
from authority import RSA, Authority, openssl
from gateway import BINARY, RELEASE, Gateway, free_port

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, @LISTEN@ }
listen { address = "127.0.0.1", port = @PORT2@ }
route "ok" { path = "/ok", handler = function(ctx) return tg.respond(200, ctx.req.scheme) end }
route "big" { path = "/big", handler = function() return tg.respond(200, ("0123456789"):rep(500000)) end }
route "echo" { path = "/echo", handler = function(ctx) return tg.respond(200, ctx.req:text(4e6)) end }
route "tls" { path = "/tls", handler = function(ctx)
  local c = ctx.req.client
  return tg.respond(200, { tls = c.tls or false, cert = c.cert or false })
end }
"""


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:site.test,DNS:*.wild.test,DNS:localhost,IP:127.0.0.1")
    authority.issue("site-rsa", "DNS:site.test", RSA)
    authority.issue("other", "DNS:other.test")
    authority.issue("client", "DNS:client.test,URI:spiffe://test/client")
    return authority


def pem(ca, name):
    return f'cert = "{ca.folder}/{name}.pem", key = "{ca.folder}/{name}.key"'


def gateway(ca, listen=None, config=CONFIG, **options):
    listen = listen or f"tls = {{ {pem(ca, 'site')} }}"
    return Gateway(config.replace("@LISTEN@", listen).replace("@CA@", str(ca.folder)), **options)


def curl(gw, ca, host, path, *words):
    return subprocess.run(["curl", "-s", "--http1.1", "--cacert", str(ca.cert), "--resolve", f"{host}:{gw.port}:127.0.0.1", *words,
                           f"https://{host}:{gw.port}{path}"], capture_output=True, text=True, timeout=30)


def context(ca, **options):
    made = ssl.create_default_context(cafile=str(ca.cert))
    for name, value in options.items():
        setattr(made, name, value)
    return made


def connect(gw, ca, name="site.test", made=None, session=None):
    plain = socket.create_connection(("127.0.0.1", gw.port), timeout=10)
    return (made or context(ca)).wrap_socket(plain, server_hostname=name, session=session)


def ask(secure, path="/ok", host="site.test", more=b""):
    secure.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n".encode() + more + b"\r\n")
    answer = http.client.HTTPResponse(secure)
    answer.begin()
    answer.text = answer.read()
    return answer


def test_a_request_and_its_scheme(ca):
    with gateway(ca) as gw:
        assert curl(gw, ca, "site.test", "/ok").stdout == "https"
        assert curl(gw, ca, "x.wild.test", "/ok").stdout == "https"
        assert curl(gw, ca, "unknown.test", "/ok").returncode == 60
        assert gw.request("/ok", port=gw.port2).text == b"http"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_versions_and_large_bodies(ca, version):
    with gateway(ca) as gw:
        limit = ["--tlsv1.2", "--tls-max", "1.2"] if version == "1.2" else ["--tlsv1.3"]
        assert len(curl(gw, ca, "site.test", "/big", *limit).stdout) == 5000000
        body = "x" * 3000000
        sent = subprocess.run(["curl", "-s", "--http1.1", "--cacert", str(ca.cert), "--resolve", f"site.test:{gw.port}:127.0.0.1", *limit,
                               "--data-binary", "@-", f"https://site.test:{gw.port}/echo"], input=body, capture_output=True, text=True, timeout=30)
        assert sent.stdout == body
        old = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
                             input=b"", capture_output=True, timeout=20)
        assert b"alert protocol version" in old.stderr + old.stdout


def test_a_slow_reader_gets_all_of_it(ca):
    with gateway(ca) as gw, connect(gw, ca) as secure:
        secure.sendall(b"GET /big HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
        received = b""
        while chunk := secure.recv(65536):
            received += chunk
            if len(received) < 3000000:
                time.sleep(0.005)
        assert len(received.partition(b"\r\n\r\n")[2]) == 5000000, gw.log()


def test_only_forward_secret_ciphers(ca):
    with gateway(ca, f"tls = {{ {pem(ca, 'site-rsa')} }}") as gw:
        for cipher in ("AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "DHE-RSA-AES256-GCM-SHA384"):
            tried = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-tls1_2", "-cipher", cipher],
                                   input=b"", capture_output=True, timeout=20)
            assert b"handshake failure" in tried.stderr + tried.stdout
        good = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"],
                              input=b"", capture_output=True, timeout=20)
        assert b"Cipher is ECDHE-RSA-AES256-GCM-SHA384" in good.stdout


def test_what_testssl_finds(tmp_path):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("site", "DNS:localhost", days=90)
    cert.write_text(cert.read_text() + authority.cert.read_text())
    found = tmp_path / "found.json"
    checks = ("-p", "-s", "-f", "-S", "-H", "-I", "-T", "-R")  # protocols, ciphers, forward secrecy, defaults, Heartbleed, CCS, Ticketbleed, renegotiation
    with gateway(authority, f'tls = {{ cert = "{cert}", key = "{key}" }}', warns="TLS|handshake", binary=RELEASE) as gw:
        ran = subprocess.run(["testssl", *checks, "--fast", "--nodns", "none", "--add-ca", authority.cert, "--ip", "127.0.0.1", "--warnings", "off",
                              "--color", "0", "--quiet", "--jsonfile", found, f"localhost:{gw.port}"], capture_output=True, text=True, timeout=300)
    findings = {one["id"]: one for one in json.loads(found.read_text())}
    assert {"TLS1_2", "TLS1_3", "PFS", "cert_chain_of_trust", "heartbleed", "CCS", "ticketbleed", "secure_client_renego"} <= set(findings), ran.stdout
    assert "ffdhe" not in found.read_text()  # a handshake with the largest is a hundred times as dear
    bad = {name: one["finding"] for name, one in findings.items() if one["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")}
    assert set(bad) == {"cert_revocation"}, bad  # a certificate of our own making names nobody to ask


def test_rsa_and_ecdsa_side_by_side(ca):
    cert = f'tls = {{ cert = {{ "@CA@/site.pem", "@CA@/site-rsa.pem" }}, key = {{ "@CA@/site.key", "@CA@/site-rsa.key" }} }}'
    with gateway(ca, cert) as gw:
        for kind, text in (("ECDSA", b"ECDHE-ECDSA"), ("RSA", b"ECDHE-RSA")):
            out = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-tls1_2", "-cipher", f"ECDHE+a{kind}"],
                                 input=b"", capture_output=True, timeout=20).stdout
            assert b"Cipher is " + text in out


def test_a_name_selects_its_certificate_and_a_host_of_another_is_misdirected(ca):
    sites = f"tls = {{ {pem(ca, 'site')}, certificates = {{ {{ {pem(ca, 'other')} }} }} }}"
    with gateway(ca, sites) as gw:
        assert curl(gw, ca, "other.test", "/ok").stdout == "https"
        assert curl(gw, ca, "site.test", "/ok").stdout == "https"
        with connect(gw, ca) as secure:
            assert ask(secure, host="other.test").status == 421
        with connect(gw, ca, "other.test") as secure:
            assert ask(secure, host="OTHER.test.").status == 200


def test_strict_sni(ca):
    with gateway(ca, f"tls = {{ {pem(ca, 'site')}, strict_sni = true }}") as gw:
        assert curl(gw, ca, "site.test", "/ok").stdout == "https"
        for name in ("unknown.test", None):
            made = context(ca, check_hostname=False)
            with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
                connect(gw, ca, name, made)


def test_thousands_of_names(ca):
    names = [f"a{i}.many.test" if i % 2 == 0 else f"*.b{i}.many.test" for i in range(3000)]
    certs, key = ca.issue_many(names)
    sites = ", ".join(f'{{ cert = "{cert}", key = "{key}" }}' for cert in certs)
    asked = ["a0.many.test", "x.b1501.many.test", "a1502.many.test", "x.b2999.many.test"]
    with gateway(ca, f"tls = {{ strict_sni = true, certificates = {{ {sites} }} }}", binary=RELEASE) as gw:
        assert [curl(gw, ca, name, "/ok").stdout for name in asked] == ["https"] * 4
        assert curl(gw, ca, "a1.many.test", "/ok").returncode == 35
        gw.write("gateway.lua", gw.folder.joinpath("gateway.lua").read_text() + "-- a change\n")
        assert gw.command("reload").returncode == 0
        assert [curl(gw, ca, name, "/ok").stdout for name in asked] == ["https"] * 4  # and no worker was so long away that it was ended


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_are_resumed_by_all_workers_and_after_a_reload(ca, workers):
    with gateway(ca, workers=workers) as gw:
        made = context(ca, maximum_version=ssl.TLSVersion.TLSv1_2)
        with connect(gw, ca, made=made) as secure:
            assert b'"resumed":false' in ask(secure, "/tls").text
            session = secure.session
        for round_ in range(10):
            if round_ == 5:
                assert gw.command("reload").returncode == 0
            with connect(gw, ca, made=made, session=session) as secure:
                assert secure.session_reused
                assert b'"resumed":true' in ask(secure, "/tls").text
        made = context(ca)
        with connect(gw, ca, made=made) as secure:
            ask(secure)
            session = secure.session
        with connect(gw, ca, made=made, session=session) as secure:
            assert secure.session_reused


def test_no_session_goes_from_one_site_to_another(ca):
    sites = f"tls = {{ {pem(ca, 'site')}, certificates = {{ {{ {pem(ca, 'other')} }} }} }}"
    with gateway(ca, sites) as gw:
        made = context(ca, maximum_version=ssl.TLSVersion.TLSv1_2, check_hostname=False)
        with connect(gw, ca, made=made) as secure:
            ask(secure)
            session = secure.session
        with connect(gw, ca, "other.test", made=made, session=session) as secure:
            assert not secure.session_reused
            assert secure.getpeercert()["subjectAltName"] == (("DNS", "other.test"),)


CLIENTS = 'tls = { cert = "@CA@/site.pem", key = "@CA@/site.key", client_auth = "%s", client_ca = "@CA@/ca.pem" }'


def test_required_client_certificates(ca, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    stranger.issue("client", "DNS:client.test")
    with gateway(ca, CLIENTS % "required") as gw:
        assert curl(gw, ca, "site.test", "/ok").returncode != 0
        foreign = ("--cert", str(stranger.folder / "client.pem"), "--key", str(stranger.folder / "client.key"))
        assert curl(gw, ca, "site.test", "/ok", *foreign).returncode != 0
        made = context(ca)
        made.load_cert_chain(ca.folder / "client.pem", ca.folder / "client.key")
        with connect(gw, ca, made=made) as secure:
            answer = ask(secure, "/tls").text.decode()
            session = secure.session
        assert '"subject":"CN=client,O=Tidegate"' in answer and '"dns:client.test"' in answer and '"uri:spiffe://test/client"' in answer
        fingerprint = openssl("x509", "-in", ca.folder / "client.pem", "-noout", "-fingerprint", "-sha256").decode().split("=")[1].strip()
        assert f'"fingerprint":"{fingerprint.replace(":", "").lower()}"' in answer
        assert session is None or not session.has_ticket  # nothing that would skip the check


def test_optional_client_certificates(ca):
    with gateway(ca, CLIENTS % "optional") as gw:
        assert '"cert":false' in curl(gw, ca, "site.test", "/tls").stdout
        shown = ("--cert", str(ca.folder / "client.pem"), "--key", str(ca.folder / "client.key"))
        assert "CN=client" in curl(gw, ca, "site.test", "/tls", *shown).stdout


def test_a_name_wants_clients_of_its_own_and_no_other_name_is_a_way_around(ca, tmp_path):
    partners = Authority(tmp_path, "partners")
    partners.issue("partner", "DNS:partner.test")
    sites = f"""tls = {{ {pem(ca, 'site')}, certificates = {{
      {{ {pem(ca, 'other')}, client_auth = "required", client_ca = "{partners.cert}" }} }} }}"""
    with gateway(ca, sites) as gw:
        shown = {name: ("--cert", str(where.folder / f"{name}.pem"), "--key", str(where.folder / f"{name}.key")) for name, where in
                 (("partner", partners), ("client", ca))}
        assert '"cert":false' in curl(gw, ca, "site.test", "/tls", *shown["partner"]).stdout  # nobody asks there
        assert "CN=partner" in curl(gw, ca, "other.test", "/tls", *shown["partner"]).stdout
        assert curl(gw, ca, "other.test", "/ok", *shown["client"]).returncode != 0
        assert curl(gw, ca, "other.test", "/ok").returncode != 0
        made = context(ca, maximum_version=ssl.TLSVersion.TLSv1_2)
        with connect(gw, ca, made=made) as secure:
            assert ask(secure, host="other.test").status == 421
            session = secure.session
        with pytest.raises(ssl.SSLError):
            connect(gw, ca, "other.test", made=made, session=session)


def test_an_ocsp_response_is_stapled(ca):
    ca.ocsp("site")
    with gateway(ca, f"tls = {{ {pem(ca, 'site')}, ocsp = \"@CA@/site.ocsp\" }}") as gw:
        out = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-status"], input=b"", capture_output=True,
                             timeout=20).stdout
        assert b"OCSP Response Status: successful" in out and b"Cert Status: good" in out


def test_a_self_signed_certificate_stays_over_reloads(ca):
    with gateway(ca, 'tls = "self-signed"') as gw:
        first = ssl.get_server_certificate(("127.0.0.1", gw.port))
        gw.write("gateway.lua", gw.folder.joinpath("gateway.lua").read_text() + "-- a change\n")
        assert gw.command("reload").returncode == 0
        assert ssl.get_server_certificate(("127.0.0.1", gw.port)) == first
        out = subprocess.run(["curl", "-sk", f"https://localhost:{gw.port}/ok"], capture_output=True, text=True, timeout=20)
        assert out.stdout == "https"


def test_certificates_change_with_a_reload_and_kept_connections_go_on(ca, tmp_path):
    again = Authority(tmp_path)
    again.issue("site", "DNS:site.test")
    with gateway(ca) as gw, connect(gw, ca) as secure:
        assert ask(secure).status == 200
        gw.write("gateway.lua", gw.folder.joinpath("gateway.lua").read_text().replace(str(ca.folder), str(again.folder)))
        assert gw.command("reload").returncode == 0
        assert ask(secure).status == 200
        assert curl(gw, ca, "site.test", "/ok").returncode == 60
        assert curl(gw, again, "site.test", "/ok").stdout == "https"


@pytest.mark.parametrize("watch", [True, False])
def test_a_changed_file_of_a_certificate_is_seen(ca, tmp_path, watch):
    own = Authority(tmp_path)
    own.issue("site", "DNS:site.test")
    with gateway(own, watch=watch) as gw:
        assert curl(gw, own, "site.test", "/ok").stdout == "https"
        first = ssl.get_server_certificate(("127.0.0.1", gw.port))
        own.issue("fresh", "DNS:site.test")
        (own.folder / "fresh.key").replace(own.folder / "site.key")
        (own.folder / "fresh.pem").replace(own.folder / "site.pem")
        end = time.time() + 10
        while ssl.get_server_certificate(("127.0.0.1", gw.port)) == first:
            assert time.time() < end, gw.log()
            time.sleep(0.05)
        assert curl(gw, own, "site.test", "/ok").stdout == "https"


@pytest.mark.parametrize("listen, message", [
    ('tls = { cert = "@CA@/site.pem" }', "needs its private key"),
    ('tls = { cert = "@CA@/none.pem", key = "@CA@/site.key" }', "none.pem cannot be read"),
    ('tls = { cert = "@CA@/site.pem", key = "@CA@/none.key" }', "the private key cannot be read"),
    ('tls = { cert = "@CA@/site.pem", key = "@CA@/other.key" }', "the private key is not that of the certificate"),
    ('tls = { cert = "@CA@/site.key", key = "@CA@/site.key" }', "there is no certificate in it"),
    ('tls = { cert = "@CA@/site.pem", key = "@CA@/site.key", certificates = { { cert = "@CA@/site-rsa.pem", key = "@CA@/site-rsa.key" } } }',
     "found     names of others before it: site.test"),
    ('tls = { cert = "@CA@/weak.pem", key = "@CA@/weak.key" }', "the RSA key has 1024 bits, at least 2048 are needed"),
    ('tls = { cert = "@CA@/site.pem", key = "@CA@/site.key", client_auth = "required" }', "belong together"),
    ('tls = { cert = "@CA@/site.pem", key = "@CA@/site.key", client_auth = "required", client_ca = "@CA@/site.key" }', "no certificate in it"),
    ('tls = { cert = "@CA@/site.pem", key = "@CA@/site.key", ocsp = "@CA@/none" }', "ocsp"),
    ('tls = { certs = "@CA@/site.pem" }', 'did you mean "cert"?'),
    ('tls = true', 'a table with cert and key, or "self-signed"'),
])
def test_what_is_wrong_is_said_before_it_is_served(ca, tmp_path, listen, message):
    if "weak" in listen and not (ca.folder / "weak.pem").exists():
        ca.issue("weak", "DNS:weak.test", ("rsa:1024",))
    path = tmp_path / "gateway.lua"
    path.write_text(CONFIG.replace("@LISTEN@", listen).replace("@CA@", str(ca.folder)).replace("@PORT@", "1").replace("@PORT2@", "2"))
    out = subprocess.run([BINARY, "check", str(path)], capture_output=True, text=True, timeout=20)
    assert out.returncode == 1
    assert message in out.stderr and "gateway.lua:3" in out.stderr, out.stderr
    assert "PRIVATE KEY" not in out.stderr


def test_a_handshake_has_a_deadline_and_their_number_a_bound(ca):
    listen = f"tls = {{ {pem(ca, 'site')}, handshake_timeout = '500ms', handshakes = 3 }}"
    with gateway(ca, listen) as gw:
        silent = [socket.create_connection(("127.0.0.1", gw.port), timeout=5) for _ in range(3)]
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as refused:
            assert refused.recv(10) == b""
        start = time.time()
        for plain in silent:
            assert plain.recv(10) == b""
            plain.close()
        assert time.time() - start < 2
        assert curl(gw, ca, "site.test", "/ok").stdout == "https"
        time.sleep(0.3)  # workers tell it every 100 ms
        status = gw.command("status").stdout
        assert "handshakes reached 1 time\n" in status and "handshake_timeout reached 3 times\n" in status


def test_plain_text_and_rubbish_at_a_tls_port(ca):
    port = free_port()
    with gateway(ca, config=CONFIG + f"\nadmin {{ port = {port}, public_metrics = true }}\n") as gw:
        for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\x80\x2e\x01\x00\x02", b"\0" * 1000):
            with socket.create_connection(("127.0.0.1", gw.port), timeout=5) as plain:
                plain.sendall(data)
                plain.shutdown(socket.SHUT_WR)
                try:
                    while plain.recv(1000):
                        pass
                except ConnectionResetError:
                    pass
        assert curl(gw, ca, "site.test", "/ok").stdout == "https"
        end = time.time() + 5
        while b"\ntidegate_tls_handshake_failures_total 4\n" not in (metrics := gw.request("/metrics", port=port).text):
            assert time.time() < end, metrics
            time.sleep(0.1)
        assert b'tidegate_tls_handshakes_total{version="1.3"} 1\n' in metrics


def test_plain_text_is_told_where_it_is_or_served(ca):
    with gateway(ca) as gw:
        answer = gw.request("/ok")
        assert answer.status == 400 and json.loads(answer.text)["detail"] == "this port speaks TLS: use https"
    with gateway(ca, f"tls = {{ {pem(ca, 'site')}, plain_text = true }}") as gw:
        assert gw.request("/ok").text == b"http"
        assert curl(gw, ca, "site.test", "/ok").stdout == "https"
        plain = subprocess.run(["curl", "-s", "--http2-prior-knowledge", f"http://127.0.0.1:{gw.port}/ok"], capture_output=True, timeout=20)
        assert plain.stdout == b"http"


def test_a_handshake_byte_by_byte_and_a_request_split_over_records(ca):
    with gateway(ca) as gw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = context(ca).wrap_bio(incoming, outgoing, server_hostname="site.test")
        with socket.create_connection(("127.0.0.1", gw.port), timeout=10) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def flush():
                for byte in outgoing.read():
                    plain.sendall(bytes([byte]))

            while True:
                try:
                    secure.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    flush()
                    incoming.write(plain.recv(65536))
            flush()
            for byte in b"GET /ok HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n":
                secure.write(bytes([byte]))
                flush()
            received = b""
            while b"https" not in received:
                incoming.write(plain.recv(65536))
                try:
                    while piece := secure.read(1000):
                        received += piece
                except ssl.SSLWantReadError:
                    pass
            assert received.startswith(b"HTTP/1.1 200")


def test_pipelined_requests_and_a_half_close(ca):
    with gateway(ca) as gw, connect(gw, ca) as secure:
        secure.sendall(b"GET /ok HTTP/1.1\r\nHost: site.test\r\n\r\n" * 50)
        received = b""
        while received.count(b"https") < 50:
            received += secure.recv(65536)
        assert received.count(b"HTTP/1.1 200") == 50


def test_alpn(ca):
    with gateway(ca) as gw:
        made = context(ca)
        made.set_alpn_protocols(["http/1.1"])
        with connect(gw, ca, made=made) as secure:
            assert secure.selected_alpn_protocol() == "http/1.1"
        made.set_alpn_protocols(["smtp"])
        with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
            connect(gw, ca, made=made)


def test_a_renegotiation_is_refused(ca):
    with gateway(ca) as gw:
        out = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-tls1_2"], input=b"R\n", capture_output=True,
                             timeout=20)
        assert b"no renegotiation" in out.stdout + out.stderr


def test_the_proxy_protocol_before_tls(ca):
    listen = f'tls = {{ {pem(ca, "site")} }}, proxy_protocol = true, trusted_proxies = {{ "127.0.0.0/8" }}'
    with gateway(ca, listen) as gw, socket.create_connection(("127.0.0.1", gw.port), timeout=10) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n")
        with context(ca).wrap_socket(plain, server_hostname="site.test") as secure:
            assert ask(secure).text == b"https"


# ------------------------------------------------------------------ towards upstreams

UPSTREAM = """
upstream "origin" { targets = { "https://localhost:@PORT@" }, @TLS@ }
route "to" { path = "/to/*", to = "origin", strip_path = true }
route "fetch" { path = "/fetch", handler = function()
  local result, err = tg.http.get("https://localhost:@PORT@/ok", { tls = { ca = tg.read_ca } })
  return tg.respond(result and 200 or 502, result and result:text() or err.code)
end }
http { allow = { "localhost" } }
"""


def origin(ca, tls, listen=None):
    return gateway(ca, listen, CONFIG + UPSTREAM.replace("@TLS@", tls).replace("tg.read_ca", f"[[{ca.cert.read_text()}]]"))


def test_an_upstream_is_verified(ca):
    with origin(ca, 'tls = { ca = "@CA@/ca.pem" }') as gw:
        for _ in range(3):
            assert gw.request("/to/ok", port=gw.port2, headers={"Host": "site.test"}).text == b"https"
        assert len(gw.request("/to/big", port=gw.port2, headers={"Host": "site.test"}).text) == 5000000
        assert gw.request("/to/echo", "POST", "y" * 2000000, port=gw.port2, headers={"Host": "site.test"}).text == b"y" * 2000000
        assert gw.request("/fetch", port=gw.port2).text == b"https"


@pytest.mark.parametrize("tls, why", [
    ("", "unable to get local issuer certificate"),
    ('tls = { ca = "@CA@/ca.pem", name = "wrong.test" }', "hostname mismatch"),
    ('tls = { ca = "@CA@/ca.pem", pins = { "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" } }', "pinned"),
])
def test_an_upstream_that_is_another_gets_no_request(ca, tls, why):
    gw = origin(ca, tls)
    try:
        gw.wait_for("is live")
        assert gw.request("/to/ok", port=gw.port2, headers={"Host": "site.test"}).status == 502
        assert f"TLS: {why}" in gw.log() or why in gw.log()
    finally:
        gw.__exit__(AssertionError)  # the log has warnings


def test_verification_is_switched_off_only_by_name(ca):
    with origin(ca, "tls = { verify = false }") as gw:
        assert gw.request("/to/ok", port=gw.port2, headers={"Host": "site.test"}).text == b"https"


def test_a_pinned_key_and_a_client_certificate(ca):
    key = openssl("x509", "-in", ca.folder / "site.pem", "-noout", "-pubkey")
    der = openssl("pkey", "-pubin", "-outform", "der", input=key)
    pin = subprocess.run("openssl dgst -sha256 -binary | base64", shell=True, input=der, capture_output=True, check=True).stdout.decode().strip()
    tls = f'tls = {{ ca = "@CA@/ca.pem", pins = {{ "sha256//{pin}" }}, cert = "@CA@/client.pem", key = "@CA@/client.key" }}'
    with origin(ca, tls, CLIENTS % "required") as gw:
        for _ in range(3):
            assert b"CN=client" in gw.request("/to/tls", port=gw.port2, headers={"Host": "site.test"}).text


def test_sessions_with_an_upstream_are_resumed(ca):
    with origin(ca, 'tls = { ca = "@CA@/ca.pem" }, pool = { idle = 0 }') as gw:
        answers = [gw.request("/to/tls", port=gw.port2, headers={"Host": "site.test"}).text for _ in range(4)]
        assert b'"resumed":false' in answers[0] and b'"resumed":true' in answers[3]


def test_an_answer_that_is_cut_is_not_taken_for_a_whole_one(ca):
    """Read until the end of the connection, which comes without close_notify: somebody may have cut it."""
    listening = socket.create_server(("127.0.0.1", 0))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(ca.folder / "site.pem", ca.folder / "site.key")

    def serve():
        for ending in ("cut", "whole"):
            plain, _ = listening.accept()
            secure = made.wrap_socket(plain, server_side=True)
            secure.recv(65536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart")
            if ending == "whole":
                secure.unwrap()
            secure.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    config = CONFIG + f'upstream "o" {{ targets = {{ "https://127.0.0.1:{listening.getsockname()[1]}" }}, tls = {{ ca = "@CA@/ca.pem" }} }}' \
        + 'route "to" { path = "/to", to = "o" }'
    gw = gateway(ca, config=config)
    try:
        gw.wait_for("is live")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            gw.request("/to", port=gw.port2)
        assert gw.request("/to", port=gw.port2).text == b"part"
    finally:
        gw.__exit__(AssertionError)
        listening.close()


def test_no_key_stands_in_status_or_log(ca):
    with gateway(ca) as gw:
        secret = (ca.folder / "site.key").read_text().split("\n")[1]
        for word in ("status", "config"):
            assert secret not in gw.command(word).stdout
        assert secret not in gw.log()



def test_routes_by_scheme_protocol_and_name(ca):
    text = """listen { port = @PORT@, tls = { cert = "@CA@/site.pem", key = "@CA@/site.key", plain_text = true } }
route "plain" { path = "/*", scheme = "http", handler = function() return tg.respond(200, "plain") end }
route "two" { path = "/*", scheme = "https", protocol = "h2", handler = function() return tg.respond(200, "h2") end }
route "name" { path = "/*", scheme = "https", protocol = "http/1", sni = "site.test", handler = function() return tg.respond(200, "site") end }
route "below" { path = "/*", sni = "*.site.test", handler = function() return tg.respond(200, "below") end }
route "rest" { path = "/*", handler = function() return tg.respond(200, "rest") end }
route "new" { path = "/alpn", alpn = "h2", handler = function() return tg.respond(200, "alpn h2") end }
route "old" { path = "/alpn", alpn = "http/1.1", handler = function() return tg.respond(200, "alpn http/1.1") end }
route "grpc" { path = "/*", protocol = "grpc", priority = 1, handler = function() return tg.respond(200, "grpc") end }
"""
    with Gateway(text.replace("@CA@", str(ca.folder))) as gw:
        def ask(url, *more):
            names = [word for name in ("site.test", "a.site.test", "other.test") for word in ("--resolve", f"{name}:{gw.port}:127.0.0.1")]
            return subprocess.run(["curl", "-sk", *names, *more, url.replace("PORT", str(gw.port))], capture_output=True, text=True, timeout=20).stdout
        assert ask("http://site.test:PORT/") == "plain"
        assert ask("https://site.test:PORT/", "--http2") == "h2"
        assert ask("https://site.test:PORT/alpn", "--http2") == "alpn h2"
        assert ask("https://site.test:PORT/alpn", "--http1.1") == "alpn http/1.1"
        assert ask("https://site.test:PORT/alpn", "--no-alpn") == "site"
        assert ask("http://site.test:PORT/alpn", "--http2-prior-knowledge") == "plain"
        assert ask("https://site.test:PORT/", "--http1.1") == "site"
        assert ask("https://a.site.test:PORT/", "--http1.1") == "below"
        assert ask("https://other.test:PORT/", "--http1.1") == "rest"
        assert ask("https://site.test:PORT/", "--http1.1", "-H", "Content-Type: application/grpc") == "grpc"
        assert ask("https://site.test:PORT/", "--http1.1", "-H", "Content-Type: application/grpc-web") == "site"
