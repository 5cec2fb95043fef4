"""Content codings: bodies that plugins read are decoded, what they change is coded again for who accepts it, bombs are stopped."""
import gzip
import http.server
import threading
import zlib

import brotli
import pytest
import zstandard
from gateway import Gateway

TEXT = b"".join(b'{"id":%d,"name":"order %d"}\n' % (n, n * 7919 % 1000) for n in range(4000))
ENCODE = {"gzip": lambda b: gzip.compress(b, mtime=0), "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.ZstdCompressor().compress, "identity": lambda b: b,
          "gzip, br": lambda b: brotli.compress(gzip.compress(b, mtime=0)), "compress": lambda b: b"\x1f\x9d" + b}
DECODE = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": lambda b: zstandard.ZstdDecompressor().decompressobj().decompress(b), None: lambda b: b}
BODIES = {"text": TEXT, "json": b'{"list":[1,2,3]}', "bomb": b" " * (64 << 20), "empty": b""}


class Origin(http.server.BaseHTTPRequestHandler):
    """GET /BODY/CODING answers with that body, coded; POST answers with what came."""
    protocol_version = "HTTP/1.1"
    coded = {}

    def do_GET(self):
        _, name, coding = self.path.split("/")
        coding = coding.replace("+", ", ")
        key = name, coding
        if key not in self.coded:
            self.coded[key] = ENCODE[coding](BODIES[name]) if BODIES[name] else b""
        body = self.coded[key][:-9] if self.headers.get("X-Cut") else self.coded[key]
        self.answer(body, coding)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])) if self.headers["Content-Length"] else self.read_chunks()
        self.answer(body, "identity", self.headers.get("Content-Encoding") or "none")

    def read_chunks(self):
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size + 2)[:-2])
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, body, coding, was="none"):
        self.send_response(200)
        if coding != "identity":
            self.send_header("Content-Encoding", coding)
        self.send_header("ETag", '"v1"')
        self.send_header("X-Was", was)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


CONFIG = """
api = 1
listen { address = "127.0.0.1", port = @PORT@ }
upstream "o" { targets = { "http://127.0.0.1:ORIGIN" } }
http { allow = { "127.0.0.1" } }
local function route_of(name) route(name) { path = "/" .. name .. "/*", strip_path = true, to = "o", use = { "response-" .. name } } end
for _, name in ipairs { "upper", "length", "json", "set", "pass" } do route_of(name) end
route "request" { path = "/request/*", strip_path = true, to = "o", use = { function(ctx)
  ctx.req:transform(function(input, write) for piece in input do write(piece:upper()) end end)
end } }
route "read" { path = "/read/*", strip_path = true, to = "o", use = { function(ctx)
  ctx.req.headers["X-Length"] = tostring(#assert(ctx.req:text()))
end } }
route "fetch" { path = "/fetch/{name}/{coding}", handler = function(ctx)
  local o = tg.upstream "o"
  local whole = assert(o:get("/" .. ctx.req.params.name .. "/" .. ctx.req.params.coding))
  local streamed = assert(o:get("/" .. ctx.req.params.name .. "/" .. ctx.req.params.coding, { stream = true }))
  local a, b = assert(whole:text()), assert(streamed:text())
  assert(a == b)
  return tg.respond(200, a)
end }
"""

PLUGINS = {
    "response-upper": "ctx.res:transform(function(input, write) for line in input:lines() do write(line:upper() .. '\\n') end end)",
    "response-length": "ctx.res.headers['X-Length'] = tostring(#assert(ctx.res:text()))",
    "response-json": "ctx.res.headers['X-Length'] = tostring(#assert(ctx.res:json()).list)",
    "response-set": "ctx.res:set_body('new')",
    "response-pass": "",
}


@pytest.fixture(scope="module")
def gw():
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    origin.daemon_threads = True
    threading.Thread(target=origin.serve_forever, daemon=True).start()
    plugins = {name: f'return {{ doc = "Is a test.", response = function(ctx) {body} end }}' for name, body in PLUGINS.items()}
    with Gateway(CONFIG.replace("ORIGIN", str(origin.server_address[1])), plugins=plugins) as running:
        yield running
    origin.shutdown()


