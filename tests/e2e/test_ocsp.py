"""OCSP responses that are fetched: from the responder of openssl, and from one that says what a good one never would."""
import datetime
import http.server
import subprocess
import threading
import time

import pytest
from authority import Authority, openssl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from gateway import BINARY, Gateway, free_port

CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@, tls = { cert = "@CERT@", key = "@KEY@", ocsp = "fetch" } }
route "ok" { path = "/ok", handler = function() return tg.respond(200, "ok") end }
"""


def issue(ca, port, name="site"):
    """A certificate that names a responder at this port, with its issuer behind it."""
    cert, key = ca.issue(name, "DNS:site.test", more=f"authorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}\n")
    cert.write_text(cert.read_text() + ca.cert.read_text())
    return cert, key


def gateway(cert, key, **options):
    return Gateway(CONFIG.replace("@CERT@", str(cert)).replace("@KEY@", str(key)), **options)


def stapled(gw, *words):
    out = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gw.port}", "-servername", "site.test", "-status", *words], input=b"",
                         capture_output=True, timeout=30).stdout
    assert b"OCSP response" in out, out
    return b"Cert Status: good" in out


def wait_for(condition, seconds=20):
    end = time.time() + seconds
    while not (found := condition()):
        assert time.time() < end
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("signer", ["issuer", "delegate"])
def test_all_workers_staple_what_one_has_fetched(tmp_path, signer):
    ca = Authority(tmp_path / "ca")
    port = free_port()
    cert, key = issue(ca, port)
    serial = openssl("x509", "-in", cert, "-noout", "-serial").decode().strip().split("=")[1]
    index = tmp_path / "index.txt"
    index.write_text(f"V\t351231235959Z\t\t{serial}\tunknown\t/O=Tidegate/CN=site\n")
    by = (ca.cert, ca.key) if signer == "issuer" else ca.issue("delegate", more="extendedKeyUsage=OCSPSigning\n")
    responder = subprocess.Popen(["openssl", "ocsp", "-index", index, "-port", str(port), "-CA", ca.cert, "-rsigner", by[0], "-rkey", by[1],
                                  "-nmin", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with gateway(cert, key, workers=2, warns="no OCSP response") as gw:
            wait_for(lambda: stapled(gw))
            assert all(stapled(gw, version) for version in ["-tls1_2", "-tls1_3"] * 4)
            responder.kill()
            responder.wait()
            assert gw.command("reload").returncode == 0
            gw.write("gateway.lua", gw.folder.joinpath("gateway.lua").read_text() + "-- a change\n")
            assert gw.command("reload").returncode == 0
            assert all(stapled(gw) for _ in range(4))
    finally:
        responder.kill()
        responder.wait()


class Responder:
    """Signs what it is told to."""

    def __init__(self, port, ca):
        self.ca = (x509.load_pem_x509_certificate(ca.cert.read_bytes()), serialization.load_pem_private_key(ca.key.read_bytes(), None))
        self.leaf, self.by, self.status, self.mode = None, self.ca, ocsp.OCSPCertStatus.GOOD, "answers"
        self.life, self.age, self.asked, self.serials = 4, 0, 0, set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.headers["Content-Type"] == "application/ocsp-request"
                asked = ocsp.load_der_ocsp_request(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked += 1
                outer.serials.add(asked.serial_number)
                status, body = outer.answer()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self):
        if self.mode == "fails":
            return 500, b""
        if self.mode == "rubbish":
            return 200, b"\x30\x03\x0a\x01"
        if self.mode == "huge":
            return 200, b"\x30" * 100000
        if self.mode == "refuses":
            return 200, ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(serialization.Encoding.DER)
        now = datetime.datetime.utcnow().replace(microsecond=0)
        revoked = self.status == ocsp.OCSPCertStatus.REVOKED
        begin = now - datetime.timedelta(seconds=self.age)
        until = begin + datetime.timedelta(seconds=self.life) if self.life else None
        made = ocsp.OCSPResponseBuilder().add_response(
            cert=self.leaf, issuer=self.ca[0], algorithm=hashes.SHA1(), cert_status=self.status, this_update=begin, next_update=until,
            revocation_time=now if revoked else None, revocation_reason=None)
        made = made.responder_id(ocsp.OCSPResponderEncoding.HASH, self.by[0]).certificates([self.by[0]]).sign(self.by[1], hashes.SHA256())
        return 200, made.public_bytes(serialization.Encoding.DER)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def setting(tmp_path):
    ca, port = Authority(tmp_path / "ca"), free_port()
    cert, key = issue(ca, port)
    with Responder(port, ca) as responder:
        responder.leaf = x509.load_pem_x509_certificate(cert.read_bytes())
        yield ca, cert, key, responder


def test_a_response_is_renewed_at_half_of_its_life_and_never_stapled_behind_its_end(setting):
    _, cert, key, responder = setting
    with gateway(cert, key, warns="no OCSP response") as gw:
        wait_for(lambda: stapled(gw))
        wait_for(lambda: responder.asked >= 3)
        assert stapled(gw) and responder.serials == {responder.leaf.serial_number}
        responder.life = 8
        asked = responder.asked
        wait_for(lambda: responder.asked > asked)
        responder.mode = "fails"
        asked = responder.asked
        wait_for(lambda: responder.asked > asked)
        assert stapled(gw)  # the last good one
        wait_for(lambda: not stapled(gw))
        responder.mode = "answers"
        wait_for(lambda: stapled(gw), 40)


@pytest.mark.parametrize("wrong", ["revoked", "unknown", "stranger", "other", "old", "early", "endless", "refuses", "rubbish", "huge", "fails"])
def test_nothing_is_stapled_rather_than_what_is_wrong(setting, tmp_path, wrong):
    ca, cert, key, responder = setting
    if wrong in ("revoked", "unknown"):
        responder.status = ocsp.OCSPCertStatus[wrong.upper()]
    elif wrong == "stranger":
        stranger = Authority(tmp_path / "stranger")
        responder.by = (x509.load_pem_x509_certificate(stranger.cert.read_bytes()), serialization.load_pem_private_key(stranger.key.read_bytes(), None))
    elif wrong == "other":
        other, _ = ca.issue("other", "DNS:other.test")
        responder.leaf = x509.load_pem_x509_certificate(other.read_bytes())
    elif wrong in ("old", "early"):
        responder.age = 1000 if wrong == "old" else -1000
    elif wrong == "endless":
        responder.life = None
    else:
        responder.mode = wrong
    with gateway(cert, key, warns="no OCSP response") as gw:
        wait_for(lambda: "no OCSP response" in gw.log())
        assert not stapled(gw)
        assert subprocess.run(["curl", "-s", "--cacert", ca.cert, "--resolve", f"site.test:{gw.port}:127.0.0.1", f"https://site.test:{gw.port}/ok"],
                              capture_output=True, timeout=20).stdout == b"ok"


def test_a_certificate_that_was_revoked_loses_its_good_response(setting):
    _, cert, key, responder = setting
    with gateway(cert, key, warns="no OCSP response") as gw:
        wait_for(lambda: stapled(gw))
        responder.life, responder.status = 3600, ocsp.OCSPCertStatus.REVOKED
        wait_for(lambda: "the certificate is revoked" in gw.log())
        assert not stapled(gw)


@pytest.mark.parametrize("more, chain, message", [
    ("", True, "names no OCSP responder"),
    ("authorityInfoAccess=OCSP;URI:http://127.0.0.1:1\n", False, "the certificate of its issuer does not follow it"),
    ("authorityInfoAccess=OCSP;URI:https://127.0.0.1:1\n", True, "names no OCSP responder"),
    ("authorityInfoAccess=OCSP;URI:http://127.0.0.1:x/\n", True, "is no URL"),
])
def test_what_cannot_be_fetched_is_said_before_it_is_served(tmp_path, more, chain, message):
    ca = Authority(tmp_path)
    cert, key = ca.issue("site", "DNS:site.test", more=more)
    if chain:
        cert.write_text(cert.read_text() + ca.cert.read_text())
    path = tmp_path / "gateway.lua"
    path.write_text(CONFIG.replace("@CERT@", str(cert)).replace("@KEY@", str(key)).replace("@PORT@", "1"))
    out = subprocess.run([BINARY, "check", path], capture_output=True, text=True, timeout=30)
    assert out.returncode == 1 and message in out.stderr and "gateway.lua:3" in out.stderr, out.stderr


@pytest.mark.parametrize("age", [0, 1000])
def test_a_response_from_a_file_is_stapled_while_it_holds(setting, age):
    ca, cert, key, responder = setting
    responder.age, responder.life = age, 900
    (ca.folder / "site.ocsp").write_bytes(responder.answer()[1])
    with Gateway(CONFIG.replace("@CERT@", str(cert)).replace("@KEY@", str(key)).replace('"fetch"', f'"{ca.folder}/site.ocsp"')) as gw:
        assert stapled(gw) == (age == 0)
