// Drives the page in a headless Chromium against relays of its own, and ends the
// processes that it started. Run by scripts/browser.
//
//   node run.mjs SIDEWIRE CHROMIUM MODULES SCRATCH
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { renewTokens } from "./renewal.mjs";

const [sidewire, executablePath, modules, scratch] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "/"))("playwright-core");

// Maximum time of the browser for one step, in ms.
const PATIENCE = 15_000;
// Maximum time of the whole run, in ms.
const DEADLINE = 150_000;

const ending = [];

async function main() {
  setTimeout(() => fail(new Error(`not done after ${DEADLINE / 1000} s`)), DEADLINE).unref();
  const relay = await startRelay("generic", '[schema]\nbundled = "generic"');
  const proxy = await startProxy(relay.client);
  const pages = await servePages();
  const browser = await chromium.launch({ executablePath, timeout: PATIENCE });
  ending.push(() => browser.close());
  const context = await newContext(browser);
  const open = (token) => openPage(context, pages, proxy.address, { token, topic: "order:7" });

  const page = await open(relay.token("ann", "1h"));
  await state(page, "live");
  await step("an event that is posted arrives", async () => {
    await relay.post("order:7", { type: "order.shipped", data: { order: 7, carrier: "post" } });
    await events(page, 1);
    assert.deepEqual(JSON.parse(await text(page, "#events li")),
      { type: "order.shipped", data: { order: 7, carrier: "post" } });
  });

  await step("an invalid topic is refused, with the path of the field", async () => {
    await page.evaluate(() => subscribe(["order:8", "Order 9"], null));
    await page.locator("#errors li").waitFor();
    assert.match(await text(page, "#errors li"), /^VALIDATION_ERROR at subscribe\.topics\[1\]: /);
  });

  await step("JSON that does not fit the schema is refused, with the path of the field", async () => {
    await page.evaluate(() => socket.send('{"subscribe":{"topics":"order:8"}}'));
    await page.locator("#errors li").nth(1).waitFor();
    assert.match(await text(page, "#errors li >> nth=1"), /^VALIDATION_ERROR at subscribe\.topics: /);
  });

  await step("a page whose connection was cut resumes where it was", async () => {
    proxy.hold();
    await state(page, "closed");
    assert.match(await text(page, "#status"), /1006/);
    await relay.post("order:7", { type: "order.delayed", userId: "bob" });
    await relay.post("order:8", { type: "not for this page" });
    await relay.post("order:7", { type: "order.delivered" });
    proxy.release();
    await state(page, "live");
    await events(page, 3);
    assert.equal(await text(page, "#status"), "live, resumed with 2 events");
    await relay.post("order:7", { type: "order.returned" });
    await events(page, 4);
    const types = await page.locator("#events li").allTextContents();
    assert.deepEqual(types.map((it) => JSON.parse(it).type),
      ["order.shipped", "order.delayed", "order.delivered", "order.returned"]);
    await page.screenshot({ path: join(scratch, "page.png") });
  });

  await step("a binary frame closes the connection with 1003", async () => {
    await page.evaluate(() => socket.send(new Uint8Array([1])));
    await state(page, "closed");
    assert.match(await text(page, "#status"), /closed with 1003/);
  });
  await page.close();

  await step("an expired token closes the connection with 4001", async () => {
    const page = await open(relay.token("ann", "3s"));
    await state(page, "live");
    await state(page, "closed");
    assert.match(await text(page, "#status"), /closed with 4001/);
  });

  await renewTokens({ relay, context, ending, listen, step });
  await seeEachOther(browser, pages);
  await seeRefusals(browser, pages);
}

