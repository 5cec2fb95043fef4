"""JSON in front of gRPC: a server of grpcio, and Python's protobuf to judge what the gateway makes of messages."""
import base64
import collections
import http.client
import json
import random
import struct
import subprocess
import threading
import time
import warnings
from concurrent import futures

import grpc
import pytest
from gateway import Gateway
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from protos import Messages, compile_protos, messages_of

API = """
syntax = "proto3";
package test;
import "google/api/annotations.proto";
import "httpbody.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Color { COLOR_UNSPECIFIED = 0; RED = 1; BLUE = -2; }

message Everything {
  int32 i32 = 1; int64 i64 = 2; uint32 u32 = 3; uint64 u64 = 4; sint32 s32 = 5; sint64 s64 = 6;
  fixed32 f32 = 7; fixed64 f64 = 8; sfixed32 sf32 = 9; sfixed64 sf64 = 10; float fl = 11; double dbl = 12;
  bool flag = 13; string text = 14; bytes raw = 15; Color color = 16; Everything child = 17;
  repeated int32 many_numbers = 18; repeated string words = 19; repeated Everything children = 20; repeated Color colors = 21;
  map<string, int64> counts = 22; map<int32, Everything> by_number = 23; map<bool, Color> by_flag = 24; map<uint64, double> by_id = 25;
  oneof choice { string name_of_choice = 26; int32 id = 27; Everything other = 28; google.protobuf.Duration wait = 29; }
  optional int32 maybe_number = 30; optional string maybe_text = 31;
  google.protobuf.Timestamp at = 32; google.protobuf.Duration lasts = 33; google.protobuf.Struct object = 34;
  google.protobuf.Value anything = 35; google.protobuf.ListValue list = 36; google.protobuf.FieldMask mask = 37;
  google.protobuf.Empty nothing = 38; google.protobuf.Any any = 39; repeated google.protobuf.Timestamp times = 40;
  google.protobuf.Int64Value w64 = 41; google.protobuf.BytesValue w_bytes = 42; google.protobuf.StringValue w_text = 43;
  google.protobuf.BoolValue w_bool = 44; google.protobuf.DoubleValue w_dbl = 45; google.protobuf.UInt32Value w32 = 46;
  google.protobuf.FloatValue w_float = 47; repeated google.protobuf.StringValue w_texts = 48; map<string, google.protobuf.Value> values = 49;
}
message Named { string name = 1; google.api.HttpBody file = 2; }
message Count { int32 count = 1; int32 fail_with = 2; string text = 3; }

service Echo {
  rpc Echo(Everything) returns (Everything) { option (google.api.http) = { post: "/v1/echo" body: "*" }; }
  rpc Query(Everything) returns (Everything) { option (google.api.http) = { get: "/v1/query/{child.text}"
    additional_bindings { get: "/v1/maybe/{maybe_text}" } additional_bindings { get: "/v1/wrapped/{w_text}" }
    additional_bindings { get: "/v1/since/{at.seconds}" } }; }
  rpc Fail(Count) returns (Count) { option (google.api.http) = { get: "/v1/fail/{fail_with}" }; }
  rpc Slow(Count) returns (Count) { option (google.api.http) = { get: "/v1/slow" }; }
  rpc Watch(Count) returns (stream Count) { option (google.api.http) = { get: "/v1/watch/{count}" }; }
  rpc Endless(Count) returns (stream Count) { option (google.api.http) = { get: "/v1/endless" }; }
  rpc Raw(Count) returns (Everything) { option (google.api.http) = { get: "/v1/raw" }; }
  rpc File(Count) returns (google.api.HttpBody) { option (google.api.http) = { get: "/v1/files/{text=**}" }; }
  rpc Pieces(Count) returns (stream google.api.HttpBody) { option (google.api.http) = { get: "/v1/pieces/{count}" }; }
  rpc Upload(Named) returns (Count) { option (google.api.http) = { put: "/v1/files/{name=**}" body: "file" }; }
  rpc Shy(Count) returns (Count) { option (google.api.http) = { get: "/v1/shy" }; }
}
"""

