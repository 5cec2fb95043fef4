"""Kernel TLS, on a kernel that has it, and on one that has not."""
import hashlib
import http.client
import http.server
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest
from authority import Authority
from gateway import Gateway
from machine import Machine

SIZE = 3000000
CONFIG = """
api = 1
local site = { cert = "site.pem", key = "site.key", ktls = true }
listen { port = 8443, tls = site }
listen { port = 8444, tls = { cert = "site.pem", key = "site.key", ktls = true, client_auth = "required", client_ca = "ca.pem" } }
admin { port = 9901, public_metrics = true }
upstream "origin" { targets = { "http://10.0.2.2:@ORIGIN@" } }
upstream "own" { targets = { "https://127.0.0.1:8443" }, tls = { ca = "ca.pem", name = "localhost", ktls = true } }
route "origin" { path = "/origin/*", to = "origin", strip_path = true, body_limit = "16MiB" }
route "own" { path = "/own/*", to = "own", strip_path = true, body_limit = "16MiB" }
route "who" { path = "/who", handler = function(ctx)
  return tg.respond(200, ctx.req.version .. " " .. tostring(ctx.req.client.tls.resumed) .. " " .. (ctx.req.client.cert and ctx.req.client.cert.subject or "-"))
end }
route "pieces" { path = "/pieces/{count}", handler = function(ctx)
  local count = tonumber(ctx.req.params.count)
  return tg.respond(200, function(write) for _ = 1, count do write(("p"):rep(1990)) end end)
end }
"""


class Origin(http.server.BaseHTTPRequestHandler):
    """/N: so many bytes, slowly after /slow; what is sent to it is answered with its hash."""
    protocol_version = "HTTP/1.1"
    body = bytes(i * 7 % 251 for i in range(SIZE))

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        step = SIZE // 20
        for at in range(0, SIZE, step):
            self.wfile.write(self.body[at:at + step])
            time.sleep(0.15 if self.path == "/slow" else 0)

    def do_POST(self):
        digest = hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("site", "DNS:localhost,IP:127.0.0.1")
    authority.issue("client", "DNS:client.test")
    return authority


@pytest.fixture(scope="module")
def machine(ca):
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    files = {name: (ca.folder / name).read_bytes() for name in ("site.pem", "site.key", "ca.pem")}
    config = CONFIG.replace("@ORIGIN@", str(origin.server_address[1]))
    with Machine(config, (8443, 8444), files, ["net/tls/tls"]) as machine:
        yield machine
        assert "error" not in machine.console() and "[warn]" not in machine.console() and " warn " not in machine.console(), machine.console()
    origin.shutdown()


def by_kernel(machine):
    """How many sockets were given keys so far, by the kernel's own count and by the gateway's."""
    time.sleep(0.4)  # the gateway's are told with the beat
    printed = machine.shell("cat /proc/net/tls_stat; wget -qO- http://127.0.0.1:9901/metrics")
    assert re.search(r"TlsDecryptError\s+0\n", printed) and re.search(r"TlsTxDevice\s+0\n", printed)
    return int(re.search(r"TlsTxSw\s+(\d+)", printed)[1]), int(re.search(r"^tidegate_tls_kernel_total (\d+)", printed, re.M)[1])


def curl(machine, ca, path, *words, port=8443, **options):
    here = machine.ports[port]
    return subprocess.run(["curl", "-s", "--cacert", str(ca.cert), *words, f"https://localhost:{here}{path}"], capture_output=True, timeout=60,
                          **options).stdout


@pytest.mark.parametrize("version", [("--tls-max", "1.2"), ("--tlsv1.3",)], ids=["1.2", "1.3"])
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_large_bodies_both_ways(machine, ca, version, http):
    before = by_kernel(machine)
    assert curl(machine, ca, "/origin/x", http, *version) == Origin.body
    assert curl(machine, ca, "/origin/x", http, *version, "--data-binary", "@-", input=Origin.body) == hashlib.sha256(Origin.body).hexdigest().encode()
    assert by_kernel(machine) == (before[0] + 2, before[1] + 2)


def test_many_requests_on_a_connection_and_streams_side_by_side(machine, ca):
    before = by_kernel(machine)
    for words in (["--http1.1"], ["--http2", "--parallel"]):
        out = subprocess.run(["curl", "-s", "--cacert", str(ca.cert), *words, f"https://localhost:{machine.ports[8443]}/origin/[1-4]"],
                             capture_output=True, timeout=60).stdout
        assert len(out) == 4 * SIZE and (words[0] == "--http2" or out == 4 * Origin.body)
    assert by_kernel(machine)[0] - before[0] <= 5


def test_what_the_kernel_has_no_cipher_for_is_encrypted_by_openssl(machine, ca):
    before = by_kernel(machine)
    assert curl(machine, ca, "/origin/x", "--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256") == Origin.body
    assert by_kernel(machine) == before


def session(machine, *words, say=()):
    """openssl s_client, which says these lines; what it prints."""
    client = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{machine.ports[8443]}", "-servername", "localhost", "-crlf", *words],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in say:
        time.sleep(1)
        try:
            client.stdin.write(line.encode())
            client.stdin.flush()
        except BrokenPipeError:
            break
    time.sleep(1.5)
    client.terminate()
    return client.communicate(timeout=20)[0].decode(errors="replace")


def test_records_that_the_client_wants_short_are_made_by_openssl(machine):
    before = by_kernel(machine)
    out = session(machine, "-maxfraglen", "512", say=["GET /who HTTP/1.1\nHost: localhost\n\n"])
    assert "1.1 false" in out and by_kernel(machine) == before