/** Two browsers that look at one work item, with the bundled schema. */
async function seeEachOther(browser, pages) {
  const relay = await startRelay("presence", '[presence]\nlinger = "500ms"');
  const open = async (user) => {
    const context = await newContext(browser);
    const token = relay.token(user, "1h");
    return openPage(context, pages, relay.client, { token, item: "item-1" });
  };
  const [ann, bob] = [await open("ann"), await open("bob")];

  await step("two browsers see each other", async () => {
    await person(ann, "bob", '[data-status="PRESENCE_STATUS_ONLINE"]').waitFor();
    await person(bob, "ann", '[data-status="PRESENCE_STATUS_ONLINE"]').waitFor();
    assert.deepEqual(await bob.locator("#people li").allTextContents(), ["ann"]);
  });

  await step("each sees that the other is typing, and has stopped", async () => {
    await bob.locator("#comment").fill("Looks good");
    await person(ann, "bob", '[data-typing="true"]').waitFor();
    await ann.screenshot({ path: join(scratch, "people.png") });
    await bob.locator("#comment").fill("");
    await person(ann, "bob", '[data-typing="false"]').waitFor();
    assert.equal(await bob.locator("#people li[data-typing]").count(), 0);
  });

  await step("a tab that is closed is shown to go offline", async () => {
    await bob.close();
    await person(ann, "bob").waitFor({ state: "detached" });
    assert.deepEqual(await ann.locator("#errors li").allTextContents(), []);
  });
}

/** A page that is not admitted, whose script sees in the close code why. */
async function seeRefusals(browser, pages) {
  const page = await (await newContext(browser)).newPage();
  // Shown as text, so that only the steps connect.
  await page.goto(`http://${pages}/page.js`);
  // The relay takes one connection, and pages of one origin that is not this one.
  const full = await startRelay("full", "[limits]\nconnections = 1");
  const strict = await startRelay("strict", "", 'origins = ["https://app.example"]');
  const good = full.token("ann", "1h");
  const [, , signature] = good.split(".");
  const nobody = createServer();
  const silent = await listen(nobody);
  nobody.close();
  const see = (address, token) => page.evaluate(async ([url, protocols]) => {
    const socket = new WebSocket(url, protocols);
    let opened = false;
    socket.onopen = () => { opened = true; };
    const { code, reason, wasClean } = await new Promise((closed) => { socket.onclose = closed; });
    return { opened, code, reason, wasClean, protocol: socket.protocol };
  }, [`ws://${address}/ws`, ["sidewire.v1.json", `bearer.${token}`]]);
  const refused = (code, reason) =>
    ({ opened: true, code, reason, wasClean: true, protocol: "sidewire.v1.json" });

  await step("a script sees an outage as 1006", async () => {
    assert.deepEqual(await see(silent, good),
      { opened: false, code: 1006, reason: "", wasClean: false, protocol: "" });
  });
  await step("a script sees a wrong token as 4401", async () => {
    const wrong = good.replace(signature, signature.split("").reverse().join(""));
    assert.deepEqual(await see(full.client, wrong), refused(4401, "AUTHENTICATION_FAILED"));
  });
  await step("a script sees an expired token as 4401", async () => {
    assert.deepEqual(await see(full.client, full.expired), refused(4401, "AUTHENTICATION_FAILED"));
  });
  await step("a script sees a refused origin as 4403", async () => {
    const token = strict.token("ann", "1h");
    assert.deepEqual(await see(strict.client, token), refused(4403, "AUTHORIZATION_FAILED"));
  });
  await step("a script sees a full relay as 4503, with the time to wait", async () => {
    await page.evaluate(async ([url, protocols]) => {
      const socket = new WebSocket(url, protocols);
      globalThis.admitted = socket;
      await new Promise((opened) => { socket.onopen = opened; });
    }, [`ws://${full.client}/ws`, ["sidewire.v1.json", `bearer.${good}`]]);
    const { reason, ...seen } = await see(full.client, good);
    const { reason: _, ...wanted } = refused(4503);
    assert.deepEqual(seen, wanted);
    assert.match(reason, /^RATE_LIMIT_EXCEEDED retry_after_ms=\d+$/);
  });
}

