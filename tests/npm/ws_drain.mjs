// The package ws as client and server while the gateway ends: `node ws_drain.mjs PORT ORIGIN` prints `ready` once messages have gone through, with
// and without compression, then how each connection has ended.
import { once } from "node:events";
import { WebSocket, WebSocketServer } from "ws";

const [port, origin] = process.argv.slice(2).map(Number);
const closes = [];

const server = new WebSocketServer({ host: "127.0.0.1", port: origin, perMessageDeflate: { threshold: 0 } });
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on("close", (code, reason) => closes.push(`${code} ${reason}`));
});
await once(server, "listening");

const ends = [];
for (const perMessageDeflate of [{ threshold: 0 }, false]) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/x`, { perMessageDeflate });
  await once(socket, "open");
  for (const text of ["hello", "\u6f6e".repeat(50000), "bye"]) {
    const answer = once(socket, "message");
    socket.send(text);
    if (String((await answer)[0]) !== text) throw new Error("an echo is another");
  }
  ends.push(once(socket, "close").then(([code, reason]) => `client: ${socket.extensions || "none"}, ${code} ${reason}`));
}
console.log("ready");
for (const end of ends) console.log(await end);
while (closes.length < 2) await new Promise((resolve) => { setTimeout(resolve, 10); });
console.log("the server saw:", closes.join(", "));
server.close();
