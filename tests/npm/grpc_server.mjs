// grpc_server.mjs PORT [CERT KEY]: a server of grpc-js, with the health protocol. One(text) says what is to happen; a line on standard input,
// SERVING or NOT_SERVING, is its health from then on.
import fs from "node:fs";
import readline from "node:readline";
import { echo, grpc, health } from "./grpc_protos.mjs";

const [port, cert, key] = process.argv.slice(2);
let status = "SERVING";
let cancelled = 0;
let refusals = 0;

const error = (code, message) => {
  const metadata = new grpc.Metadata();
  metadata.set("x-why", "because");
  metadata.set("x-why-bin", Buffer.from([0, 255, 1]));
  return { code, details: message, metadata };
};

const one = {
  echo(call, done) {
    const initial = new grpc.Metadata();
    initial.set("x-initial", String(call.metadata.get("x-sent")[0] ?? ""));
    initial.set("x-initial-bin", call.metadata.get("x-sent-bin")[0] ?? Buffer.alloc(0));
    call.sendMetadata(initial);
    const trailing = new grpc.Metadata();
    trailing.set("x-trailing", "two");
    trailing.set("x-trailing-bin", Buffer.from([0, 1, 2, 250]));
    done(null, call.request, trailing);
  },
  fail: (call, done) => done(error(call.request.number, "not now: äö%")),
  slow: (call, done) => setTimeout(() => done(null, call.request), 3000),
  cancelled: (call, done) => done(null, { number: cancelled }),
  big: (call, done) => done(null, { data: Buffer.alloc(call.request.number, 7) }),
  fickle: (call, done) => (refusals++ % 3 < 2 ? done(error(grpc.status.UNAVAILABLE, "later")) : done(null, { number: refusals })),
};

function many(call) {
  let i = 0;
  let open = true;
  call.on("cancelled", () => {
    open = false;
    cancelled++;
  });
  const next = () => {
    while (open && (call.request.number === 0 || i < call.request.number)) {
      if (!call.write({ number: i++, data: call.request.data })) return call.once("drain", next);
      if (call.request.number === 0) return setTimeout(next, 5);
    }
    if (!open) return undefined;
    return call.request.text === "fail" ? call.emit("error", error(grpc.status.ABORTED, "in the middle")) : call.end();
  };
  next();
}

function sum(call, done) {
  let total = 0;
  let bytes = 0;
  call.on("data", (note) => {
    total += note.number;
    bytes += note.data.length;
    if (note.text === "enough") done(null, { number: total, text: String(bytes) });
  });
  call.on("end", () => done(null, { number: total, text: String(bytes) }));
}

function chat(call) {
  call.on("data", (note) => call.write({ ...note, number: note.number + 1 }));
  call.on("end", () => call.end());
}

const server = new grpc.Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
server.addService(echo.Echo.service, { One: (call, done) => (one[call.request.text] ?? one.echo)(call, done), Many: many, Sum: sum, Chat: chat });
server.addService(health.Health.service, {
  Check: (call, done) => (call.request.service === "echo.Echo" ? done(null, { status }) : done({ code: grpc.status.NOT_FOUND })),
});
const credentials = cert
  ? grpc.ServerCredentials.createSsl(null, [{ cert_chain: fs.readFileSync(cert), private_key: fs.readFileSync(key) }])
  : grpc.ServerCredentials.createInsecure();
server.bindAsync(`127.0.0.1:${port}`, credentials, (failure) => {
  if (failure) throw failure;
  readline.createInterface({ input: process.stdin }).on("line", (line) => (status = line.trim()));
  console.log("ready");
});