@pytest.mark.parametrize("accepted, sent", [(None, None), ("gzip", "gzip"), ("gzip, br;q=0.5", "gzip"), ("zstd, br", "br"), ("zstd", "zstd"), ("identity", None)])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip+br"])
def test_a_transform_sees_text_and_the_client_gets_what_it_accepts(gw, coding, accepted, sent):
    answer = gw.request(f"/upper/text/{coding}", headers={"Accept-Encoding": accepted} if accepted else {})
    assert answer.status == 200 and answer.headers["Content-Encoding"] == sent
    assert answer.headers["Vary"] == "Accept-Encoding" and answer.headers["ETag"] == 'W/"v1"'
    assert DECODE[sent](answer.text) == TEXT.upper()


def test_what_was_not_coded_stays_so_and_what_nobody_touches_passes_as_it_came(gw):
    answer = gw.request("/upper/text/identity", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] is None and answer.headers["Vary"] is None and answer.text == TEXT.upper()
    answer = gw.request("/pass/text/br", headers={"Accept-Encoding": "br"})
    assert answer.headers["Content-Encoding"] == "br" and answer.headers["ETag"] == '"v1"' and brotli.decompress(answer.text) == TEXT
    answer = gw.request("/upper/empty/gzip", headers={"Accept-Encoding": "gzip"})
    assert answer.status == 200 and answer.text == b""
    answer = gw.request("/set/text/gzip", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] is None and answer.text == b"new"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip+br", "identity"])
def test_reading_decodes_and_the_body_goes_on_as_it_came(gw, coding):
    answer = gw.request(f"/length/text/{coding}")
    assert answer.headers["X-Length"] == str(len(TEXT)) and answer.headers["Content-Length"] == str(len(answer.text))
    assert answer.headers["ETag"] == '"v1"' and answer.text == ENCODE[coding.replace("+", ", ")](TEXT)
    assert gw.request(f"/json/json/{coding}").headers["X-Length"] == "3"
    assert gw.request(f"/fetch/text/{coding}").text == TEXT


def test_what_cannot_be_decoded_is_an_error_and_never_passed_off_as_a_body(gw):
    assert gw.request("/upper/text/compress").status == 502
    assert gw.request("/length/text/compress").status == 502
    assert gw.request("/pass/text/compress").status == 200
    assert gw.request("/length/text/gzip", headers={"X-Cut": "1"}).status == 502
    with pytest.raises(Exception):  # noqa: B017, PT011 - the stream is cut: which error that is depends on how far it came
        assert gw.request("/upper/text/gzip", headers={"X-Cut": "1"}).status == 502
        raise ValueError
    assert gw.request("/read/x", "POST", b"no gzip", {"Content-Encoding": "gzip"}).status == 400
    assert gw.request("/read/x", "POST", b"what", {"Content-Encoding": "compress"}).status == 415


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_bomb_is_stopped(gw, coding):
    assert gw.request(f"/length/bomb/{coding}").status == 502
    assert gw.request(f"/fetch/bomb/{coding}").status == 502
    assert gw.request("/read/x", "POST", ENCODE[coding](b" " * (8 << 20)), {"Content-Encoding": coding}).status == 413
    with pytest.raises(Exception):  # noqa: B017, PT011
        assert gw.request(f"/upper/bomb/{coding}").status == 502
        raise ValueError
    assert gw.request("/pass/json/identity").status == 200


def test_a_request_that_is_transformed_goes_up_as_it_is(gw):
    for coding in ("gzip", "br", "zstd", "deflate"):
        answer = gw.request("/request/x", "POST", ENCODE[coding](TEXT), {"Content-Encoding": coding})
        assert answer.headers["X-Was"] == "none" and answer.text == TEXT.upper()
        answer = gw.request("/read/x", "POST", ENCODE[coding](TEXT), {"Content-Encoding": coding})
        assert answer.headers["X-Was"] == coding and answer.text == ENCODE[coding](TEXT)