# As google/api/httpbody.proto, which protobufjs does not bring.
HTTP_BODY = """
syntax = "proto3";
package google.api;
import "google/protobuf/any.proto";
message HttpBody { string content_type = 1; bytes data = 2; repeated google.protobuf.Any extensions = 3; }
"""
FILES = {"api.proto": API, "httpbody.proto": HTTP_BODY}

CONFIG = """
listen { address = "127.0.0.1", port = @PORT@ }
upstream "origin" { targets = { @TARGETS@ }, http2 = true, passive = false,
  retry = { attempts = 3, on = { "connect", "grpc:unavailable" }, budget = 1, budget_min = 100 } }
upstream "quiet" { targets = { @TARGETS@ }, http2 = true, idle_timeout = "200ms" }
route "quiet" { path = "/quiet/*", strip_path = true, to = "quiet", use = { { "grpc-transcode", descriptors = "@PB@" } } }
route "api" { path = "/v1/*", to = "origin", use = { { "grpc-transcode", descriptors = "@PB@" } } }
route "short" { path = "/short/*", strip_path = true, timeout = "500ms", to = "origin", use = { { "grpc-transcode", descriptors = "@PB@" } } }
route "defaults" { path = "/full/*", strip_path = true, to = "origin",
  use = { { "grpc-transcode", descriptors = "@PB@", print_defaults = true, preserve_names = true } } }
route "native" { path = "/test.Echo/*", to = "origin", use = { { "grpc-transcode", descriptors = "@PB@" } } }
"""


class Service(grpc.GenericRpcHandler):
    def __init__(self, messages):
        self.messages, self.cancelled, self.go_on, self.seen, self.asked = messages, threading.Event(), threading.Event(), None, 0
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        kind = self.messages[{"Echo": "test.Everything", "Query": "test.Everything", "Upload": "test.Named"}.get(name, "test.Count")]
        make = grpc.unary_stream_rpc_method_handler if name in ("Watch", "Endless", "Pieces") else grpc.unary_unary_rpc_method_handler
        return make(getattr(self, name.lower()), kind.FromString, lambda message: message if isinstance(message, bytes) else message.SerializeToString())

    def echo(self, request, context):
        context.send_initial_metadata((("x-initial", "one"),))
        self.seen = request
        return request

    query = echo

    def fail(self, request, context):
        detail = self.messages["test.Count"](text="why", count=7)
        # google.rpc.Status by hand: code, message, one detail.
        packed = self.messages["google.protobuf.Any"]()
        packed.Pack(detail)
        body = packed.SerializeToString()
        status = b"\x08" + bytes([request.fail_with]) + b"\x12\x02no" + b"\x1a" + bytes([len(body)]) + body
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort({code.value[0]: code for code in grpc.StatusCode}[request.fail_with], "not now: \u00e4")

    def slow(self, request, context):
        self.seen = context.time_remaining()
        self.cancelled.wait(5)
        return request

    def watch(self, request, context):
        for i in range(request.count):
            yield self.messages["test.Count"](count=i)
            if request.text == "wait":
                assert self.go_on.wait(10)
        if request.fail_with:
            self.fail(request, context)

    def endless(self, request, context):
        context.add_callback(self.cancelled.set)
        while context.is_active():
            yield request
            time.sleep(0.01)

    def raw(self, request, context):
        return self.bytes

    def file(self, request, context):
        return self.messages["google.api.HttpBody"](content_type="text/plain; charset=utf-8", data=request.text.encode() + b"\0\xff")

    def pieces(self, request, context):
        for _ in range(request.count):
            yield self.messages["google.api.HttpBody"](content_type="text/plain", data=b"\n\0\xff")
        if request.fail_with:
            self.fail(request, context)

    def upload(self, request, context):
        self.seen = request
        return self.messages["test.Count"](count=len(request.file.data))

    def shy(self, request, context):
        self.asked += 1
        if self.asked % 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        return request


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    descriptors = compile_protos(tmp_path_factory.mktemp("protos"), FILES)
    messages = Messages(descriptors)
    service = Service(messages)
    with Gateway(CONFIG.replace("@PB@", str(descriptors)).replace("@TARGETS@", f'"http://127.0.0.1:{service.port}"')) as gw:
        yield gw, messages, service
    service.server.stop(None)


