/** The examples of the README, as they stand there. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket } from "ws";
import { json, Sidewire } from "../../src/index.js";
import { routingTable, TestRelay } from "../support/relay.js";
import { until } from "../support/wait.js";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const README = readFileSync(`${PACKAGE}README.md`, "utf8");

let server: TestRelay;
const running: ChildProcess[] = [];

beforeAll(async () => {
  server = await TestRelay.start({ presence: 'linger = "200ms"' });
});
afterAll(async () => {
  for (const process of running) process.kill();
  await server.stop();
});

/** Runs an example from within the package, where its name leads to `dist`. */
function run(name: string, ...args: string[]) {
  const code = new RegExp(`\`\`\`js ${name}\n(.*?)\`\`\``, "s").exec(README)?.[1];
  if (code === undefined) throw new Error(`the README has no example ${name}`);
  const file = `${PACKAGE}dist/${name}.mjs`;
  writeFileSync(file, code);
  const example = spawn(process.execPath, [file, ...args]);
  running.push(example);
  const said = { text: "" };
  for (const stream of [example.stdout, example.stderr]) {
    stream.on("data", (bytes) => {
      said.text += bytes;
    });
  }
  example.on("exit", () => rmSync(file, { force: true }));
  return { example, said };
}

test("the examples follow a topic and post an event", async () => {
  const token = server.file("token.jwt", server.token("alice"));
  const follower = run("follow", `ws://127.0.0.1:${server.clientPort}/ws`, token);
  await until(
    "a connection",
    () => follower.said.text.includes("open"),
    () => follower.said.text,
  );
  const key = server.file("key", server.key);
  const publisher = run("publish", `http://127.0.0.1:${server.ingestPort}`, key);
  const [status] = await once(publisher.example, "exit");
  expect(publisher.said.text).toBe("stored at 1 for 1 connections\n");
  expect(status).toBe(0);
  await until("the event", () => follower.said.text.includes("order.shipped"));
  expect(follower.said.text).toBe(
    "connecting\nresuming\nopen\nevent { type: 'order.shipped', data: { order: 7 } }\n",
  );
});

test("the example of presence shows who comes, types and leaves", async () => {
  const url = `ws://127.0.0.1:${server.clientPort}/ws`;
  const schema = server.file("schema.json", JSON.stringify(routingTable()));
  const enter = (user: string) =>
    run("presence", url, server.file(`${user}.jwt`, server.token(user)), schema);
  const says = (what: { text: string }, text: string) =>
    until(
      text,
      () => what.text.includes(text),
      () => what.text,
    );
  const ann = enter("ann").said;
  // Her client has to be there before the other one sends what is not stored.
  await looksOn(url);
  const bob = enter("bob");
  await says(ann, "bob is reading\n");
  await says(ann, "bob is typing\n");
  await says(bob.said, "ann is reading\n");
  bob.example.kill();
  await says(ann, "bob has left\n");
  expect(ann.text.split("\n").length).toBe(4);
  expect(bob.said.text).toBe("ann is reading\n");
});

/** Resolves when a user named ann is in room:1. */
async function looksOn(url: string): Promise<void> {
  const relay = new Sidewire(url, {
    getToken: () => server.token("cat"),
    schema: json(routingTable()),
    WebSocket,
  });
  const room = relay.presence("room:1");
  await until("ann", () => room.users("presence").has("ann"));
  relay.close();
}
