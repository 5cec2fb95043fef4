#!/usr/bin/env python3
"""A small receiver of OTLP over HTTP (JSON): keeps the last spans, and shows them as trees to who asks for /."""
import collections
import http.server
import json

spans = collections.deque(maxlen=1000)


def show(span, by_parent, depth, lines):
    took = (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e6
    lines.append(f"{'  ' * depth}{span['name']} ({took:.1f} ms)")
    for child in by_parent.get(span["spanId"], []):
        show(child, by_parent, depth + 1, lines)


def trees():
    known, by_parent, lines = {span["spanId"] for span in spans}, collections.defaultdict(list), []
    for span in sorted(spans, key=lambda span: int(span["startTimeUnixNano"])):
        parent = span.get("parentSpanId")
        by_parent[parent if parent in known else None].append(span)
    for root in by_parent[None]:
        show(root, by_parent, 0, lines)
    return "\n".join(lines) + "\n"


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        self.answer(trees())

    def do_POST(self):
        for resource in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                spans.extend(scope["spans"])
        self.answer("{}")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 4318), Receiver).serve_forever()
