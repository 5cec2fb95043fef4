// Prints how Node's own HTTP parser reads each input of stdin, as our.c prints it.
"use strict";
const { readFileSync, writeSync } = require("fs");
// The class that node:http is made of: the server on top of it does not tell where a message ended.
const { HTTPParser, methods } = require("_http_common");

const HEAD_MAX = 1 << 20; // limits on size are not compared: each program has its own
const NO_LENIENCE = 0; // what insecureHTTPParser: false stands for
// The list leaves out the methods of RTSP, which come before its last one, QUERY; a request with them is refused.
const nameOf = (method) => methods[Math.min(method, methods.length - 1)];
const hex = (text) => Buffer.from(text, "latin1").toString("hex");

function pairs(list) {
  const fields = [];
  for (let i = 0; i < list.length; i += 2) {
    fields.push({ name: hex(list[i]), value: hex(list[i + 1]) });
  }
  return fields;
}

// Feeds `input` in pieces of `step` bytes. A request's `end` is exact to one piece.
function read(input, step) {
  const requests = [];
  const parser = new HTTPParser();
  let state = "idle";
  let request = null;
  let fields = [];
  let target = "";
  let at = 0;
  let why = "";
  parser.initialize(HTTPParser.REQUEST, {}, HEAD_MAX, NO_LENIENCE);
  parser[HTTPParser.kOnMessageBegin] = () => {
    state = "head";
    fields = [];
    target = "";
  };
  // Fields that no longer fit, and trailers, which nobody compares.
  parser[HTTPParser.kOnHeaders] = (list, url) => {
    if (state === "head") {
      fields.push(...pairs(list));
      target += url;
    }
  };
  parser[HTTPParser.kOnHeadersComplete] = (major, minor, list, method, url, status, reason, upgrade, keep) => {
    fields.push(...pairs(list || []));
    target += url || "";
    request = { method: hex(nameOf(method)), target: hex(target), major, minor, keep, upgrade, fields, body: "", end: 0 };
    requests.push(request);
    state = "body";
    return 0; // as the server does when nobody listens for upgrades
  };
  parser[HTTPParser.kOnBody] = (bytes, offset, length) => {
    request.body += bytes.subarray(offset || 0, length === undefined ? undefined : offset + length).toString("hex");
  };
  parser[HTTPParser.kOnMessageComplete] = () => {
    request.end = at;
    // Behind a request for an upgrade it waits for another protocol, and hides the errors of this one.
    state = request.upgrade || !request.keep ? "closed" : "idle";
  };
  while (at < input.length && state !== "refused" && state !== "closed") {
    const piece = input.subarray(at, at + step);
    at += piece.length;
    const result = parser.execute(piece);
    if (result instanceof Error && state !== "closed") {
      if (state === "body") {
        requests.pop();
      }
      state = "refused";
      why = result.code;
    }
  }
  parser.close();
  return { requests, state, why };
}

// Only cut into bytes it tells where a request ended; where it is cut must not change what is read.
function judge(input) {
  const whole = read(input, input.length);
  const bytes = read(input, 1);
  whole.requests.forEach((request, i) => {
    request.end = bytes.requests[i] ? bytes.requests[i].end : -1;
  });
  if (JSON.stringify(whole) !== JSON.stringify(bytes)) {
    throw new Error(`read in two ways: ${JSON.stringify(input.toString("latin1"))}`);
  }
  return whole;
}

const all = readFileSync(0);
for (let at = 0; at < all.length; ) {
  const length = all.readUInt32BE(at);
  writeSync(1, JSON.stringify(judge(all.subarray(at + 4, at + 4 + length))) + "\n");
  at += 4 + length;
}
