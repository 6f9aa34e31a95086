// The backend of the board: serves the page and its calls, and posts what has changed to the
// relay.
//
//   node server.mjs --keys DIR --data DIR --relay WS_URL --ingest HTTP_URL [--port PORT]
//
// DIR of the keys has jwt.secret and ingest.key. DIR of the data gets the database, and has
// schema.json, the output of `sidewire schema --format json`, which tells the page what
// presence is.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Publisher } from "@sidewire/client/publisher";
import { makeCalls } from "./calls.mjs";
import { readFiles } from "./files.mjs";
import { makeHandler } from "./http.mjs";
import { Outbox } from "./outbox.mjs";
import { Store } from "./store.mjs";
import { mintToken } from "./tokens.mjs";

const TENANT = "demo";
const BOARD = "demo";
const SAMPLE_CARDS = [
  { column: "todo", title: "Open this page in a second window" },
  { column: "todo", title: "Drag me, or focus my handle and press an arrow key" },
  { column: "doing", title: "Kill the relay, and watch it come back" },
  { column: "done", title: "Start the board with one command" },
];

// How long the publisher tries to post an event; then the outbox asks it again.
const POST_MS = 5_000;

const { values: options } = parseArgs({
  options: {
    keys: { type: "string" },
    data: { type: "string" },
    relay: { type: "string" },
    ingest: { type: "string" },
    port: { type: "string", default: "8080" },
  },
});
for (const name of ["keys", "data", "relay", "ingest"]) {
  if (options[name] === undefined) throw new Error(`--${name} is missing`);
}
const jwtSecret = readFileSync(join(options.keys, "jwt.secret"), "utf8");
const ingestKey = readFileSync(join(options.keys, "ingest.key"), "utf8");
const schema = JSON.parse(readFileSync(join(options.data, "schema.json"), "utf8"));

const store = new Store(join(options.data, "board.sqlite"), () => outbox.wake());
const publisher = new Publisher(options.ingest, { key: ingestKey, giveUpAfterMs: POST_MS });
const outbox = new Outbox(store, publisher, TENANT);
const calls = makeCalls({
  store,
  settings: { relay: options.relay, schema, board: BOARD },
  tokenFor: (user) => mintToken(jwtSecret, { tenant: TENANT, user, topics: [`board:${BOARD}`] }),
});
const server = createServer(makeHandler(calls, readFiles(), new URL(options.relay).origin));

store.createBoard(BOARD, SAMPLE_CARDS);
const posting = outbox.run();
server.listen(Number(options.port), "127.0.0.1");
await once(server, "listening");
console.log(`the board is at http://127.0.0.1:${server.address().port}`);

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    server.close();
    server.closeAllConnections();
    outbox.stop();
    await posting;
    store.close();
  });
}
