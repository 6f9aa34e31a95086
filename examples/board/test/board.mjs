// Shows the board to two users in a real browser, while the relay and the backend are
// stopped, killed and started again. Called by ../check.
//
//   node board.mjs SIDEWIRE CHROMIUM SCRATCH

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { chromium } from "playwright-core";
import { freePorts, Program } from "./processes.mjs";
import { Tab } from "./tab.mjs";

const [sidewire, executablePath, home] = process.argv.slice(2);

// Maximum time of the browser for one step, and of the whole run, in ms.
const PATIENCE = 20_000;
const DEADLINE = 120_000;

const ending = [];

async function main() {
  setTimeout(() => fail(new Error(`not done after ${DEADLINE / 1000} s`)), DEADLINE).unref();
  const ports = await freePorts(["page", "client", "ingest", "ops"]);
  prepare(ports);
  const { ingest } = ports;
  const url = `http://127.0.0.1:${ports.page}`;
  const relay = Program.relay(sidewire, home);
  const backend = Program.backend(home, ports);
  ending.push(
    () => relay.end("SIGKILL"),
    () => backend.end("SIGKILL"),
  );
  await Promise.all([relay.start(), backend.start()]);
  const browser = await chromium.launch({ executablePath, timeout: PATIENCE });
  ending.push(() => browser.close());
  const open = (user) => Tab.open(browser, url, user, { patience: PATIENCE, onError: fail });
  const [ann, bob] = await Promise.all([open("ann"), open("bob")]);

  await liveBoard(ann, bob, open);
  await relayStopped(ann, bob, { relay, url });
  await relayKilled(ann, bob, { relay, url, ingest, open });
  await backendKilled(ann, bob, { relay, backend, url, ingest });

  for (const tab of [ann, bob]) await tab.assertNeverReloaded();
  for (const column of ["todo", "doing", "done"]) {
    assert.deepEqual(await ann.titles(column), await bob.titles(column));
  }
}

/** What two users see of each other while everything works. */
async function liveBoard(ann, bob, open) {
  await step("a card that one creates appears for the other", async () => {
    await ann.create("todo", "Paint the fence");
    await bob.sees("todo", "Paint the fence");
  });

  await step("a card that one drags moves for the other", async () => {
    await ann.drag("Paint the fence", "doing");
    await ann.sees("doing", "Paint the fence");
    await bob.sees("doing", "Paint the fence");
  });

  await step("an arrow key moves a card, and its handle keeps the focus", async () => {
    await bob.press("Paint the fence", "ArrowRight");
    await ann.sees("done", "Paint the fence");
    await bob.press("Paint the fence", "ArrowUp");
    await eventually(async () => {
      assert.equal((await ann.titles("done"))[0], "Paint the fence");
    });
    const focused = await bob.page.evaluate(() => document.activeElement.ariaLabel);
    assert.equal(focused, "Move Paint the fence");
  });

  await step("each sees the other's dot, and one who comes and goes", async () => {
    await ann.seesPerson("bob");
    await bob.seesPerson("ann");
    const cid = await open("cid");
    await ann.seesPerson("cid");
    await cid.seesPerson("bob");
    await cid.close();
    await ann.seesNoPerson("cid");
    await bob.seesNoPerson("cid");
  });

  await step("one who types is seen to type, and to stop", async () => {
    await bob.types("Paint the fence", "Paint the gate");
    await ann.seesTyping("Paint the fence", "bob is typing…");
    await bob.stopsTyping();
    await ann.seesNobodyTyping("Paint the fence");
  });

  await step("a title is shown as text, whatever it contains", async () => {
    const title = "<img src=x onerror=alert(1)>";
    await ann.create("todo", title);
    await bob.sees("todo", title);
    assert.equal(await bob.page.locator(".card img").count(), 0);
    await ann.delete(title);
    await bob.doesNotSee(title);
  });

  await step("a move that the backend does not take is undone", async () => {
    const calls = "**/boards/demo/cards/*";
    await ann.page.route(calls, async (route) => {
      // It is shown at its new place before there is an answer.
      await ann.sees("todo", "Paint the fence");
      await route.fulfill({ status: 500, json: { error: "no" } });
    });
    await ann.drag("Paint the fence", "todo");
    await ann.seesNotice("Not saved: no.");
    await ann.sees("done", "Paint the fence");
    await ann.page.unroute(calls);
  });
}

/** A relay that is stopped keeps its events, and the pages resume. */
async function relayStopped(ann, bob, { relay, url }) {
  const loads = [ann.loads, bob.loads];
  await step("the relay is stopped, and both pages notice", async () => {
    await relay.end("SIGTERM");
    await Promise.all([ann.isDisconnected(), bob.isDisconnected()]);
  });
  await step("what changes meanwhile is shown when it is back, without a reload", async () => {
    await createCard(url, "Changed without a relay");
    await relay.start();
    await Promise.all([ann, bob].map((tab) => tab.sees("todo", "Changed without a relay")));
    await Promise.all([ann.isLive(), bob.isLive()]);
    // The pages have resumed: they did not even have to ask the backend.
    assert.deepEqual([ann.loads, bob.loads], loads);
    await Promise.all([ann.assertNeverReloaded(), bob.assertNeverReloaded()]);
  });
}

