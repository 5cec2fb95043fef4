// grpc_client.mjs ADDRESS [CA]: all kinds of calls by grpc-js; ends with an error when one does not do what it should.
import assert from "node:assert/strict";
import fs from "node:fs";
import { echo, grpc } from "./grpc_protos.mjs";

const [address, ca] = process.argv.slice(2);
const credentials = ca ? grpc.credentials.createSsl(fs.readFileSync(ca)) : grpc.credentials.createInsecure();
const options = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const client = new echo.Echo(address, credentials, options);
const deadline = (ms) => ({ deadline: Date.now() + ms });

// -> { answer, initial, status } | { failure, status }
function one(note, metadata = new grpc.Metadata(), more = deadline(20000), by = client) {
  return new Promise((resolve) => {
    const seen = {};
    const call = by.One(note, metadata, more, (failure, answer) => Object.assign(seen, { failure, answer }));
    call.on("metadata", (initial) => (seen.initial = initial));
    call.on("status", (status) => resolve(Object.assign(seen, { status })));
  });
}

async function collect(call) {
  const notes = [];
  for await (const note of call) notes.push(note);
  return notes;
}

const cases = {
  async "unary, with metadata both ways"() {
    const metadata = new grpc.Metadata();
    metadata.set("x-sent", "three");
    metadata.set("x-sent-bin", Buffer.from([0, 255, 128, 10]));
    const { answer, initial, status } = await one({ text: "hellö", number: -5, data: Buffer.from([0, 1]) }, metadata);
    assert.deepEqual({ ...answer, data: [...answer.data] }, { text: "hellö", number: -5, data: [0, 1] });
    assert.equal(initial.get("x-initial")[0], "three");
    assert.deepEqual([...initial.get("x-initial-bin")[0]], [0, 255, 128, 10]);
    assert.equal(status.code, 0);
    assert.equal(status.metadata.get("x-trailing")[0], "two");
    assert.deepEqual([...status.metadata.get("x-trailing-bin")[0]], [0, 1, 2, 250]);
  },

  async "server streaming"() {
    const notes = await collect(client.Many({ number: 2000 }, deadline(20000)));
    assert.deepEqual(notes.map((note) => note.number), [...Array(2000).keys()]);
  },

  async "client streaming"() {
    const answer = await new Promise((resolve, reject) => {
      const call = client.Sum(deadline(20000), (failure, note) => (failure ? reject(failure) : resolve(note)));
      for (let i = 0; i < 1000; i++) call.write({ number: i, data: Buffer.alloc(100) });
      call.end();
    });
    assert.equal(answer.number, 499500);
    assert.equal(answer.text, "100000");
  },

  async "an answer before the client has ended"() {
    const answer = await new Promise((resolve, reject) => {
      const call = client.Sum(deadline(20000), (failure, note) => (failure ? reject(failure) : resolve(note)));
      call.on("error", () => {});
      call.write({ number: 4, text: "enough" });
    });
    assert.equal(answer.number, 4);
  },

  async "both stream, and each waits for the other"() {
    const call = client.Chat(deadline(20000));
    const seen = [];
    await new Promise((resolve, reject) => {
      call.on("error", reject);
      call.on("data", (note) => {
        seen.push(note.number);
        if (seen.length < 100) call.write({ number: note.number });
        else call.end();
      });
      call.on("end", resolve);
      call.write({ number: 0 });
    });
    assert.deepEqual(seen, Array.from({ length: 100 }, (_, i) => i + 1));
  },

  async "large messages"() {
    const { answer } = await one({ data: Buffer.alloc(9 * 2 ** 20, 3) });
    assert.equal(answer.data.length, 9 * 2 ** 20);
    assert.ok(answer.data.every((byte) => byte === 3));
    assert.equal((await one({ text: "big", number: 12 * 2 ** 20 })).answer.data.length, 12 * 2 ** 20);
    const notes = await collect(client.Many({ number: 8, data: Buffer.alloc(2 ** 20, 1) }, deadline(20000)));
    assert.deepEqual(notes.map((note) => note.data.length), Array(8).fill(2 ** 20));
  },

  async "messages that are compressed"() {
    const zipped = new echo.Echo(address, credentials, { ...options, "grpc.default_compression_algorithm": 2 });
    const data = Buffer.alloc(200000, 120);
    assert.deepEqual((await one({ data }, undefined, deadline(20000), zipped)).answer.data, data);
    zipped.close();
  },

  async "errors of the service, with their metadata"() {
    for (const code of [1, 2, 3, 5, 7, 9, 13, 14, 15, 16]) {
      const { failure, status } = await one({ text: "fail", number: code });
      assert.equal(failure.code, code);
      assert.equal(failure.details, "not now: äö%");
      assert.equal(status.metadata.get("x-why")[0], "because");
      assert.deepEqual([...status.metadata.get("x-why-bin")[0]], [0, 255, 1]);
    }
  },

  async "an error in the middle of a stream"() {
    const notes = [];
    await assert.rejects(
      async () => {
        for await (const note of client.Many({ number: 5, text: "fail" }, deadline(20000))) notes.push(note.number);
      },
      (failure) => failure.code === grpc.status.ABORTED && failure.details === "in the middle",
    );
    assert.deepEqual(notes, [0, 1, 2, 3, 4]);
  },

  async "a deadline"() {
    const start = Date.now();
    const { failure } = await one({ text: "slow" }, undefined, deadline(400));
    assert.equal(failure.code, grpc.status.DEADLINE_EXCEEDED);
    assert.ok(Date.now() - start < 2000);
  },

  async "cancellation ends the call at the service"() {
    const before = (await one({ text: "cancelled" })).answer.number;
    for (let i = 0; i < 5; i++) {
      const call = client.Many({ number: 0 });
      await new Promise((resolve) => {
        call.once("data", () => call.cancel());
        call.once("error", (failure) => {
          assert.equal(failure.code, grpc.status.CANCELLED);
          resolve();
        });
      });
    }
    const end = Date.now() + 5000;
    while ((await one({ text: "cancelled" })).answer.number < before + 5) assert.ok(Date.now() < end, "the service does not hear of it");
  },

  async "many calls at once"() {
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => one({ number: i })));
    assert.deepEqual(answers.map(({ answer }) => answer.number), [...Array(300).keys()]);
  },

  async "a service that there is not"() {
    const nothing = new grpc.Client(address, credentials);
    const failure = await new Promise((resolve) =>
      nothing.makeUnaryRequest("/none.None/None", (x) => x, (x) => x, Buffer.alloc(0), new grpc.Metadata(), deadline(5000), resolve),
    );
    assert.equal(failure.code, grpc.status.UNIMPLEMENTED);
    nothing.close();
  },
};

for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
  } catch (failure) {
    console.error(`${name}: ${failure.stack}`);
    process.exit(1);
  }
}
client.close();
console.log(`${Object.keys(cases).length} cases`);