def test_the_client_changes_its_keys(machine):
    """It may; what it asks of us the kernel cannot do, so the connection ends, and in order."""
    request = "GET /who HTTP/1.1\nHost: localhost\n\n"
    out = session(machine, "-tls1_3", say=[request, "k\n", request])
    assert out.count("1.1 false") == 2 and "KEYUPDATE" in out, out
    out = session(machine, "-tls1_3", say=[request, "K\n", request])
    assert out.count("1.1 false") == 1 and "bad record mac" not in out.lower() and "closed" in out, out


def connect(machine, ca, port=8443, session=None, version=ssl.TLSVersion.TLSv1_2, cert=None):
    made = connect.context if session is not None else ssl.create_default_context(cafile=str(ca.cert))
    made.maximum_version = version
    if cert:
        made.load_cert_chain(*cert)
    connect.context = made
    plain = socket.create_connection(("127.0.0.1", machine.ports[port]), timeout=30)
    return made.wrap_socket(plain, server_hostname="localhost", session=session)


def ask(secure, path="/who"):
    secure.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = http.client.HTTPResponse(secure)
    answer.begin()
    return answer.read()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_that_is_resumed_and_a_certificate_of_the_client(machine, ca, version):
    before = by_kernel(machine)
    with connect(machine, ca, version=version) as secure:
        assert ask(secure).startswith(b"1.1 false")
        known = secure.session
    with connect(machine, ca, session=known, version=version) as secure:
        assert secure.session_reused and ask(secure).startswith(b"1.1 true")
    with connect(machine, ca, port=8444, version=version, cert=(ca.folder / "client.pem", ca.folder / "client.key")) as secure:
        assert b"CN=client" in ask(secure)
    with pytest.raises((ssl.SSLError, ConnectionError)), connect(machine, ca, port=8444, version=version) as secure:
        ask(secure)
    assert by_kernel(machine)[1] - before[1] == 3


def test_towards_an_upstream(machine, ca):
    before = by_kernel(machine)
    assert curl(machine, ca, "/own/origin/x", "--http1.1") == Origin.body
    assert curl(machine, ca, "/own/origin/x", "--data-binary", "@-", input=Origin.body) == hashlib.sha256(Origin.body).hexdigest().encode()
    after = by_kernel(machine)  # two from here, and one between both of its sides
    assert (after[0] - before[0], after[1] - before[1]) == (4, 3)


def test_a_reload_under_a_transfer(machine, ca):
    got = []
    threads = [threading.Thread(target=lambda way=way: got.append(curl(machine, ca, "/origin/slow", way) == Origin.body))
               for way in ("--http1.1", "--http2")]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert "is live" in machine.shell("echo >> gateway.lua; /gateway/tidegate reload --control /tmp/control.sock")
    for thread in threads:
        thread.join()
    assert got == [True, True]


def test_who_has_nothing_more_to_say_and_reads_slowly_gets_it_all(machine, ca):
    """The kernel drops what it has encrypted and not sent when the socket is closed."""
    machine.shell("echo 4096 16384 32768 > /proc/sys/net/ipv4/tcp_wmem")
    got = {}

    def get(count):
        made = ssl.create_default_context(cafile=str(ca.cert))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = made.wrap_bio(incoming, outgoing, server_hostname="localhost")
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(30)
        plain.connect(("127.0.0.1", machine.ports[8443]))

        def until(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    if outgoing.pending:
                        plain.sendall(outgoing.read())
                    time.sleep(0.01)
                    piece = plain.recv(4096)
                    if not piece:
                        return None
                    incoming.write(piece)

        with plain:
            until(secure.do_handshake)
            secure.write(f"GET /pieces/{count} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            try:
                secure.unwrap()
            except ssl.SSLWantReadError:
                pass
            plain.sendall(outgoing.read())
            plain.shutdown(socket.SHUT_WR)
            body, clean = b"", False
            while not clean:
                try:
                    piece = until(lambda: secure.read(65536))
                except ssl.SSLZeroReturnError:
                    piece = b""
                if piece is None:
                    break
                body, clean = body + piece, piece == b""
            got[count] = (len(body.split(b"\r\n\r\n", 1)[1]), clean)

    try:
        threads = [threading.Thread(target=get, args=(count,)) for count in range(100, 108)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        machine.shell("echo 4096 16384 4194304 > /proc/sys/net/ipv4/tcp_wmem")
    assert got == {count: (count * 1990, True) for count in range(100, 108)}


def test_where_the_kernel_has_none_it_is_told_and_openssl_encrypts(ca):
    listen = f'tls = {{ cert = "{ca.folder}/site.pem", key = "{ca.folder}/site.key", ktls = true }}'
    config = f'api = 1 listen {{ port = @PORT@, {listen} }} admin {{ port = @PORT2@, public_metrics = true }} ' \
        'route "a" { path = "/", handler = function() return tg.respond(200, "served") end }'
    with Gateway(config, warns="ktls") as gw:
        out = subprocess.run(["curl", "-s", "--cacert", str(ca.cert), f"https://localhost:{gw.port}/"], capture_output=True, timeout=30).stdout
        assert out == b"served"
        has = "ktls: this kernel has no TLS" not in gw.log()
        end = time.time() + 5
        while b"tidegate_tls_handshakes_total{version=\"1.3\"} 1" not in (metrics := gw.request("/metrics", port=gw.port2).text):
            assert time.time() < end
            time.sleep(0.1)
        assert f"tidegate_tls_kernel_total {int(has)}\n".encode() in metrics