/** A relay that is killed has lost its events: the pages load the board again. */
async function relayKilled(ann, bob, { relay, url, ingest, open }) {
  const loads = [ann.loads, bob.loads];
  await step("one is offline when a card is created, and the relay is killed", async () => {
    await bob.goesOffline();
    await disconnect("bob", ingest);
    await bob.isDisconnected();
    await createCard(url, "Gone from the log");
    await ann.sees("todo", "Gone from the log");
    await relay.end("SIGKILL");
    await ann.isDisconnected();
  });
  await step("both load the board again, since events are missing, but not the page", async () => {
    await relay.start();
    await bob.goesOnline();
    await bob.sees("todo", "Gone from the log");
    await Promise.all([ann.isLive(), bob.isLive()]);
    await eventually(() =>
      assert.deepEqual(
        [ann.loads, bob.loads],
        loads.map((it) => it + 1),
      ),
    );
    assert.equal(bob.received("Gone from the log"), 0);
    await Promise.all([ann.assertNeverReloaded(), bob.assertNeverReloaded()]);
  });
  await step("one who comes after that sees all cards, and everybody who is there", async () => {
    const dora = await open("dora");
    await dora.sees("todo", "Gone from the log");
    await Promise.all([dora.seesPerson("ann"), dora.seesPerson("bob")]);
    await dora.close();
  });
}

/** A backend that is killed at a bad moment loses nothing, and posts nothing twice. */
async function backendKilled(ann, bob, { relay, backend, url, ingest }) {
  const bothSee = (title) => Promise.all([ann, bob].map((tab) => tab.sees("todo", title)));

  await step("a backend that is killed before it can post loses no event", async () => {
    await relay.end("SIGTERM");
    await createCard(url, "Committed but not posted");
    assert.deepEqual(pendingTitles(), ["Committed but not posted"]);
    await backend.end("SIGKILL");
    await Promise.all([relay.start(), backend.start()]);
    await bothSee("Committed but not posted");
    await Promise.all([ann.isLive(), bob.isLive()]);
  });
  await step("nor does one that is killed before it knows that its post has arrived", async () => {
    // The kernel takes the post for the relay, which reads it when the backend is gone.
    relay.signal("SIGSTOP");
    await createCard(url, "Posted but not answered");
    await eventually(() => assert.ok(hasUnreadBytes(ingest), "the post has not arrived"));
    assert.deepEqual(pendingTitles(), ["Posted but not answered"]);
    await backend.end("SIGKILL");
    relay.signal("SIGCONT");
    await backend.start();
    await bothSee("Posted but not answered");
  });
  await step("and each event arrives exactly once", async () => {
    // A later event comes after whatever was posted twice.
    await createCard(url, "The end");
    await bothSee("The end");
    await eventually(() => assert.deepEqual(pendingTitles(), []));
    for (const tab of [ann, bob]) {
      for (const title of ["Committed but not posted", "Posted but not answered", "The end"]) {
        assert.equal(tab.received(title), 1, title);
      }
    }
  });
}

/** Writes the config with these ports, and makes the keys, as ../run does. */
function prepare({ page, client, ingest, ops }) {
  const example = new URL("../", import.meta.url);
  const config = readFileSync(new URL("sidewire.toml", example), "utf8")
    .replaceAll(":8080", `:${page}`)
    .replaceAll(":3000", `:${client}`)
    .replaceAll(":3001", `:${ingest}`)
    .replaceAll(":3002", `:${ops}`);
  writeFileSync(join(home, "sidewire.toml"), config);
  cpSync(new URL("board.proto", example), join(home, "board.proto"));
  for (const name of ["keys", "data"]) mkdirSync(join(home, name), { mode: 0o700 });
  const options = ["--config", join(home, "sidewire.toml")];
  execFileSync(sidewire, ["keys", ...options]);
  const schema = execFileSync(sidewire, ["schema", ...options, "--format", "json"]);
  writeFileSync(join(home, "data", "schema.json"), schema);
}

async function createCard(url, title) {
  const answer = await fetch(`${url}/boards/demo/cards`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ column: "todo", title }),
  });
  assert.equal(answer.status, 200, await answer.text());
}

/** Lets the relay close the connections of a user. */
async function disconnect(user, ingest) {
  const key = readFileSync(join(home, "keys", "ingest.key"), "utf8");
  const path = `/v1/tenants/demo/users/${user}/connections?reconnect=true`;
  const headers = { Authorization: `Bearer ${key}` };
  const answer = await fetch(`http://127.0.0.1:${ingest}${path}`, { method: "DELETE", headers });
  assert.deepEqual(await answer.json(), { closed: 1 });
}

/** Returns the titles of the cards whose events wait in the outbox. */
function pendingTitles() {
  const database = new Database(join(home, "data", "board.sqlite"), { readonly: true });
  try {
    const rows = database.prepare("SELECT envelope FROM outbox WHERE epoch IS NULL").all();
    return rows.map(({ envelope }) => JSON.parse(envelope).cardSaved.card.title);
  } finally {
    database.close();
  }
}

/** Returns whether the kernel has bytes for a port that its program has not read. */
function hasUnreadBytes(port) {
  const localPort = port.toString(16).toUpperCase().padStart(4, "0");
  const [, ...sockets] = readFileSync("/proc/net/tcp", "utf8").trim().split("\n");
  const fields = sockets.map((line) => line.trim().split(/\s+/));
  // The second field is the local address, the fourth the state (01 is established), and the
  // fifth has the queues to send and to read.
  return fields.some(
    ([, local, , state, queues]) =>
      local.endsWith(`:${localPort}`) && state === "01" && !queues.endsWith(":00000000"),
  );
}

/** Repeats a check until it passes. */
async function eventually(check) {
  const deadline = performance.now() + PATIENCE;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function step(name, run) {
  const began = performance.now();
  try {
    await run();
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  }
  console.log(`board: ${name} (${Math.round(performance.now() - began)} ms)`);
}

async function end() {
  for (const stop of ending.splice(0).reverse()) await stop();
}

async function fail(error) {
  console.error(`board: ${error.stack ?? error}`);
  await end();
  process.exit(1);
}

await main().then(end, fail);
