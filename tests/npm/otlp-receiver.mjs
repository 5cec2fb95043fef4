// A collector: takes OTLP over HTTP on the port argv[2], reads it by OpenTelemetry's own definitions, and tells what has come.
// GET /spans: all spans with their resource; POST /answer?status=503&times=2: what the next portions are answered.
import { createRequire } from "node:module";
import http from "node:http";
import path from "node:path";

const require = createRequire(import.meta.url);
const generated = path.join(path.dirname(require.resolve("@opentelemetry/otlp-transformer/package.json")), "build/src/generated/root.js");
const { ExportTraceServiceRequest, ExportTraceServiceResponse } = require(generated).opentelemetry.proto.collector.trace.v1;

const spans = [];
let answers = [], portions = 0, refused = 0;

const value = (any) => any.stringValue ?? any.boolValue ?? any.doubleValue ?? (any.intValue === undefined ? null : Number(any.intValue));
const attributes = (list) => Object.fromEntries((list ?? []).map((one) => [one.key, value(one.value)]));
const hex = (bytes) => (bytes == null || bytes.length === 0 ? null : typeof bytes === "string" ? bytes : Buffer.from(bytes).toString("hex"));

function take(request) {
  for (const { resource, scopeSpans } of request.resourceSpans) {
    for (const { scope, spans: list } of scopeSpans) {
      for (const span of list) {
        spans.push({
          trace: hex(span.traceId), id: hex(span.spanId), parent: hex(span.parentSpanId), name: span.name, kind: span.kind, state: span.traceState ?? null,
          start: String(span.startTimeUnixNano), end: String(span.endTimeUnixNano), attributes: attributes(span.attributes), scope: scope.name,
          failed: span.status?.code === 2, message: span.status?.message ?? null, flags: span.flags, resource: attributes(resource.attributes),
        });
      }
    }
  }
}

// Protobuf is read by the definitions and checked against them; JSON has the same members, with ids in hexadecimal.
function read(type, body) {
  if (type === "application/json") return JSON.parse(body);
  if (type !== "application/x-protobuf") throw new Error(`content type ${type}`);
  const message = ExportTraceServiceRequest.decode(body);
  const wrong = ExportTraceServiceRequest.verify(message);
  if (wrong) throw new Error(wrong);
  return message;
}

http.createServer((request, response) => {
  const url = new URL(request.url, "http://collector");
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const body = Buffer.concat(pieces);
    if (request.method === "GET") {
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify({ spans, portions, refused }));
    } else if (url.pathname === "/answer") {
      answers = Array(Number(url.searchParams.get("times"))).fill(Number(url.searchParams.get("status")));
      response.end();
    } else if (url.pathname !== "/v1/traces" || request.headers["x-key"] !== "k") {
      response.writeHead(404).end();
    } else if (answers.length > 0) {
      refused += 1;
      response.writeHead(answers.shift()).end();
    } else {
      try {
        take(read(request.headers["content-type"], body));
        portions += 1;
        response.setHeader("Content-Type", "application/x-protobuf");
        response.end(ExportTraceServiceResponse.encode({}).finish());
      } catch (wrong) {
        response.writeHead(400).end(String(wrong));
      }
    }
  });
}).listen(Number(process.argv[2]), "127.0.0.1", () => console.log("ready"));
