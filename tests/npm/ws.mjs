// The package ws as client and server: `node ws.mjs PORT ORIGIN` serves an echo on ORIGIN, and talks to it through the gateway on PORT.
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import { WebSocket, WebSocketServer } from "ws";

const [port, origin] = process.argv.slice(2).map(Number);
const LARGE = 16 * 1024 * 1024;
const closes = [];

const server = new WebSocketServer({ host: "127.0.0.1", port: origin, maxPayload: 2 * LARGE, perMessageDeflate: true });
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on("close", (code, reason) => closes.push([code, String(reason)]));
});
await once(server, "listening");

async function open(path, options = {}) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { maxPayload: 2 * LARGE, ...options });
  await once(socket, "open");
  return socket;
}

async function close(socket, code, reason) {
  const ended = once(socket, "close");
  socket.close(code, reason);
  const [gotCode, gotReason] = await ended;
  return `${gotCode} ${gotReason}`;
}

async function echo(socket, data, options) {
  const answer = once(socket, "message");
  socket.send(data, options);
  const [got, isBinary] = await answer;
  const same = Buffer.compare(Buffer.from(data), got) === 0 && isBinary === (typeof data !== "string");
  if (!same) throw new Error(`an echo of ${data.length} bytes is another: ${got.length} bytes`);
}

async function talk(path, options) {
  const socket = await open(path, options);
  for (const data of ["", "hello", "\u6f6e".repeat(5000), randomBytes(1), randomBytes(65536), randomBytes(300000)]) await echo(socket, data);
  return socket;
}

async function fragments(socket) {
  const answer = once(socket, "message");
  for (let i = 0; i < 100; i += 1) {
    socket.send(`${i},`, { fin: i === 99 });
    if (i % 10 === 0) socket.ping(`ping ${i}`);
  }
  const [got] = await answer;
  return String(got).split(",").length - 1;
}

async function pings(socket) {
  const pongs = [];
  socket.on("pong", (data) => pongs.push(String(data)));
  for (let i = 0; i < 20; i += 1) socket.ping(`${i}`);
  while (pongs.length < 20) await once(socket, "pong");
  return pongs.join(" ") === [...Array(20).keys()].join(" ");
}

const socket = await talk("/ws/x");
console.log("extensions:", socket.extensions || "none");
console.log("fragments:", await fragments(socket));
console.log("pongs in order:", await pings(socket));
console.log("closed:", await close(socket, 4567, "enough"));

const packed = await talk("/packed/x");
console.log("extensions:", packed.extensions);
console.log("closed:", await close(packed, 1000, ""));

const large = await open("/large/x");
await echo(large, randomBytes(LARGE));
console.log("closed:", await close(large, 1000, ""));

const tooLarge = await open("/ws/x");
tooLarge.on("error", () => {});
const refused = once(tooLarge, "close");
tooLarge.send(randomBytes(1024 * 1024 + 1));
console.log("refused:", (await refused)[0]);

let storm = 0;
for (let round = 0; round < 10; round += 1) {
  const sockets = await Promise.all(Array.from({ length: 50 }, () => open("/ws/x")));
  const codes = await Promise.all(sockets.map((one, i) => close(one, 3000 + i, "storm")));
  storm += codes.filter((code, i) => code === `${3000 + i} storm`).length;
}
console.log("storm:", storm);
while (closes.length < 504) await new Promise((resolve) => { setTimeout(resolve, 10); });
console.log("the server saw:", closes.slice(0, 4).map(([code, reason]) => `${code} ${reason}`.trim()).join(", "));
server.close();