def to_json(messages, message, **options):
    return json.loads(json_format.MessageToJson(message, descriptor_pool=messages.pool, **options))


def same(a, b):
    """Of two texts for a float that lies between them, either is right."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or isinstance(a, float) and isinstance(b, float) and struct.pack("f", a) == struct.pack("f", b)


def post(gw, value, path="/v1/echo"):
    answer = gw.request(path, "POST", json.dumps(value).encode(), {"Content-Type": "application/json"})
    return answer, json.loads(answer.text)


def test_random_messages_go_through_as_python_says_they_should(setting):
    gw, messages, service = setting
    for message in messages_of(messages["test.Everything"], 200, seed=1):
        value = to_json(messages, message)
        answer, back = post(gw, value)
        assert answer.status == 200, (answer.text, value)
        assert service.seen.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True), value
        assert same(back, value), f"{back}\n{value}"


def test_defaults_and_names_are_printed_as_python_prints_them(setting):
    gw, messages, _ = setting
    for message in [messages["test.Everything"](), *messages_of(messages["test.Everything"], 40, seed=2)]:
        value = to_json(messages, message, including_default_value_fields=True, preserving_proto_field_name=True)
        answer, back = post(gw, to_json(messages, message), "/full/v1/echo")
        assert answer.status == 200 and same(back, value), f"{back}\n{value}"


def test_any_of_a_type_that_is_in_the_set(setting):
    gw, messages, service = setting
    message = messages["test.Everything"]()
    message.any.Pack(messages["test.Count"](text="inside"))
    value = to_json(messages, message)
    assert post(gw, value)[1] == value == {"any": {"@type": "type.googleapis.com/test.Count", "text": "inside"}}
    assert service.seen == message
    assert post(gw, {"any": {"@type": "type.googleapis.com/test.Nothing"}})[0].status == 400


def changed(rng, data):
    """The same bytes, but for one place."""
    data, at = bytearray(data), rng.randrange(len(data))
    if rng.random() < 0.6:
        data[at] = rng.randrange(256)
    elif rng.random() < 0.5:
        del data[at]
    else:
        data[at:at] = rng.randbytes(1)
    return bytes(data)


def test_malformed_messages_are_those_that_python_takes_for_malformed(setting):
    gw, messages, service = setting
    rng, kind, counts = random.Random(6), messages["test.Everything"], collections.Counter()
    for message in messages_of(kind, 300, seed=5):
        service.bytes = changed(rng, message.SerializeToString() or b"\0")
        answer = gw.request("/v1/raw")
        value = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of what it leaves unread, it only warns
                value = to_json(messages, kind.FromString(service.bytes))
        except (DecodeError, RuntimeWarning, json_format.Error, ValueError, OverflowError):
            pass
        counts[answer.status] += 1
        if value is None:
            assert answer.status == 502 and json.loads(answer.text)["code"] == 13, (service.bytes.hex(), answer.text)
        elif answer.status == 502:
            assert b"a number that there is not" in answer.text, (service.bytes.hex(), answer.text)  # tags of more than 32 bits
        else:
            assert same(json.loads(answer.text), value), service.bytes.hex()
    assert counts[200] > 20 and counts[502] > 100, counts


def test_bodies_that_are_no_json(setting):
    gw, _, service = setting
    answer = gw.request("/v1/files/a/b%20c")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/plain; charset=utf-8" and answer.text == b"a/b c\0\xff"
    answer = gw.request("/v1/pieces/3")
    assert answer.headers["Content-Type"] == "application/octet-stream" and answer.text == b"\n\0\xff" * 3
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):  # there is no other place for the error
        gw.request("/v1/pieces/3?fail_with=8")
    answer = gw.request("/v1/files/x/y", "PUT", b"\0\1\2\xff", {"Content-Type": "image/png"})
    assert answer.text == b'{"count":4}' and service.seen.name == "x/y"
    assert service.seen.file.data == b"\0\1\2\xff" and service.seen.file.content_type == "image/png"


def test_path_and_query(setting):
    gw, messages, service = setting
    answer = gw.request("/v1/query/a%C3%A4?i64=-5&flag=true&words=x&words=y&color=BLUE&raw=AP8%3D&at=2031-01-31T00%3A00%3A00Z&w64=7&dbl=NaN&child.u32=3")
    expected = messages["test.Everything"](i64=-5, flag=True, words=["x", "y"], color=-2, raw=b"\0\xff", dbl=float("nan"))
    expected.at.FromJsonString("2031-01-31T00:00:00Z")
    expected.w64.value = 7
    expected.child.text, expected.child.u32 = "a\u00e4", 3
    assert answer.status == 200 and service.seen.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


@pytest.mark.parametrize("target", [
    "/v1/maybe/a?maybe_text=b", "/v1/maybe/a?maybeText=b", "/v1/wrapped/a?wText=b", "/v1/wrapped/a?w_text.value=b", "/v1/since/1?at=2031-01-31T00:00:00Z",
    "/v1/query/a?child.text=b",
])
def test_a_query_does_not_change_what_the_path_says(setting, target):
    gw, _, service = setting
    assert gw.request(target.partition("?")[0]).status == 200
    service.seen = None
    answer = gw.request(target)
    assert answer.status == 400 and b"stands in the path" in answer.text and service.seen is None


def test_fields_of_the_head_and_no_trailers(setting):
    """Over HTTP/1.1 and HTTP/2."""
    gw, _, _ = setting
    answer, _ = post(gw, {})
    assert answer.headers["x-initial"] == "one" and answer.headers["Content-Type"] == "application/json"
    assert not [name for name in answer.headers if name.lower().startswith("grpc")]
    out = gw_curl(gw, "-si", "--http2-prior-knowledge", "-d", '{"i32":1}', "-H", "Content-Type: application/json", "/v1/echo")
    assert out.startswith("HTTP/2 200") and out.endswith('{"i32":1}') and "grpc" not in out
    out = gw_curl(gw, "-si", "--http2-prior-knowledge", "/v1/watch/2")
    assert out.startswith("HTTP/2 200") and out.endswith('{}\n{"count":1}\n') and "grpc" not in out
    assert "grpc" not in gw_curl(gw, "-si", "--http2-prior-knowledge", "/v1/watch/2?fail_with=8")


def gw_curl(gw, *words):
    return subprocess.run(["curl", *words[:-1], f"http://127.0.0.1:{gw.port}{words[-1]}"], capture_output=True, text=True, timeout=20).stdout


@pytest.mark.parametrize("code, status", [(3, 400), (5, 404), (6, 409), (7, 403), (8, 429), (12, 501), (16, 401), (13, 500), (4, 504)])
def test_an_error_of_the_service(setting, code, status):
    gw, _, _ = setting
    answer = gw.request(f"/v1/fail/{code}")
    assert answer.status == status and answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.text) == {"code": code, "message": "not now: \u00e4",
                                       "details": [{"@type": "type.googleapis.com/test.Count", "count": 7, "text": "why"}]}


def test_a_service_that_is_unavailable_is_asked_again_by_its_code(setting):
    gw, _, service = setting
    service.asked = 0
    assert gw.request("/v1/shy").status == 200 and service.asked == 3


def test_the_time_that_is_left_is_the_deadline_of_the_call(setting):
    gw, _, service = setting
    service.cancelled.clear()
    start = time.monotonic()
    answer = gw.request("/short/v1/slow")
    assert answer.status == 504 and json.loads(answer.text)["code"] == 4 and time.monotonic() - start < 3
    assert 0 < service.seen <= 0.6
    service.cancelled.set()


def test_a_stream_of_lines_and_of_events(setting):
    gw, _, _ = setting
    answer = gw.request("/v1/watch/500")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line).get("count", 0) for line in answer.text.splitlines()] == list(range(500))
    answer = gw.request("/v1/watch/3", headers={"Accept": "text/event-stream"})
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.text == b'data: {}\n\ndata: {"count":1}\n\ndata: {"count":2}\n\n'


@pytest.mark.parametrize("path", ["", "/quiet"])
def test_messages_of_a_stream_come_when_they_are_sent(setting, path):
    """Also after a silence that is too long for another body."""
    gw, _, service = setting
    service.go_on.clear()
    connection = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=10)
    connection.request("GET", path + "/v1/watch/2?text=wait")
    answer = connection.getresponse()
    assert answer.readline() == b"{}\n"
    assert not service.go_on.wait(0.6 if path else 0)
    service.go_on.set()
    assert answer.read() == b'{"count":1}\n'
    connection.close()


def test_a_stream_that_fails_says_so_at_its_end(setting):
    gw, _, _ = setting
    lines = [json.loads(line) for line in gw.request("/v1/watch/2?fail_with=8").text.splitlines()]
    assert lines[:2] == [{}, {"count": 1}] and lines[2]["error"]["code"] == 8 and lines[2]["error"]["message"] == "not now: \u00e4"
    assert lines[2]["error"]["details"][0]["text"] == "why" and len(lines) == 3
    events = gw.request("/v1/watch/1?fail_with=8", headers={"Accept": "text/event-stream"}).text.decode().split("\n\n")
    assert events[0] == "data: {}" and events[1].startswith('event: error\ndata: {"code":8,')
    assert gw.request("/v1/watch/0?fail_with=7").status == 403


def test_a_client_that_leaves_ends_the_call(setting):
    gw, _, service = setting
    service.cancelled.clear()
    connection = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=10)
    connection.request("GET", "/v1/endless?text=x")
    assert connection.getresponse().readline() == b'{"text":"x"}\n'
    connection.close()
    assert service.cancelled.wait(5)


def test_clients_of_grpc_pass_beside(setting):
    gw, messages, _ = setting
    message = next(messages_of(messages["test.Everything"], 1, seed=3))
    with grpc.insecure_channel(f"127.0.0.1:{gw.port}") as channel:
        assert channel.unary_unary("/test.Echo/Echo")(message.SerializeToString(), timeout=5) == message.SerializeToString()


def test_a_new_file_is_a_new_configuration(tmp_path):
    descriptors = compile_protos(tmp_path, FILES)
    service = Service(Messages(descriptors))
    config = CONFIG.replace("@PB@", str(descriptors)).replace("@TARGETS@", f'"http://127.0.0.1:{service.port}"')
    try:
        with Gateway(config, watch=True) as gw:
            assert gw.request("/v1/other").status == 404
            compile_protos(tmp_path, {**FILES, "api.proto": API.replace("/v1/echo", "/v1/other")}, "new.pb").rename(descriptors)
            gw.wait_for("is live", count=2)
            assert post(gw, {"i32": 1}, "/v1/other")[1] == {"i32": 1}
            descriptors.write_bytes(base64.b64decode("AAAA"))
            assert gw.command("reload").returncode != 0
            assert post(gw, {"i32": 1}, "/v1/other")[1] == {"i32": 1}
    finally:
        service.server.stop(None)