/** Starts a relay on free ports. */
async function startRelay(name, settings, client = "") {
  const directory = join(scratch, name);
  mkdirSync(directory);
  const key = randomBytes(32).toString("hex");
  const secret = join(directory, "jwt.secret");
  const secretText = randomBytes(32).toString("hex");
  writeFileSync(secret, secretText, { mode: 0o600 });
  writeFileSync(join(directory, "ingest.key"), key, { mode: 0o600 });
  const config = join(directory, "sidewire.toml");
  writeFileSync(config, `
[client]
listen = "127.0.0.1:0"
${client}
[auth]
leeway = "0s"
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
${settings}
[ingest]
listen = "127.0.0.1:0"
[[ingest.keys]]
name = "test"
key_file = "ingest.key"
[ops]
listen = "127.0.0.1:0"
[log]
format = "json"
`);
  const relay = spawn(sidewire, ["serve", "--config", config], { stdio: ["ignore", "ignore", "pipe"] });
  ending.push(() => relay.kill());
  const log = [];
  const addresses = await new Promise((resolve, reject) => {
    relay.on("exit", () => reject(new Error(`the relay ended: ${log.join("\n")}`)));
    createInterface({ input: relay.stderr }).on("line", (line) => {
      log.push(line);
      const fields = JSON.parse(line).fields ?? JSON.parse(line);
      if (fields.message === "the relay is ready") {
        resolve(fields);
      }
    });
  });
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const claims = { tenant_id: "acme", user_id: "ann", exp: 1 };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  const signature = createHmac("sha256", secretText).update(signed).digest("base64url");
  return {
    client: addresses.client,
    expired: `${signed}.${signature}`,
    token: (user, expires) =>
      execFileSync(sidewire, ["token", "--tenant", "acme", "--user", user, "--expires", expires,
        "--secret-file", secret], { encoding: "utf8" }).trim(),
    post: async (topic, event) => {
      const url = `http://${addresses.ingest}/v1/tenants/acme/events?topic=${topic}`;
      const answer = await fetch(url, {
        method: "POST",
        headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
        body: JSON.stringify({ event }),
      });
      assert.equal(answer.status, 200, await answer.text());
    },
  };
}

/** Forwards bytes to the relay, and can cut all connections and refuse new ones. */
async function startProxy(target) {
  const [host, port] = target.split(":");
  const sockets = new Set();
  let held = false;
  const server = createServer((near) => {
    if (held) {
      near.destroy();
      return;
    }
    const far = connect(Number(port), host);
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  const address = await listen(server);
  const cut = () => sockets.forEach((socket) => socket.destroy());
  ending.push(() => {
    server.close();
    cut();
  });
  return {
    address,
    hold: () => {
      held = true;
      cut();
    },
    release: () => {
      held = false;
    },
  };
}

/** Serves the two files of the page. */
async function servePages() {
  const types = { "index.html": "text/html", "page.js": "text/javascript" };
  const server = createHttpServer((request, response) => {
    const name = request.url.slice(1);
    if (!(name in types)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "Content-Type": types[name] });
    response.end(readFileSync(new URL(name, import.meta.url)));
  });
  const address = await listen(server);
  ending.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return address;
}

async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `127.0.0.1:${server.address().port}`;
}

async function newContext(browser) {
  const context = await browser.newContext({ viewport: { width: 900, height: 640 } });
  context.setDefaultTimeout(PATIENCE);
  return context;
}

async function openPage(context, pages, relay, options) {
  const page = await context.newPage();
  page.on("pageerror", fail);
  const settings = new URLSearchParams({ url: `ws://${relay}/ws`, ...options });
  await page.goto(`http://${pages}/index.html#${settings}`);
  return page;
}

const state = (page, state) => page.locator(`#status[data-state="${state}"]`).waitFor();
const events = (page, count) => page.locator("#events li").nth(count - 1).waitFor();
const person = (page, user, more = "") => page.locator(`#people li[data-user="${user}"]${more}`);
const text = (page, selector) => page.locator(selector).first().textContent();

async function step(name, run) {
  const began = performance.now();
  try {
    await run();
  } catch (error) {
    error.message = `${name}: ${error.message}`;
    throw error;
  }
  console.log(`browser: ${name} (${Math.round(performance.now() - began)} ms)`);
}

async function end() {
  for (const stop of ending.splice(0).reverse()) {
    await stop();
  }
}

async function fail(error) {
  console.error(`browser: ${error.stack ?? error}`);
  await end();
  process.exit(1);
}

main().then(end, fail);
